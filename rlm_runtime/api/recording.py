"""The first and the last event of a session's log."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import anyio

from rlm_runtime.api.engine_life import Counted
from rlm_runtime.config import Config, config_bytes, config_digest, state_home
from rlm_runtime.errors import Cancelled, RLMError
from rlm_runtime.tracing import Recorder, RunFinished, new_run_directory, run_started
from rlm_runtime.tracing.recorder import Listener


def begin(config: Config, listener: Listener, resumes: Path | None) -> Recorder:
    """Open a session's log, with its configuration beside it.

    Args:
        config: Says where the run is written, if at all.
        listener: Hears all events.
        resumes: The directory of the run that this one goes on with.

    Raises:
        TraceError: The directory can't be made or written, or holds a run.
    """
    directory = None
    if config.run.keep:
        directory = config.run.directory or new_run_directory(state_home() / "runs")
    recorder = Recorder(directory)
    recorder.subscribe(listener)
    # Its digest names it: whoever has the run has its settings.
    recorder.blob(config_bytes(config))
    recorder.emit(run_started(recorder.run_id, config_digest(config), resumes))
    return recorder


def end(recorder: Recorder, counted: Counted | None, error: BaseException | None) -> None:
    """Write the last event and close the log.

    Args:
        recorder: The session's.
        counted: The counters of its engines; `None`: it had none.
        error: What ended the session; `None`: it came to its end.
    """
    outcome, code = _outcome(error)
    recorder.emit(
        RunFinished(
            at_s=recorder.now(),
            outcome=outcome,
            error_code=code,
            engine_prompt_tokens=counted and counted.prompt_tokens,
            engine_cached_tokens=counted and counted.cached_tokens,
            engine_computed_tokens=counted and counted.computed_tokens,
            engine_generated_tokens=counted and counted.generated_tokens,
            engine_preemptions=counted and counted.preemptions,
            wall_s=recorder.now(),
        )
    )
    recorder.close()


def _outcome(
    error: BaseException | None,
) -> tuple[Literal["ok", "failed", "cancelled"], str | None]:
    if error is None:
        return "ok", None
    if isinstance(error, RLMError) and not isinstance(error, Cancelled):
        return "failed", error.code
    if isinstance(error, KeyboardInterrupt | anyio.get_cancelled_exc_class() | Cancelled):
        return "cancelled", None
    return "failed", type(error).__name__

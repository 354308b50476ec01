"""What `rlm replay` does: make the calls of a recorded run once more, and set both side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rlm_runtime.api import RLM, AsyncRLM
from rlm_runtime.api.resuming import kept_config
from rlm_runtime.benchmark.replay import Replay, ReplayedCall, plan, replay
from rlm_runtime.cli import options, progress, runs
from rlm_runtime.cli.command import DONE, FAILED, Document
from rlm_runtime.cli.first_use import get_ready
from rlm_runtime.cli.terminal import Terminal, count, one_line, shown_path
from rlm_runtime.config import Config
from rlm_runtime.config.model import RunConfig
from rlm_runtime.engine import model_files
from rlm_runtime.errors import InputError
from rlm_runtime.profiler.run_log import RunLog
from rlm_runtime.prompt import Tokenizer
from rlm_runtime.tracing import EngineStarted, RunStarted

COMPARED = ("prompt_tokens", "cached_tokens", "computed_tokens", "generated_tokens")
_LABEL_CHARACTERS = 40


def replay_run(
    run: str | None,
    terminal: Terminal,
    document: Document,
    *,
    top: int,
    run_directory: Path | None,
) -> int:
    """Replay a run; returns the exit code: failed when a call could not be made.

    Args:
        run: As typed.
        terminal: Gets the comparison.
        document: Gets the same as facts.
        top: Calls shown of those that differ.
        run_directory: Where the replay is written.

    Raises:
        InputError: There is no such run, it has nothing to replay, or its ids are of another
            tokenizer.
        TraceError: The log can't be read.
        ModelError: The run's model is not on this machine.
        EngineError: The engine could not start, or died.
    """
    log = RunLog.load(runs.find(run))
    planned = plan(log)
    config, notes = _config(log)
    get_ready(config, terminal)
    _check_tokenizer(config, log)
    engine = config.engine.model_copy(update={"forced_decode": True})
    config = config.model_copy(update={"engine": engine, "run": RunConfig(directory=run_directory)})
    notes += [*log.notes, *planned.notes]
    boot = progress.Boot()
    rlm = RLM(config, on_stage=boot.tell)
    done: list[ReplayedCall] = []
    try:
        with rlm, progress.shown(terminal, "starting the engine") as show:
            boot.show = show

            async def work(session: AsyncRLM) -> None:
                parts = await session.internals()
                notes.extend(_other_engine(log, parts.engine.info.kv_blocks))

                def on_call(call: ReplayedCall) -> None:
                    done.append(call)
                    show(progress.State("replaying calls", len(done), planned.calls))

                await replay(parts, planned, on_call)

            rlm.call(work)
    finally:
        document |= _facts(done, planned, notes)
        document["replayed_run_directory"] = shown_path(log.directory)
        directory = rlm.run_directory
        document["run_directory"] = None if directory is None else shown_path(directory)
    if not terminal.wants_json:
        terminal.put("\n".join(_lines(done, planned, top)))
    for note in notes:
        terminal.say(note)
    if directory is not None:
        terminal.hint(f"run: {shown_path(directory)}")
    return FAILED if any(call.error for call in done) else DONE


def _config(log: RunLog) -> tuple[Config, list[str]]:
    started = next((e for e in log.events if isinstance(e, RunStarted)), None)
    kept = None if started is None else kept_config(log.directory, started)
    if kept is not None:
        return kept, []
    return options.load(None, ()).config, [
        "The run's settings were not kept: those in force now are used."
    ]


def _check_tokenizer(config: Config, log: RunLog) -> None:
    """Refuse ids that are another text to this model.

    Raises:
        InputError: They are.
    """
    engine = next((e for e in log.events if isinstance(e, EngineStarted)), None)
    digest = Tokenizer.from_folder(model_files.resolve(config.model).path).digest
    if engine is not None and engine.tokenizer_digest != digest:
        raise InputError(
            f"The run's ids are those of the model {one_line(engine.model, 80)}; the tokenizer of "
            "the model in the settings is another.",
            "Bring the run's model back (`rlm model add`).",
        )


def _other_engine(log: RunLog, kv_blocks: int) -> list[str]:
    recorded = {e.kv_blocks for e in log.events if isinstance(e, EngineStarted)}
    if not recorded or recorded == {kv_blocks}:
        return []
    then = " and ".join(f"{blocks:,}" for blocks in sorted(recorded))
    return [f"The KV cache holds {kv_blocks:,} blocks; the run's held {then}."]


def _facts(
    done: Sequence[ReplayedCall], planned: Replay, notes: Sequence[str]
) -> dict[str, object]:
    made = [call for call in done if call.facts is not None]
    figures: dict[str, int] = {
        "calls": len(made),
        "calls_differing": sum(call.differs for call in made),
        "calls_failed": len(done) - len(made),
        "calls_left_out": planned.left_out,
    }
    for name in COMPARED:
        figures[name] = sum(getattr(call.facts, name) for call in made)
        figures[f"recorded_{name}"] = sum(getattr(call.recorded, name) or 0 for call in made)
    differing = [_call_facts(call) for call in _differing(done)]
    return {"figures": figures, "differing": differing, "notes": list(notes)}


def _differing(done: Sequence[ReplayedCall]) -> list[ReplayedCall]:
    """Calls that differ or failed, those that differ most first."""
    found = [call for call in done if call.differs or call.error or not call.has_same_ids]
    return sorted(found, key=lambda call: abs(call.computed_more), reverse=True)


def _call_facts(call: ReplayedCall) -> dict[str, object]:
    recorded = call.recorded
    facts = None if call.facts is None else {n: getattr(call.facts, n) for n in COMPARED}
    return {
        "request_id": recorded.request_id,
        "agent_id": recorded.agent_id,
        "label": recorded.label,
        "recorded": {name: getattr(recorded, name) for name in COMPARED},
        "replayed": facts,
        "has_same_ids": call.has_same_ids,
        "error": call.error,
    }


def _lines(done: Sequence[ReplayedCall], planned: Replay, top: int) -> list[str]:
    made = [call for call in done if call.facts is not None]
    differing = sum(call.differs for call in made)
    lines = [
        f"{count(len(made), 'call')} replayed, {differing:,} with other cached or computed tokens; "
        f"{len(done) - len(made):,} failed, {planned.left_out:,} left out"
    ]
    for name in COMPARED:
        then = sum(getattr(call.recorded, name) or 0 for call in made)
        now = sum(getattr(call.facts, name) for call in made)
        lines.append(f"    {name}: {then:,} recorded, {now:,} now ({now - then:+,})")
    found = _differing(done)
    lines += [f"    {_line(call)}" for call in found[:top]]
    if len(found) > top:
        lines.append(f"    and {len(found) - top:,} more (--top, --json)")
    return lines


def _line(call: ReplayedCall) -> str:
    recorded, facts = call.recorded, call.facts
    who = f"{one_line(recorded.request_id, 20)} {one_line(recorded.agent_id, 20)}"
    head = f"{who}, {one_line(recorded.label, _LABEL_CHARACTERS)}"
    if facts is None:
        return f"{head}: {one_line(call.error)}"
    ids = "" if call.has_same_ids else ", other ids"
    return (
        f"{head}: computed {recorded.computed_tokens or 0:,} -> {facts.computed_tokens:,}, "
        f"cached {recorded.cached_tokens or 0:,} -> {facts.cached_tokens:,}{ids}"
    )

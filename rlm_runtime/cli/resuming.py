"""What `rlm resume` does: ask again what a run was asked, with what it had finished at hand."""

from __future__ import annotations

from pathlib import Path

from rlm_runtime.api import RLM
from rlm_runtime.api.resuming import kept_config
from rlm_runtime.cli import asked, progress, runs
from rlm_runtime.cli.asking import Wish, answer, chosen
from rlm_runtime.cli.command import Document
from rlm_runtime.cli.first_use import get_ready
from rlm_runtime.cli.inputs import Source
from rlm_runtime.cli.terminal import Terminal, count, shown_path
from rlm_runtime.config import Config
from rlm_runtime.config.model import RunConfig
from rlm_runtime.errors import InputError, RunChanged, TraceError
from rlm_runtime.tracing import AgentStarted, Blobs, RunStarted, is_open, read_events


def resume_run(
    run: str | None,
    terminal: Terminal,
    document: Document,
    *,
    is_anyway: bool,
    run_directory: Path | None,
) -> int:
    """Go on with a run; returns the exit code.

    Args:
        run: As typed.
        terminal: Gets the answers.
        document: Gets the same as facts.
        is_anyway: Go on with what still fits.
        run_directory: Where the new run is written.

    Raises:
        InputError: There is no such run, it goes on still, or a text is not there any more.
        RunChanged: A text, a setting, the model or the version is another now.
        TraceError: The log can't be read, or the settings were not kept.
        RLMError: As `asking.ask`.
    """
    found = runs.find(run)
    directory = found if found.is_dir() else found.parent
    if is_open(directory):
        raise InputError("The run goes on still.", "Wait for its end, or end it.")
    kept = asked.load(directory)
    config = _config(directory).model_copy(update={"run": RunConfig(directory=run_directory)})
    given = [text.source() for text in kept.texts]
    changed = tuple(
        f"{text.shown} has changed"
        for text, source in zip(kept.texts, given, strict=True)
        if source.digest != text.digest
    )
    if changed and not is_anyway:
        raise RunChanged(changed)
    wish = _wish(kept, kept.questions or _typed(directory), given)
    agent = chosen(wish, config.agents.kind)
    get_ready(config, terminal)
    boot = progress.Boot()
    rlm = RLM(config, on_stage=boot.tell, resume=directory, anyway=is_anyway)
    try:
        return answer(rlm, boot, wish, agent, given, terminal, document)
    finally:
        _tell(rlm, changed, terminal, document)


def _config(directory: Path) -> Config:
    started = next(read_events(directory), None)
    config = kept_config(directory, started) if isinstance(started, RunStarted) else None
    if config is None:
        raise TraceError(
            f"The settings of the run in {shown_path(directory)} were not kept whole.",
            "Ask again with `rlm run`.",
        )
    return config


def _typed(directory: Path) -> tuple[str, ...]:
    """The questions that came from the terminal, as the log has them.

    Raises:
        InputError: There was none.
    """
    blobs = Blobs(directory)
    tasks = tuple(
        blobs.get(event.task_blob).decode()
        for event in read_events(directory, passes_damage=True)
        if isinstance(event, AgentStarted) and event.parent_id is None and event.task_blob
    )
    if not tasks:
        raise InputError("The run ended before it was asked anything.", "Ask with `rlm run`.")
    return tasks


def _wish(kept: asked.Asked, questions: tuple[str, ...], given: list[Source]) -> Wish:
    return Wish(
        files=[source.shown for source in given],
        questions=questions,
        source=None,
        settings=(),
        named={},
        agent=kept.agent,
        labels=kept.labels,
        combine=kept.combine,
        over=kept.over,
        output=kept.output_path,
        show=None,
        is_exhaustive=kept.is_exhaustive,
        ttft_pairs=0,
    )


def _tell(rlm: RLM, changed: tuple[str, ...], terminal: Terminal, document: Document) -> None:
    """What came from the log and what the engine made."""
    finished = rlm.resumed
    if finished is None:
        return
    sent = rlm.ledger.figures()["calls"]
    notes = [*finished.notes, *(f"Changed: {change}." for change in changed)]
    document["resumed"] = {
        "run_directory": shown_path(finished.directory),
        "calls_taken": finished.taken,
        "tokens_taken": finished.taken_tokens,
        "calls_sent": sent,
        "calls_left": len(finished),
        "notes": notes,
    }
    terminal.hint(
        f"{count(finished.taken, 'call')} taken from the log "
        f"({count(finished.taken_tokens, 'token')} not computed again), {sent:,} made now"
    )
    for note in notes:
        terminal.say(note)

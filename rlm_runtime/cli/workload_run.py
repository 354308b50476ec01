"""What every `rlm-bench run` verb does: measure, show and write down, also when it ends early.

What a run cost is in its log, and the engine's own counters come into it when the session is
closed. So a workload may take its figures from there (`Wish.conclude`).
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from rlm_runtime.api import RLM, AsyncRLM, Internals
from rlm_runtime.benchmark.results import Measurement, report
from rlm_runtime.cli import options, progress, reporting, results
from rlm_runtime.cli.command import DONE, Document
from rlm_runtime.cli.first_use import get_ready
from rlm_runtime.cli.terminal import Terminal, seconds, shown_path
from rlm_runtime.config import config_digest
from rlm_runtime.errors import RLMError
from rlm_runtime.profiler import RunLog

Conclude = Callable[[Measurement, RunLog], Sequence[Measurement]]
"""Makes what is shown of what was measured and of the log of the run, whose session is closed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What was asked for on the command line.

    Attributes:
        benchmark: The workload's name, for the document.
        what: What goes on while it is measured, a phrase: "asking".
        out: Where results go; `None` is the run directory.
        source: `--config`.
        settings: `--set`, each.
        named: Settings with an option of their own, by dotted key.
        shared_text: Another system text than the one that ships.
        conclude: Used where the run is kept; the run's plots are drawn as well. `None`: what was
            measured says it all.
    """

    benchmark: str
    what: str
    out: Path | None
    source: str | None
    settings: Sequence[str]
    named: Mapping[str, object | None]
    shared_text: str | None = None
    conclude: Conclude | None = None


class Tell(Protocol):
    """Takes what was measured so far; called in the session's thread."""

    def __call__(self, so_far: Measurement, done: int, planned: int, /, detail: str = "") -> None:
        """Keep it, and show how far it is.

        Args:
            so_far: Shown and written should nothing better come.
            done: Of `planned`, units of about equal cost: the time that is left is told from it.
            planned: In all.
            detail: More, in words.
        """


def run_workload(
    wish: Wish,
    measure: Callable[[AsyncRLM, Tell], Awaitable[None]],
    terminal: Terminal,
    document: Document,
) -> int:
    """Measure on a session of its own, show and write down; returns the exit code.

    Raises:
        RLMError: It ended early. What was measured before is shown and written all the same.
    """
    config = options.load(wish.source, wish.settings, wish.named).config
    if wish.out is not None:
        results.make(wish.out)
    get_ready(config, terminal)
    boot = progress.Boot()
    parts: list[Internals] = []
    done: list[Measurement] = []
    rlm = RLM(config, on_stage=boot.tell, shared_text=wish.shared_text)
    document["run_directory"] = rlm.run_directory and shown_path(rlm.run_directory)
    finish = partial(_finish, wish, config_digest(config), rlm.run_directory, terminal, document)
    try:
        with rlm, progress.shown(terminal, "starting the engine") as show:
            boot.show = show

            async def work(session: AsyncRLM) -> None:
                parts.append(await session.internals())
                await measure(session, _Teller(wish.what, done, show))

            rlm.call(work)
    except BaseException:
        # What was measured before an interrupt is shown and written all the same.
        if done:
            try:
                finish(done[0], parts[0])
            except RLMError as err:
                terminal.error(str(err))  # and the first error is the one that counts
        raise
    if done:
        finish(done[0], parts[0])
    return DONE


def _finish(
    wish: Wish,
    digest: str,
    run: Path | None,
    terminal: Terminal,
    document: Document,
    measured: Measurement,
    parts: Internals,
) -> None:
    """Write down and show; whatever fails, what came before it stays."""
    folder = wish.out or run
    made = report(wish.benchmark, (measured,), parts, digest)
    document |= made.document()
    try:
        # Written before shown: whoever reads the output may be gone.
        files = results.write(made, folder, terminal)
        document["files"] = [shown_path(file) for file in files]
        if wish.conclude is not None and run is not None and folder is not None:
            shown = wish.conclude(measured, RunLog.load(run))
            made = report(wish.benchmark, shown, parts, digest)
            document |= made.document()
            results.write(made, folder, terminal)
            files += reporting.draw(made, shown, folder, terminal)
            document["files"] = [shown_path(file) for file in files]
    finally:
        results.show(made, terminal)
    if files:
        terminal.hint("written: " + ", ".join(shown_path(file) for file in files))


class _Teller:
    """Keeps the last result and shows progress with the time that is left."""

    def __init__(self, what: str, kept: list[Measurement], show: progress.Show) -> None:
        self._what = what
        self._kept = kept
        self._show = show
        self._began_s = time.monotonic()

    def __call__(self, so_far: Measurement, done: int, planned: int, /, detail: str = "") -> None:
        self._kept[:] = [so_far]
        left = ""
        if 0 < done < planned:
            elapsed_s = time.monotonic() - self._began_s
            left = f"about {seconds(elapsed_s / done * (planned - done))} left"
        parts = " · ".join(part for part in (detail, left) if part)
        self._show(progress.State(self._what, done, planned, parts))

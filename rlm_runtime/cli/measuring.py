"""What `rlm-bench ttft` does: measure, show, and write down, also when it ends early."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rlm_runtime.api import RLM, AsyncRLM, Internals
from rlm_runtime.benchmark import batching, plots, ttft
from rlm_runtime.benchmark.batching_result import SPEED_UPS, BatchingResult
from rlm_runtime.benchmark.results import Measurement, Report, report
from rlm_runtime.benchmark.ttft_result import TtftResult
from rlm_runtime.cli import options, progress, results
from rlm_runtime.cli.command import DONE, Document
from rlm_runtime.cli.first_use import get_ready
from rlm_runtime.cli.terminal import Terminal, shown_path
from rlm_runtime.config import config_digest
from rlm_runtime.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What was asked for on the command line.

    Attributes:
        samples: Of each series.
        batch_repeats: Runs of each arm; 0 leaves batching out.
        seed: Of texts and order.
        out: Where results go; `None` is the run directory.
        source: `--config`.
        settings: `--set`, each.
        named: Settings with an option of their own, by dotted key.
    """

    samples: int
    batch_repeats: int
    seed: int
    out: Path | None
    source: str | None
    settings: Sequence[str]
    named: Mapping[str, object | None]


@dataclass(slots=True)
class _Taken:
    """What has been measured so far; filled in the session's thread, read when that is done."""

    parts: Internals | None = None
    ttft: TtftResult | None = None
    batching: BatchingResult | None = None

    def measurements(self) -> tuple[Measurement, ...]:
        """Those that have something to show, finished or not."""
        found: list[Measurement] = []
        if self.ttft is not None:
            found.append(self.ttft)
        if self.batching is not None:
            found.append(self.batching)
        return tuple(found)


def measure(wish: Wish, terminal: Terminal, document: Document) -> int:
    """Measure, show and write down; returns the exit code.

    Raises:
        RLMError: It ended early. What was measured before is shown and written all the same.
    """
    config = options.load(wish.source, wish.settings, wish.named).config
    if wish.out is not None:
        results.make(wish.out)
    get_ready(config, terminal)
    boot, taken = progress.Boot(), _Taken()
    with RLM(config, on_stage=boot.tell) as rlm:
        folder = wish.out or rlm.run_directory
        document["run_directory"] = rlm.run_directory and shown_path(rlm.run_directory)
        try:
            with progress.shown(terminal, "starting the engine") as show:
                boot.show = show
                rlm.call(lambda session: _measure(session, wish, taken, show))
        finally:
            if taken.parts is not None and taken.measurements():
                made = report("ttft", taken.measurements(), taken.parts, config_digest(config))
                document |= made.document()
                # Written before shown: whoever reads the output may be gone.
                document["files"] = [
                    shown_path(file) for file in _write(made, taken, folder, terminal)
                ]
                results.show(made, terminal)
    return DONE


async def _measure(
    session: AsyncRLM, wish: Wish, taken: _Taken, show: Callable[[progress.State], None]
) -> None:
    def on_sample(so_far: TtftResult) -> None:
        taken.ttft = so_far
        done, planned = len(so_far.samples), so_far.planned_samples
        show(progress.State("measuring time to first token", done, planned))

    def on_run(so_far: BatchingResult) -> None:
        taken.batching = so_far
        done, planned = len(so_far.runs), so_far.planned_runs
        show(progress.State("measuring batches", done, planned))

    parts = taken.parts = await session.internals()
    show(progress.State("measuring time to first token: warming up"))
    await ttft.measure(parts, samples=wish.samples, seed=wish.seed, on_sample=on_sample)
    if wish.batch_repeats:
        show(progress.State("measuring batches: warming up"))
        await batching.measure(parts, repeats=wish.batch_repeats, seed=wish.seed, on_run=on_run)


def _write(made: Report, taken: _Taken, folder: Path | None, terminal: Terminal) -> list[Path]:
    """Write the results and say where; plots only where they can be made."""
    files = results.write(made, folder, terminal)
    if folder is None:
        return files
    try:
        if taken.ttft is not None and taken.ttft.samples:
            plots.plot_ttft(made, taken.ttft, folder / "ttft.png")
            files.append(folder / "ttft.png")
        batches = taken.batching
        if batches is not None and any(batches.speed_up(s) is not None for s in SPEED_UPS):
            plots.plot_batching(made, batches, folder / "batching.png")
            files.append(folder / "batching.png")
    except ConfigError as err:  # matplotlib is an extra
        terminal.hint(str(err))
    terminal.hint("written: " + ", ".join(shown_path(file) for file in files))
    return files

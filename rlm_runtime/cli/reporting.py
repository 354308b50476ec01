"""What `rlm-bench report` does: read the log, write the files, show the tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rlm_runtime.benchmark import plots, plots_run, plots_timeline
from rlm_runtime.benchmark.results import Measurement, Report
from rlm_runtime.benchmark.run_report import RunMeasurement, run_report
from rlm_runtime.benchmark.ttft_result import TtftResult
from rlm_runtime.cli import results
from rlm_runtime.cli.command import DONE, Document
from rlm_runtime.cli.terminal import Terminal, shown_path
from rlm_runtime.errors import ConfigError
from rlm_runtime.profiler.run_log import RunLog

STEM = "report"


def report_run(run: Path, out: Path | None, terminal: Terminal, document: Document) -> int:
    """Report a run; returns the exit code.

    Raises:
        TraceError: There is no log, or none that can be read.
        InputError: The files can't be written.
    """
    log = RunLog.load(run)
    made = run_report(log)
    folder = log.directory if out is None else out
    results.make(folder)
    document["run_directory"] = shown_path(log.directory)
    document |= made.document()
    # Written before shown: whoever reads the output may be gone.
    files = results.write(made, folder, terminal, STEM)
    files += draw(made, made.measurements, folder, terminal)
    document["files"] = [shown_path(file) for file in files]
    results.show(made, terminal)
    terminal.hint("written: " + ", ".join(shown_path(file) for file in files))
    return DONE


def draw(
    made: Report, measurements: Sequence[Measurement], folder: Path, terminal: Terminal
) -> list[Path]:
    """Draw a run's plots, and those of requests that were measured alone; returns the files.

    Args:
        made: Names model and machine.
        measurements: Those among them that are a run's (`run_measurement`) or a `TtftResult`.
        folder: Where the files go.
        terminal: Hears that plots can't be made here.

    Raises:
        InputError: The files can't be written.
    """
    files: list[Path] = []
    try:
        for one in measurements:
            if isinstance(one, RunMeasurement):
                for name, plot in _run_plots(one):
                    plot(made, one, folder / name)
                    files.append(folder / name)
            elif isinstance(one, TtftResult) and one.samples:
                plots.plot_ttft(made, one, folder / "ttft.png")
                files.append(folder / "ttft.png")
    except ConfigError as err:  # matplotlib is an extra
        terminal.hint(str(err))
    return files


def _run_plots(
    run: RunMeasurement,
) -> Iterator[tuple[str, Callable[[Report, RunMeasurement, Path], None]]]:
    """Those for which the run has something to show."""
    if run.calls:
        yield "tokens.png", plots_run.plot_tokens
        yield "timeline.png", plots_timeline.plot_timeline
    if any(run.by_warmth.values()):
        yield "prefill.png", plots_run.plot_prefill

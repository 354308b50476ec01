"""Plots of measurements as PNG files, 1,200 pixels wide.

Nothing is told by colour alone: series have places, markers and labels of their own. Axes of time
begin at zero.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rlm_runtime.benchmark import plots_canvas as canvas
from rlm_runtime.benchmark.batching_result import SPEED_UPS, BatchingResult
from rlm_runtime.benchmark.results import Report
from rlm_runtime.benchmark.statistics import Estimate, percentile
from rlm_runtime.benchmark.ttft_result import LONG_OWN_TOKENS, RATIOS, Series, TtftResult
from rlm_runtime.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LOOKS = {
    Series.COLD: ("cold", canvas.BLUE, "o"),
    Series.VARIABLE: ("variable", canvas.ORANGE, "^"),
    Series.WARM: ("warm", canvas.GREEN, "D"),
    Series.COLD_TAIL128: (f"cold\n{LONG_OWN_TOKENS} own tokens", canvas.BLUE, "o"),
    Series.WARM_TAIL128: (f"warm\n{LONG_OWN_TOKENS} own tokens", canvas.GREEN, "D"),
}
_ARM_LOOKS = (("in turn", canvas.BLUE, "//"), ("batched", canvas.GREEN, ""))


def plot_ttft(report: Report, result: TtftResult, path: Path) -> None:
    """Draw every sample, the quartiles and the median of each series.

    Args:
        report: Names model and machine.
        result: Finished or partial; at least one sample.
        path: The PNG file; replaced.

    Raises:
        ConfigError: matplotlib is not installed.
        InputError: There is no sample, or the file can't be written.
    """
    shown = [series for series in _LOOKS if result.of(series)]
    if not shown:
        raise InputError("There is no sample to draw.", "Measure first.")
    figure, axes = _figure(report, "Time to first token", 1.9 + 0.62 * len(shown))
    rng = np.random.default_rng(result.seed)
    for row, series in enumerate(shown):
        times_ms = result.ttft_ms(series)
        _, colour, marker = _LOOKS[series]
        canvas.box(axes, times_ms, row - 0.17, colour)
        spread = rng.uniform(-0.13, 0.13, len(times_ms))
        axes.plot(times_ms, row + 0.2 + spread, marker, color=colour, ms=4.5, alpha=0.7, mew=0)
        median_ms = percentile(times_ms, 50)
        axes.annotate(
            f"{median_ms:,.0f} ms" if median_ms >= 100 else f"{median_ms:,.1f} ms",
            (max(times_ms), row),
            xytext=(9, 0),
            textcoords="offset points",
            va="center",
            fontweight="bold",
            color=canvas.INK,
        )
    axes.set_yticks(range(len(shown)), [f"{_LOOKS[s][0]}" for s in shown])
    axes.set_ylim(len(shown) - 0.5, -0.5)
    longest_ms = max(max(result.ttft_ms(series)) for series in shown)
    axes.set_xlim(0, longest_ms * 1.18)
    axes.set_xlabel("time to first token, ms (number: median; box: quartiles; marks: samples)")
    ratios = [
        f"{ratio.label} {_with_interval(estimate, 3)}"
        for ratio in RATIOS
        if (estimate := result.ratio(ratio)) is not None
    ]
    counts = ", ".join(f"{s} {len(result.of(s))}" for s in shown)
    caption = [
        f"Ratios of medians: {canvas.unbroken(ratios)}." if ratios else "",
        f"Samples: {counts}. Prompts: {result.shared_prefix_tokens:,} shared tokens and "
        f"{Series.WARM.own_tokens} own; blocks of {result.block_size}.",
    ]
    canvas.finish(figure, caption, path)


def plot_batching(report: Report, result: BatchingResult, path: Path) -> None:
    """Draw the median time of each arm, with every run and the speed-ups.

    Args:
        report: Names model and machine.
        result: Finished or partial; at least one run of both arms of a speed-up.
        path: The PNG file; replaced.

    Raises:
        ConfigError: matplotlib is not installed.
        InputError: There is nothing to draw, or the file can't be written.
    """
    shown = [(s, e) for s in SPEED_UPS if (e := result.speed_up(s)) is not None]
    if not shown:
        raise InputError("There are no runs to draw.", "Measure first.")
    figure, axes = _figure(report, f"{result.calls} warm sub-calls", 1.9 + 0.95 * len(shown))
    longest_ms = 0.0
    for row, (speed_up, _) in enumerate(shown):
        for offset, arm, (name, colour, hatch) in zip(
            (-0.2, 0.2), (speed_up.in_turn, speed_up.batched), _ARM_LOOKS, strict=True
        ):
            times_ms = [wall_s * 1e3 for wall_s in result.wall_s(arm)]
            median_ms = percentile(times_ms, 50)
            longest_ms = max(longest_ms, *times_ms)
            axes.barh(
                row + offset, median_ms, 0.36, color=colour, alpha=0.35, hatch=hatch, ec=colour
            )
            spread = np.linspace(-0.1, 0.1, len(times_ms)) if len(times_ms) > 1 else [0.0]
            axes.plot(
                times_ms, row + offset + np.asarray(spread), "o", color=canvas.INK, markersize=3
            )
            axes.annotate(
                f"{name}: {median_ms:,.0f} ms",
                (max(median_ms, *times_ms), row + offset),
                xytext=(9, 0),
                textcoords="offset points",
                va="center",
                fontweight="bold",
                color=canvas.INK,
            )
    axes.set_yticks(range(len(shown)), [s.label.replace(" the ", " the\n", 1) for s, _ in shown])
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.set_xlim(0, longest_ms * 1.35)
    axes.set_xlabel("time for all sub-calls, ms (bars: median; dots: runs)")
    speed_ups = [f"{s.label} {_with_interval(e, 2)}" for s, e in shown]
    caption = [
        f"In turn over batched, medians: {canvas.unbroken(speed_ups)}.",
        f"{result.figures()['batch_repeats']} runs of each; at most {result.max_running} requests "
        "run at once.",
    ]
    canvas.finish(figure, caption, path)


def _figure(report: Report, title: str, height_in: float) -> tuple[Figure, Axes]:
    figure = canvas.new_figure(height_in)
    axes = figure.subplots()
    canvas.head(axes, f"{title}, {report.model}", report)
    canvas.bare(axes)
    return figure, axes


def _with_interval(estimate: Estimate, digits: int) -> str:
    value = f"{estimate.value:.{digits}f}"
    if estimate.low is None or estimate.high is None:
        return value
    return f"{value} (95 %: {estimate.low:.{digits}f} to {estimate.high:.{digits}f})"

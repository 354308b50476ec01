"""Plots of a recorded run: where its tokens went, and how long prefill took, cold and warm."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rlm_runtime.benchmark import plots_canvas as canvas
from rlm_runtime.benchmark.results import Report
from rlm_runtime.benchmark.run_calls import Warmth
from rlm_runtime.benchmark.run_report import RunMeasurement
from rlm_runtime.benchmark.run_tables import MEANING, maybe_percent, percent
from rlm_runtime.benchmark.statistics import LEAST_FOR_INTERVAL, percentile
from rlm_runtime.errors import InputError
from rlm_runtime.profiler.causes import Cause

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_CAUSES = {
    Cause.FIRST_USE: (canvas.BLUE, ""),
    Cause.LAYOUT: (canvas.YELLOW, "//"),
    Cause.EVICTED: (canvas.ORANGE, "\\\\"),
    Cause.BLOCK_ROUNDING: (canvas.SKY, ""),
    Cause.SKIPPED: (canvas.PINK, "xx"),
    Cause.SALT: (canvas.PINK, ".."),
    Cause.UNEXPLAINED: (canvas.INK, ""),
}
_ROWS = {
    Warmth.COLD: ("cold", canvas.BLUE, "o"),
    Warmth.WARM: ("warm", canvas.GREEN, "D"),
    Warmth.OTHER: ("neither", canvas.FAINT, "^"),
}
_ROOM = 0.72
"""Share of the axis that a bar may reach with its label still fitting beside it."""

_MOST_MARKS = 1500
"""Of one row: more of them are one blot, and a large file."""


def plot_tokens(report: Report, run: RunMeasurement, path: Path) -> None:
    """Draw all prompt tokens as cached and computed, and the computed ones by cause.

    Args:
        report: Names model and machine.
        run: With at least one prompt token.
        path: The PNG file; replaced.

    Raises:
        ConfigError: matplotlib is not installed.
        InputError: There is nothing to draw, or the file can't be written.
    """
    figures = run.figures()
    prompt, computed = figures["prompt_tokens"] or 0, figures["computed_tokens"] or 0
    if not prompt:
        raise InputError("There is no token to draw.", "The run made no call that came to its end.")
    causes = [
        (cause, int(tokens))
        for cause in MEANING
        if (tokens := figures[f"miss_{cause}_tokens"]) is not None and tokens
    ]
    rows = len(causes) + 1
    figure = canvas.new_figure(2.9 + 0.38 * rows)
    above, below = figure.subplots(2, 1, height_ratios=[1, 0.55 + 0.6 * rows])
    title = f"{computed:,} of {prompt:,} prompt tokens were computed ({percent(computed / prompt)})"
    canvas.head(above, title, report, names_model=True)
    _all_tokens(above, int(prompt - computed), int(computed))
    _waterfall(below, causes, int(computed))
    caption = [
        f"Hit rate {maybe_percent(figures['hit_rate'])} of a ceiling of "
        f"{maybe_percent(figures['hit_rate_ceiling'])}: what a cache without limit would have "
        "served of these prompts.",
        ""
        if run.log.has_blobs
        else "Without the prompts' ids, what the layout cost stands under first use.",
    ]
    canvas.finish(figure, caption, path)


def plot_prefill(report: Report, run: RunMeasurement, path: Path) -> None:
    """Draw prefill of cold and warm calls, and time to first token of those that ran alone.

    Args:
        report: Names model and machine.
        run: With at least one call whose prefill was measured.
        path: The PNG file; replaced.

    Raises:
        ConfigError: matplotlib is not installed.
        InputError: There is nothing to draw, or the file can't be written.
    """
    rows = [(one, "prefill", run.prefill_ms(one)) for one in Warmth]
    rows += [(one, "TTFT, alone", run.ttft_alone_ms(one)) for one in (Warmth.COLD, Warmth.WARM)]
    rows = [row for row in rows if row[2]]
    if not rows:
        raise InputError("There is no prefill to draw.", "The run made no call that was measured.")
    figure = canvas.new_figure(2.1 + 0.72 * len(rows))
    axes = figure.subplots()
    canvas.head(axes, _prefill_title(run), report, names_model=True)
    canvas.bare(axes)
    rng = np.random.default_rng(0)
    longest_ms = max(max(times_ms) for _, _, times_ms in rows)
    for place, (one, _, times_ms) in enumerate(rows):
        _, colour, marker = _ROWS[one]
        has_box = len(times_ms) >= LEAST_FOR_INTERVAL
        if has_box:
            canvas.box(axes, times_ms, place - 0.2, colour)
        marks = np.asarray(times_ms)
        if len(marks) > _MOST_MARKS:
            # The longest ones stay: they are what somebody looks for.
            ends = np.sort(marks)[[0, *range(-20, 0)]]
            marks = np.concatenate([rng.choice(marks, _MOST_MARKS, replace=False), ends])
        spread = rng.uniform(-0.15, 0.15, len(marks)) + (0.2 if has_box else 0)
        alpha = 0.75 if len(marks) <= 100 else 0.25
        axes.plot(marks, place + spread, marker, color=colour, ms=4, alpha=alpha, mew=0)
        axes.annotate(
            f"{percentile(times_ms, 50):,.0f} ms",
            (_whisker(times_ms), place - 0.2 if has_box else place),
            xytext=(9, 0),
            textcoords="offset points",
            va="center",
            fontweight="bold",
            color=canvas.INK,
        )
    labels = [f"{_ROWS[one][0]}: {what}\n{_calls(len(ms))}" for one, what, ms in rows]
    axes.set_yticks(range(len(rows)), labels)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(0, longest_ms * 1.16)
    axes.set_xlabel("ms (number: median; box: quartiles; marks: calls)")
    medians = [
        f"{_ROWS[one][0]} {percentile([c.computed_tokens or 0 for c in calls], 50):,.0f}"
        for one, calls in run.by_warmth.items()
        if calls
    ]
    caption = [
        "Cold: nothing of the shared prefix was cached; warm: all of it; neither: a part, or a "
        "prompt without it.",
        f"Median of computed tokens: {canvas.unbroken(medians)}. Calls of a batch wait for each "
        "other.",
    ]
    canvas.finish(figure, caption, path)


def _all_tokens(axes: Axes, cached: int, computed: int) -> None:
    """One bar of all prompt tokens."""
    canvas.bare(axes)
    total = cached + computed
    axes.barh(0, cached, 0.6, color=canvas.PALE_GREEN, ec=canvas.GREEN)
    axes.barh(0, computed, 0.6, left=cached, color=canvas.BLUE, ec=canvas.BLUE)
    if cached / total > 0.2:
        text = f"cached {cached:,}"
        axes.annotate(text, (cached / 2, 0), ha="center", va="center", color=canvas.INK)
    if computed / total > 0.2:
        text = f"computed {computed:,}"
        middle = cached + computed / 2
        axes.annotate(text, (middle, 0), ha="center", va="center", color="white")
    axes.set_yticks([0], ["all prompt tokens"])
    axes.set_ylim(-0.45, 0.45)
    axes.set_xlim(0, total * 1.02)


def _waterfall(axes: Axes, causes: list[tuple[Cause, int]], computed: int) -> None:
    """The computed tokens, cause after cause, each beginning where the one before ended."""
    canvas.bare(axes)
    start = 0
    for row, (cause, tokens) in enumerate(causes):
        colour, hatch = _CAUSES[cause]
        axes.barh(row, tokens, 0.62, left=start, color=colour, hatch=hatch, ec="white")
        start += tokens
        axes.plot([start, start], [row - 0.31, row + 1.31], color=canvas.FAINT, lw=0.8)
        _label(axes, f"{tokens:,} ({percent(tokens / computed)})", start, row, computed, tokens)
    row = len(causes)
    axes.barh(row, computed, 0.62, color=canvas.BLUE, ec=canvas.BLUE)
    axes.annotate(f"{computed:,}", (computed / 2, row), ha="center", va="center", color="white")
    labels = [cause.replace("_", " ") for cause, _ in causes]
    axes.set_yticks(range(row + 1), [*labels, "computed"])
    axes.set_ylim(row + 0.5, -0.5)
    axes.set_xlim(0, max(1, computed) * 1.02)
    axes.set_xlabel("tokens (the bars above and below have scales of their own)")


def _label(axes: Axes, text: str, end: int, row: int, total: int, tokens: int) -> None:
    """Behind the bar, else in front of it, else on it: where there is room."""
    start = end - tokens
    if end < _ROOM * total:
        place, offset, alignment = float(end), 6, "left"
    elif start > (1 - _ROOM) * total:
        place, offset, alignment = float(start), -6, "right"
    else:
        place, offset, alignment = (start + end) / 2, 0, "center"
    axes.annotate(
        text,
        (place, row),
        xytext=(offset, 0),
        textcoords="offset points",
        ha=alignment,
        va="center",
        color=canvas.INK,
        # On a bar, its colour and hatching would be behind the digits.
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
    )


def _whisker(values: Sequence[float]) -> float:
    """Where the right whisker of a box ends; of a few values, the largest."""
    low, high = percentile(values, 25), percentile(values, 75)
    if len(values) < LEAST_FOR_INTERVAL:
        return max(values)
    return max(value for value in values if value <= high + 1.5 * (high - low))


def _calls(count: int) -> str:
    return f"{count:,} call{'' if count == 1 else 's'}"


def _prefill_title(run: RunMeasurement) -> str:
    """What was found, where it stands on more than a few calls."""
    cold, warm = run.prefill_ms(Warmth.COLD), run.prefill_ms(Warmth.WARM)
    alone = [run.ttft_alone_ms(one) for one in (Warmth.COLD, Warmth.WARM)]
    if min(map(len, alone)) >= LEAST_FOR_INTERVAL:
        medians = [percentile(times_ms, 50) for times_ms in alone]
        return (
            f"Alone, the first token took {medians[1]:,.0f} ms with the shared prefix cached, "
            f"{medians[0]:,.0f} ms without"
        )
    if min(len(cold), len(warm)) >= LEAST_FOR_INTERVAL:
        return (
            f"Prefill took {percentile(warm, 50):,.0f} ms with the shared prefix cached, "
            f"{percentile(cold, 50):,.0f} ms without (medians)"
        )
    times_ms = cold + warm + run.prefill_ms(Warmth.OTHER)
    return f"Prefill of {_calls(len(times_ms))} took {percentile(times_ms, 50):,.0f} ms (median)"

"""The calls of a run over the engine's time: when they ran, and what of each was cached.

The height is calls in the engine. While a call is in prefill, its height is split by the shares
of its prompt that were cached and computed; while it decodes, it is generated tokens. A few calls
are drawn as bars, one a call; many as the same bars added up over short spans of time.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from rlm_runtime.benchmark import plots_canvas as canvas
from rlm_runtime.benchmark.results import Report, printable
from rlm_runtime.benchmark.run_calls import Group, grouped
from rlm_runtime.benchmark.run_report import RunMeasurement
from rlm_runtime.benchmark.run_tables import document_name, maybe_percent
from rlm_runtime.errors import InputError
from rlm_runtime.profiler.causes import CallCauses
from rlm_runtime.tracing import AgentStarted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_BARS = 80
"""Calls that are drawn one by one."""

_MOST_GROUPS = 12
_SPANS = 400
_LEGEND_IN = 0.2
_NAME_CHARACTERS = 22
_COLOURS = (canvas.GREEN, canvas.BLUE, canvas.YELLOW)
_NAMES = ("cached", "computed", "generated")

Times = npt.NDArray[np.float64]


class _Bar(NamedTuple):
    """One call, seconds from the first call's start."""

    start_s: float
    first_token_s: float
    end_s: float
    cached_share: float


def plot_timeline(report: Report, run: RunMeasurement, path: Path) -> None:
    """Draw when the calls ran, grouped by agent; by document or purpose if there is one agent.

    Args:
        report: Names model and machine.
        run: With at least one call whose times are known.
        path: The PNG file; replaced.

    Raises:
        ConfigError: matplotlib is not installed.
        InputError: There is nothing to draw, or the file can't be written.
    """
    timed = [c for c in run.calls if _is_timed(c)]
    if not timed:
        raise InputError("There is no call to draw.", "The run made no call that was measured.")
    what, groups = _groups(timed)
    zero_s = min(c.call.scheduled_at_s or 0.0 for c in timed)
    bars = [[_bar(c, zero_s) for c in group.calls] for group in groups]
    end_s = max(bar.end_s for some in bars for bar in some)
    lanes = [_lanes(some) for some in bars]
    is_detailed = len(timed) <= MOST_BARS
    spans = [_spans(some, end_s) for some in bars]
    most = max(heights.sum(axis=0).max() for heights in spans)
    rows_in = [0.22 * (max(of_group) + 1) + 0.12 if is_detailed else 0.42 for of_group in lanes]
    figure = canvas.new_figure(2.3 + sum(rows_in))
    top, *rest = figure.subplots(
        len(groups) + 1, 1, sharex=True, height_ratios=[_LEGEND_IN, *rows_in]
    )
    canvas.head(top, _title(timed), report, names_model=True)
    _legend(top)
    for axes, group, some, of_group, heights in zip(rest, groups, bars, lanes, spans, strict=True):
        if is_detailed:
            _draw_bars(axes, some, of_group)
        else:
            _draw_spans(axes, heights, end_s, most)
        _frame(axes, _name(run, group), group)
    last = rest[-1]
    last.set_xlim(0, end_s * 1.001 or 1)
    last.tick_params(axis="x", length=3, labelbottom=True)
    last.set_xlabel("engine time, s")
    height = "each bar is a call" if is_detailed else f"full height is {most:.0f} calls at once"
    caption = [
        f"By {what}; {height}. A call in prefill is split by the shares of its prompt that were "
        "cached and computed; in decode it is generated tokens. Percentages: cached share of the "
        "prompt tokens.",
    ]
    canvas.finish(figure, caption, path)


def _is_timed(one: CallCauses) -> bool:
    call = one.call
    return call.scheduled_at_s is not None and call.finished_at_s is not None


def _groups(timed: list[CallCauses]) -> tuple[str, list[Group]]:
    """What the calls are grouped by, and the groups in the order in which they began."""
    what, found = "agent", grouped(timed, lambda call: call.agent_id)
    if len(found) == 1:
        what, found = "document", grouped(timed, document_name)
        if len(found) > _MOST_GROUPS:
            what, found = "purpose", grouped(timed, lambda call: call.label)
    kept = found if len(found) <= _MOST_GROUPS else found[: _MOST_GROUPS - 1]
    kept = sorted(kept, key=lambda group: group.calls[0].call.scheduled_at_s or 0.0)
    if rest := found[len(kept) :]:
        calls = tuple(call for group in rest for call in group.calls)
        kept.append(Group(f"{len(rest)} others", calls))
    return what, kept


def _bar(one: CallCauses, zero_s: float) -> _Bar:
    call = one.call
    start_s = (call.scheduled_at_s or 0.0) - zero_s
    end_s = max(start_s, (call.finished_at_s or 0.0) - zero_s)
    first_token_s = min(end_s, start_s + (call.prefill_s or 0.0))
    share = (call.cached_tokens or 0) / call.prompt_tokens if call.prompt_tokens else 0.0
    return _Bar(start_s, first_token_s, end_s, share)


def _lanes(bars: list[_Bar]) -> list[int]:
    """A lane for each bar, so that none hides another: the lowest that is free."""
    free_at_s: list[float] = []
    lanes = [0] * len(bars)
    for number in sorted(range(len(bars)), key=lambda n: bars[n].start_s):
        bar = bars[number]
        free = (n for n, at_s in enumerate(free_at_s) if at_s <= bar.start_s)
        lane = next(free, len(free_at_s))
        free_at_s[lane : lane + 1] = [bar.end_s]
        lanes[number] = lane
    return lanes


def _draw_bars(axes: Axes, bars: list[_Bar], lanes: list[int]) -> None:
    """One bar a call."""
    cached, computed, generated = _COLOURS
    low = np.asarray(lanes) - 0.4
    start = np.asarray([bar.start_s for bar in bars])
    first = np.asarray([bar.first_token_s for bar in bars])
    end = np.asarray([bar.end_s for bar in bars])
    share = np.asarray([bar.cached_share for bar in bars])
    for bottom, height, left, right, colour in (
        (low, 0.8 * share, start, first, cached),
        (low + 0.8 * share, 0.8 * (1 - share), start, first, computed),
        (low, np.full(len(bars), 0.8), first, end, generated),
    ):
        axes.bar(left, height, right - left, bottom, align="edge", color=colour, linewidth=0)
    axes.bar(
        start, 0.8, end - start, low, align="edge", fill=False, edgecolor="white", linewidth=0.8
    )
    axes.set_ylim(-0.6, max(lanes) + 0.6)
    axes.set_yticks([max(lanes) / 2])


def _spans(bars: list[_Bar], end_s: float) -> Times:
    """The bars added up over spans of time: calls cached, computed, generated, `(3, _SPANS)`."""
    edges = np.linspace(0, end_s, _SPANS + 1)
    width = edges[1] or 1.0
    heights = np.zeros((3, _SPANS))
    for bar in bars:
        prefill = _overlap(edges, bar.start_s, bar.first_token_s) / width
        heights[0] += prefill * bar.cached_share
        heights[1] += prefill * (1 - bar.cached_share)
        heights[2] += _overlap(edges, bar.first_token_s, bar.end_s) / width
    return heights


def _draw_spans(axes: Axes, heights: Times, end_s: float, most: float) -> None:
    edges = np.linspace(0, end_s, _SPANS + 1)
    # Computed first: it stands on the line, where small shares can be seen and compared.
    order = (1, 0, 2)
    axes.stackplot(
        np.repeat(edges, 2)[1:-1],
        [np.repeat(heights[n], 2) for n in order],
        colors=[_COLOURS[n] for n in order],
        linewidth=0,
    )
    axes.set_ylim(0, most * 1.08 or 1)
    axes.set_yticks([most / 2])


def _overlap(edges: Times, start_s: float, end_s: float) -> Times:
    """Seconds of an interval in each span."""
    inside: Times = np.clip(np.minimum(edges[1:], end_s) - np.maximum(edges[:-1], start_s), 0, None)
    return inside


def _frame(axes: Axes, name: str, group: Group) -> None:
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color("#dddddd")
    axes.tick_params(axis="both", length=0, labelbottom=False)
    axes.grid(axis="x", color="#dddddd", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
    shown = printable(name).replace("$", r"\$")  # which begins a formula
    label = f"{shown}\n{_calls(len(group.calls))}, {maybe_percent(group.hit_rate)}"
    axes.set_yticklabels([label], fontsize="x-small")


def _legend(axes: Axes) -> None:
    from matplotlib.patches import Patch  # late, as all of it

    axes.axis("off")
    axes.legend(
        handles=[Patch(color=c, label=name) for name, c in zip(_NAMES, _COLOURS, strict=True)],
        loc="upper left",
        ncols=len(_NAMES),
        frameon=False,
        fontsize="small",
        borderaxespad=0,
        borderpad=0,
    )


def _name(run: RunMeasurement, group: Group) -> str:
    """The group's name; of an agent, with its kind."""
    kinds = {e.agent_id: e.kind for e in run.log.events if isinstance(e, AgentStarted)}
    kind = kinds.get(group.name)
    name = group.name
    if kind is not None and not name.startswith(kind):
        name = f"{name} {kind}"
    name = name if len(name) <= _NAME_CHARACTERS else name[: _NAME_CHARACTERS - 1] + "…"
    return name.replace("$", r"\$")  # matplotlib would read a formula


def _calls(count: int) -> str:
    return f"{count:,} call{'' if count == 1 else 's'}"


def _title(timed: list[CallCauses]) -> str:
    share = maybe_percent(Group("", tuple(timed)).hit_rate)
    return f"Cached: {share} of the prompt tokens of {_calls(len(timed))}"

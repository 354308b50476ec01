"""Tables of a recorded run: what computed most stands first, and what is left out is counted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from rlm_runtime.benchmark.results import Table
from rlm_runtime.benchmark.run_calls import Group
from rlm_runtime.profiler import Figures
from rlm_runtime.profiler.causes import CallCauses, Cause
from rlm_runtime.tracing import (
    AgentFinished,
    AgentStarted,
    AnyEvent,
    CallFinished,
    RunFinished,
    ValueRead,
    ValueStored,
)

SHOWN = 10
"""Rows of a table for people; the document has more."""

MEANING = {
    Cause.FIRST_USE: "nobody had computed them before",
    Cause.LAYOUT: "the same text was computed before, behind another prefix",
    Cause.EVICTED: "the cache held them, and threw them away",
    Cause.BLOCK_ROUNDING: "the end of a prompt that fills no block",
    Cause.SKIPPED: "the call asked not to read the cache",
    Cause.SALT: "kept apart from other calls on purpose",
    Cause.UNEXPLAINED: "none of these",
}
"""The causes in the order in which they are shown."""


class Read(NamedTuple):
    """What one agent loaded of one value.

    Attributes:
        reader: The agent.
        value: Name and version.
        reads: How often it did.
        tokens: Of what it read, each time.
        value_tokens: Of the whole value; `None` where the log does not say.
        is_estimated: The whole value's tokens are, from a sample.
        covered: Share of the value's bytes that it read at least once.
    """

    reader: str
    value: str
    reads: int
    tokens: int
    value_tokens: int | None
    is_estimated: bool
    covered: float | None

    @property
    def share(self) -> float | None:
        """Tokens loaded over those of the value; above 1 when it was read again."""
        return self.tokens / self.value_tokens if self.value_tokens else None


def reads(events: Iterable[AnyEvent]) -> list[Read]:
    """Who loaded what, the largest first. What entered no prompt is left out."""
    stored: dict[tuple[str, int], ValueStored] = {}
    ranges: defaultdict[tuple[str, str, int], list[ValueRead]] = defaultdict(list)
    for event in events:
        if isinstance(event, ValueStored):
            stored[event.name, event.version] = event
        elif isinstance(event, ValueRead) and event.tokens:
            ranges[event.reader, event.name, event.version].append(event)
    found = []
    for (reader, name, version), parts in ranges.items():
        value = stored.get((name, version))
        size = value.size_bytes if value is not None else 0
        found.append(
            Read(
                reader=reader,
                value=name if version == 1 else f"{name} (version {version})",
                reads=len(parts),
                tokens=sum(part.tokens for part in parts),
                value_tokens=None if value is None else value.tokens,
                is_estimated=value is not None and value.is_estimated,
                covered=_union_bytes(parts) / size if size else None,
            )
        )
    return sorted(found, key=lambda read: -read.tokens)


def cause_table(figures: Figures) -> Table:
    """Causes that add up to what was computed."""
    computed = figures["computed_tokens"] or 0
    rows = []
    for cause, meaning in MEANING.items():
        tokens = figures[f"miss_{cause}_tokens"]
        if tokens is None:
            unknown = "unknown without the prompts' ids; counted as first use"
            rows.append((cause.replace("_", " "), "-", "-", unknown))
        elif tokens:
            share = percent(tokens / computed)
            rows.append((cause.replace("_", " "), f"{tokens:,}", share, meaning))
    rows.append(("computed", f"{computed:,}", percent(1) if computed else "-", "together"))
    return Table("Why tokens were computed", ("cause", "tokens", "share", "meaning"), tuple(rows))


def counter_table(figures: Figures, end: RunFinished, all_calls: Group, beside: int) -> Table:
    """The engine's own counters beside the sums of this log.

    Args:
        figures: Of the run.
        end: Has the counters.
        all_calls: Of the run and of what was measured beside it.
        beside: Of the calls, how many were measured beside the run.
    """
    ours = (
        ("prompt tokens", end.engine_prompt_tokens, all_calls.prompt_tokens),
        ("cached tokens", end.engine_cached_tokens, all_calls.cached_tokens),
        ("computed tokens", end.engine_computed_tokens, all_calls.computed_tokens),
    )
    rows = [
        (name, f"{engine:,}", f"{mine:,}", "equal" if engine == mine else f"{engine - mine:+,}")
        for name, engine, mine in ours
        if engine is not None
    ]
    preemptions = figures["engine_preemptions"]
    if preemptions is not None:
        rows.append(("preemptions", f"{preemptions:,}", "", ""))
    title = "The engine's own counters"
    if beside:
        title += f" (with {beside:,} measuring calls)"
    return Table(title, ("", "engine", "this log", "difference"), tuple(rows))


def group_table(title: str, what: str, groups: Sequence[Group], computed: int) -> Table:
    """Groups of calls, as many as are shown, and the rest in one row."""
    rows = [
        (
            group.name,
            f"{len(group.calls):,}",
            f"{group.prompt_tokens:,}",
            maybe_percent(group.hit_rate),
            f"{group.computed_tokens:,}",
            maybe_percent(group.computed_tokens / computed if computed else None),
            f"{group.generated_tokens:,}",
        )
        for group in bounded(groups)
    ]
    header = (what, "calls", "prompt", "cached", "computed", "of all", "generated")
    return Table(title, header, tuple(rows))


def bounded(groups: Sequence[Group]) -> list[Group]:
    """The first ones, and all others as one."""
    if len(groups) <= SHOWN + 1:
        return list(groups)
    rest = tuple(call for group in groups[SHOWN:] for call in group.calls)
    return [*groups[:SHOWN], Group(f"({len(groups) - SHOWN:,} more)", rest)]


def agent_table(
    groups: Sequence[Group], events: Iterable[AnyEvent], figures: Mapping[str, Figures]
) -> Table:
    """Agents: whose they are, what they cost, how they ended."""
    started = {e.agent_id: e for e in events if isinstance(e, AgentStarted)}
    finished = {e.agent_id: e for e in events if isinstance(e, AgentFinished)}
    rows = []
    for group in bounded(groups):
        start, end = started.get(group.name), finished.get(group.name)
        its = figures.get(group.name, {})
        loaded, wall_s = its.get("loaded_tokens"), its.get("wall_s")
        rows.append(
            (
                group.name,
                "" if start is None else start.kind,
                "" if start is None else start.parent_id or "",
                f"{len(group.calls):,}",
                maybe_percent(group.hit_rate),
                f"{group.computed_tokens:,}",
                f"{group.generated_tokens:,}",
                "" if loaded is None else f"{loaded:,}",
                "" if wall_s is None else f"{wall_s:,.1f}",
                "" if start is None else "no end" if end is None else end.stop_reason,
            )
        )
    header = ("agent", "kind", "of", "calls", "cached", "computed", "generated", "loaded", "s")
    return Table("By agent", (*header, "end"), tuple(rows))


def call_table(calls: Sequence[CallCauses]) -> Table:
    """The calls that computed most."""
    rows = []
    largest = sorted(calls, key=lambda c: -(c.call.computed_tokens or 0))[:SHOWN]
    for one in largest:
        call, cause = one.call, main_cause(one)
        rows.append(
            (
                call.request_id,
                call.agent_id,
                call.label,
                f"{call.prompt_tokens or 0:,}",
                f"{call.cached_tokens or 0:,}",
                f"{call.computed_tokens or 0:,}",
                "" if cause is None else cause.replace("_", " "),
                "-" if call.prefill_s is None else f"{call.prefill_s * 1e3:,.0f}",
            )
        )
    header = ("call", "agent", "for", "prompt", "cached", "computed", "mostly", "prefill ms")
    title = "Calls" if len(largest) == len(calls) else f"The largest of {len(calls):,} calls"
    return Table(title, header, tuple(rows))


def read_table(found: Sequence[Read]) -> Table:
    """Who loaded what share of what was stored."""
    rows = [
        (
            read.reader,
            read.value,
            f"{read.reads:,}",
            f"{read.tokens:,}",
            "-" if read.value_tokens is None else f"{read.value_tokens:,}",
            maybe_percent(read.share) + (" (estimated)" if read.is_estimated else ""),
            maybe_percent(read.covered),
        )
        for read in found[:SHOWN]
    ]
    if left := found[SHOWN:]:
        tokens, times = sum(r.tokens for r in left), sum(r.reads for r in left)
        rows.append((f"({len(left):,} more)", "", f"{times:,}", f"{tokens:,}", "", "", ""))
    header = ("agent", "value", "reads", "tokens", "of", "loaded", "bytes seen")
    return Table("What was loaded of the stored values", header, tuple(rows))


def main_cause(one: CallCauses) -> Cause | None:
    """The cause with most tokens; `None` when nothing was computed."""
    cause = max(one.tokens, key=lambda c: one.tokens[c], default=None)
    return cause if cause is not None and one.tokens[cause] else None


def document_name(call: CallFinished) -> str:
    """A name for the document that a call is about: the beginning of its digest."""
    return "(no document)" if call.group is None else call.group[:12]


def percent(share: float) -> str:
    """A share with one decimal; never nothing or all where it is not."""
    if 0 < share < 0.0005:
        return "< 0.1 %"
    return "> 99.9 %" if 0.9995 <= share < 1 else f"{share * 100:.1f} %"


def maybe_percent(share: float | None) -> str:
    """The same, where it may be unknown."""
    return "-" if share is None else percent(share)


def _union_bytes(parts: Sequence[ValueRead]) -> int:
    total = reached = 0
    for part in sorted(parts, key=lambda p: p.start_byte):
        total += max(0, part.end_byte - max(part.start_byte, reached))
        reached = max(reached, part.end_byte)
    return total

"""The report of a recorded run, from its log alone: what was computed, and why.

`rlm-bench report` shows it of a run, and a workload appends it to its own result
(`run_measurement`). Computed tokens a task lead: a raw hit rate rises with every shared token that
is sent, needed or not, so it never stands alone.
"""

from __future__ import annotations

from functools import cached_property

import msgspec

from rlm_runtime.benchmark import run_tables
from rlm_runtime.benchmark.results import LOUD, Measurement, Report, Table
from rlm_runtime.benchmark.run_calls import (
    Group,
    Warmth,
    alone,
    grouped,
    tasks,
    ttft_result,
    warmth,
)
from rlm_runtime.benchmark.statistics import percentile
from rlm_runtime.errors import TraceError
from rlm_runtime.profiler import Figures
from rlm_runtime.profiler.causes import CallCauses, Cause
from rlm_runtime.profiler.run_log import RunLog
from rlm_runtime.tracing import (
    AgentFinished,
    AgentStarted,
    CallFinished,
    EngineStarted,
    RunFinished,
    RunStarted,
    ValueStored,
)

LISTED = 1000
"""Agents, documents and reads in the document, the largest first."""

CALLS_LISTED = 100


def run_measurement(log: RunLog) -> RunMeasurement:
    """The tables and figures of a run, for appending to a workload's result.

    Args:
        log: Of a run whose session is closed: before, the engine's counters are not in the log.
    """
    return RunMeasurement(log)


def run_report(log: RunLog) -> Report:
    """The report of a run. The same log gives the same report, byte for byte.

    Raises:
        TraceError: The log is empty.
    """
    start = next((e for e in log.events if isinstance(e, RunStarted)), None)
    if start is None:
        raise TraceError(
            "The log is empty: the run died before it wrote anything.",
            "There is nothing to report.",
        )
    measured = run_measurement(log)
    pairs = ttft_result(log.events)
    measurements: list[Measurement] = [measured]
    if pairs is not None:
        measurements.append(pairs)
    engine = measured.engine
    return Report(
        benchmark="report",
        measurements=tuple(measurements),
        model="no model" if engine is None else engine.model,
        machine=start.machine,
        versions={
            "rlm-vllm": start.package_version,
            "python": start.python,
            "engine": "no engine" if engine is None else engine.backend,
        },
        config_digest=start.config_digest,
        run_id=start.run_id,
        made_at=start.started_at,
    )


class RunMeasurement:
    """One run as a report shows it; everything is computed once, when it is asked for.

    Attributes:
        log: The run.
        calls: Those with facts, in the order in which they were scheduled.
        engine: The first one that served the run; `None` when none had started.
    """

    def __init__(self, log: RunLog) -> None:
        self.log = log
        self.calls = log.causes
        self.engine = next((e for e in log.events if isinstance(e, EngineStarted)), None)
        self._end = next((e for e in log.events if isinstance(e, RunFinished)), None)

    @property
    def name(self) -> str:
        """`run`."""
        return "run"

    @cached_property
    def by_warmth(self) -> dict[Warmth, tuple[CallFinished, ...]]:
        """Calls by what they found of the shared prefix; without those that were computed twice."""
        found: dict[Warmth, list[CallFinished]] = {one: [] for one in Warmth}
        for one in self.calls:
            if one.call.prefill_s is not None and one.call.runs == 1:
                found[warmth(one.call, self.engine)].append(one.call)
        return {one: tuple(calls) for one, calls in found.items()}

    @cached_property
    def alone(self) -> frozenset[tuple[str, float]]:
        """Ids of the requests that ran alone: their TTFT is theirs, not a batch's."""
        return alone(self.log.events)

    @cached_property
    def by_agent(self) -> list[Group]:
        """Calls by agent."""
        return grouped(self.calls, lambda call: call.agent_id)

    @cached_property
    def by_document(self) -> list[Group]:
        """Calls by the document they are about."""
        about = [one for one in self.calls if one.call.group is not None]
        return grouped(about, run_tables.document_name)

    @cached_property
    def by_label(self) -> list[Group]:
        """Calls by what they are for."""
        return grouped(self.calls, lambda call: call.label)

    def prefill_ms(self, warmth_: Warmth) -> list[float]:
        """From scheduling to the first token; in a batch, others are waited for."""
        return [c.prefill_s * 1e3 for c in self.by_warmth[warmth_] if c.prefill_s is not None]

    def ttft_alone_ms(self, warmth_: Warmth) -> list[float]:
        """Times to first token of the calls that ran alone."""
        return [
            c.ttft_s * 1e3
            for c in self.by_warmth[warmth_]
            if (c.request_id, c.at_s) in self.alone and c.ttft_s is not None
        ]

    @cached_property
    def _figures(self) -> dict[str, float | int | None]:
        known = dict(self.log.figures())
        of_tasks = [one.call for one in self.calls if one.call.agent_id in self._tasks]
        count = len(set(self._tasks.values()))
        computed = sum(call.computed_tokens or 0 for call in of_tasks)
        figures: dict[str, float | int | None] = {
            "tasks": count,
            "agents": sum(isinstance(e, AgentStarted) for e in self.log.events),
            "computed_tokens_per_task": computed / count if count else None,
            **known,
            "ledger_gap_tokens": self._gap_tokens,
        }
        for one in (Warmth.COLD, Warmth.WARM):
            prefill_ms, ttft_ms = self.prefill_ms(one), self.ttft_alone_ms(one)
            figures |= {
                f"prefill_{one}_n": len(prefill_ms),
                f"prefill_{one}_ms_p50": percentile(prefill_ms, 50) if prefill_ms else None,
                f"ttft_alone_{one}_n": len(ttft_ms),
                f"ttft_alone_{one}_ms_p50": percentile(ttft_ms, 50) if ttft_ms else None,
            }
        return figures

    def figures(self) -> Figures:
        """Those of the ledger, `computed_tokens_per_task`, prefill and what ran alone."""
        return self._figures

    def detail(self) -> dict[str, object]:
        """What the run was asked, and the rows of all tables, at most `LISTED` of each."""
        events = self.log.events
        values = sorted({e.digest for e in events if isinstance(e, ValueStored)})
        roots = [e for e in events if isinstance(e, AgentStarted) and e.parent_id is None]
        largest = sorted(self.calls, key=lambda c: -(c.call.computed_tokens or 0))
        return {
            "values": values,
            "questions": [e.task_blob or e.kind for e in roots],
            "by_label": [_sums(group) for group in self.by_label[:LISTED]],
            "by_agent": [
                _sums(group) | {"figures": dict(self.log.agent_figures(group.name))}
                for group in self.by_agent[:LISTED]
            ],
            "by_document": [_sums(group) for group in self.by_document[:LISTED]],
            "reads": [read._asdict() | {"share": read.share} for read in self._reads[:LISTED]],
            "largest_calls": [_call(one) for one in largest[:CALLS_LISTED]],
            "prefill": [
                {
                    "prefix": str(one),
                    "n": len(times_ms),
                    **{f"p{p}_ms": percentile(times_ms, p) for p in (50, 90, 100)},
                    "ttft_alone_ms": self.ttft_alone_ms(one),
                }
                for one in Warmth
                if (times_ms := self.prefill_ms(one))
            ],
        }

    def tables(self) -> tuple[Table, ...]:
        """What it cost first, then why, then where."""
        figures, computed = self._figures, Group("", self.calls).computed_tokens
        if not self.calls:
            return (self._cost(),)
        found = [self._cost(), run_tables.cause_table(figures)]
        if self._end is not None and self._end.engine_computed_tokens is not None:
            beside = sum(one.call.agent_id not in self._tasks for one in self.calls)
            found.append(
                run_tables.counter_table(figures, self._end, Group("", self.calls), beside)
            )
        found.append(self._prefill())
        found.append(run_tables.group_table("By kind of call", "for", self.by_label, computed))
        by_agent = {group.name: self.log.agent_figures(group.name) for group in self.by_agent}
        found.append(run_tables.agent_table(self.by_agent, self.log.events, by_agent))
        if self.by_document:
            title = f"By document ({len(self.by_document):,})"
            found.append(run_tables.group_table(title, "document", self.by_document, computed))
        found.append(run_tables.call_table(self.calls))
        if self._reads:
            found.append(run_tables.read_table(self._reads))
        return tuple(found)

    def notes(self) -> tuple[str, ...]:
        """What is missing in the log, and where its sums and the engine's do not agree."""
        notes = []
        if gap := self._gap_tokens:
            more, who = (
                ("more", "requests that are not in this log")
                if gap > 0
                else ("fewer", "requests that another engine served")
            )
            notes.append(
                f"{LOUD} the engine counted {abs(gap):,} computed tokens {more} than this log "
                f"accounts for: {who}, or a fault."
            )
        if open_ := self._unfinished:
            notes.append(
                f"{open_:,} agent{'' if open_ == 1 else 's'} did not end: `wall_s` and "
                "`overhead_share` leave their time out."
            )
        if self.calls and not self._tasks:
            notes.append("This run only measured: there are no tasks to divide its tokens by.")
        if not self.calls:
            notes.append("No call came to its end in this run: there is nothing to account for.")
        notes += self.log.notes
        if lost := self._figures["calls_without_facts"]:
            notes.append(
                f"{lost:,} call{' was' if lost == 1 else 's were'} aborted before the first token; "
                "what was computed of that is not known."
            )
        return tuple(notes)

    @cached_property
    def _tasks(self) -> dict[str, str]:
        return tasks(self.log.events)

    @cached_property
    def _reads(self) -> list[run_tables.Read]:
        return run_tables.reads(self.log.events)

    @property
    def _unfinished(self) -> int:
        started = {e.agent_id for e in self.log.events if isinstance(e, AgentStarted)}
        return len(started - {e.agent_id for e in self.log.events if isinstance(e, AgentFinished)})

    @property
    def _gap_tokens(self) -> int | None:
        counted = None if self._end is None else self._end.engine_computed_tokens
        return None if counted is None else counted - Group("", self.calls).computed_tokens

    def _cost(self) -> Table:
        figures, percent = self._figures, run_tables.maybe_percent
        prompt, calls = figures["prompt_tokens"] or 0, figures["calls"] or 0
        shared = figures["shared_prefix_tokens"]
        workload = (
            f"{prompt / calls:,.0f} tokens a prompt, {shared or 0:,} of them shared by all"
            if calls
            else ""
        )
        rows = [
            ("computed tokens per task", _number(figures["computed_tokens_per_task"]),
             f"{figures['tasks']:,} task{'' if figures['tasks'] == 1 else 's'}"),
            ("hit rate / ceiling", _number(figures["hit_rate_of_ceiling"], 4),
             "1: no cache could serve more of these prompts"),
            ("hit rate", percent(figures["hit_rate"]),
             f"ceiling {percent(figures['hit_rate_ceiling'])}; {workload}" if calls else ""),
            ("prefill redundancy", _number(figures["prefill_redundancy"], 3),
             "computed / distinct tokens; 1: nothing was computed twice"),
            ("prompt tokens", _number(prompt), f"{_number(figures['cached_tokens'])} cached, "
             f"{_number(figures['computed_tokens'])} computed"),
            ("generated tokens", _number(figures["generated_tokens"]), ""),
            ("calls", _number(calls), f"{_number(figures['running_mean'], 1)} at once on average"),
            ("overhead share", percent(figures["overhead_share"]),
             f"{_number(figures['wall_s'], 1)} s, the engine busy in "
             f"{_number(figures['engine_busy_s'], 1)} s"),
        ]  # fmt: skip
        return Table("What the run cost", ("", "", "remark"), tuple(rows))

    def _prefill(self) -> Table:
        rows = []
        for one in Warmth:
            times_ms, ttft_ms = self.prefill_ms(one), self.ttft_alone_ms(one)
            if not times_ms:
                continue
            computed = [c.computed_tokens or 0 for c in self.by_warmth[one]]
            rows.append(
                (
                    _WARMTH[one],
                    f"{len(times_ms):,}",
                    f"{percentile(computed, 50):,.0f}",
                    *(f"{percentile(times_ms, p):,.0f}" for p in (50, 90, 100)),
                    f"{len(ttft_ms):,}",
                    f"{percentile(ttft_ms, 50):,.0f}" if ttft_ms else "-",
                )
            )
        header = ("shared prefix", "calls", "computed p50", "prefill p50 ms", "p90", "max")
        return Table("Prefill", (*header, "ran alone", "their TTFT p50 ms"), tuple(rows))


_WARMTH = {
    Warmth.COLD: "cold: none of it cached",
    Warmth.WARM: "warm: all of it cached",
    Warmth.OTHER: "a part of it, or no such prefix",
}


def _sums(group: Group) -> dict[str, object]:
    return {
        "name": group.name,
        "calls": len(group.calls),
        "prompt_tokens": group.prompt_tokens,
        "cached_tokens": group.cached_tokens,
        "computed_tokens": group.computed_tokens,
        "generated_tokens": group.generated_tokens,
        "hit_rate": group.hit_rate,
    }


def _call(one: CallCauses) -> dict[str, object]:
    call = msgspec.to_builtins(one.call)
    for bulky in ("event", "blocks", "segments"):
        call.pop(bulky)
    return {
        **call,
        "ceiling_tokens": one.ceiling_tokens,
        "causes": {str(cause): one.tokens.get(cause, 0) for cause in Cause},
        "layout": [msgspec.to_builtins(copy) for copy in one.layout],
    }


def _number(value: float | int | None, digits: int = 0) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"

"""The token ledger: figures of a run, of one agent, computed from its events and nothing else.

Feed it events as they are emitted, or from a log; both give the same figures. Names of figures are
those of `docs/measure.md`; one that can't be known is `None`.

A ledger reads no blobs. So it can't tell what a layout cost: `miss_layout_tokens` is `None` and
those tokens count as `first_use`, until `take_causes` brings what `RunLog` has found.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from rlm_runtime.profiler.cache_model import CacheHistory
from rlm_runtime.profiler.causes import CallCauses, Cause, by_cause
from rlm_runtime.tracing import (
    AgentFinished,
    AgentStarted,
    AnyEvent,
    CallFinished,
    EngineStarted,
    RunFinished,
    ValueRead,
    ValueStored,
)
from rlm_runtime.types import Usage

Figures = Mapping[str, float | int | None]

MEASUREMENTS = frozenset({"batching", "ttft"})
"""Kinds of agents that measure beside a run; its figures are those of its questions."""


@dataclass(slots=True)
class Tally:
    """Sums over the finished calls of one agent, or of a whole run.

    Attributes:
        usage: Token sums.
        hit_rates: Hit rate of each call with facts.
        busy: `[scheduled, last token]` of each request, engine clock, seconds.
        depth_max: Deepest agent that made a call.
        prompt_tokens_max: Longest prompt.
        reruns: Scored requests that were computed twice.
        loaded_tokens: Tokens of stored values that entered prompts.
        wall_s: Wall time of the agents, or of the run.
        preemptions: Times the engine threw a call's KV away and computed it again.
    """

    usage: Usage = field(default_factory=Usage)
    hit_rates: list[float] = field(default_factory=list)
    busy: list[tuple[float, float]] = field(default_factory=list)
    depth_max: int = 0
    prompt_tokens_max: int = 0
    reruns: int = 0
    loaded_tokens: int = 0
    wall_s: float | None = None
    preemptions: int = 0

    def add(self, call: CallFinished) -> None:
        """Count one call."""
        self.depth_max = max(self.depth_max, call.depth)
        if call.prompt_tokens is None:
            if call.admitted_at_s is not None:
                self.usage += Usage(calls=1, calls_without_facts=1)
            return
        cached, computed = call.cached_tokens or 0, call.computed_tokens or 0
        runs = call.runs or 1
        self.usage += Usage(
            calls=1,
            prompt_tokens=call.prompt_tokens,
            cached_tokens=cached,
            computed_tokens=computed,
            generated_tokens=call.generated_tokens or 0,
        )
        self.hit_rates.append(cached / call.prompt_tokens)
        self.prompt_tokens_max = max(self.prompt_tokens_max, call.prompt_tokens // runs)
        self.reruns += runs - 1
        self.preemptions += call.preemptions or 0
        if call.scheduled_at_s is not None and call.finished_at_s is not None:
            self.busy.append((call.scheduled_at_s, call.finished_at_s))

    def figures(self) -> dict[str, float | int | None]:
        """The figures that an agent and a run both have."""
        usage = self.usage
        busy_s = _union_s(self.busy)
        request_s = sum(end - start for start, end in self.busy)
        return {
            "prompt_tokens": usage.prompt_tokens,
            "cached_tokens": usage.cached_tokens,
            "computed_tokens": usage.computed_tokens,
            "generated_tokens": usage.generated_tokens,
            "hit_rate": usage.hit_rate,
            "hit_rate_call_mean": _mean(self.hit_rates),
            "calls": usage.calls,
            "calls_without_facts": usage.calls_without_facts,
            "calls_computed_twice": self.reruns,
            "depth_max": self.depth_max,
            "running_mean": request_s / busy_s if busy_s else None,
            "prompt_tokens_max": self.prompt_tokens_max,
            "loaded_tokens": self.loaded_tokens,
            "wall_s": self.wall_s,
            "engine_busy_s": busy_s,
            "overhead_share": None if not self.wall_s else max(0.0, 1 - busy_s / self.wall_s),
            "preempted_tokens": _preempted_tokens(self.preemptions),
        }


@dataclass(slots=True)
class Misses:
    """Against the infinite cache: sums over calls with facts.

    Attributes:
        prompt_tokens: Their prompts.
        cached_tokens: Of these, what the engine took from its cache.
        ceiling_tokens: Of these, what an infinite cache would have served.
        needed_tokens: Of these, what no call of the run had computed before.
        causes: Computed tokens by cause.
    """

    prompt_tokens: int = 0
    cached_tokens: int = 0
    ceiling_tokens: int = 0
    needed_tokens: int = 0
    causes: dict[Cause, int] = field(default_factory=lambda: dict.fromkeys(Cause, 0))

    def add(self, other: Misses) -> None:
        """Add those of other calls."""
        self.prompt_tokens += other.prompt_tokens
        self.cached_tokens += other.cached_tokens
        self.ceiling_tokens += other.ceiling_tokens
        self.needed_tokens += other.needed_tokens
        for cause, tokens in other.causes.items():
            self.causes[cause] += tokens

    def figures(self, *, knows_ids: bool, has_salts: bool) -> dict[str, float | int | None]:
        """Their figures."""
        known: dict[str, int | None] = {
            f"miss_{cause}_tokens": tokens for cause, tokens in self.causes.items()
        }
        if not knows_ids:
            known["miss_layout_tokens"] = None
            known["miss_salt_tokens"] = None if has_salts else 0
        computed = sum(self.causes.values())
        return {
            "hit_rate_ceiling": _ratio(self.ceiling_tokens, self.prompt_tokens),
            "hit_rate_of_ceiling": _ratio(self.cached_tokens, self.ceiling_tokens),
            "prefill_redundancy": _ratio(computed, self.needed_tokens),
            **known,
        }


class Ledger:
    """All tallies of a run.

    Memory grows with the run: per call some 300 bytes and 8 a block of its prompt, and 100 for each
    block that differs from all others. Figures cost the calls since they were last asked for; all
    calls when one comes late, scheduled before another that had been counted.
    """

    def __init__(self, events: Iterable[AnyEvent] = ()) -> None:
        self._run = Tally()
        self._agents: dict[str, Tally] = {}
        self._measured = Tally()
        self._measuring: set[str] = set()
        self._children: set[str] = set()
        self._engine: EngineStarted | None = None
        self._end: RunFinished | None = None
        self._stored: dict[tuple[str, int], int] = {}
        self._stored_is_estimated = False
        self._history = CacheHistory()
        self._callers: list[str] = []
        self._misses: defaultdict[str, Misses] = defaultdict(Misses)
        self._knows_ids = False
        self._has_salts = False
        for event in events:
            self.add(event)

    def add(self, event: AnyEvent) -> None:
        """Count one event."""
        self._history.add(event)
        match event:
            case CallFinished():
                self._callers.append(event.agent_id)
                self._has_salts |= event.salt_digest is not None
                self._whole(event.agent_id).add(event)
                self._agent(event.agent_id).add(event)
            case ValueRead():
                self._whole(event.reader).loaded_tokens += event.tokens
                self._agent(event.reader).loaded_tokens += event.tokens
            case ValueStored():
                self._stored[event.name, event.version] = event.tokens
                self._stored_is_estimated |= event.is_estimated
            case AgentStarted():
                if event.kind in MEASUREMENTS:
                    self._measuring.add(event.agent_id)
                if event.parent_id is not None:
                    self._children.add(event.agent_id)
            case AgentFinished():
                self._agent(event.agent_id).wall_s = event.wall_s
                if event.agent_id in self._children:
                    return  # its time is part of its parent's
                whole = self._whole(event.agent_id)
                whole.wall_s = (whole.wall_s or 0.0) + event.wall_s
            case EngineStarted():
                self._engine = event
            case RunFinished():
                self._end = event
            case _:
                return

    def take_causes(self, causes: Iterable[CallCauses], *, knows_ids: bool) -> None:
        """Use causes that were found with more than the events; no event may follow.

        Args:
            causes: Of all calls with facts, as `causes.attribute` gives them.
            knows_ids: They were found with all token ids.
        """
        self._settle()
        given: defaultdict[str, dict[Cause, int]] = defaultdict(lambda: dict.fromkeys(Cause, 0))
        for call in causes:
            for cause, tokens in call.tokens.items():
                given[call.call.agent_id][cause] += tokens
        for agent_id, misses in self._misses.items():
            misses.causes = given[agent_id]
        self._knows_ids = knows_ids

    def agent_figures(self, agent_id: str) -> Figures:
        """Figures of one agent's own calls, within the whole run's history of the cache."""
        self._settle()
        return {
            **self._agent(agent_id).figures(),
            **self._miss_figures(self._misses[agent_id]),
        }

    def agents(self) -> tuple[str, ...]:
        """Agents that did something, in the order in which they first did."""
        return tuple(self._agents)

    def figures(self) -> Figures:
        """Figures of the run's questions. `wall_s` is their time together, boot not included.

        What was measured beside them (`MEASUREMENTS`) is left out, but of a run that did nothing
        else. The engine's own counters know no such difference: they are
        `computed_tokens + measurement_computed_tokens`.
        """
        self._settle()
        engine, end = self._engine, self._end
        stored = sum(self._stored.values())
        asked = [agent for agent in self._agents if agent not in self._measuring]
        whole, beside = (self._run, self._measured) if asked else (self._measured, self._run)
        misses = Misses()
        for agent_id in asked or self._agents:
            misses.add(self._misses[agent_id])
        preemptions = whole.preemptions if end is None else end.engine_preemptions
        return {
            **whole.figures(),
            **self._miss_figures(misses),
            "preempted_tokens": _preempted_tokens(preemptions),
            "measurement_computed_tokens": beside.usage.computed_tokens,
            "engine_computed_tokens": None if end is None else end.engine_computed_tokens,
            "engine_preemptions": None if end is None else end.engine_preemptions,
            "stored_tokens": stored,
            "stored_tokens_estimated": int(self._stored_is_estimated),
            "loaded_share": whole.loaded_tokens / stored if stored else None,
            "shared_prefix_tokens": None if engine is None else engine.shared_prefix_tokens,
            "block_size": None if engine is None else engine.block_size,
            "kv_tokens": None if engine is None else engine.kv_blocks * engine.block_size,
            "boot_s": None if engine is None else engine.boot_s,
        }

    def _settle(self) -> None:
        is_anew, judged = self._history.settle()
        if is_anew:
            self._misses.clear()
        for reuse in judged:
            lookup = reuse.lookup
            self._misses[self._callers[lookup.number]].add(
                Misses(
                    prompt_tokens=lookup.prompt_tokens * lookup.runs,
                    cached_tokens=lookup.cached_tokens,
                    ceiling_tokens=reuse.ceiling_tokens,
                    needed_tokens=reuse.needed_tokens,
                    causes=by_cause(reuse),
                )
            )

    def _miss_figures(self, misses: Misses) -> dict[str, float | int | None]:
        return misses.figures(knows_ids=self._knows_ids, has_salts=self._has_salts)

    def _whole(self, agent_id: str) -> Tally:
        return self._measured if agent_id in self._measuring else self._run

    def _agent(self, agent_id: str) -> Tally:
        return self._agents.setdefault(agent_id, Tally())


def _preempted_tokens(preemptions: int | None) -> int | None:
    """Tokens computed again after preemptions: vLLM counts how often, not how many."""
    return 0 if preemptions == 0 else None


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _union_s(intervals: list[tuple[float, float]]) -> float:
    """Length of the union of intervals, seconds."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(intervals):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total

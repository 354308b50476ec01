"""The token ledger: figures of a run, of one agent, computed from its events and nothing else.

Feed it events as they are emitted, or from a log; both give the same figures. Names of figures are
those of `docs/measure.md`; one that can't be known is `None`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from rlm_runtime.tracing import (
    AgentFinished,
    AnyEvent,
    CallFinished,
    EngineStarted,
    RunFinished,
    ValueRead,
    ValueStored,
)
from rlm_runtime.types import Usage

Figures = Mapping[str, float | int | None]


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
    """

    usage: Usage = field(default_factory=Usage)
    hit_rates: list[float] = field(default_factory=list)
    busy: list[tuple[float, float]] = field(default_factory=list)
    depth_max: int = 0
    prompt_tokens_max: int = 0
    reruns: int = 0
    loaded_tokens: int = 0
    wall_s: float | None = None

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
        }


class Ledger:
    """All tallies of a run."""

    def __init__(self, events: Iterable[AnyEvent] = ()) -> None:
        self._run = Tally()
        self._agents: dict[str, Tally] = {}
        self._engine: EngineStarted | None = None
        self._end: RunFinished | None = None
        self._stored: dict[tuple[str, int], int] = {}
        self._stored_is_estimated = False
        for event in events:
            self.add(event)

    def add(self, event: AnyEvent) -> None:
        """Count one event."""
        match event:
            case CallFinished():
                self._run.add(event)
                self._agent(event.agent_id).add(event)
            case ValueRead():
                self._run.loaded_tokens += event.tokens
                self._agent(event.reader).loaded_tokens += event.tokens
            case ValueStored():
                self._stored[event.name, event.version] = event.tokens
                self._stored_is_estimated |= event.is_estimated
            case AgentFinished():
                self._agent(event.agent_id).wall_s = event.wall_s
                self._run.wall_s = (self._run.wall_s or 0.0) + event.wall_s
            case EngineStarted():
                self._engine = event
            case RunFinished():
                self._end = event
            case _:
                return

    def agent_figures(self, agent_id: str) -> Figures:
        """Figures of one agent's own calls."""
        return self._agent(agent_id).figures()

    def agents(self) -> tuple[str, ...]:
        """Agents that did something, in the order in which they first did."""
        return tuple(self._agents)

    def figures(self) -> Figures:
        """Figures of the whole run. `wall_s` is the agents' time together, boot not included."""
        engine, end = self._engine, self._end
        stored = sum(self._stored.values())
        return {
            **self._run.figures(),
            "engine_computed_tokens": None if end is None else end.engine_computed_tokens,
            "engine_preemptions": None if end is None else end.engine_preemptions,
            "stored_tokens": stored,
            "stored_tokens_estimated": int(self._stored_is_estimated),
            "loaded_share": self._run.loaded_tokens / stored if stored else None,
            "shared_prefix_tokens": None if engine is None else engine.shared_prefix_tokens,
            "block_size": None if engine is None else engine.block_size,
            "kv_tokens": None if engine is None else engine.kv_blocks * engine.block_size,
            "boot_s": None if engine is None else engine.boot_s,
        }

    def _agent(self, agent_id: str) -> Tally:
        return self._agents.setdefault(agent_id, Tally())


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _union_s(intervals: list[tuple[float, float]]) -> float:
    """Length of the union of intervals, seconds."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(intervals):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total

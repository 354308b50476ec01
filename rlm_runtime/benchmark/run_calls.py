"""The calls of a recorded run in the ways a report looks at them: cold or warm, alone, in groups.

A call is *cold* when no block of the shared prefix came from the cache, *warm* when all of its
whole blocks did. Prompts that do not begin with the shared prefix, and those that found a part of
it, are neither.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from rlm_runtime.benchmark.ttft_result import Sample, Series, TtftResult
from rlm_runtime.profiler.causes import CallCauses
from rlm_runtime.profiler.ledger import MEASUREMENTS
from rlm_runtime.tracing import AgentStarted, AnyEvent, CallFinished, EngineStarted

_ARM = "quality-"
"""How kinds of agents begin that answer a question in one of several ways (`arms.py`): several for
a question, and calls that one has made serve the others."""

_TTFT_LABEL = "ttft "


class Warmth(StrEnum):
    """What a call found of the shared prefix."""

    COLD = "cold"
    WARM = "warm"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Group:
    """Calls that belong together, with their sums.

    Attributes:
        name: What they have in common.
        calls: Those with facts, in the order in which they were scheduled.
    """

    name: str
    calls: tuple[CallCauses, ...]

    @property
    def prompt_tokens(self) -> int:
        """Sum over the calls."""
        return sum(c.call.prompt_tokens or 0 for c in self.calls)

    @property
    def cached_tokens(self) -> int:
        """Sum over the calls."""
        return sum(c.call.cached_tokens or 0 for c in self.calls)

    @property
    def computed_tokens(self) -> int:
        """Sum over the calls."""
        return sum(c.call.computed_tokens or 0 for c in self.calls)

    @property
    def generated_tokens(self) -> int:
        """Sum over the calls."""
        return sum(c.call.generated_tokens or 0 for c in self.calls)

    @property
    def hit_rate(self) -> float | None:
        """Token-weighted."""
        return self.cached_tokens / self.prompt_tokens if self.prompt_tokens else None


def grouped(calls: Iterable[CallCauses], key: Callable[[CallFinished], str]) -> list[Group]:
    """Calls by a key, the groups that computed most first."""
    groups: dict[str, list[CallCauses]] = {}
    for one in calls:
        groups.setdefault(key(one.call), []).append(one)
    found = [Group(name, tuple(members)) for name, members in groups.items()]
    return sorted(found, key=lambda group: -group.computed_tokens)


def warmth(call: CallFinished, engine: EngineStarted | None) -> Warmth:
    """What a call with facts found of the shared prefix of its engine.

    Args:
        call: As recorded.
        engine: The one that served it; `None` is not known.
    """
    first = call.segments[0] if call.segments else None
    if engine is None or first is None or first.kind != "shared":
        return Warmth.OTHER
    cached = call.cached_tokens or 0
    if not cached:
        return Warmth.COLD
    whole = engine.shared_prefix_tokens // engine.block_size * engine.block_size
    return Warmth.WARM if cached >= whole else Warmth.OTHER


def alone(events: Iterable[AnyEvent]) -> frozenset[tuple[str, float]]:
    """The requests during which no other one was with the engine, by id and end.

    Ids alone begin anew with a new engine.
    """
    admitted = sorted(
        (e.admitted_at_s, e.at_s, e.request_id)
        for e in events
        if isinstance(e, CallFinished) and e.admitted_at_s is not None
    )
    found, reached_s = set(), float("-inf")
    for number, (start_s, end_s, request_id) in enumerate(admitted):
        next_s = admitted[number + 1][0] if number + 1 < len(admitted) else float("inf")
        if reached_s <= start_s and end_s <= next_s:
            found.add((request_id, end_s))
        reached_s = max(reached_s, end_s)
    return frozenset(found)


def tasks(events: Iterable[AnyEvent]) -> dict[str, str]:
    """The task that each agent works for: the id of its root, which is no measurement's."""
    roots: dict[str, str] = {}
    for event in events:
        if isinstance(event, AgentStarted):
            if event.parent_id is None:
                if event.kind not in MEASUREMENTS and not event.kind.startswith(_ARM):
                    roots[event.agent_id] = event.agent_id
            elif event.parent_id in roots:
                roots[event.agent_id] = roots[event.parent_id]
    return roots


def ttft_result(events: Sequence[AnyEvent]) -> TtftResult | None:
    """The samples of `rlm-bench ttft`, or of the pairs at a run's end, out of the log.

    Args:
        events: Of a run.

    Returns:
        `None` when the run measured none.
    """
    engine = next((e for e in events if isinstance(e, EngineStarted)), None)
    calls = [e for e in events if isinstance(e, CallFinished) and e.ttft_s is not None]
    series = {f"{_TTFT_LABEL}{one}": one for one in Series}
    samples = [_sample(c, series[c.label], engine) for c in calls if c.label in series]
    if engine is None or not samples:
        return None
    return TtftResult(
        samples=tuple(samples),
        planned_samples=len(samples),
        seed=0,
        shared_prefix_tokens=engine.shared_prefix_tokens,
        block_size=engine.block_size,
        kv_tokens=engine.block_size * engine.kv_blocks,
    )


def _sample(call: CallFinished, series: Series, engine: EngineStarted | None) -> Sample:
    """The round is not in the log, and no figure depends on it."""
    cached, size = call.cached_tokens or 0, engine.block_size if engine else 1
    # Equal tokens end with the first segment: the shared prefix, or what stands on top of it.
    common = call.segments[0].end // size * size if call.segments else 0
    is_variable = series is Series.VARIABLE
    expected = min(cached, common) if is_variable else 0 if series.is_cold else common
    return Sample(
        series=series,
        round=0,
        ttft_s=call.ttft_s or 0.0,
        prefill_s=call.prefill_s or 0.0,
        queue_s=call.queue_s or 0.0,
        prompt_tokens=call.prompt_tokens or 0,
        cached_tokens=cached,
        expected_cached_tokens=expected,
    )

"""Sub-calls as one batch against the same number one after another.

Each call has the shared prefix, which is resident, and 32 tokens of its own, and generates 32
tokens. Four arms, next to each other in every repeat, in alternating order, each with new texts:

    scheduler   batched, in turn     as agents make calls: what users get
    engine      batched, in turn     requests given to the engine directly: what it could give

The direct requests stand in no event log: the engine's own counters are ahead of the log by
`BatchingResult.direct_computed_tokens`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import assert_never

import anyio

from rlm_runtime.api import Internals
from rlm_runtime.benchmark.batching_result import GENERATED_TOKENS, Arm, ArmRun, BatchingResult
from rlm_runtime.benchmark.bench import Bench, bench
from rlm_runtime.benchmark.ttft_result import OWN_TOKENS
from rlm_runtime.engine.base import Engine, Finished, GenerateRequest, RequestFacts
from rlm_runtime.errors import EngineError, InputError, LimitExceeded, RLMError
from rlm_runtime.scheduler import Call
from rlm_runtime.types import RequestId

OnRun = Callable[[BatchingResult], None]
"""Gets everything so far; the newest run is the last. Quick, in the event loop."""


async def measure(
    parts: Internals,
    *,
    repeats: int,
    seed: int,
    calls: int = 16,
    on_run: OnRun | None = None,
) -> BatchingResult:
    """Measure all arms on a started engine that serves nobody else meanwhile.

    The prefix cache is emptied before each repeat and then given the shared prefix again. One
    batch goes before all others and is not counted.

    Costs `repeats * 4 * calls` short requests: on two CPU cores about a minute a repeat.

    Args:
        parts: A started session's.
        repeats: Runs of each arm, >= 1; 5 or more for an interval.
        seed: Of texts and intervals.
        calls: Of one run, >= 1.
        on_run: Called after each run.

    Raises:
        InputError: `repeats` or `calls` is below 1.
        QueueFull: `calls` is more than the scheduler may hold.
        EngineError: A request is running.
        EngineDead: The engine's process ended.
    """
    if min(repeats, calls) < 1:
        raise InputError(
            f"{repeats} repeats of {calls} calls can't be measured.", "Take at least 1 of each."
        )
    arms = tuple(Arm)
    plan = [(r, arm) for r in range(repeats) for arm in (arms if r % 2 == 0 else arms[::-1])]
    taken: list[ArmRun] = []

    def result() -> BatchingResult:
        max_running = parts.engine.info.max_running
        return BatchingResult(tuple(taken), len(plan), seed, calls, max_running)

    with bench(parts, "batching", seed) as measurement:
        await _refresh(measurement)
        await _run(measurement, Arm.SCHEDULER_BATCHED, 0, calls, "batching warm-up")
        for position, (repeat, arm) in enumerate(plan):
            if position % len(arms) == 0:
                await _refresh(measurement)
            taken.append(await _run(measurement, arm, repeat, calls, f"batching {arm}"))
            if on_run is not None:
                on_run(result())
    return result()


async def _refresh(measurement: Bench) -> None:
    """Leave nothing but the shared prefix in the cache."""
    await measurement.forget_cache()
    made = measurement.maker.make(OWN_TOKENS)
    await measurement.run(measurement.call(made.prompt, "batching shared prefix"))


async def _run(measurement: Bench, arm: Arm, repeat: int, calls: int, label: str) -> ArmRun:
    made = [measurement.maker.make(OWN_TOKENS) for _ in range(calls)]
    # Built before the clock starts; each arm uses one of the two.
    scheduled = [measurement.call(one.prompt, label, GENERATED_TOKENS) for one in made]
    direct = [
        GenerateRequest(
            request_id=RequestId(f"{measurement.agent_id}-{arm}-{repeat}-{number}"),
            prompt_ids=one.prompt.ids,
            max_tokens=GENERATED_TOKENS,
            ignore_eos=True,
        )
        for number, one in enumerate(made)
    ]
    engine, clock = measurement.parts.engine, measurement.parts.recorder.now
    began_s = clock()
    match arm:
        case Arm.SCHEDULER_BATCHED:
            facts = await _scheduled_batch(measurement, scheduled)
        case Arm.SCHEDULER_IN_TURN:
            facts = [(await measurement.run(call)).facts for call in scheduled]
        case Arm.ENGINE_BATCHED:
            facts = await _direct_batch(engine, direct)
        case Arm.ENGINE_IN_TURN:
            facts = [await _direct(engine, request) for request in direct]
        case _:
            assert_never(arm)
    wall_s = clock() - began_s
    return ArmRun(
        arm=arm,
        repeat=repeat,
        calls=calls,
        wall_s=wall_s,
        prompt_tokens=sum(f.prompt_tokens for f in facts),
        cached_tokens=sum(f.cached_tokens for f in facts),
        expected_cached_tokens=sum(one.expected_cached_tokens for one in made),
        generated_tokens=sum(f.generated_tokens for f in facts),
    )


async def _scheduled_batch(measurement: Bench, calls: Sequence[Call]) -> list[RequestFacts]:
    facts = []
    for outcome in await measurement.parts.scheduler.run_all(measurement.job, calls):
        if isinstance(outcome, LimitExceeded):
            raise outcome
        facts.append(outcome.facts)
    return facts


async def _direct_batch(engine: Engine, requests: Sequence[GenerateRequest]) -> list[RequestFacts]:
    facts: list[RequestFacts] = []

    async def one(request: GenerateRequest) -> None:
        facts.append(await _direct(engine, request))

    try:
        async with anyio.create_task_group() as group:
            for request in requests:
                group.start_soon(one, request)
    except* RLMError as errors:
        raise errors.exceptions[0] from errors
    return facts


async def _direct(engine: Engine, request: GenerateRequest) -> RequestFacts:
    async with aclosing(engine.generate(request)) as stream:
        async for item in stream:
            if isinstance(item, Finished):
                return item.facts
    raise EngineError(f"Request {request.request_id} ended without facts.", "Report this.")

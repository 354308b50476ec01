"""Batched against in turn, on an engine in which requests that run together decode at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest

from rlm_runtime.benchmark.batching import measure
from rlm_runtime.benchmark.batching_result import Arm, BatchingResult
from rlm_runtime.engine.base import GenerateRequest
from rlm_runtime.errors import EngineDead, InputError
from rlm_runtime.tracing import AgentFinished, CallFinished

if TYPE_CHECKING:
    from tests.unit.benchmark.conftest import Rig

pytestmark = pytest.mark.anyio


async def test_a_batch_is_as_many_times_faster_as_it_has_calls(rig: Rig) -> None:
    result = await measure(rig.parts, repeats=5, seed=0, calls=4)
    figures = result.figures()
    for end in ("", "_low", "_high"):
        assert figures[f"batch_speedup{end}"] == pytest.approx(4)
        assert figures[f"engine_batch_speedup{end}"] == pytest.approx(4)
    assert (figures["batch_calls"], figures["batch_repeats"]) == (4, 5)
    assert rig.engine.most_running == 4


async def test_the_scheduler_s_batch_waits_where_the_engine_runs_fewer(rig: Rig) -> None:
    result = await measure(rig.parts, repeats=1, seed=0, calls=80)
    assert rig.engine.max_running == 64
    assert result.figures()["batch_speedup"] == pytest.approx(40)  # two waves
    assert any("runs 64 requests at once" in note for note in result.notes())


async def test_arms_are_interleaved_and_their_order_alternates(rig: Rig) -> None:
    result = await measure(rig.parts, repeats=2, seed=0, calls=2)
    order = [run.arm for run in result.runs]
    assert order == [*Arm, *reversed(Arm)]
    assert [run.repeat for run in result.runs] == [0] * 4 + [1] * 4


async def test_every_call_is_warm_and_generates_all_its_tokens(rig: Rig) -> None:
    result = await measure(rig.parts, repeats=2, seed=0, calls=3)
    shared = len(rig.parts.layout.shared_ids)
    for run in result.runs:
        assert run.cached_tokens == run.expected_cached_tokens == 3 * (shared // 32 * 32)
        assert run.prompt_tokens == 3 * (shared + 32)
        assert run.generated_tokens == 3 * 32
    assert all(request.ignore_eos for request in rig.engine.seen)
    assert len({request.prompt_ids for request in rig.engine.seen}) == len(rig.engine.seen)


async def test_what_no_event_has_is_counted(rig: Rig) -> None:
    result = await measure(rig.parts, repeats=2, seed=0, calls=3)
    logged = [e for e in rig.events if isinstance(e, CallFinished)]
    computed = sum(e.computed_tokens or 0 for e in logged)
    direct = [r for r in rig.engine.seen if r.request_id.startswith("batching")]
    assert len(direct) == 2 * 2 * 3
    assert len(logged) + len(direct) == len(rig.engine.seen)
    shared = len(rig.parts.layout.shared_ids)
    assert result.direct_computed_tokens == len(direct) * (shared % 32 + 32)
    assert computed > 0


async def test_a_run_that_was_not_warm_is_left_out_and_said(rig: Rig) -> None:
    def evict(request: GenerateRequest) -> None:
        if request.request_id.endswith("engine_in_turn-0-1"):
            rig.engine.resident.clear()

    rig.engine.on_request = evict
    result = await measure(rig.parts, repeats=2, seed=0, calls=3)
    assert len(result.of(Arm.ENGINE_IN_TURN)) == 1
    assert result.figures()["batch_repeats"] == 1
    assert "Left out: 1 of 8 runs, in which not all calls were warm." in result.notes()


async def test_a_cancelled_measurement_leaves_what_it_had(rig: Rig) -> None:
    heard: list[BatchingResult] = []
    with anyio.CancelScope() as scope:

        def hear(result: BatchingResult) -> None:
            heard.append(result)
            if len(result.runs) == 3:
                scope.cancel()

        await measure(rig.parts, repeats=2, seed=0, calls=2, on_run=hear)
    assert scope.cancelled_caught
    last = heard[-1]
    assert last.notes()[-1] == "Ended early, after 3 of 8 runs."
    assert last.figures()["batch_speedup"] == pytest.approx(2)
    assert last.figures()["engine_batch_speedup"] is None
    assert rig.engine.running == 0


async def test_an_error_of_a_batched_request_comes_out_as_itself(rig: Rig) -> None:
    def die(request: GenerateRequest) -> None:
        if request.request_id.startswith("batching"):
            raise EngineDead("it was killed")

    rig.engine.on_request = die
    with pytest.raises(EngineDead, match="it was killed"):
        await measure(rig.parts, repeats=1, seed=0, calls=3)
    (ended,) = (e for e in rig.events if isinstance(e, AgentFinished))
    assert ended.stop_reason == "engine_dead"


async def test_less_than_one_repeat_or_call_is_refused(rig: Rig) -> None:
    for repeats, calls in ((0, 1), (1, 0)):
        with pytest.raises(InputError):
            await measure(rig.parts, repeats=repeats, seed=0, calls=calls)
    assert rig.engine.seen == []

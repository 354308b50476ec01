"""Figures against sums made by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from rlm_runtime.profiler import Ledger
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

if TYPE_CHECKING:
    from tests.unit.profiler.conftest import Rig

CALL = CallFinished(
    at_s=1.0,
    request_id="r1",
    agent_id="a1",
    label="rank chunk",
    depth=0,
    group=None,
    outcome="ok",
    error_code=None,
    submitted_at_s=0.0,
    admitted_at_s=0.1,
    segments=(),
    blocks="",
    output_blob=None,
    reads_cache=True,
    salt_digest=None,
    max_tokens=1,
    temperature=0.0,
    shared_by=1,
    prompt_tokens=100,
    cached_tokens=60,
    computed_tokens=40,
    generated_tokens=1,
    runs=1,
    ttft_s=0.1,
    queue_s=0.0,
    prefill_s=0.1,
    decode_s=0.0,
    preemptions=0,
    scheduled_at_s=10.0,
    finished_at_s=12.0,
    finish_reason="length",
)


def changed(**fields: object) -> CallFinished:
    return msgspec.structs.replace(CALL, **fields)


EVENTS: list[AnyEvent] = [
    EngineStarted(
        at_s=0.0,
        model="m",
        backend="b",
        window=8192,
        block_size=32,
        kv_blocks=100,
        max_running=16,
        tokenizer_digest="t",
        shared_prefix_digest="s",
        shared_prefix_tokens=1100,
        boot_s=20.0,
    ),
    ValueStored(
        at_s=0.0,
        name="report",
        version=1,
        kind="str",
        size_bytes=4000,
        digest="d",
        writer="user",
        tokens=1000,
        is_estimated=False,
    ),
    CALL,
    changed(agent_id="a2", prompt_tokens=300, cached_tokens=0, computed_tokens=300, depth=1),
    changed(
        scheduled_at_s=11.0, finished_at_s=15.0, prompt_tokens=200, computed_tokens=140, runs=2
    ),
    changed(outcome="cancelled", prompt_tokens=None, cached_tokens=None),
    changed(outcome="cancelled", prompt_tokens=None, cached_tokens=None, admitted_at_s=None),
    ValueRead(
        at_s=2.0, reader="a1", name="report", version=1, start_byte=0, end_byte=900, tokens=250
    ),
    AgentFinished(
        at_s=3.0, agent_id="a1", stop_reason="final", found=True, result_blob=None, wall_s=8.0
    ),
    AgentFinished(
        at_s=3.0, agent_id="a2", stop_reason="final", found=True, result_blob=None, wall_s=2.0
    ),
    RunFinished(
        at_s=4.0,
        outcome="ok",
        error_code=None,
        engine_prompt_tokens=600,
        engine_cached_tokens=120,
        engine_computed_tokens=480,
        engine_generated_tokens=3,
        engine_preemptions=0,
        wall_s=30.0,
    ),
]


def test_run_figures_are_the_sums_of_the_events() -> None:
    figures = Ledger(EVENTS).figures()
    assert figures["prompt_tokens"] == 600
    assert figures["cached_tokens"] == 120
    assert figures["computed_tokens"] == figures["engine_computed_tokens"] == 480
    assert figures["hit_rate"] == pytest.approx(120 / 600)
    assert figures["hit_rate_call_mean"] == pytest.approx((0.6 + 0.0 + 0.3) / 3)
    assert figures["calls"] == 4
    assert figures["calls_without_facts"] == 1, "a call that never started is no engine request"
    assert figures["calls_computed_twice"] == 1
    assert figures["prompt_tokens_max"] == 300
    assert figures["depth_max"] == 1
    assert figures["loaded_share"] == pytest.approx(0.25)
    assert figures["kv_tokens"] == 3200


def test_busy_time_is_the_union_of_the_requests() -> None:
    figures = Ledger(EVENTS).figures()
    # [10, 12] twice and [11, 15]: five seconds of work for eight request-seconds.
    assert figures["engine_busy_s"] == pytest.approx(5.0)
    assert figures["running_mean"] == pytest.approx(8 / 5)
    assert figures["overhead_share"] == pytest.approx(0.5)


def test_agents_have_their_own_figures() -> None:
    ledger = Ledger(EVENTS)
    assert ledger.agents() == ("a1", "a2")
    assert ledger.agent_figures("a1")["prompt_tokens"] == 300
    assert ledger.agent_figures("a2")["prompt_tokens"] == 300
    assert ledger.agent_figures("a1")["loaded_tokens"] == 250


def test_what_cannot_be_known_is_null() -> None:
    figures = Ledger().figures()
    for name in ("hit_rate", "engine_computed_tokens", "loaded_share", "kv_tokens", "running_mean"):
        assert figures[name] is None, name


def test_the_ledger_tells_ceiling_causes_and_redundancy(rig: Rig) -> None:
    rig.call(range(64), agent="a1")
    rig.call([*range(64), *range(100, 120)], agent="a2", reads_cache=False)
    rig.call([*range(64), *range(100, 120)], agent="a2")
    ledger = Ledger(rig.events)
    whole, first, second = ledger.figures(), ledger.agent_figures("a1"), ledger.agent_figures("a2")
    assert (whole["miss_first_use_tokens"], whole["miss_skipped_tokens"]) == (64 + 16, 64)
    assert whole["miss_block_rounding_tokens"] == 4 + 4
    assert whole["miss_evicted_tokens"] == whole["miss_unexplained_tokens"] == 0
    assert whole["miss_salt_tokens"] == 0
    assert whole["miss_layout_tokens"] is None, "a ledger has no ids"
    assert whole["hit_rate_ceiling"] == pytest.approx((0 + 64 + 80) / (64 + 84 + 84))
    assert whole["hit_rate_of_ceiling"] == pytest.approx(80 / (64 + 80))
    # 64 tokens, a block and a rest of 4, and the same rest again were needed.
    assert whole["prefill_redundancy"] == pytest.approx((64 + 84 + 4) / (64 + 20 + 4))
    assert first["hit_rate_of_ceiling"] is None
    assert second["hit_rate_ceiling"] == pytest.approx((64 + 80) / (84 + 84))
    assert second["prefill_redundancy"] == pytest.approx((84 + 4) / (20 + 4))


def test_figures_asked_for_in_between_do_not_count_twice(rig: Rig) -> None:
    asked = Ledger()
    for blocks in (1, 3, 2):
        call = rig.call(range(16 * blocks), scheduled_at_s=10.0 - blocks)
        for event in rig.events if blocks == 1 else [call]:
            asked.add(event)
        asked.agent_figures("a")
    assert asked.figures() == Ledger(rig.events).figures()


def test_a_runs_figures_are_those_of_its_questions(rig: Rig) -> None:
    rig.agent("a1", "search")
    rig.call(range(64), agent="a1")
    asked = Ledger(rig.events).figures()
    rig.agent("ttft-1", "ttft")
    rig.reset()
    rig.call(range(200, 300), agent="ttft-1", prefill_s=9.0)
    rig.events.append(
        AgentFinished(
            at_s=3.0,
            agent_id="ttft-1",
            stop_reason="final",
            found=None,
            result_blob=None,
            wall_s=8.0,
        )
    )
    figures = Ledger(rig.events).figures()
    assert figures["measurement_computed_tokens"] == 100
    assert {**figures, "measurement_computed_tokens": 0} == asked


def test_a_run_that_only_measured_has_the_figures_of_that(rig: Rig) -> None:
    rig.agent("ttft-1", "ttft")
    rig.call(range(100), agent="ttft-1")
    figures = Ledger(rig.events).figures()
    assert (figures["calls"], figures["computed_tokens"]) == (1, 100)
    assert figures["miss_first_use_tokens"] == 96
    assert figures["measurement_computed_tokens"] == 0


@pytest.mark.parametrize(("preemptions", "tokens"), [(0, 0), (2, None)])
def test_recomputed_tokens_are_known_only_when_there_are_none(
    rig: Rig, preemptions: int, tokens: int | None
) -> None:
    rig.call(range(64), preemptions=preemptions)
    ledger = Ledger(rig.events)
    assert ledger.figures()["preempted_tokens"] == tokens
    assert ledger.agent_figures("a")["preempted_tokens"] == tokens


def test_without_ids_the_cost_of_salts_is_unknown(rig: Rig) -> None:
    rig.call(range(64), salt="x")
    assert Ledger(rig.events).figures()["miss_salt_tokens"] is None


def test_the_time_of_a_child_is_part_of_its_parents() -> None:
    begins = AgentStarted(
        at_s=0.0, agent_id="a1.1", parent_id="a1", depth=1, kind="search", task_blob=None
    )
    ends = AgentFinished(
        at_s=3.0, agent_id="a1.1", stop_reason="final", found=True, result_blob=None, wall_s=5.0
    )
    ledger = Ledger([begins, *EVENTS, ends])
    assert ledger.figures()["wall_s"] == 10.0
    assert ledger.agent_figures("a1.1")["wall_s"] == 5.0

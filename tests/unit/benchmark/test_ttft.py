"""Series of time to first token, on an engine whose times and cache are known."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import anyio
import pytest

from rlm_runtime.benchmark.ttft import measure, pairs
from rlm_runtime.benchmark.ttft_result import Sample, Series, TtftResult
from rlm_runtime.engine.base import GenerateRequest
from rlm_runtime.errors import EngineDead, EngineError, InputError
from rlm_runtime.tracing import AgentFinished, AgentStarted, CacheReset, CallFinished

if TYPE_CHECKING:
    from tests.unit.benchmark.conftest import Rig

pytestmark = pytest.mark.anyio

ALL = len(Series)


def calls(rig: Rig, label: str = "ttft ") -> list[CallFinished]:
    """Calls of the log that were counted, or those of a label."""
    found = [e for e in rig.events if isinstance(e, CallFinished)]
    return [e for e in found if e.label.startswith(label) and "warm-up" not in e.label]


async def test_each_series_finds_in_the_cache_what_it_means(rig: Rig) -> None:
    result = await measure(rig.parts, samples=4, seed=1)
    shared = len(rig.parts.layout.shared_ids)
    found = {s: {x.cached_tokens for x in result.of(s)} for s in Series}
    whole_blocks = shared // 32 * 32
    assert found == {
        Series.COLD: {0},
        Series.WARM: {whole_blocks},
        Series.VARIABLE: {0},
        Series.COLD_TAIL128: {0},
        Series.WARM_TAIL128: {whole_blocks},
    }
    assert {s: len(result.of(s)) for s in Series} == {
        Series.COLD: 4,
        Series.WARM: 4,
        Series.VARIABLE: 4,
        Series.COLD_TAIL128: 2,
        Series.WARM_TAIL128: 2,
    }
    assert result.is_complete


async def test_prompts_of_a_length_have_the_same_number_of_tokens(rig: Rig) -> None:
    result = await measure(rig.parts, samples=3, seed=0)
    shared = len(rig.parts.layout.shared_ids)
    for sample in result.samples:
        assert sample.prompt_tokens == shared + sample.series.own_tokens
    assert {request.max_tokens for request in rig.engine.seen} == {1}


async def test_figures_are_those_of_the_engine(rig: Rig) -> None:
    result = await measure(rig.parts, samples=6, seed=0)
    shared = len(rig.parts.layout.shared_ids)
    cold = shared + 32 + 1.0
    warm = shared % 32 + 32 + 1.0
    figures = result.figures()
    assert figures["ttft_cold_ms_p50"] == pytest.approx(cold)
    assert figures["ttft_warm_ms_p50"] == pytest.approx(warm)
    assert figures["ttft_variable_ms_p50"] == pytest.approx(cold)
    assert figures["ttft_saved_ms_p50"] == pytest.approx(cold - warm)
    for end in ("", "_low", "_high"):
        assert figures[f"ttft_warm_over_cold{end}"] == pytest.approx(warm / cold)
        assert figures[f"ttft_variable_over_cold{end}"] == pytest.approx(1.0)
    long = (warm + 96) / (cold + 96)
    assert figures["ttft_warm_over_cold_tail128"] == pytest.approx(long)
    assert figures["ttft_warm_over_cold_tail128_low"] is None  # three samples
    assert (figures["ttft_warm_n"], figures["ttft_warm_tail128_n"]) == (6, 3)
    assert (figures["shared_prefix_tokens"], figures["block_size"]) == (shared, 32)
    assert figures["kv_tokens"] == 32_000


async def test_the_samples_are_the_calls_of_the_log(rig: Rig) -> None:
    result = await measure(rig.parts, samples=2, seed=0)
    logged = [(c.label, c.ttft_s, c.prefill_s, c.queue_s, c.cached_tokens) for c in calls(rig)]
    assert logged == [
        (f"ttft {s.series}", s.ttft_s, s.prefill_s, s.queue_s, s.cached_tokens)
        for s in result.samples
    ]


async def test_each_cold_request_follows_a_reset_in_the_log(rig: Rig) -> None:
    await measure(rig.parts, samples=3, seed=0)
    told = [e for e in rig.events if isinstance(e, CacheReset | CallFinished)]
    before_cold = [
        isinstance(told[i - 1], CacheReset)
        for i, e in enumerate(told)
        if isinstance(e, CallFinished) and ("cold" in e.label)
    ]
    assert before_cold == [True] * 5
    # The warm-up has a request of each of the two cold series as well.
    assert rig.engine.resets == sum(isinstance(e, CacheReset) for e in told) == 5 + 2


async def test_one_request_is_in_flight(rig: Rig) -> None:
    await measure(rig.parts, samples=2, seed=0)
    assert rig.engine.most_running == 1


async def test_the_warm_up_is_in_the_log_but_no_sample(rig: Rig) -> None:
    result = await measure(rig.parts, samples=1, seed=0)
    labels = Counter(e.label for e in rig.events if isinstance(e, CallFinished))
    assert labels.pop("ttft warm-up") == ALL
    assert sum(labels.values()) == len(result.samples) == ALL


async def test_the_order_of_a_round_comes_from_the_seed(rig: Rig) -> None:
    orders = []
    for seed in (0, 0, 1):
        result = await measure(rig.parts, samples=8, seed=seed)
        orders.append([sample.series for sample in result.samples])
        assert [s.round for s in result.samples] == sorted(s.round for s in result.samples)
    assert orders[0] == orders[1] != orders[2]
    firsts = {next(s.series for s in result.samples if s.round == r) for r in range(8)}
    assert len(firsts) > 1


async def test_the_agent_stands_in_the_log_with_its_kind_and_end(rig: Rig) -> None:
    await measure(rig.parts, samples=1, seed=0)
    await pairs(rig.parts, 1)
    started = [e for e in rig.events if isinstance(e, AgentStarted)]
    ended = [e for e in rig.events if isinstance(e, AgentFinished)]
    assert [e.kind for e in started] == ["ttft", "ttft"]
    assert [e.agent_id for e in started] == [e.agent_id for e in ended]
    assert started[0].agent_id != started[1].agent_id
    assert {e.stop_reason for e in ended} == {"final"}
    assert {c.agent_id for c in calls(rig)} == {e.agent_id for e in started}


async def test_a_cold_sample_with_cached_tokens_ends_it_and_is_named(rig: Rig) -> None:
    heard: list[TtftResult] = []

    def hear(result: TtftResult) -> None:
        heard.append(result)
        rig.engine.can_reset = len(result.samples) < 7

    with pytest.raises(EngineError, match=r"Sample \d of the series cold\w* was not cold: 1,216"):
        await measure(rig.parts, samples=4, seed=0, on_sample=hear)
    assert len(heard[-1].samples) >= 7
    (ended,) = (e for e in rig.events if isinstance(e, AgentFinished))
    assert ended.stop_reason == "failed"


async def test_a_warm_sample_that_was_not_warm_is_reported_and_left_out(rig: Rig) -> None:
    seen = 0

    def evict(request: GenerateRequest) -> None:
        nonlocal seen
        seen += 1
        # Two pairs: cold, warm, warm, cold; the second request is the first warm one.
        if seen == 2:
            rig.engine.resident.clear()

    rig.engine.on_request = evict
    result = await pairs(rig.parts, 2)
    assert [s.is_as_meant for s in result.samples] == [True, False, True, True]
    assert result.figures()["ttft_warm_n"] == 1
    assert "Left out of warm: 1 of 2 samples, with 0 tokens cached instead of 1,216." in (
        result.notes()
    )


async def test_a_cancelled_measurement_leaves_what_it_had(rig: Rig) -> None:
    heard: list[TtftResult] = []
    with anyio.CancelScope() as scope:

        def hear(result: TtftResult) -> None:
            heard.append(result)
            if len(result.samples) == 4:
                scope.cancel()

        await measure(rig.parts, samples=20, seed=0, on_sample=hear)
    assert scope.cancelled_caught
    last = heard[-1]
    assert len(last.samples) == 4
    assert not last.is_complete
    assert last.notes()[-1] == "Ended early, after 4 of 80 samples."
    assert isinstance(last.figures()["ttft_cold_n"], int)
    (ended,) = (e for e in rig.events if isinstance(e, AgentFinished))
    assert ended.stop_reason == "cancelled"


async def test_a_dead_engine_leaves_what_was_measured(rig: Rig) -> None:
    heard: list[TtftResult] = []

    def die(request: GenerateRequest) -> None:
        if len(heard) == 3:
            raise EngineDead("it was killed")

    rig.engine.on_request = die
    with pytest.raises(EngineDead):
        await measure(rig.parts, samples=2, seed=0, on_sample=heard.append)
    assert len(heard[-1].samples) == 3
    (ended,) = (e for e in rig.events if isinstance(e, AgentFinished))
    assert ended.stop_reason == "engine_dead"


async def test_pairs_are_cold_and_warm_alternately_first(rig: Rig) -> None:
    result = await pairs(rig.parts, 3)
    assert [str(s.series) for s in result.samples] == [
        *("cold", "warm"),
        *("warm", "cold"),
        *("cold", "warm"),
    ]
    figures = result.figures()
    assert figures["ttft_warm_over_cold"] is not None
    assert figures["ttft_variable_over_cold"] is None
    assert figures["ttft_variable_ms_p50"] is None


async def test_a_reset_makes_the_session_forget_which_documents_were_read(rig: Rig) -> None:
    rig.parts.corpus.read.add("a document")
    await pairs(rig.parts, 1)
    assert "a document" not in rig.parts.corpus.read


async def test_less_than_one_sample_is_refused_before_anything_is_sent(rig: Rig) -> None:
    with pytest.raises(InputError):
        await measure(rig.parts, samples=0, seed=0)
    with pytest.raises(InputError):
        await pairs(rig.parts, 0)
    assert (rig.engine.seen, rig.events) == ([], [])


async def test_few_samples_are_said_to_be_few(rig: Rig) -> None:
    few = await measure(rig.parts, samples=2, seed=0)
    assert few.notes() == (
        "Fewer than 20 samples: cold 2, warm 2, variable 2, cold_tail128 1, warm_tail128 1.",
    )
    enough = await measure(rig.parts, samples=40, seed=0)
    assert enough.notes() == ()


async def test_detail_has_every_sample(rig: Rig) -> None:
    result = await measure(rig.parts, samples=2, seed=0)
    detail = result.detail()
    samples = detail["samples"]
    assert isinstance(samples, list)
    assert samples[0] == {
        "series": str(result.samples[0].series),
        "round": 0,
        "ttft_s": result.samples[0].ttft_s,
        "prefill_s": result.samples[0].prefill_s,
        "queue_s": result.samples[0].queue_s,
        "prompt_tokens": result.samples[0].prompt_tokens,
        "cached_tokens": result.samples[0].cached_tokens,
        "expected_cached_tokens": result.samples[0].expected_cached_tokens,
        "is_as_meant": True,
    }
    assert len(samples) == len(result.samples)


def test_distributions_are_those_of_the_samples() -> None:
    samples = tuple(
        Sample(Series.WARM, number, number / 10, number / 20, number / 20, 100, 64, 64)
        for number in range(1, 12)
    )
    detail = TtftResult(samples, 11, 0, 64, 32, 1000).detail()
    assert detail["series"] == {
        "warm": {
            "n": 11,
            "own_tokens": 32,
            "ttft_ms": pytest.approx({"p50": 600, "p90": 1000, "max": 1100}),
            "prefill_ms": pytest.approx({"p50": 300, "p90": 500, "max": 550}),
            "queue_ms": pytest.approx({"p50": 300, "p90": 500, "max": 550}),
        }
    }

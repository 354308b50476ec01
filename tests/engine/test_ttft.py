"""The series of time to first token and the arms of batching, on a real engine and its cache."""

from __future__ import annotations

import pytest

from rlm_runtime.api import Internals
from rlm_runtime.benchmark import batching, ttft
from rlm_runtime.benchmark.batching_result import GENERATED_TOKENS
from rlm_runtime.benchmark.ttft_result import Series

pytestmark = [pytest.mark.engine, pytest.mark.anyio]


async def test_every_series_is_what_it_says(parts: Internals) -> None:
    result = await ttft.measure(parts, samples=2, seed=0)
    shared, block_size = len(parts.layout.shared_ids), parts.engine.info.block_size
    found = {(s.series, s.cached_tokens) for s in result.samples}
    resident = shared // block_size * block_size
    assert found == {
        (Series.COLD, 0),
        (Series.WARM, resident),
        (Series.VARIABLE, 0),
        (Series.COLD_TAIL128, 0),
        (Series.WARM_TAIL128, resident),
    }
    for sample in result.samples:
        assert sample.is_as_meant
        assert sample.prompt_tokens == shared + sample.series.own_tokens
        assert sample.ttft_s == pytest.approx(sample.queue_s + sample.prefill_s)
    # A prompt that can't be shared costs what a cold one costs, a shared one a small part of it.
    warm, variable = (result.figures()[f"ttft_{s}_over_cold"] for s in ("warm", "variable"))
    assert warm is not None
    assert variable is not None
    assert warm < 0.5 < variable


async def test_pairs_need_no_warm_up(parts: Internals) -> None:
    result = await ttft.pairs(parts, 2)
    assert result.is_complete
    assert all(sample.is_as_meant for sample in result.samples)


async def test_a_batch_is_faster_than_its_calls_in_turn(parts: Internals) -> None:
    result = await batching.measure(parts, repeats=1, seed=0, calls=4)
    for run in result.runs:
        assert run.is_as_meant
        assert run.generated_tokens == 4 * GENERATED_TOKENS
    for speed_up in ("batch_speedup", "engine_batch_speedup"):
        measured = result.figures()[speed_up]
        assert measured is not None
        assert measured > 1

"""What a probe sees of engines that cache in different ways."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pytest

from rlm_runtime.engine.base import EngineInfo, GenerateRequest, RequestFacts
from rlm_runtime.engine.probe import SCORED_TOKENS, CacheProbe, probe_cache
from rlm_runtime.errors import EngineError
from tests.unit.conftest import FakeEngine

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = pytest.mark.anyio

SHARED = tuple(range(1, 1217))


@dataclass
class CachingEngine(FakeEngine):
    """Caches beginnings in steps; 0 is never."""

    step: int = 32
    window: int = 8192
    caches_generated: bool = True
    known: set[tuple[int, ...]] = field(default_factory=set)

    @property
    def info(self) -> EngineInfo:
        told = super().info
        fields = {name: getattr(told, name) for name in told.__slots__}
        return EngineInfo(**fields | {"window": self.window, "vocab_size": 49_152})

    def facts(self, request: GenerateRequest, generated: tuple[int, ...]) -> RequestFacts:
        ids = request.prompt_ids
        cached = self.cached(ids) if request.read_cache else 0
        self.insert(ids)
        if self.caches_generated:
            self.insert(ids + (7,) * (request.max_tokens - 1))
        facts = super().facts(request, generated)
        fields = {name: getattr(facts, name) for name in facts.__slots__}
        changed = {"cached_tokens": cached, "computed_tokens": len(ids) - cached}
        return RequestFacts(**fields | changed)

    def cached(self, ids: Sequence[int]) -> int:
        if not self.step:
            return 0
        lengths = range(self.step, len(ids), self.step)
        return max((n for n in lengths if tuple(ids[:n]) in self.known), default=0)

    def insert(self, ids: Sequence[int]) -> None:
        if self.step:
            self.known |= {tuple(ids[:n]) for n in range(self.step, len(ids) + 1, self.step)}


class RerunningEngine(CachingEngine):
    """Computes each scored prompt once more without the cache, and counts both runs."""

    def facts(self, request: GenerateRequest, generated: tuple[int, ...]) -> RequestFacts:
        facts = super().facts(request, generated)
        is_again = request.score is not None and request.read_cache
        return replace(facts, runs=2) if is_again else facts


async def test_an_engine_that_caches_blocks_is_seen_through() -> None:
    assert await probe_cache(CachingEngine(), SHARED) == CacheProbe(
        repeated_tokens=2048,
        repeated_cached_tokens=2016,
        step_tokens=32,
        shared_tokens=1216,
        shared_cached_tokens=1216,
        generated_cached_tokens=32,
        scored_cached_tokens=256,
        score_gap=0.0,
    )


@pytest.mark.parametrize("step", [1, 16, 32, 48, 544])
async def test_the_step_is_found_whatever_the_block_size_is(step: int) -> None:
    probed = await probe_cache(CachingEngine(step=step), SHARED)
    assert probed.step_tokens == step
    assert probed.shared_cached_tokens == 1216 // step * step
    assert probed.shared_loss_tokens == 1216 % step
    assert probed.scored_cached_tokens == -(-256 // step) * step


async def test_a_model_without_hits_is_seen() -> None:
    probed = await probe_cache(CachingEngine(step=0), SHARED)
    assert probed.repeated_cached_tokens == 0
    assert probed.step_tokens is None
    assert probed.shared_loss_tokens == 1216


async def test_a_step_longer_than_the_shared_prefix_is_seen() -> None:
    probed = await probe_cache(CachingEngine(step=1500), SHARED)
    assert probed.step_tokens == 1500
    assert probed.shared_cached_tokens == 0
    assert probed.generated_cached_tokens is None, "too long to be tried"


async def test_generated_tokens_that_are_not_cached_are_seen() -> None:
    probed = await probe_cache(CachingEngine(caches_generated=False), SHARED)
    assert probed.generated_cached_tokens == 0


async def test_scores_that_differ_through_the_cache_are_seen() -> None:
    engine = CachingEngine(score=lambda request: -1.0 if request.read_cache else -1.5)
    assert (await probe_cache(engine, SHARED)).score_gap == SCORED_TOKENS * 0.5


async def test_scores_are_asked_for_one_token_behind_the_cached_beginning() -> None:
    # A hit up to the first scored token would have the engine compute all of the prompt again.
    engine = CachingEngine()
    probed = await probe_cache(engine, SHARED)
    spans = [request.score for request in engine.seen if request.score is not None]
    assert [span.start for span in spans] == [probed.scored_cached_tokens + 1] * 2


async def test_a_scored_prompt_that_is_computed_whole_after_all_is_seen() -> None:
    assert (await probe_cache(RerunningEngine(), SHARED)).scored_cached_tokens == 0


async def test_an_engine_without_log_probabilities_is_refused_with_the_remedy() -> None:
    with pytest.raises(EngineError, match="log-probabilities") as caught:
        await probe_cache(CachingEngine(loses_scores=True), SHARED)
    assert "search" in caught.value.remedy


async def test_a_small_window_is_probed_with_a_shorter_prompt() -> None:
    probed = await probe_cache(CachingEngine(window=1500), SHARED)
    assert 1216 < probed.repeated_tokens < 1500
    assert probed.step_tokens == 32


async def test_a_window_without_room_is_refused_before_any_request() -> None:
    engine = CachingEngine(window=1300)
    with pytest.raises(EngineError, match="1,300"):
        await probe_cache(engine, SHARED)
    assert not engine.seen

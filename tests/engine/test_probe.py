"""The probe on the real engine."""

from __future__ import annotations

import pytest

from rlm_runtime.api import Internals
from rlm_runtime.engine.probe import probe_cache

pytestmark = [pytest.mark.engine, pytest.mark.anyio]


async def test_this_engine_caches_the_default_model_block_by_block(parts: Internals) -> None:
    probed = await probe_cache(parts.engine, parts.layout.shared_ids, seed=1)
    block = parts.engine.info.block_size
    assert probed.step_tokens == block
    assert probed.repeated_cached_tokens == (probed.repeated_tokens - 1) // block * block
    assert probed.shared_cached_tokens == len(parts.layout.shared_ids)
    assert probed.generated_cached_tokens == block
    # Without this both numbers would come from a prompt that was computed whole.
    assert probed.scored_cached_tokens == 256
    assert probed.score_gap < 1.0

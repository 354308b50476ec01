"""Needles in 6,000 tokens, found by the real model, engine and cache."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest

from rlm_runtime.api import Internals
from rlm_runtime.benchmark.arms import Arm
from rlm_runtime.benchmark.needle import measure
from rlm_runtime.benchmark.workloads.needle import Kind
from rlm_runtime.config import Config, SearchConfig
from rlm_runtime.engine.base import Finished, GenerateRequest, Span, TokenDelta

pytestmark = [pytest.mark.engine, pytest.mark.anyio]

CONFIG = Config(search=SearchConfig(chunk_tokens=300, passages=1))


async def test_facts_are_found_and_arms_score_no_prompt_twice(
    parts: Internals, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[tuple[int, ...], Span | None]] = []
    generate, store = parts.engine.generate, parts.corpus.store

    def noted(request: GenerateRequest) -> AsyncGenerator[TokenDelta | Finished]:
        sent.append((request.prompt_ids, request.score))
        return generate(request)

    monkeypatch.setattr(parts.engine, "generate", noted)

    result = await measure(
        parts,
        CONFIG,
        lambda text, name: store.put_text(name, text),
        sizes=(6 << 10,),
        cases=2,
        seed=0,
        arms=(Arm.BOTH, Arm.RANKING, Arm.BM25),
    )

    cases = {(case.id, case.arm): case for case in result.cases}
    assert len(cases) == result.planned == 3 * 2 * len(Kind)
    for case in cases.values():
        if case.kind == Kind.SHARED:
            assert case.is_right, case
            assert case.sentence_rank == 1, case
        if case.arm == Arm.BM25:
            assert case.computed_tokens == 0
        else:
            # Whichever of the two came first, both are told what it cost.
            assert case.computed_tokens > 100
    # Sent again, a scored prompt is cached beyond the question's first token, and has to be
    # computed whole.
    scored = [request for request in sent if request[1] is not None]
    assert len(set(scored)) == len(scored) > 100

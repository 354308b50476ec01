"""`qa`: how often the right passage is found, on questions with ground truth.

The text is Python's language reference with planted sentences (`workloads/qa.py`). Every chunk is
ranked by the model, so that one run shows what word search, likelihood and both together find.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from rlm_runtime.api import AsyncRLM, Result
from rlm_runtime.benchmark.qa_result import CaseResult, QaResult
from rlm_runtime.benchmark.workloads.qa import (
    Case,
    Half,
    is_answered,
    load_cases,
    places,
    planted_text,
    usable,
    workload_name,
)
from rlm_runtime.scaffold.corpus import Piece
from rlm_runtime.scaffold.recipes.search import RankedChunk

TEXT_NAME = "reference"


async def measure(
    session: AsyncRLM,
    *,
    half: Half,
    seed: int,
    cases: int | None = None,
    on_case: Callable[[QaResult], None] | None = None,
) -> QaResult:
    """Ask all questions of a half and compare with the truth.

    Args:
        session: Not yet asked anything about the text.
        half: `tune` for choices, `test` for figures.
        seed: Places the planted sentences.
        cases: Only so many, evenly over the kinds.
        on_case: Called after each question with the result so far.
    """
    everything = load_cases(half)
    text = planted_text(everything, seed)
    kept, dropped = usable(everything, text)
    chosen = kept if cases is None else _evenly(kept, cases)
    ref = session.store(text, TEXT_NAME)
    result = QaResult(
        workload=workload_name(),
        half=half,
        seed=seed,
        text_digest=ref.digest,
        text_tokens=session.context.tokens(ref).tokens,
        dropped=dropped,
        planned=len(chosen),
        cases=(),
    )
    for case in chosen:
        answer = await session.run(case.question, ref, exhaustive=True)
        judged = _judge(case, text, answer)
        result = msgspec.structs.replace(result, cases=(*result.cases, judged))
        if on_case is not None:
            on_case(result)
    return result


def _evenly(cases: Sequence[Case], count: int) -> tuple[Case, ...]:
    """About `count` cases, the kinds in proportion, in their order."""
    step = len(cases) / min(count, len(cases))
    return tuple(cases[int(i * step)] for i in range(min(count, len(cases))))


def _judge(case: Case, text: str, found: Result) -> CaseResult:
    # Byte spans of each part's passages: any of them answers it.
    truth = [
        [
            (len(text[: span.start].encode()), len(text[: span.end].encode()))
            for passage in part.passages
            for span in places(passage, text)
        ]
        for part in case.parts
    ]
    answer = found.answer or ""
    return CaseResult(
        id=case.id,
        kind=case.kind.value,
        chunk_rank_bm25=_chunk_rank(found.chunks, truth, lambda c: c.bm25),
        chunk_rank_ranking=_chunk_rank(found.chunks, truth, lambda c: c.lift),
        chunk_rank_both=_chunk_rank(found.chunks, truth, lambda c: c.score),
        sentence_rank=_rank([[(p.start_byte, p.end_byte)] for p in found.passages], truth),
        is_right=is_answered(case, answer),
        found=found.found,
        is_uncertain=found.is_uncertain,
        lift=found.passages[0].lift if found.passages else None,
        computed_tokens=found.usage.computed_tokens,
        wall_s=float(found.figures["wall_s"] or 0.0),
        answer=answer,
    )


def _chunk_rank(
    chunks: Sequence[RankedChunk],
    truth: Sequence[Sequence[tuple[int, int]]],
    key: Callable[[RankedChunk], float],
) -> int | None:
    ordered = sorted(chunks, key=lambda chunk: -key(chunk))
    return _rank([[_span(chunk.piece)] for chunk in ordered], truth)


def _rank(
    ordered: Sequence[Sequence[tuple[int, int]]], truth: Sequence[Sequence[tuple[int, int]]]
) -> int | None:
    """Place (from 1) at which all parts have been met; `None` if one is not there at all."""
    worst = 0
    for spans in truth:
        for place, candidates in enumerate(ordered, start=1):
            if any(_overlap(a, b) for a in candidates for b in spans):
                worst = max(worst, place)
                break
        else:
            return None
    return worst or None


def _overlap(a: tuple[int, int], b: tuple[int, int]) -> bool:
    return a[0] < b[1] and b[0] < a[1]


def _span(piece: Piece) -> tuple[int, int]:
    return piece.start_byte, piece.end_byte

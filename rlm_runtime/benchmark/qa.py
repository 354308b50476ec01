"""`qa`: how often the right passage is found, on questions with ground truth.

The text is Python's language reference with planted sentences (`workloads/qa.py`). The arms that
rank do so with every chunk, so that one run shows what word search, likelihood and both together
find.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from rlm_runtime.api import Internals
from rlm_runtime.benchmark.arms import Arm, ArmAnswer, Arms, Store, rotated
from rlm_runtime.benchmark.arms_calls import ArmCalls
from rlm_runtime.benchmark.arms_result import judged
from rlm_runtime.benchmark.qa_result import QaCase, QaResult
from rlm_runtime.benchmark.workloads.qa import (
    Case,
    Half,
    asked,
    load_cases,
    planted_text,
    usable,
    workload_name,
)
from rlm_runtime.benchmark.workloads.truth import Asked, ByteSpan
from rlm_runtime.config import Config
from rlm_runtime.scaffold.corpus import Piece
from rlm_runtime.scaffold.recipes.search_result import RankedChunk

TEXT_NAME = "reference"


async def measure(
    parts: Internals,
    config: Config,
    store: Store,
    *,
    half: Half,
    seed: int,
    arms: Sequence[Arm] = tuple(Arm),
    cases: int | None = None,
    on_answer: Callable[[QaResult], None] | None = None,
) -> QaResult:
    """Ask all questions of a half, each by all arms, and compare with the truth.

    Args:
        parts: A started session's; nothing was asked of it, and nothing else is meanwhile.
        config: Its configuration.
        store: Stores a text under a name, as the session does.
        half: `tune` for choices, `test` for figures.
        seed: Places the planted sentences.
        arms: Ways to answer; the order changes from question to question.
        cases: Only so many, evenly over the kinds.
        on_answer: Called after each answer with the result so far.
    """
    everything = load_cases(half)
    text = planted_text(everything, seed)
    kept, dropped = usable(everything, text)
    chosen = kept if cases is None else _evenly(kept, cases)
    ref = store(text, TEXT_NAME)
    result = QaResult(
        workload=workload_name(),
        half=half,
        seed=seed,
        arms=tuple(arm.value for arm in arms),
        text_digest=ref.digest,
        text_tokens=parts.corpus.store.tokens(ref).tokens,
        dropped=dropped,
        planned=len(chosen) * len(arms),
        cases=(),
    )
    calls = ArmCalls(parts, config.scheduler.max_queued_calls)
    by_arm = Arms(parts, config.search, calls, ref, exhaustive=True)
    for turn, case in enumerate(chosen):
        question = asked(case, text)
        calls.begin_question()
        for arm in rotated(arms, turn):
            answer = await by_arm.ask(arm, question.question)
            result = msgspec.structs.replace(
                result, cases=(*result.cases, _judged(question, arm, answer))
            )
            if on_answer is not None:
                on_answer(result)
    return result


def _evenly(cases: Sequence[Case], count: int) -> tuple[Case, ...]:
    """About `count` cases, the kinds in proportion, in their order."""
    step = len(cases) / min(count, len(cases))
    return tuple(cases[int(i * step)] for i in range(min(count, len(cases))))


def _judged(question: Asked, arm: Arm, answer: ArmAnswer) -> QaCase:
    chunks = answer.chunks if arm is Arm.BOTH else ()
    return QaCase(
        **msgspec.structs.asdict(judged(question, arm, answer)),
        chunk_rank_bm25=_chunk_rank(question, chunks, lambda c: c.bm25),
        chunk_rank_ranking=_chunk_rank(question, chunks, lambda c: c.lift),
        chunk_rank_both=_chunk_rank(question, chunks, lambda c: c.score),
    )


def _chunk_rank(
    question: Asked, chunks: Sequence[RankedChunk], key: Callable[[RankedChunk], float]
) -> int | None:
    ordered = sorted(chunks, key=lambda chunk: -key(chunk))
    return question.rank([[_span(chunk.piece) for chunk in ordered]])


def _span(piece: Piece) -> ByteSpan:
    return ByteSpan(piece.start_byte, piece.end_byte)

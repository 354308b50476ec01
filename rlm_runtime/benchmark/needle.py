"""`needle`: are planted facts found, at every depth of texts of up to a million tokens?

For each size one document with all its questions (`workloads/needle.py`), which is read once. The
default arm works as `rlm run` does: a text longer than `search.max_ranked_tokens` is searched by
words first. The arm that ranks every chunk has texts of up to `MAX_RANKING_TOKENS` only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import anyio.to_thread
import msgspec

from rlm_runtime.api import Internals
from rlm_runtime.benchmark.arms import MAX_RANKING_TOKENS, Arm, ArmAnswer, Arms, Store, rotated
from rlm_runtime.benchmark.arms_calls import ArmCalls
from rlm_runtime.benchmark.arms_result import judged
from rlm_runtime.benchmark.needle_result import NeedleCase, NeedleResult, NeedleText
from rlm_runtime.benchmark.workloads.needle import (
    Kind,
    NeedleDocument,
    check_size,
    needle_document,
    size_label,
    workload_name,
)
from rlm_runtime.benchmark.workloads.truth import Asked
from rlm_runtime.config import Config, SearchConfig
from rlm_runtime.errors import InputError
from rlm_runtime.types import Ref

_FACTORS = {"k": 1 << 10, "m": 1 << 20}

_SENTENCE_FACTOR = 3
"""A sentence is scored with its heading, the task and the question."""

_QUESTION_TOKENS = 25
"""Of a question, about."""

_COUNTED_CHARACTERS = 1 << 16


class NeedleProgress(NamedTuple):
    """How far it is, in tokens that it will cost: the time that is left goes with them.

    Attributes:
        done_tokens: Of `planned_tokens`.
        planned_tokens: An estimate.
        size: Of the document that is being asked about.
        answers: That were had.
        planned_answers: That will be.
    """

    done_tokens: int
    planned_tokens: int
    size: str
    answers: int
    planned_answers: int


def parse_sizes(text: str) -> tuple[int, ...]:
    """Sizes in tokens, smallest first: "16k,1M" are 16,384 and 1,048,576.

    Raises:
        InputError: One is no size, or there is none.
    """
    sizes = set()
    for name in (part.strip() for part in text.split(",")):
        number, factor = name, 1
        if name[-1:].lower() in _FACTORS:
            number, factor = name[:-1], _FACTORS[name[-1].lower()]
        if not (number.isascii() and number.isdigit() and int(number)):
            raise InputError(
                f"{text!r} are no sizes in tokens.", "Write --tokens 16k, or --tokens 64k,1M."
            )
        sizes.add(int(number) * factor)
    return tuple(sorted(sizes))


def check(sizes: Sequence[int], cases: int, arms: Sequence[Arm]) -> None:
    """See whether this can be measured, before anything is started.

    Raises:
        InputError: A document can't be made, or has no arm.
    """
    for size in sizes:
        check_size(size, cases)
        if not _arms_for(size, arms):
            raise InputError(
                f"The arm {Arm.RANKING} reads every chunk, and has no texts of {size:,} tokens.",
                f"Take at most {size_label(MAX_RANKING_TOKENS)}, or another arm as well.",
            )


async def measure(
    parts: Internals,
    config: Config,
    store: Store,
    *,
    sizes: Sequence[int],
    cases: int,
    seed: int,
    arms: Sequence[Arm] = tuple(Arm),
    on_answer: Callable[[NeedleResult, NeedleProgress], None] | None = None,
) -> NeedleResult:
    """Ask all questions about a document of each size, each by all arms.

    Args:
        parts: A started session's; nothing was asked of it, and nothing else is meanwhile.
        config: Its configuration.
        store: Stores a text under a name, as the session does.
        sizes: Of the documents, tokens.
        cases: Of each kind and size.
        seed: Of the documents.
        arms: Ways to answer; the order changes from question to question.
        on_answer: Called before the first and after each answer with the result so far.

    Raises:
        InputError: As `check`.
    """
    check(sizes, cases, arms)
    plans = {size: _plan(size, cases, arms, config.search) for size in sizes}
    result = NeedleResult(
        workload=workload_name(),
        seed=seed,
        cases_per_kind=cases,
        sizes=tuple(map(size_label, sizes)),
        arms=tuple(arm.value for arm in arms),
        max_ranked_tokens=config.search.max_ranked_tokens,
        planned=sum(plan.answers for plan in plans.values()),
        texts=(),
        cases=(),
    )
    calls = ArmCalls(parts, config.scheduler.max_queued_calls)
    done_tokens, planned_tokens = 0, sum(plan.tokens for plan in plans.values())

    def tell(size: int, done: int) -> None:
        if on_answer is not None:
            answers = len(result.cases)
            label = size_label(size)
            on_answer(result, NeedleProgress(done, planned_tokens, label, answers, result.planned))

    for size, plan in plans.items():
        tell(size, done_tokens)
        made = await _made(parts, store, size, cases, seed)
        by_arm = Arms(parts, config.search, calls, made.ref, exhaustive=False)
        result = msgspec.structs.replace(result, texts=(*result.texts, made.text))
        answers = 0
        for turn, asked in enumerate(made.document.asked):
            calls.begin_question()
            for arm in rotated(plan.arms, turn):
                row = _row(asked, arm, await by_arm.ask(arm, asked.question), made)
                text = msgspec.structs.replace(made.text, shown_bytes=by_arm.shown_bytes)
                result = msgspec.structs.replace(
                    result, texts=(*result.texts[:-1], text), cases=(*result.cases, row)
                )
                answers += 1
                tell(size, done_tokens + plan.reading + answers * plan.answer)
        done_tokens += plan.tokens
    return result


class _Plan(NamedTuple):
    """What a size takes; tokens are estimates of what will be computed."""

    arms: tuple[Arm, ...]
    answers: int
    reading: int
    answer: int

    @property
    def tokens(self) -> int:
        return self.reading + self.answers * self.answer


def _plan(size: int, cases: int, arms: Sequence[Arm], search: SearchConfig) -> _Plan:
    chosen = _arms_for(size, arms)
    answers = cases * len(Kind) * len(chosen)
    reads_all = Arm.RANKING in chosen or size <= search.max_ranked_tokens
    question = search.passages * search.chunk_tokens * _SENTENCE_FACTOR
    if reads_all:
        question += size // search.chunk_tokens * _QUESTION_TOKENS
    else:
        # A certain answer among the first chunks saves the others.
        question += search.max_ranked_tokens // 2
    return _Plan(chosen, answers, size if reads_all else 0, question // len(chosen))


def _arms_for(size: int, arms: Sequence[Arm]) -> tuple[Arm, ...]:
    return tuple(arm for arm in arms if arm is not Arm.RANKING or size <= MAX_RANKING_TOKENS)


class _Made(NamedTuple):
    document: NeedleDocument
    ref: Ref
    text: NeedleText


class _Counted(NamedTuple):
    document: NeedleDocument
    tokens: int


async def _made(parts: Internals, store: Store, size: int, cases: int, seed: int) -> _Made:
    """The document, stored; making a million tokens takes seconds: not in the event loop."""
    count = parts.layout.tokenizer.count

    def make() -> _Counted:
        made = needle_document(size, cases, seed, count)
        # In pieces: one encode of a million tokens takes gigabytes. Each border costs a token.
        starts = range(0, len(made.text), _COUNTED_CHARACTERS)
        return _Counted(made, sum(count(made.text[i : i + _COUNTED_CHARACTERS]) for i in starts))

    document, tokens = await anyio.to_thread.run_sync(make, abandon_on_cancel=True)
    began_s = time.monotonic()
    ref = store(document.text, f"needle_{size_label(size)}")
    text = NeedleText(
        size=size_label(size),
        tokens=tokens,
        digest=ref.digest,
        stored_s=time.monotonic() - began_s,
        depths=tuple(needle.depth for needle in document.needles),
    )
    return _Made(document, ref, text)


def _row(asked: Asked, arm: Arm, answer: ArmAnswer, made: _Made) -> NeedleCase:
    return NeedleCase(
        **msgspec.structs.asdict(judged(asked, arm, answer)),
        size=made.text.size,
        depth=made.document.depths.get(asked.id),
        needed_bytes=max((want.places[0].end for want in asked.wanted), default=None),
    )

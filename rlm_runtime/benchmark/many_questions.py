"""`many-questions`: what the calls below the recipes cost, k questions over one document.

For each chunk and each question there is one scored call, and each chunk is read once before it is
scored, as `search` does:

    [S][chunk][TAIL]             read: computes the chunk
    [S][chunk][TAIL][question]   score: takes it from the cache and computes the question

Two orders of the same calls. `document`: every question about a chunk before the next chunk, all
calls as one batch. `question`: question after question, each over the whole document. Where the KV
cache holds the document they compute the same; where it does not, only the first still does.

Nothing is counted here: figures come from the run's log (`many_questions_result.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from rlm_runtime.api import Internals
from rlm_runtime.benchmark.bench import Bench, bench
from rlm_runtime.benchmark.many_questions_result import ManyQuestionsResult, Order, Pass
from rlm_runtime.benchmark.many_questions_text import questions_about
from rlm_runtime.errors import InputError, LimitExceeded
from rlm_runtime.prompt import Document
from rlm_runtime.scaffold.corpus import Piece
from rlm_runtime.scaffold.likelihood import Asker, QuestionLikelihood
from rlm_runtime.scheduler import Call, Job, Progress
from rlm_runtime.tracing import ValueRead
from rlm_runtime.types import Ref

KIND = "many-questions"
READ, SCORE = "read chunk", "score question"

OnCall = Callable[[ManyQuestionsResult, int, int], None]
"""Gets the passes so far, calls made and calls in all. Quick, in the event loop."""


async def measure(
    parts: Internals,
    ref: Ref,
    *,
    questions: int,
    orders: Sequence[Order],
    seed: int,
    repeats: int = 1,
    on_call: OnCall | None = None,
) -> ManyQuestionsResult:
    """Make all calls in each order, on an engine that serves nobody else meanwhile.

    Each pass begins with an empty prefix cache; passes of a repeat stand next to each other, in
    alternating order.

    Args:
        parts: A started session's.
        ref: The document, in the session's store.
        questions: How many; they are made of its sentences.
        orders: One, or both.
        seed: Of the questions.
        repeats: Passes of each order, >= 1; with 5 or more, times have an interval.
        on_call: Called at each change.

    Raises:
        InputError: There are no so many questions, or `repeats` is below 1.
        EngineError: A request is running.
        EngineDead: The engine's process ended.
    """
    if repeats < 1:
        raise InputError(f"{repeats} repeats can't be measured.", "Take at least 1.")
    tokenizer = parts.layout.tokenizer
    asked = questions_about(
        parts.corpus.store.text(ref, 0, ref.size_bytes),
        questions,
        seed,
        # In front of it stands one token of its block (`QuestionLikelihood`); one more token
        # would fill the block, and the same question asked again would find itself in the cache.
        max_tokens=parts.engine.info.block_size - 2,
        count_tokens=tokenizer.count,
    )
    # Encoded before the clock starts: the document is the same for both orders.
    pieces = [p for whole in parts.corpus.pieces([ref]) for p in parts.corpus.fitted(whole)]
    documents = [parts.corpus.document(piece) for piece in pieces]
    plan = [
        (r, order) for r in range(repeats) for order in (orders if r % 2 == 0 else orders[::-1])
    ]
    result = ManyQuestionsResult(
        seed=seed,
        text_digest=ref.digest,
        text_tokens=sum(document.text_tokens for document in documents),
        document_tokens=sum(len(document.ids) for document in documents),
        shared_prefix_tokens=len(parts.layout.shared_ids),
        kv_tokens=parts.engine.info.kv_tokens,
        chunks=len(documents),
        questions=asked,
        planned_passes=len(plan),
        passes=(),
    )
    calls = len(documents) * (len(asked) + 1)
    for number, (repeat, order) in enumerate(plan):

        def on_progress(
            now: Progress, so_far: ManyQuestionsResult = result, before: int = number * calls
        ) -> None:
            if on_call is not None:
                on_call(so_far, before + now.done, len(plan) * calls)

        with bench(parts, KIND, seed) as measurement:
            await measurement.forget_cache()
            job = Job(on_progress=on_progress)
            job.begin_stage(f"asking, {order} order", calls)
            await _make_calls(measurement, job, order, asked, pieces, documents)
        made = Pass(order, repeat, measurement.agent_id)
        result = replace(result, passes=(*result.passes, made))
        if on_call is not None:
            on_call(result, (number + 1) * calls, len(plan) * calls)
    return result


async def _make_calls(
    measurement: Bench,
    job: Job,
    order: Order,
    questions: Sequence[str],
    pieces: Sequence[Piece],
    documents: Sequence[Document],
) -> None:
    parts = measurement.parts
    asker = Asker(parts.scheduler, parts.layout, job, measurement.agent_id)
    likelihoods = [QuestionLikelihood(asker, question) for question in questions]
    # Each chunk is read with the first question, so both orders make the same calls.
    by_question = [
        [
            call
            for document in documents
            for call in (
                *((likelihood.read_call(document, READ),) if number == 0 else ()),
                likelihood.score_call(document, SCORE),
            )
        ]
        for number, likelihood in enumerate(likelihoods)
    ]
    if order is Order.QUESTION:
        for calls in by_question:
            await _run(asker, calls)
    else:
        # The scheduler puts the calls about a chunk next to each other.
        await _run(asker, [call for calls in by_question for call in calls])
    for _ in questions:
        for piece, document in zip(pieces, documents, strict=True):
            _note_read(measurement, piece, document)


async def _run(asker: Asker, calls: Sequence[Call]) -> None:
    for outcome in await asker.scheduler.run_all(asker.job, calls):
        if isinstance(outcome, LimitExceeded):
            raise outcome


def _note_read(measurement: Bench, piece: Piece, document: Document) -> None:
    recorder = measurement.parts.recorder
    recorder.emit(
        ValueRead(
            at_s=recorder.now(),
            reader=measurement.agent_id,
            name=piece.ref.name,
            version=piece.ref.version,
            start_byte=piece.start_byte,
            end_byte=piece.end_byte,
            tokens=len(document.ids),
        )
    )

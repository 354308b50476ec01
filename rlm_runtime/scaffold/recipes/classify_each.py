"""`classify_each`: one label for each row or chunk, by one leaf call each, counted in Python.

The model judges one row at a time and never counts; Python counts and never judges. So a count is
exact given the labels, however many rows there are. The model can only answer with one of the
labels where the engine can constrain it. Where it can't, the label that a free answer names is
taken, and the result says so.

Rows are the items of a list and the lines of a text (`rows.py`); a row that is longer than a prompt
can hold is judged by its beginning, and listed as cut. Chunks are those of the texts (`corpus.py`).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal, NamedTuple

import anyio.to_thread

from rlm_runtime.errors import InputError, LimitExceeded, PromptTooLong, RLMError
from rlm_runtime.prompt import CONNECTIVE, Document
from rlm_runtime.scaffold.agent import Outcome
from rlm_runtime.scaffold.agent_context import AgentContext
from rlm_runtime.scaffold.leaf_calls import Leaf, LeafAnswer, LeafCalls
from rlm_runtime.scaffold.recipes.labels import check_labels, label_meant, labels_of
from rlm_runtime.scaffold.recipes.plan import Over, Plan, fit, leaf_tokens, one_call_each
from rlm_runtime.scaffold.recipes.reading import WAVE, Chunks
from rlm_runtime.scaffold.recipes.rows import Rows
from rlm_runtime.scaffold.recipes.search_agent import texts_of
from rlm_runtime.scaffold.tree import Seat
from rlm_runtime.types import Ref, StopReason

FREE_TOKENS = 24
"""Room of an answer that is not constrained, beside that of the longest label."""

ASK = "{task}\nJudge only the text above. Which of these is it: {labels}?"
"""Behind each row: the task, and what to choose from."""

Each = Literal["row", "chunk"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Classified:
    """What a run says beside its result.

    Attributes:
        plan: What it could cost at most; `plan.left_out` rows were not judged.
        counts: Rows by label, in the order of the labels.
        unlabelled: Rows that were to be judged and have no label: a limit came first, their call
            failed, or a free answer named none.
        cut: Positions of rows that were judged by their beginning.
        is_constrained: The model could answer with a label only. False: labels were found in free
            answers.
        error: Of the first row whose call failed; empty when none did.
    """

    plan: Plan
    counts: dict[str, int]
    unlabelled: int
    cut: tuple[int, ...]
    is_constrained: bool
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifyEach:
    """The recipe.

    The result is a stored dict: `labels`, one a row, in order, `None` where there is none; `counts`
    by label; and `unlabelled`, `cut`, `left_out`, `is_constrained` as in `Classified`.

    Attributes:
        labels: To choose from; empty: those that the task names (`labels_of`).
        each: What gets a label: a row of the lists and texts of the context, or a chunk of its
            texts.
        over: With a limit below the plan, refuse, or leave out rows from the end.
    """

    labels: tuple[str, ...] = ()
    each: Each = "row"
    over: Over = "refuse"

    @property
    def kind(self) -> Literal["classify_each"]:
        """A recipe."""
        return "classify_each"

    async def plan(self, seat: Seat, task: str, context: AgentContext) -> Plan:
        """What `run` costs at most. Encodes the rows, about a second per MB.

        Raises:
            InputError: There are no two labels, or a value has no rows.
            PromptTooLong: The task and its labels, or a chunk behind them, do not fit the window.
            LimitExceeded: The tree's `max_seconds` are over.
        """
        work = await self._work(seat, task, context)
        return work.plan

    async def run(self, seat: Seat, task: str, context: AgentContext) -> Outcome:
        """Label each row and count. What was judged is stored, however the run ends.

        Raises:
            LimitExceeded: The plan is over a limit; or a limit came before the first label.
            InputError: As `plan`.
            PromptTooLong: As `plan`.
            EngineDead: The engine's process ended.
            RLMError: No row has a label; this is the first one's error.
        """
        work = await self._work(seat, task, context)
        job = seat.tree.job
        plan = fit(work.plan, job.limits, self.over, job.usage)
        return await _Run(seat, context, work, plan).run()

    async def _work(self, seat: Seat, task: str, context: AgentContext) -> _Work:
        labels = self.labels or labels_of(task)
        check_labels(labels)
        tree = seat.tree
        question = ASK.format(task=task, labels=", ".join(labels))
        answer = 1 + max(map(tree.layout.tokenizer.count, labels))
        if not tree.info.can_choose:
            answer += FREE_TOKENS
        tail = len(tree.layout.tail(CONNECTIVE + question))
        room = tree.info.window - len(tree.layout.shared_ids) - tail - answer
        if room < 1:
            raise PromptTooLong(
                tree.info.window - room + 1,
                tree.info.window,
                "The task and the labels must fit: shorten the task, or give fewer labels.",
            )
        items: Rows | Chunks
        if self.each == "chunk":
            items = await Chunks.of(seat, texts_of(context))
            if max(items.tokens, default=0) > room:
                raise PromptTooLong(
                    tree.info.window - room + max(items.tokens),
                    tree.info.window,
                    "The task, the labels and a chunk must fit: shorten the task, or lower "
                    "search.chunk_tokens.",
                )
        else:
            items = await Rows.of(seat, _values(context), room)
        costs = [leaf_tokens(tree.layout, tokens, tail, answer) for tokens in items.tokens]
        return _Work(labels, question, answer, items, one_call_each("classify", costs))


class _Work(NamedTuple):
    """What is to be done: each of the items asked the question, for one of the labels."""

    labels: tuple[str, ...]
    question: str
    answer_tokens: int
    items: Rows | Chunks
    plan: Plan


class _Run:
    """One run: the labels so far, and what went wrong first."""

    def __init__(self, seat: Seat, context: AgentContext, work: _Work, plan: Plan) -> None:
        self._seat = seat
        self._context = context
        self._work = work
        self._plan = plan
        self._calls = LeafCalls(seat)
        self._is_constrained = seat.tree.info.can_choose
        self._labels: list[str | None] = []
        self._error: RLMError | None = None

    async def run(self) -> Outcome:
        self._seat.tree.job.begin_stage("judging each", self._plan.parts)
        try:
            await self._judge()
        except BaseException:
            if any(self._labels):
                self._store()
            raise
        if self._error is not None and not any(self._labels):
            raise self._error
        limit = self._error if isinstance(self._error, LimitExceeded) else None
        found = self._found()
        return Outcome(
            stop_reason=StopReason.FINAL if limit is None else limit.stop_reason,
            result=self._store(),
            error="" if limit is None else str(limit),
            detail=found,
        )

    async def _judge(self) -> None:
        items = self._work.items
        for start in range(0, self._plan.parts, WAVE):
            wave = range(start, min(start + WAVE, self._plan.parts))
            documents = await anyio.to_thread.run_sync(items.documents, wave)
            answers = await self._calls.batch([self._leaf(document) for document in documents])
            for position, document, answer in zip(wave, documents, answers, strict=True):
                if answer.error is None:
                    items.note_read(position, document)
                self._labels.append(self._label(answer))
            if isinstance(self._error, LimitExceeded):
                return

    def _leaf(self, document: Document) -> Leaf:
        work = self._work
        if self._is_constrained:
            return Leaf(
                question=work.question, data=document, choices=work.labels, label="classify"
            )
        return Leaf(
            question=work.question, data=document, max_tokens=work.answer_tokens, label="classify"
        )

    def _label(self, answer: LeafAnswer) -> str | None:
        if answer.error is not None:
            if self._error is None or isinstance(answer.error, LimitExceeded):
                self._error = answer.error
            return None
        labels = self._work.labels
        if answer.value in labels:  # as it was given, and nothing around it
            return str(answer.value)
        return label_meant(answer.text, labels)

    def _found(self) -> Classified:
        counts = Counter(self._labels)
        return Classified(
            plan=self._plan,
            counts={label: counts[label] for label in self._work.labels},
            unlabelled=self._plan.parts - len(self._labels) + counts[None],
            cut=self._cut(),
            is_constrained=self._is_constrained,
            error="" if self._error is None else str(self._error),
        )

    def _cut(self) -> tuple[int, ...]:
        items = self._work.items
        cut = items.cut if isinstance(items, Rows) else []
        return tuple(position for position in cut if position < self._plan.parts)

    def _store(self) -> Ref:
        found = self._found()
        missing = [None] * (self._plan.parts - len(self._labels))
        return self._context.store(
            self._seat.result_name,
            {
                "labels": [*self._labels, *missing],
                "counts": found.counts,
                "unlabelled": found.unlabelled,
                "cut": list(found.cut),
                "left_out": self._plan.left_out,
                "is_constrained": found.is_constrained,
            },
        )


def _values(context: AgentContext) -> tuple[Ref, ...]:
    values = tuple(context.list_available().values())
    if not values:
        raise InputError("There is nothing to classify.", "Give a list or a text as `context`.")
    return values

"""What a recipe costs at most, known before it runs.

Two sums: calls to the engine, and the tokens that it works for them (prompt tokens it computes and
tokens it generates, as `Limits` counts them). They hold with nothing in the prefix cache, with
every answer as long as it may be, and with every scored prompt computed twice. So no run goes over
its plan; one that finds the shared prefix cached stays far below.

A limit below the plan ends the run before its first call, or leaves out parts of what would be
read, as it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from heapq import nlargest
from typing import Literal

import anyio.to_thread

from rlm_runtime.errors import LimitExceeded
from rlm_runtime.prompt import CONNECTIVE, Layout
from rlm_runtime.scaffold.leaf_prompts import HEAD_CHARACTERS, Leaf, LeafPrompts
from rlm_runtime.scaffold.likelihood import TAIL
from rlm_runtime.scaffold.questions import question_parts
from rlm_runtime.scaffold.recipes.search import Search
from rlm_runtime.scaffold.rendering import render
from rlm_runtime.scaffold.thread_watch import ThreadWatch
from rlm_runtime.scaffold.tree import Seat
from rlm_runtime.scaffold.typed_answer import AnswerType
from rlm_runtime.types import Limits, Ref, StopReason, Usage

Over = Literal["refuse", "shrink"]
"""With a limit below the plan: end before the first call, or read fewer parts."""


@dataclass(frozen=True, slots=True)
class Step:
    """Calls of one kind.

    Attributes:
        label: As in the log (`CallFinished.label`).
        calls: At most.
        tokens: At most, all of them together.
    """

    label: str
    calls: int
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """An upper bound.

    Attributes:
        steps: Its parts, in the order in which they run.
        parts: Chunks or rows that are read one by one; 0 where that is not how it works.
        left_out: Chunks or rows behind these that are not read.
        shrunk: The plan for the first `n` parts, which costs no more than that of `n + 1`; `None`
            where nothing can be left out.
    """

    steps: tuple[Step, ...]
    parts: int = 0
    left_out: int = 0
    shrunk: Callable[[int], Plan] | None = field(default=None, repr=False, compare=False)

    @property
    def calls(self) -> int:
        """Calls to the engine, at most."""
        return sum(step.calls for step in self.steps)

    @property
    def tokens(self) -> int:
        """Prompt tokens computed plus tokens generated, at most."""
        return sum(step.tokens for step in self.steps)


def fit(plan: Plan, limits: Limits, over: Over = "refuse", used: Usage | None = None) -> Plan:
    """The plan, or as much of it as the limits allow.

    `max_seconds` is no limit of a plan: how long a call takes is not known before.

    Args:
        plan: Of a whole run.
        limits: Of the tree.
        over: What to do with a plan that is larger.
        used: What the tree has spent of its limits so far.

    Raises:
        LimitExceeded: The plan is larger; or, shrinking, not even one part is allowed.
    """
    used = used or Usage()
    refusal = _refusal(plan, limits, used)
    if refusal is None:
        return plan
    if over == "refuse" or plan.shrunk is None:
        raise refusal
    most, too_many = 0, plan.parts
    while too_many - most > 1:
        parts = (most + too_many) // 2
        if _refusal(plan.shrunk(parts), limits, used) is None:
            most = parts
        else:
            too_many = parts
    if most == 0:
        raise _refusal(plan.shrunk(1), limits, used) or refusal
    return plan.shrunk(most)


def call_tokens(prompt_tokens: int, max_tokens: int, *, is_scored: bool = False) -> int:
    """What one call costs at most: what a tree reserves for it (`Job.reserve`)."""
    return (2 if is_scored else 1) * (prompt_tokens + max_tokens)


def leaf_tokens(layout: Layout, document_tokens: int, tail_tokens: int, max_tokens: int) -> int:
    """What one question about a document costs at most.

    Args:
        layout: Of the prompt.
        document_tokens: Of the document's ids, fillers included.
        tail_tokens: Behind it (`Layout.tail`).
        max_tokens: Of the answer.
    """
    return call_tokens(len(layout.shared_ids) + document_tokens + tail_tokens, max_tokens)


async def direct_plan(
    seat: Seat, task: str, values: Sequence[Ref], answer_type: AnswerType | None = None
) -> Plan:
    """What `direct` costs at most; exact but for what fills its document to whole blocks.

    Args:
        seat: Who would answer.
        task: In words.
        values: What it answers from, in this order.
        answer_type: A type is asked for up to `agents.schema_retries` times more.
    """
    tree = seat.tree
    window, store = tree.info.window, tree.corpus.store

    def measure() -> Plan:
        leaf = Leaf(question=task, answer=answer_type)
        fixed = window - LeafPrompts(tree).room(leaf)
        text = CONNECTIVE.join(render(store.load(ref), window * HEAD_CHARACTERS) for ref in values)
        # What does not fit the window is refused and costs nothing.
        fits = len(text) <= window * HEAD_CHARACTERS
        data = tree.layout.tokenizer.count(text) + tree.layout.block_size if fits else window
        steps = [Step(leaf.label, 1, min(window, fixed + data))]
        if answer_type is not None:
            retries = tree.config.agents.schema_retries
            steps.append(Step(f"{leaf.label} again", retries, retries * window))
        return Plan(steps=tuple(steps))

    return await anyio.to_thread.run_sync(measure, abandon_on_cancel=True)


async def search_plan(
    seat: Seat, task: str, texts: Sequence[Ref], *, exhaustive: bool = False
) -> Plan:
    """What `search` costs at most. Picks the chunks that it would rank, which indexes the texts.

    Nothing can be left out before: a search ends early by itself when it is certain, or at a limit,
    with what it has found.

    Args:
        seat: Who would search.
        task: The question.
        texts: Where.
        exhaustive: As for `SearchAgent`.

    Raises:
        LimitExceeded: The tree's `max_seconds` are over.
    """
    tree = seat.tree
    layout, config = tree.layout, tree.config.search
    search = Search(tree.corpus, config, tree.recorder, tree.info.kv_tokens)
    questions = question_parts(task)
    lengths = [layout.tokenizer.count(question) for question in questions]
    fixed = len(layout.shared_ids) + len(layout.tail(TAIL))

    def scores(documents: Sequence[int], question: int) -> int:
        return sum(call_tokens(fixed + n + question, 1, is_scored=True) for n in documents)

    def measure() -> Plan:
        # The search's own choice, so that the two can't differ.
        all_pieces = tree.corpus.pieces(texts)
        choice = search._choose(texts, all_pieces, questions, watch, exhaustive=exhaustive)
        rounds = choice.rounds
        pieces = [place.piece for places in rounds for place in places]
        chunks = [len(tree.corpus.document(piece).ids) for piece in pieces]
        sentences = [[len(s.document.ids) for s in search._candidates(p)] for p in pieces]
        # Which chunks turn out best is not known before: those with most to score.
        best = config.passages * len(rounds)
        counts = nlargest(best, map(len, sentences))
        steps = [
            Step("score without text", len(lengths), sum(scores([0], n) for n in lengths)),
            Step("read chunk", len(chunks), sum(call_tokens(fixed + n, 1) for n in chunks)),
            Step("rank chunk", len(lengths) * len(chunks), sum(scores(chunks, n) for n in lengths)),
            Step(
                "score sentence",
                len(lengths) * sum(counts),
                sum(sum(nlargest(best, (scores(s, n) for s in sentences))) for n in lengths),
            ),
        ]
        if config.short_form and tree.info.can_choose:
            # It makes no call where its prompt does not fit the window.
            steps.append(Step("short form", len(lengths), len(lengths) * tree.info.window))
        return Plan(steps=tuple(steps))

    with ThreadWatch(tree.job) as watch:
        return await anyio.to_thread.run_sync(measure, abandon_on_cancel=True)


def one_call_each(label: str, part_tokens: Sequence[int]) -> Plan:
    """The plan of one call a part, where parts from the end can be left out.

    Args:
        label: Of the calls.
        part_tokens: What each part's call costs at most.
    """

    def first(parts: int) -> Plan:
        step = Step(label, parts, sum(part_tokens[:parts]))
        left_out = len(part_tokens) - parts
        return Plan(steps=(step,), parts=parts, left_out=left_out, shrunk=first)

    return first(len(part_tokens))


def _refusal(plan: Plan, limits: Limits, used: Usage) -> LimitExceeded | None:
    calls = used.calls + plan.calls
    if limits.max_calls is not None and calls > limits.max_calls:
        return LimitExceeded(
            StopReason.BUDGET_CALLS, "max_calls", limits.max_calls, calls, subject="the plan"
        )
    tokens = used.computed_tokens + used.generated_tokens + plan.tokens
    if limits.max_tokens is not None and tokens > limits.max_tokens:
        return LimitExceeded(
            StopReason.BUDGET_TOKENS, "max_tokens", limits.max_tokens, tokens, subject="the plan"
        )
    return None

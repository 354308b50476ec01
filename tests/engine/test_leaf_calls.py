"""Leaf calls on the real model: what is computed, what types hold, and what one failure costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import pydantic
import pytest
from annotated_types import Ge, Le, MultipleOf

from rlm_runtime.api import Internals
from rlm_runtime.config import Config
from rlm_runtime.config.model import AgentsConfig
from rlm_runtime.errors import InputError, PromptTooLong, SchemaMismatch
from rlm_runtime.prompt import CONNECTIVE
from rlm_runtime.scaffold.leaf_calls import Leaf, LeafCalls
from rlm_runtime.scaffold.likelihood import ScoreMemo
from rlm_runtime.scaffold.tree import Seat, Tree
from rlm_runtime.scaffold.typed_answer import AnswerType
from rlm_runtime.scheduler import Job
from rlm_runtime.store.budget import ReadBudget
from rlm_runtime.tracing import AnyEvent, CallFinished
from rlm_runtime.types import AgentId

pytestmark = [pytest.mark.engine, pytest.mark.anyio]

TEXTS = (
    "The mill at Orsa was built in 1811 by Anna Brandt, who had bought the land. " * 6,
    "On Sundays the ferry to Farrow Point runs once, at a quarter past four. " * 7,
    "Tobias Wren planted the oldest oak in Brennick Park, and painted its gate green. " * 8,
)
QUESTIONS = ("Who is named?", "Is a year given?", "Where does it happen?", "Name a thing.")


@dataclass
class Bench:
    """One agent's leaf calls, and the calls they made."""

    parts: Internals
    calls: LeafCalls
    events: list[CallFinished]


@pytest.fixture
async def bench(parts: Internals) -> Bench:
    events: list[CallFinished] = []

    def hear(event: AnyEvent) -> None:
        if isinstance(event, CallFinished):
            events.append(event)

    parts.recorder.subscribe(hear)
    tree = Tree(
        scheduler=parts.scheduler,
        layout=parts.layout,
        job=Job(),
        recorder=parts.recorder,
        corpus=parts.corpus,
        info=parts.engine.info,
        config=Config(agents=AgentsConfig(answer_tokens=40)),
        memo=ScoreMemo(),
        reads=ReadBudget(owner="tree"),
    )
    await parts.engine.reset_prefix_cache()
    return Bench(parts, LeafCalls(Seat(tree, AgentId("leaves"))), events)


async def test_a_map_computes_each_chunk_once_and_the_shared_prefix_once(bench: Bench) -> None:
    rows = await bench.calls.map(TEXTS, QUESTIONS, max_tokens=6)
    assert [[answer.error for answer in row] for row in rows] == [[None] * 4] * 3
    layout = bench.parts.layout
    shared, block = len(layout.shared_ids), layout.block_size
    documents = [bench.calls.prompts.document(text) for text in TEXTS]
    connective = -(shared + len(documents[0].ids)) % block
    tails = [len(layout.tail(CONNECTIVE + question)) - connective for question in QUESTIONS]
    # Of the shared prefix, the block that the data begins in is each chunk's own.
    whole = shared // block * block
    expected = whole
    for document in documents:
        assert (shared + len(document.ids) + connective) % block == 0
        expected += shared - whole + len(document.ids) + connective + sum(tails)
    assert sum(event.computed_tokens or 0 for event in bench.events) == expected
    # Nobody else asks, so another agent with the same questions computes nearly nothing.
    first = len(bench.events)
    await bench.calls.map(TEXTS, QUESTIONS, max_tokens=6)
    again = sum(event.computed_tokens or 0 for event in bench.events[first:])
    assert again <= sum(min(tail, block) for tail in tails) * len(TEXTS)


@dataclass
class Note:
    about: Literal["a building", "a boat", "a tree"]
    year: Annotated[int, Ge(1000), Le(2999)]
    is_old: bool


class Pair(pydantic.BaseModel):
    first: Literal["yes", "no"]
    inner: Note


ROW = {
    "type": "object",
    "properties": {"name": {"enum": ["Anna", "Tobias"]}, "rows": {"$ref": "#/$defs/rows"}},
    "required": ["name", "rows"],
    "additionalProperties": False,
    "$defs": {"rows": {"type": "array", "items": {"type": "boolean"}, "maxItems": 3}},
}


@pytest.mark.parametrize(
    "kind", [Note, Pair, ROW, bool, Literal["yes", "no"], Annotated[int, Ge(0), Le(99)]]
)
async def test_answers_of_a_type_are_of_it_at_once(bench: Bench, kind: object) -> None:
    rows = await bench.calls.map(
        TEXTS, ["What does it say?"], answer=AnswerType.of(kind), max_tokens=100
    )
    assert [row[0].error for row in rows] == [None] * 3
    assert len(bench.events) == 3, "the grammar held, so none was asked for again"


async def test_a_rule_that_no_grammar_has_is_checked(bench: Bench) -> None:
    """The engine refuses the schema and lives on; the answer is checked all the same."""
    even = AnswerType.of(Annotated[int, MultipleOf(2)])
    (answer,) = await bench.calls.batch([Leaf(question="Say 4.", answer=even, max_tokens=8)])
    assert bench.events[0].outcome == "failed"
    if answer.error is None:
        assert isinstance(answer.value, int)
        assert answer.value % 2 == 0
    else:
        assert isinstance(answer.error, SchemaMismatch)


async def test_a_further_attempt_computes_only_what_it_adds(bench: Bench) -> None:
    def refuse(_: str) -> str:
        raise ValueError("nothing is right")

    never = AnswerType.of(Annotated[Literal["yes", "no"], pydantic.AfterValidator(refuse)])
    leaf = Leaf(question="Is it old?", data=TEXTS[0], answer=never, max_tokens=12)
    (answer,) = await bench.calls.batch([leaf])
    assert isinstance(answer.error, SchemaMismatch)
    assert answer.error.attempts == 3 == len(bench.events)
    block = bench.parts.layout.block_size
    for before, after in zip(bench.events, bench.events[1:], strict=False):
        assert before.prompt_tokens is not None
        assert before.generated_tokens is not None
        # The last token generated went through no model.
        known = before.prompt_tokens + before.generated_tokens - 1
        assert after.cached_tokens == known // block * block


async def test_items_that_fail_leave_the_others_of_their_batch_alone(bench: Bench) -> None:
    leaves = [
        Leaf(question="Who is named?", data=TEXTS[0], max_tokens=6),
        Leaf(question="Who is named?", data=TEXTS[0] * 50, max_tokens=6),
        Leaf(question="Which?", data=TEXTS[0], choices=("a mill", "")),
        Leaf(question="Which?", data=TEXTS[0], choices=("a mill", "a boat")),
    ]
    good, long, bad, choice = await bench.calls.batch(leaves)
    assert good.text
    assert isinstance(long.error, PromptTooLong)
    assert isinstance(bad.error, InputError)
    assert choice.value in ("a mill", "a boat")


async def test_an_answer_ends_with_its_turn_or_is_marked_as_cut(bench: Bench) -> None:
    questions = ["When was the mill built?", "Who built it?", "Tell all you know, at length."]
    (row,) = await bench.calls.map(TEXTS[:1], questions, max_tokens=24)
    end = bench.parts.layout.template.turn_end_ids[-1]
    for answer in row:
        assert answer.was_cut == (answer.ids[-1] != end)
        assert "<|" not in answer.text

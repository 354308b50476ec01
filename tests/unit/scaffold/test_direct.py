"""`direct` on the scripted engine: the whole context in front of the task, or nothing at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from rlm_runtime.engine.base import GenerateRequest
from rlm_runtime.errors import InputError, LimitExceeded, PromptTooLong, SchemaMismatch
from rlm_runtime.prompt import CONNECTIVE
from rlm_runtime.scaffold.agent import AgentResult, run_agent
from rlm_runtime.scaffold.leaf_calls import LeafAnswer
from rlm_runtime.scaffold.recipes.direct import Direct
from rlm_runtime.scaffold.typed_answer import AnswerType
from rlm_runtime.tracing import AgentFinished, AgentStarted, ValueRead
from rlm_runtime.types import Limits, StopReason

if TYPE_CHECKING:
    from tests.unit.scaffold.conftest import Grove

pytestmark = pytest.mark.anyio

TEXT = "The mill was built in 1811 by Anna Brandt. It burnt down twice."
TASK = "Who built it?"


def says(grove: Grove, words: str) -> None:
    ids = (*grove.layout.tokenizer.encode(words), grove.layout.template.turn_end_ids[-1])
    grove.engine.answer = lambda _: ids


def asked(grove: Grove, request: GenerateRequest) -> str:
    return grove.layout.tokenizer.decode(request.prompt_ids[len(grove.layout.shared_ids) :])


async def run(
    grove: Grove, agent: Direct | None = None, task: str = TASK, limits: Limits | None = None
) -> AgentResult:
    seat, context = grove.root(grove.tree(limits))
    return await run_agent(agent or Direct(), seat, task, context)


async def test_all_values_stand_in_front_of_the_task(grove: Grove) -> None:
    grove.store.put_value("b_text", TEXT)
    grove.store.put_value("a_rows", [{"title": "x"}])
    says(grove, "Anna Brandt.")
    result = await run(grove)
    (request,) = grove.engine.seen
    words = asked(grove, request)
    assert words.startswith(f'[{{"title":"x"}}]{CONNECTIVE}{TEXT}')
    assert words.index(TEXT) < words.index(CONNECTIVE + TASK)
    assert request.max_tokens == grove.tree().config.agents.answer_tokens
    outcome = result.outcome
    assert (result.kind, outcome.stop_reason, outcome.found) == ("direct", StopReason.FINAL, True)
    assert outcome.answer == "Anna Brandt."
    assert isinstance(outcome.detail, LeafAnswer)
    reads = [event for event in grove.events if isinstance(event, ValueRead)]
    counts = {event.name: event.tokens for event in reads}
    assert counts["b_text"] == len(grove.layout.tokenizer.encode(TEXT))
    assert set(counts) == {"a_rows", "b_text"}


async def test_a_second_task_about_the_same_values_shares_all_but_itself(grove: Grove) -> None:
    grove.store.put_value("text", TEXT)
    await run(grove)
    await run(grove, task="Did it burn?")
    first, second = (request.prompt_ids for request in grove.engine.seen)
    shared = next(i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b)
    assert shared % grove.layout.block_size == 0
    assert TEXT in grove.layout.tokenizer.decode(first[:shared])


async def test_only_the_values_that_are_named_are_read(grove: Grove) -> None:
    ref = grove.store.put_value("text", TEXT)
    grove.store.put_value("other", "A secret.")
    await run(grove, Direct(values=(ref,)))
    assert "secret" not in asked(grove, grove.engine.seen[0])


async def test_a_task_may_have_no_context(grove: Grove) -> None:
    says(grove, "Four.")
    result = await run(grove, task="What is two and two?")
    assert asked(grove, grove.engine.seen[0]).startswith("What is two and two?")
    assert (result.outcome.answer, result.outcome.found) == ("Four.", None)


async def test_what_the_text_does_not_say_is_not_found(grove: Grove) -> None:
    grove.store.put_value("text", TEXT)
    says(grove, "not found")
    assert (await run(grove)).outcome.found is False


async def test_a_child_stores_its_answer_for_its_parent(grove: Grove) -> None:
    grove.store.put_value("text", TEXT)
    says(grove, "Anna Brandt.")
    seat, context = grove.root(grove.tree())
    child = seat.child()
    result = await run_agent(Direct(), child, TASK, context.child(child.agent_id, ["text"]))
    ref = result.outcome.result
    assert ref is not None
    assert ref.name == child.result_name
    assert context.read(ref.name) == "Anna Brandt."
    assert result.outcome.answer is None
    assert result.stored == (ref,)


async def test_a_value_of_a_type_is_stored_as_data(grove: Grove) -> None:
    grove.store.put_value("text", TEXT)
    says(grove, '{"year": 1811}')
    year = AnswerType.of({"type": "object", "properties": {"year": {"type": "integer"}}})
    result = await run(grove, Direct(answer_type=year))
    ref = result.outcome.result
    assert ref is not None
    assert grove.store.load(ref) == {"year": 1811}
    assert grove.engine.seen[0].json_schema == year.schema


async def test_an_answer_of_no_type_is_an_error_and_stores_nothing(grove: Grove) -> None:
    says(grove, "I can't say.")
    names = grove.store.names()
    with pytest.raises(SchemaMismatch):
        await run(grove, Direct(answer_type=AnswerType.of(int)))
    assert grove.store.names() == names


@pytest.mark.parametrize("is_one_value", [True, False])
async def test_a_context_that_does_not_fit_is_refused_before_any_call(
    grove: Grove, is_one_value: bool
) -> None:
    if is_one_value:
        grove.store.put_value("text", TEXT * 1_000)
    else:
        for i in range(10):
            grove.store.put_value(f"text_{i}", TEXT * 60)
    with pytest.raises(PromptTooLong) as caught:
        await run(grove)
    assert grove.engine.seen == []
    error = caught.value
    assert error.prompt_tokens > error.limit
    assert error.limit < grove.engine.info.window
    assert "search, map_reduce" in error.remedy
    finished = [event for event in grove.events if isinstance(event, AgentFinished)]
    assert [event.stop_reason for event in finished] == ["failed"]


async def test_a_value_that_is_no_text_is_refused_as_well(grove: Grove) -> None:
    grove.store.put_value("numbers", np.zeros(2_000_000))
    with pytest.raises(PromptTooLong, match="'numbers' does not fit"):
        await run(grove)


async def test_a_context_may_fill_the_window(grove: Grove) -> None:
    """Up to the last token: what fills it to a block border is left out then."""
    layout, tree = grove.layout, grove.tree()
    tail = len(layout.tail(CONNECTIVE + TASK))
    room = tree.info.window - len(layout.shared_ids) - tail - tree.config.agents.answer_tokens
    grove.store.put_value("text", " a" * room)
    await run(grove)
    (request,) = grove.engine.seen
    assert len(request.prompt_ids) + request.max_tokens == tree.info.window
    grove.store.put_value("text", " a" * (room + 1))
    with pytest.raises(PromptTooLong):
        await run(grove)


async def test_an_empty_task_is_refused(grove: Grove) -> None:
    with pytest.raises(InputError, match="task is empty"):
        await run(grove, task=" \n")
    assert grove.engine.seen == []


async def test_a_limit_is_the_end_of_the_agent(grove: Grove) -> None:
    grove.store.put_value("text", TEXT)
    result = await run(grove, limits=Limits(max_tokens=10))
    assert result.outcome.stop_reason is StopReason.BUDGET_TOKENS
    assert "max_tokens" in result.outcome.error
    assert grove.engine.seen == []
    seat, context = grove.root(grove.tree(Limits(max_tokens=10)))
    with pytest.raises(LimitExceeded):
        await Direct().run(seat, TASK, context)


async def test_its_beginning_and_end_are_in_the_log(grove: Grove) -> None:
    await run(grove)
    kinds = [e.kind for e in grove.events if isinstance(e, AgentStarted)]
    assert kinds == ["direct"]

"""Search as an agent: a root's answer is its caller's, a child's is stored."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest

from rlm_runtime.config import Config
from rlm_runtime.config.model import SearchConfig
from rlm_runtime.engine.base import GenerateRequest
from rlm_runtime.errors import ConfigError, EngineDead, EngineError, InputError, PromptTooLong
from rlm_runtime.scaffold.agent import AgentResult, run_agent
from rlm_runtime.scaffold.agent_context import AgentContext
from rlm_runtime.scaffold.recipes.search_agent import (
    SearchAgent,
    SearchFindings,
    check_question,
    check_window,
)
from rlm_runtime.scaffold.subagents import Children, SubTask
from rlm_runtime.tracing import AgentFinished, AgentStarted, CallFinished, ValueRead
from rlm_runtime.types import Limits, StopReason

if TYPE_CHECKING:
    from tests.unit.scaffold.conftest import Grove

pytestmark = pytest.mark.anyio

FACT = "Edith Marlow repaired the lighthouse clock at Farrow Point."
QUESTION = "Who repaired the lighthouse clock?"
FILLER = "The weather was mild and the days went by as they always do in such a place. "
WITH_FACT = "\n\n".join([FILLER * 3, f"{FILLER}{FACT} {FILLER}", FILLER * 3])
WITHOUT = "\n\n".join(
    ["Nobody came to the harbour that year, and nothing was sold there. " * 4] * 3
)


@pytest.fixture
def knowing(grove: Grove) -> Grove:
    """On an engine that finds a question likely when the prompt has its words."""
    shared = len(grove.layout.shared_ids)

    def score(request: GenerateRequest) -> float:
        assert request.score is not None
        start, end = request.score.start, request.score.end
        text, question = set(request.prompt_ids[shared:start]), request.prompt_ids[start:end]
        return -5.0 * sum(i not in text for i in question) / len(question)

    grove.engine.score = score
    return grove


def findings(result: AgentResult) -> SearchFindings:
    assert isinstance(result.outcome.detail, SearchFindings)
    return result.outcome.detail


async def test_a_root_answers_with_a_quotation_and_stores_nothing(knowing: Grove) -> None:
    knowing.store.put_text("report", WITH_FACT)
    seat, context = knowing.root(knowing.tree())
    result = await run_agent(SearchAgent(), seat, QUESTION, context)
    outcome = result.outcome
    assert (outcome.answer, outcome.found, outcome.result) == (FACT, True, None)
    assert outcome.stop_reason is StopReason.FINAL
    assert result.stored == ()
    assert knowing.store.names() == ("report",)
    (best,) = findings(result).result.answers
    assert WITH_FACT.encode()[best.start_byte : best.end_byte].decode() == FACT
    (short,) = findings(result).shorts
    assert short is not None
    assert short.text in FACT


async def test_a_childs_answer_is_stored_for_its_parent(knowing: Grove) -> None:
    knowing.store.put_text("report", WITH_FACT)
    knowing.store.put_text("letter", WITHOUT)
    seat, context = knowing.root(knowing.tree())
    async with Children(seat, context) as children:
        found, missed = await children.run_all(
            [
                SubTask(agent=SearchAgent(), task=QUESTION, names=["report"]),
                SubTask(agent=SearchAgent(), task=QUESTION, names=["letter"]),
            ]
        )
    assert isinstance(found, AgentResult)
    assert isinstance(missed, AgentResult)
    assert (found.outcome.answer, found.outcome.found) == (None, True)
    ref = found.outcome.result
    assert ref is not None
    assert ref.name == "answer_a1_1"
    assert found.stored == (ref,)
    assert context.read("answer_a1_1") == FACT
    assert (missed.outcome.result, missed.outcome.found, missed.stored) == (None, False, ())
    reads = {(e.reader, e.name) for e in knowing.events if isinstance(e, ValueRead) and e.tokens}
    assert {("a1.1", "report"), ("a1.2", "letter")} <= reads
    assert not reads & {("a1.1", "letter"), ("a1.2", "report")}


async def test_the_log_has_the_search_from_its_start_to_its_end(knowing: Grove) -> None:
    knowing.store.put_text("report", WITH_FACT)
    seat, context = knowing.root(knowing.tree())
    await run_agent(SearchAgent(), seat, QUESTION, context)
    (start,) = [e for e in knowing.events if isinstance(e, AgentStarted)]
    (end,) = [e for e in knowing.events if isinstance(e, AgentFinished)]
    assert (start.agent_id, start.kind, start.parent_id) == ("a1", "search", None)
    assert (end.agent_id, end.stop_reason, end.found) == ("a1", "final", True)
    assert {e.agent_id for e in knowing.events if isinstance(e, CallFinished)} == {"a1"}


async def test_texts_that_are_named_are_searched_in_their_versions(knowing: Grove) -> None:
    first = knowing.store.put_text("report", WITH_FACT)
    knowing.store.put_text("report", WITHOUT)
    seat, context = knowing.root(knowing.tree())
    newest = await run_agent(SearchAgent(), seat, QUESTION, context)
    assert newest.outcome.found is False
    old = await run_agent(SearchAgent(texts=(first,)), seat, QUESTION, context)
    assert old.outcome.answer == FACT


async def test_values_that_are_no_text_are_left_out(knowing: Grove) -> None:
    knowing.store.put_text("report", WITH_FACT)
    knowing.store.put_bytes("photo", b"\xff" * 100)
    seat, context = knowing.root(knowing.tree())
    assert (await run_agent(SearchAgent(), seat, QUESTION, context)).outcome.answer == FACT


async def test_a_limit_is_an_end_with_what_was_found_so_far(knowing: Grove) -> None:
    knowing.store.put_text("report", WITH_FACT * 20)
    seat, context = knowing.root(knowing.tree(Limits(max_calls=12)))
    result = await run_agent(SearchAgent(), seat, QUESTION, context)
    assert result.outcome.stop_reason is StopReason.BUDGET_CALLS
    assert 0 < findings(result).result.ranked < findings(result).result.pieces


async def test_a_highlight_that_fails_loses_no_answer(knowing: Grove) -> None:
    knowing.store.put_text("report", WITH_FACT)
    seat, context = knowing.root(knowing.tree())

    def refuse(request: GenerateRequest) -> None:
        if request.choices:
            raise EngineError("no choice today", "ask again")

    knowing.engine.on_request = refuse
    result = await run_agent(SearchAgent(), seat, QUESTION, context)
    assert result.outcome.answer == FACT
    assert findings(result).shorts == (None,)


async def test_the_end_of_the_engine_is_no_failed_highlight(knowing: Grove) -> None:
    knowing.store.put_text("report", WITH_FACT)
    seat, context = knowing.root(knowing.tree())

    def die(request: GenerateRequest) -> None:
        if request.choices:
            raise EngineDead("killed")

    knowing.engine.on_request = die
    with pytest.raises(EngineDead, match="killed"):
        await run_agent(SearchAgent(), seat, QUESTION, context)
    (end,) = [e for e in knowing.events if isinstance(e, AgentFinished)]
    assert end.stop_reason == "engine_dead"


@pytest.mark.parametrize("reason", ["config", "engine"])
async def test_without_choices_there_is_no_highlight(knowing: Grove, reason: str) -> None:
    knowing.store.put_text("report", WITH_FACT)
    config = Config(search=SearchConfig(short_form=reason != "config"))
    knowing.engine.can_choose = reason != "engine"
    seat, context = knowing.root(knowing.tree(config=config))
    result = await run_agent(SearchAgent(), seat, QUESTION, context)
    assert findings(result).shorts == (None,)
    assert not any(request.choices for request in knowing.engine.seen)


@pytest.mark.parametrize("question", ["", "  \n"])
async def test_an_empty_question_is_refused(knowing: Grove, question: str) -> None:
    knowing.store.put_text("report", WITH_FACT)
    seat, context = knowing.root(knowing.tree())
    with pytest.raises(InputError, match="question is empty"):
        await run_agent(SearchAgent(), seat, question, context)
    assert knowing.engine.seen == []


async def test_a_context_without_text_is_refused(knowing: Grove) -> None:
    knowing.store.put_bytes("photo", b"\xff" * 100)
    tree = knowing.tree()
    seat, context = knowing.root(tree)
    with pytest.raises(InputError, match="no text to search"):
        await run_agent(SearchAgent(), seat, QUESTION, context)
    knowing.store.put_text("report", WITH_FACT)
    nothing = AgentContext(knowing.store, knowing.recorder, visible=())
    with pytest.raises(InputError, match="no text to search"):
        await run_agent(SearchAgent(), seat, QUESTION, nothing)


def test_a_question_must_fit_beside_a_chunk(grove: Grove) -> None:
    tokenizer, layout = grove.layout.tokenizer, grove.layout
    check_window(grove.corpus, None)
    check_question("word " * 100_000, grove.corpus, None)
    window = len(layout.shared_ids) + 300
    check_window(grove.corpus, window)
    check_question(QUESTION, grove.corpus, window)
    long = "word " * 400
    with pytest.raises(PromptTooLong, match="shorten the question") as raised:
        check_question(long, grove.corpus, window)
    assert raised.value.prompt_tokens > len(layout.shared_ids) + tokenizer.count(long)
    check_question(long, grove.corpus, raised.value.prompt_tokens)
    with pytest.raises(ConfigError, match=r"engine\.window_tokens"):
        check_window(grove.corpus, len(layout.shared_ids) + 100)


async def test_a_cancelled_search_leaves_no_call_behind(knowing: Grove) -> None:
    knowing.store.put_text("report", WITH_FACT)
    knowing.engine.gate = anyio.Event()
    seat, context = knowing.root(knowing.tree())
    async with Children(seat, context) as children:
        handle = children.start(SearchAgent(), QUESTION)
        while not knowing.engine.running:
            await anyio.lowlevel.checkpoint()
        handle.cancel()
        await handle.outcome()
        assert knowing.engine.running == 0
    (end,) = [e for e in knowing.events if isinstance(e, AgentFinished)]
    assert end.stop_reason == "cancelled"

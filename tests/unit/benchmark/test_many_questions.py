"""Which calls are made in which order, about which text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_runtime.benchmark.many_questions import READ, SCORE, measure
from rlm_runtime.benchmark.many_questions_result import ManyQuestionsResult, Order, Pass
from rlm_runtime.benchmark.many_questions_text import document_text, questions_about
from rlm_runtime.errors import InputError
from rlm_runtime.profiler import RunLog
from rlm_runtime.tracing import AgentFinished, AnyEvent, CacheReset, CallFinished
from rlm_runtime.types import Ref

if TYPE_CHECKING:
    from tests.unit.benchmark.conftest import RecordedRun, Rig

BOTH = tuple(Order)


def words(text: str) -> int:
    """Stands in for a tokenizer."""
    return len(text.split())


def document(rig: Rig, tokens: int = 3000) -> Ref:
    text = document_text(tokens, 0, rig.parts.layout.tokenizer.count)
    return rig.parts.corpus.store.put_text("reference", text)


def calls(events: Sequence[AnyEvent]) -> list[CallFinished]:
    return [event for event in events if isinstance(event, CallFinished)]


@given(st.integers(500, 40_000), st.integers(0, 100))
def test_a_document_s_last_paragraph_takes_it_over_the_number(tokens: int, seed: int) -> None:
    text = document_text(tokens, seed, words)
    assert words(text) >= tokens > words("\n\n".join(re.split(r"\n\n+(?=\S)", text)[:-1]))
    assert document_text(tokens, seed, words) == text


def test_another_seed_is_another_document() -> None:
    assert document_text(5000, 0, words) != document_text(5000, 1, words)


@pytest.mark.parametrize("tokens", [0, 10**9])
def test_a_document_that_can_t_be_made_is_refused(tokens: int) -> None:
    with pytest.raises(InputError):
        document_text(tokens, 0, words)


@given(st.integers(1, 40), st.integers(0, 100))
def test_questions_differ_and_fit_beside_one_token_in_a_block(count: int, seed: int) -> None:
    text = document_text(8000, 0, words)
    asked = questions_about(text, count, seed, max_tokens=20, count_tokens=words)
    assert len(set(asked)) == count
    assert max(map(words, asked)) <= 20
    assert questions_about(text, count, seed, max_tokens=20, count_tokens=words) == asked


@pytest.mark.parametrize(("count", "max_tokens"), [(0, 20), (10**6, 20), (1, 3)])
def test_questions_that_can_t_be_made_are_refused(count: int, max_tokens: int) -> None:
    text = document_text(3000, 0, words)
    with pytest.raises(InputError, match="question"):
        questions_about(text, count, 0, max_tokens=max_tokens, count_tokens=words)


@pytest.mark.anyio
async def test_both_orders_make_the_same_calls_and_begin_cold(rig: Rig) -> None:
    result = await measure(rig.parts, document(rig), questions=3, orders=BOTH, seed=0)
    asked = {
        one.order: sorted(
            (c.label, c.segments[-1].digest or "", c.group or "")
            for c in calls(rig.events)
            if c.agent_id == one.agent_id
        )
        for one in result.passes
    }
    assert asked[Order.DOCUMENT] == asked[Order.QUESTION]
    labels = [label for label, _, _ in asked[Order.DOCUMENT]]
    assert labels.count(READ) == result.chunks > 2
    assert labels.count(SCORE) == 3 * result.chunks
    assert sum(isinstance(event, CacheReset) for event in rig.events) == len(result.passes) == 2


@pytest.mark.anyio
@pytest.mark.parametrize(("order", "returns"), [(Order.DOCUMENT, 0), (Order.QUESTION, 2)])
async def test_an_order_is_what_it_says(rig: Rig, order: Order, returns: int) -> None:
    """Question after question comes back to each chunk once a further question."""
    rig.engine.max_running = 1
    result = await measure(rig.parts, document(rig), questions=3, orders=[order], seed=0)
    chunks = [group for group, _ in groupby(c.group for c in calls(rig.events))]
    assert len(chunks) == result.chunks * (1 + returns)


@pytest.mark.anyio
async def test_orders_alternate_and_progress_reaches_its_end(rig: Rig) -> None:
    seen: list[tuple[int, int, int]] = []
    result = await measure(
        rig.parts,
        document(rig),
        questions=2,
        orders=BOTH,
        seed=0,
        repeats=2,
        on_call=lambda so_far, done, planned: seen.append((len(so_far.passes), done, planned)),
    )
    assert [one.order for one in result.passes] == [*BOTH, *reversed(BOTH)]
    assert seen == sorted(seen)
    assert seen[-1] == (4, seen[-1][2], seen[-1][2])


@pytest.mark.anyio
async def test_no_repeat_is_refused_before_any_call(rig: Rig) -> None:
    with pytest.raises(InputError):
        await measure(rig.parts, document(rig), questions=2, orders=BOTH, seed=0, repeats=0)
    assert not rig.engine.seen


def recorded_result(recorded: RecordedRun) -> ManyQuestionsResult:
    """A pass of each order; the question order computes a chunk twice."""
    chunk, question = tuple(range(100, 132)), tuple(range(200, 210))
    recorded.agent("document", kind="many-questions")
    recorded.agent("question", kind="many-questions")
    for number, (agent, cached) in enumerate(
        [("document", 0), ("document", 96), ("question", 0), ("question", 64)], start=1
    ):
        recorded.call(number, (*chunk, *question), cached, agent_id=agent, label=SCORE)
        if number == 2:
            recorded.events.append(CacheReset(at_s=3.0))
    for agent, wall_s in (("document", 2.0), ("question", 6.0)):
        recorded.events.append(
            AgentFinished(
                at_s=60.0,
                agent_id=agent,
                stop_reason="final",
                found=None,
                result_blob=None,
                wall_s=wall_s,
            )
        )
    recorded.end(engine_computed_tokens=106 + 10 + 106 + 42)
    log: RunLog = recorded.log()
    return ManyQuestionsResult(
        seed=0,
        text_digest="0" * 64,
        text_tokens=32,
        document_tokens=32,
        shared_prefix_tokens=64,
        kv_tokens=64,
        chunks=1,
        questions=("Why?", "When?"),
        planned_passes=2,
        passes=(Pass(Order.DOCUMENT, 0, "document"), Pass(Order.QUESTION, 0, "question")),
        log=log,
    )


def test_figures_of_each_order_are_its_own_calls(recorded: RecordedRun) -> None:
    figures = recorded_result(recorded).figures()
    assert figures["computed_tokens_document"] == 116
    assert figures["computed_tokens_question"] == 148
    assert figures["computed_tokens_question_over_document"] == pytest.approx(148 / 116)
    assert figures["wall_s_question_over_document"] == pytest.approx(3.0)
    assert figures["hit_rate_of_ceiling_document"] == 1.0
    share = figures["hit_rate_of_ceiling_question"]
    assert share is not None
    assert share < 1.0


def test_what_a_pass_computed_says_nothing_of_what_the_next_one_needs(
    recorded: RecordedRun,
) -> None:
    figures = recorded_result(recorded).figures()
    assert figures["prefill_redundancy_document"] == 1.0
    assert figures["prefill_redundancy_question"] == pytest.approx(148 / 116)


def test_what_the_cache_can_hold_is_said(recorded: RecordedRun) -> None:
    result = recorded_result(recorded)
    assert not result.has_room
    assert "does not hold the shared prefix and all chunks (96 tokens)" in " ".join(result.notes())
    assert replace(result, kv_tokens=96).has_room


def test_without_its_log_a_result_claims_nothing(recorded: RecordedRun) -> None:
    result = replace(recorded_result(recorded), log=None)
    assert not result.figures()
    assert not result.tables()
    assert len(result.detail()["passes"]) == 2  # type: ignore[arg-type] # a list

"""Agents by calls, on an engine whose calls are known beforehand."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_runtime.api import AsyncRLM
from rlm_runtime.benchmark.calls import measure
from rlm_runtime.benchmark.calls_result import CallsResult
from rlm_runtime.benchmark.workloads.calls import CallTask, Kind, call_tasks
from rlm_runtime.engine.base import GenerateRequest
from rlm_runtime.errors import EngineDead, InputError
from rlm_runtime.tracing import AgentStarted

if TYPE_CHECKING:
    from rlm_runtime.prompt import Layout
    from tests.unit.conftest import FakeEngine

SessionOn = Callable[..., AsyncRLM]
Write = Callable[[CallTask, str], str]
"""What the model writes: gets the task and all that was said of it."""
EOS = 2


@given(st.integers(0, 10_000))
def test_a_task_has_one_right_result(seed: int) -> None:
    tasks = list(islice(call_tasks(seed), 8))
    assert [task.kind for task in tasks] == [*Kind, *Kind]
    assert len({task.id for task in tasks}) == 8
    assert tasks == list(islice(call_tasks(seed), 8))
    for task in tasks:
        assert task.is_right(task.wanted)
        assert not task.is_right("")
        assert not any(task.is_right(other) for other in task.others)
        assert not any(task.is_right(text) for text in task.values.values() if len(text) > 100)
        texts = [*task.values.values(), task.task]
        assert all(any(said in text for text in texts) for said in (task.wanted, *task.others))


def test_other_seeds_are_other_tasks() -> None:
    first, second = ([t.task for t in islice(call_tasks(seed), 8)] for seed in (0, 1))
    assert first != second


async def measured(
    session_on: SessionOn,
    engine: FakeEngine,
    layout: Layout,
    write: Write,
    *,
    turns: int = 12,
    settings: dict[str, Any] | None = None,
    on_turn: Any = None,
) -> CallsResult:
    tasks = list(islice(call_tasks(0), 200))

    def answer(request: GenerateRequest) -> tuple[int, ...]:
        said = layout.tokenizer.decode(request.prompt_ids[len(layout.shared_ids) :])
        task = next((task for task in tasks if task.task in said), tasks[0])
        return (*layout.tokenizer.encode(write(task, said)), EOS)

    engine.answer = answer
    async with session_on(engine, **(settings or {})) as session:
        return await measure(session, turns=turns, seed=0, on_turn=on_turn)


def solve(task: CallTask, said: str) -> str:
    if "done" in said.rsplit("WRITE", 1)[-1]:
        return "FINAL(result)"
    return f'WRITE(result, "{task.wanted}")'


@pytest.mark.anyio
async def test_agents_that_do_what_they_should_are_all_right(
    session_on: SessionOn, fake_engine: FakeEngine, layout: Layout
) -> None:
    result = await measured(session_on, fake_engine, layout, solve)
    figures = result.figures()
    assert figures["turns"] == figures["legal_turns"] == figures["calls"] == 12
    assert figures["legal_share"] == 1
    assert figures["agents"] == figures["finals"] == figures["finals_right"] == 6
    assert figures["stop_final"] == 6
    assert figures["errors"] == 0
    assert figures["accuracy"] == 1
    assert figures["hit_rate"] == 0
    assert (figures["generated_tokens"] or 0) > 12
    assert [case.id for case in result.cases] == [task.id for task in islice(call_tasks(0), 6)]
    assert "12 of 12" in result.tables()[0].rows[0][1]


@pytest.mark.anyio
async def test_a_final_with_something_else_is_an_end_but_not_right(
    session_on: SessionOn, fake_engine: FakeEngine, layout: Layout
) -> None:
    result = await measured(session_on, fake_engine, layout, lambda *_: 'FINAL("not found")')
    figures = result.figures()
    assert figures["finals"] == figures["agents"] == 12
    assert figures["finals_right"] == figures["accuracy"] == figures["accuracy_find"] == 0


@pytest.mark.anyio
async def test_a_whole_text_is_no_answer_to_what_stands_in_it(
    session_on: SessionOn, fake_engine: FakeEngine, layout: Layout
) -> None:
    def return_all(task: CallTask, _: str) -> str:
        return "FINAL(permits)" if "permits" in task.values else 'FINAL("")'

    result = await measured(session_on, fake_engine, layout, return_all)
    found = [case for case in result.cases if case.kind == Kind.FIND]
    assert found
    assert all(case.is_final and "permit" in case.answer for case in found)
    assert result.figures()["finals_right"] == 0


@pytest.mark.anyio
async def test_what_is_no_call_is_not_legal_and_agents_end_without_final(
    session_on: SessionOn, fake_engine: FakeEngine, layout: Layout
) -> None:
    result = await measured(session_on, fake_engine, layout, lambda *_: "I would like to help.")
    figures = result.figures()
    assert figures["legal_turns"] == figures["legal_share"] == figures["finals"] == 0
    assert figures["errors"] == figures["errors_bad_call"] == figures["turns"] == 12
    assert figures["stop_errors_in_a_row"] == figures["agents"] == 4
    assert ("(no call)", "12", "12") in result.tables()[2].rows


@pytest.mark.anyio
async def test_a_call_that_fails_is_legal_all_the_same(
    session_on: SessionOn, fake_engine: FakeEngine, layout: Layout
) -> None:
    result = await measured(session_on, fake_engine, layout, lambda *_: "READ(nothing_there)")
    figures = result.figures()
    assert figures["legal_share"] == 1
    assert figures["errors_unknown_name"] == figures["turns"]


@pytest.mark.anyio
async def test_an_agent_that_never_ends_stops_at_its_last_turn(
    session_on: SessionOn, fake_engine: FakeEngine, layout: Layout
) -> None:
    settings = {"limits": {"max_turns": 5}}
    result = await measured(
        session_on, fake_engine, layout, lambda *_: "LIST_CONTEXT()", settings=settings
    )
    figures = result.figures()
    # Three of 5 turns can make 12: they begin at once, and each goes on to its end.
    assert figures["stop_max_turns"] == figures["agents"] == 3
    assert figures["turns"] == 15
    assert [isinstance(event, AgentStarted) for event in result.events[:4]] == [True] * 3 + [False]


@pytest.mark.anyio
async def test_turns_of_sub_agents_count_and_their_agents_are_told_apart(
    session_on: SessionOn, fake_engine: FakeEngine, layout: Layout
) -> None:
    def give_away(_: CallTask, said: str) -> str:
        if "Do a part" in said.split("agent(", 1)[0]:
            return 'FINAL("7")'
        begun = said.count("agent(")
        return 'FINAL("")' if begun == 2 else f'agent("Do a part of it, number {begun}.")'

    result = await measured(session_on, fake_engine, layout, give_away, turns=10)
    figures = result.figures()
    assert (figures["agents"], figures["sub_agents"], figures["turns"]) == (2, 4, 10)
    assert figures["stop_final"] == 6
    assert figures["depth_max"] == 1


@pytest.mark.anyio
async def test_an_engine_that_dies_ends_it_and_what_was_told_stays(
    session_on: SessionOn, fake_engine: FakeEngine, layout: Layout
) -> None:
    told: list[CallsResult] = []

    def on_request(_: GenerateRequest) -> None:
        if len(fake_engine.seen) == 10:
            raise EngineDead("It was killed.")

    fake_engine.on_request = on_request
    with pytest.raises(EngineDead, match="killed"):
        await measured(
            session_on,
            fake_engine,
            layout,
            solve,
            turns=40,
            settings={"limits": {"max_turns": 10}},
            on_turn=lambda so_far, *_: told.append(so_far),
        )
    made = len(told[-1].turns)
    assert 4 < made < 10
    assert len(fake_engine.seen) < 14, "the agents beside it are ended too"
    assert told[-1].cases
    assert f"Ended early: {made} of 40 turns" in " ".join(told[-1].notes())


@pytest.mark.anyio
async def test_an_agent_that_an_error_ends_is_counted(
    session_on: SessionOn, fake_engine: FakeEngine, layout: Layout
) -> None:
    def on_request(_: GenerateRequest) -> None:
        if len(fake_engine.seen) == 3:
            raise InputError("This one is refused.")

    fake_engine.on_request = on_request
    result = await measured(session_on, fake_engine, layout, solve)
    figures = result.figures()
    assert figures["stop_failed"] == 1
    assert figures["finals"] == (figures["agents"] or 0) - 1
    assert "This one is refused." in [case.error for case in result.cases]


@pytest.mark.anyio
async def test_progress_reaches_its_end(
    session_on: SessionOn, fake_engine: FakeEngine, layout: Layout
) -> None:
    told: list[tuple[int, int]] = []
    await measured(
        session_on,
        fake_engine,
        layout,
        solve,
        on_turn=lambda _, done, planned: told.append((done, planned)),
    )
    assert told == sorted(told)
    assert told[-1] == (12, 12)


@pytest.mark.anyio
async def test_no_turn_is_refused_before_any_call(
    session_on: SessionOn, fake_engine: FakeEngine, layout: Layout
) -> None:
    with pytest.raises(InputError):
        await measured(session_on, fake_engine, layout, solve, turns=0)
    assert not fake_engine.seen

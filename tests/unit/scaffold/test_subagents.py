"""Sub-agents: who they are, how they end, and that none is left behind."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest

from rlm_runtime.config import Config
from rlm_runtime.config.model import AgentsConfig
from rlm_runtime.errors import (
    Cancelled,
    ContextBudgetExceeded,
    EngineDead,
    InputError,
    LimitExceeded,
    ModelError,
    RLMError,
    UnknownName,
)
from rlm_runtime.scaffold.agent import AgentResult, Outcome, run_agent
from rlm_runtime.scaffold.agent_context import AgentContext
from rlm_runtime.scaffold.subagents import Children, Handle, SubTask, wait_all, wait_any
from rlm_runtime.scaffold.tree import Seat
from rlm_runtime.scheduler import Call
from rlm_runtime.store.budget import ReadBudget
from rlm_runtime.tracing import AgentFinished, AgentStarted, CallFinished
from rlm_runtime.types import AgentId, AgentKind, Limits, StopReason

if TYPE_CHECKING:
    from tests.unit.scaffold.conftest import Grove

pytestmark = pytest.mark.anyio

Steps = Callable[[Seat, str, AgentContext], Awaitable[Outcome]]

DONE = Outcome(stop_reason=StopReason.FINAL)


@dataclass(frozen=True)
class Acting:
    """An agent that does what its test says."""

    steps: Steps
    kind: AgentKind = "calls"

    async def run(self, seat: Seat, task: str, context: AgentContext) -> Outcome:
        return await self.steps(seat, task, context)


async def _finish(seat: Seat, task: str, context: AgentContext) -> Outcome:
    return DONE


async def _store(seat: Seat, task: str, context: AgentContext) -> Outcome:
    return Outcome(
        stop_reason=StopReason.FINAL, result=context.store(seat.result_name, f"done: {task}")
    )


async def _ask(seat: Seat, task: str, context: AgentContext) -> Outcome:
    """One engine call."""
    tree = seat.tree
    prompt = seat.forked or tree.layout.prompt(task=task)
    call = Call(prompt=prompt, agent_id=seat.agent_id, depth=seat.depth, label="turn")
    await tree.scheduler.run(tree.job, call)
    return DONE


async def _wait_forever(seat: Seat, task: str, context: AgentContext) -> Outcome:
    await anyio.sleep_forever()
    raise AssertionError


def failing(error: Exception) -> Acting:
    async def fail(seat: Seat, task: str, context: AgentContext) -> Outcome:
        raise error

    return Acting(fail)


FINISHES, STORES, ASKS, WAITS = map(Acting, (_finish, _store, _ask, _wait_forever))
FAILS = failing(ModelError("broken", "mend it"))


def tasks_of_the_package() -> list[str]:
    """anyio names a task after its function."""
    names = [task.name or "" for task in anyio.get_running_tasks()]
    return [name for name in names if name.startswith("rlm_runtime.")]


@pytest.fixture
async def is_alone() -> AsyncIterator[None]:
    """What a test started has ended with it."""
    yield
    assert tasks_of_the_package() == []


def started(grove: Grove) -> dict[str, AgentStarted]:
    return {e.agent_id: e for e in grove.events if isinstance(e, AgentStarted)}


def ends(grove: Grove) -> dict[str, str]:
    return {e.agent_id: e.stop_reason for e in grove.events if isinstance(e, AgentFinished)}


def outcome_of(result: AgentResult | RLMError) -> Outcome:
    assert isinstance(result, AgentResult), result
    return result.outcome


async def test_children_are_named_by_their_parent_and_their_number(grove: Grove) -> None:
    async def nest(seat: Seat, task: str, context: AgentContext) -> Outcome:
        async with Children(seat, context) as children:
            tasks = [SubTask(agent=FINISHES, task=f"{task}.{i}") for i in range(2)]
            await children.run_all(tasks)
        return DONE

    async def top(seat: Seat, task: str, context: AgentContext) -> Outcome:
        async with Children(seat, context) as children:
            await wait_all([children.start(Acting(nest), f"part {i}") for i in range(2)])
        return DONE

    seat, context = grove.root(grove.tree(Limits(max_depth=2)))
    await run_agent(Acting(top), seat, "all", context)
    seen = started(grove)
    parents = {agent: event.parent_id for agent, event in seen.items()}
    assert parents == {
        "a1": None,
        **dict.fromkeys(("a1.1", "a1.2"), "a1"),
        **dict.fromkeys(("a1.1.1", "a1.1.2"), "a1.1"),
        **dict.fromkeys(("a1.2.1", "a1.2.2"), "a1.2"),
    }
    assert {agent: event.depth for agent, event in seen.items()} == {
        agent: agent.count(".") for agent in parents
    }
    assert ends(grove) == dict.fromkeys(parents, "final")


async def test_the_log_has_what_a_child_was_given(grove: Grove) -> None:
    for name in ("report", "letter"):
        grove.store.put_text(name, name)
    seat, context = grove.root(grove.tree())
    prompt = grove.layout.prompt(task="parent")
    async with Children(seat, context) as children:
        fresh = children.start(FINISHES, "one", names=["report"])
        fork = children.start(FINISHES, "two", start="fork", prompt=prompt, generated_ids=(7,))
        await wait_all([fresh, fork])
    seen = started(grove)
    assert (seen["a1.1"].start, seen["a1.1"].names) == ("fresh", ("report",))
    assert (seen["a1.2"].start, seen["a1.2"].names) == ("fork", None)


async def test_what_a_child_stores_is_its_parents_to_read(grove: Grove) -> None:
    grove.store.put_text("report", "text")
    tree = grove.tree()
    seat, _ = grove.root(tree)
    context = AgentContext(
        grove.store, grove.recorder, reader=seat.agent_id, budget=tree.agent_reads(), visible=()
    )
    async with Children(seat, context) as children:
        result = await children.start(STORES, "a", names=()).result()
    assert result.outcome.result is not None
    assert result.outcome.result.name == "answer_a1_1"
    assert result.stored == (result.outcome.result,)
    assert list(context.list_available()) == ["answer_a1_1"]


async def test_a_child_sees_only_what_it_was_given(grove: Grove) -> None:
    grove.store.put_text("report", "text")
    grove.store.put_text("secret", "text")
    seen: list[list[str]] = []

    async def look(seat: Seat, task: str, context: AgentContext) -> Outcome:
        seen.append(list(context.list_available()))
        return DONE

    seat, context = grove.root(grove.tree())
    async with Children(seat, context) as children:
        await children.run_all(
            [SubTask(agent=Acting(look), task=str(n), names=n) for n in (["report"], None, ())]
        )
        with pytest.raises(UnknownName):
            children.start(FINISHES, "x", names=["reprot"])
    assert seen == [["report"], ["report", "secret"], []]


async def test_a_failed_item_does_not_fail_its_batch(grove: Grove, is_alone: None) -> None:
    grove.store.put_text("report", "text")
    seat, context = grove.root(grove.tree(Limits(max_depth=1)))

    async def over(seat: Seat, task: str, context: AgentContext) -> Outcome:
        raise LimitExceeded(StopReason.BUDGET_CALLS, "max_calls", 1, 2)

    async with Children(seat, context) as children:
        results = await children.run_all(
            [
                SubTask(agent=STORES, task="first"),
                SubTask(agent=FAILS, task="fails"),
                SubTask(agent=STORES, task="x", names=["nothing"]),
                SubTask(agent=STORES, task="   "),
                SubTask(agent=Acting(over), task="over"),
                SubTask(agent=STORES, task="last"),
            ]
        )
    assert [type(r) for r in results] == [
        AgentResult,
        ModelError,
        UnknownName,
        InputError,
        AgentResult,
        AgentResult,
    ]
    assert outcome_of(results[4]).stop_reason is StopReason.BUDGET_CALLS
    assert "max_calls" in outcome_of(results[4]).error
    stored = outcome_of(results[5]).result
    assert stored is not None
    assert grove.store.text(stored, 0, stored.size_bytes) == "done: last"


async def test_an_error_is_its_handles_and_loses_no_value(grove: Grove) -> None:
    async def store_then_fail(seat: Seat, task: str, context: AgentContext) -> Outcome:
        context.store("half", "half done")
        raise ModelError("broken", "mend it")

    seat, context = grove.root(grove.tree())
    async with Children(seat, context) as children:
        handle = children.start(Acting(store_then_fail), "x")
        assert await wait_any([handle]) == (handle,)
        with pytest.raises(ModelError, match="broken"):
            await handle.result()
        assert [ref.name for ref in handle.stored] == ["half"]
        assert "half" in context.list_available()
        assert isinstance(await children.start(FINISHES, "y").result(), AgentResult)
    assert ends(grove) == {"a1.1": "failed", "a1.2": "final"}


async def test_the_end_of_the_engine_ends_all_with_its_cause(grove: Grove, is_alone: None) -> None:
    seat, context = grove.root(grove.tree())
    reached: list[str] = []

    async def top(seat: Seat, task: str, context: AgentContext) -> Outcome:
        async with Children(seat, context) as children:
            waiting = children.start(WAITS, "sibling")
            await anyio.lowlevel.checkpoint()
            children.start(failing(EngineDead("out of memory on node 7")), "dies")
            await waiting.result()
            reached.append("behind a sibling that never ends")
        reached.append("behind the block")
        return DONE

    with pytest.raises(EngineDead) as raised:
        await run_agent(Acting(top), seat, "all", context)
    assert raised.value.cause == "out of memory on node 7"
    assert reached == []
    assert ends(grove) == {"a1.1": "cancelled", "a1.2": "engine_dead", "a1": "engine_dead"}


async def test_the_end_of_the_engine_is_told_once_though_all_children_meet_it(
    grove: Grove, is_alone: None
) -> None:
    def die(_: object) -> None:
        raise EngineDead("killed")

    grove.engine.on_request = die
    seat, context = grove.root(grove.tree())
    with pytest.raises(EngineDead, match="killed"):
        async with Children(seat, context) as children:
            await children.run_all([SubTask(agent=ASKS, task=f"{i}") for i in range(5)])


async def test_the_end_of_the_engine_is_told_before_what_it_leads_to(grove: Grove) -> None:
    seat, context = grove.root(grove.tree())

    async def parent() -> None:
        async with Children(seat, context) as children:
            children.start(failing(EngineDead("killed")), "x")
            try:
                await anyio.sleep_forever()
            finally:
                raise KeyError("own")

    with pytest.raises(EngineDead, match="killed"):
        await parent()


async def test_the_end_of_the_engine_passes_through_two_levels(grove: Grove) -> None:
    seat, context = grove.root(grove.tree(Limits(max_depth=2)))

    async def middle(seat: Seat, task: str, context: AgentContext) -> Outcome:
        async with Children(seat, context) as children:
            children.start(failing(EngineDead("killed")), "leaf")
            await anyio.sleep_forever()
        raise AssertionError

    with pytest.raises(EngineDead, match="killed"):
        async with Children(seat, context) as children:
            await children.start(Acting(middle), "middle").result()
    assert ends(grove) == {"a1.1.1": "engine_dead", "a1.1": "engine_dead"}


async def test_a_bug_in_a_child_is_raised_as_it_is(grove: Grove, is_alone: None) -> None:
    seat, context = grove.root(grove.tree())
    handles: list[Handle] = []

    async def parent() -> None:
        async with Children(seat, context) as children:
            handles.append(children.start(failing(ZeroDivisionError()), "x"))
            await handles[0].result()

    with pytest.raises(ZeroDivisionError):
        await parent()
    assert isinstance(await handles[0].outcome(), Cancelled)


async def test_an_error_of_the_parent_is_raised_as_it_is(grove: Grove, is_alone: None) -> None:
    seat, context = grove.root(grove.tree())

    async def parent() -> None:
        async with Children(seat, context) as children:
            children.start(WAITS, "x")
            await anyio.lowlevel.checkpoint()
            raise KeyError("own")

    with pytest.raises(KeyError, match="own"):
        await parent()
    assert ends(grove) == {"a1.1": "cancelled"}


async def test_two_errors_that_are_not_the_engines_end_are_both_raised(grove: Grove) -> None:
    seat, context = grove.root(grove.tree())

    async def parent() -> None:
        async with Children(seat, context) as children:
            children.start(failing(ZeroDivisionError()), "x")
            try:
                await anyio.sleep_forever()
            finally:
                raise KeyError("own")

    with pytest.raises(BaseExceptionGroup) as raised:
        await parent()
    assert raised.group_contains(ZeroDivisionError)
    assert raised.group_contains(KeyError)


async def test_a_child_cancelled_before_it_began_never_begins(grove: Grove, is_alone: None) -> None:
    seat, context = grove.root(grove.tree())
    async with Children(seat, context) as children:
        handle = children.start(STORES, "x")
        handle.cancel()
        handle.cancel()
        with pytest.raises(Cancelled, match=r"a1\.1 was cancelled"):
            await handle.result()
        assert handle.is_done
    assert started(grove) == {}


async def test_a_child_cancelled_in_the_queue_never_begins(grove: Grove, is_alone: None) -> None:
    config = Config(agents=AgentsConfig(max_children=1))
    seat, context = grove.root(grove.tree(config=config))
    async with Children(seat, context) as children:
        first, second, third = (children.start(a, "x") for a in (WAITS, STORES, FINISHES))
        await anyio.wait_all_tasks_blocked()
        assert list(started(grove)) == ["a1.1"]
        second.cancel()
        second.cancel()
        assert isinstance(await second.outcome(), Cancelled)
        first.cancel()
        assert (await third.result()).outcome == DONE
    assert ends(grove) == {"a1.1": "cancelled", "a1.3": "final"}


async def test_children_begin_in_the_order_of_their_start_and_no_more_than_allowed(
    grove: Grove,
) -> None:
    running: set[AgentId] = set()
    most = 0

    async def count(seat: Seat, task: str, context: AgentContext) -> Outcome:
        nonlocal most
        running.add(seat.agent_id)
        most = max(most, len(running))
        await anyio.lowlevel.checkpoint()
        running.remove(seat.agent_id)
        return DONE

    config = Config(agents=AgentsConfig(max_children=3))
    seat, context = grove.root(grove.tree(config=config))
    async with Children(seat, context) as children:
        await children.run_all([SubTask(agent=Acting(count), task=f"{i}") for i in range(10)])
    assert most == 3
    assert list(started(grove)) == [f"a1.{i}" for i in range(1, 11)]


async def test_cancelling_a_running_child_cancels_its_calls_and_children(
    grove: Grove, is_alone: None
) -> None:
    grove.engine.gate = anyio.Event()
    seat, context = grove.root(grove.tree(Limits(max_depth=2)))

    async def middle(seat: Seat, task: str, context: AgentContext) -> Outcome:
        async with Children(seat, context) as children:
            children.start(ASKS, "grandchild")
            return await _ask(seat, task, context)

    async with Children(seat, context) as children:
        handle, other = children.start(Acting(middle), "x"), children.start(ASKS, "y")
        await anyio.wait_all_tasks_blocked()
        assert grove.engine.running == 3
        handle.cancel()
        assert isinstance(await handle.outcome(), Cancelled)
        handle.cancel()
        assert grove.engine.running == 1
        grove.engine.gate.set()
        assert (await other.result()).outcome == DONE
    assert ends(grove) == {"a1.1.1": "cancelled", "a1.1": "cancelled", "a1.2": "final"}
    calls = {e.agent_id: e.outcome for e in grove.events if isinstance(e, CallFinished)}
    assert calls == {"a1.1.1": "cancelled", "a1.1": "cancelled", "a1.2": "ok"}


async def test_cancelling_a_child_that_ended_keeps_its_result(grove: Grove) -> None:
    seat, context = grove.root(grove.tree())
    async with Children(seat, context) as children:
        handle = children.start(STORES, "x")
        result = await handle.result()
        handle.cancel()
        assert await handle.result() is result
    assert ends(grove) == {"a1.1": "final"}


async def test_leaving_the_block_cancels_what_is_not_done(grove: Grove) -> None:
    seat, context = grove.root(grove.tree())
    async with Children(seat, context) as children:
        handles = [children.start(agent, "x") for agent in (FINISHES, WAITS)]
        await wait_any(handles)
        assert tasks_of_the_package() == ["rlm_runtime.scaffold.subagents.Children._run"]
    assert tasks_of_the_package() == []
    assert [handle.is_done for handle in handles] == [True, True]
    assert ends(grove) == {"a1.1": "final", "a1.2": "cancelled"}


async def test_cancelling_the_parent_cancels_all_at_every_depth(
    grove: Grove, is_alone: None
) -> None:
    grove.engine.gate = anyio.Event()
    seat, context = grove.root(grove.tree(Limits(max_depth=3)))

    async def nest(seat: Seat, task: str, context: AgentContext) -> Outcome:
        async with Children(seat, context) as children:
            agent = Acting(nest) if seat.depth < 2 else ASKS
            await children.run_all([SubTask(agent=agent, task=f"{task}{i}") for i in range(2)])
        raise AssertionError

    async with anyio.create_task_group() as group:
        group.start_soon(run_agent, Acting(nest), seat, "t", context)
        await anyio.wait_all_tasks_blocked()
        assert grove.engine.running == grove.engine.max_running
        group.cancel_scope.cancel()
    assert grove.engine.running == 0
    assert set(ends(grove).values()) == {"cancelled"}
    assert ends(grove).keys() == started(grove).keys()
    assert len(started(grove)) == 15


async def test_waiting_for_some_gives_all_that_ended(grove: Grove, is_alone: None) -> None:
    gates = [anyio.Event() for _ in range(3)]

    async def wait(seat: Seat, task: str, context: AgentContext) -> Outcome:
        await gates[int(task)].wait()
        return DONE

    seat, context = grove.root(grove.tree())
    async with Children(seat, context) as children:
        handles = [children.start(Acting(wait), f"{i}") for i in range(3)]
        gates[1].set()
        assert await wait_any(handles) == (handles[1],)
        gates[0].set()
        assert (await handles[0].result()).agent_id == "a1.1"
        assert await wait_any(handles) == tuple(handles[:2])
        gates[2].set()
        assert [outcome_of(r) for r in await wait_all(handles)] == [DONE] * 3
        with pytest.raises(InputError, match="no sub-agent"):
            await wait_any([])
        assert await wait_all([]) == []


@pytest.mark.parametrize("wait", [wait_any, wait_all])
async def test_who_stops_waiting_leaves_the_children_alone(
    wait: Callable[[list[Handle]], Coroutine[Any, Any, object]], grove: Grove, is_alone: None
) -> None:
    grove.engine.gate = anyio.Event()
    seat, context = grove.root(grove.tree())
    async with Children(seat, context) as children:
        handles = [children.start(ASKS, f"{i}") for i in range(2)]
        async with anyio.create_task_group() as group:
            group.start_soon(wait, handles)
            await anyio.wait_all_tasks_blocked()
            group.cancel_scope.cancel()
        assert not any(handle.is_done for handle in handles)
        grove.engine.gate.set()
        await wait_all(handles)
    assert ends(grove) == {"a1.1": "final", "a1.2": "final"}


async def test_a_batch_that_is_cancelled_takes_its_children_with_it_and_no_others(
    grove: Grove, is_alone: None
) -> None:
    grove.engine.gate = anyio.Event()
    seat, context = grove.root(grove.tree())
    async with Children(seat, context) as children:
        other = children.start(ASKS, "other")
        async with anyio.create_task_group() as group:
            group.start_soon(children.run_all, [SubTask(agent=ASKS, task=f"{i}") for i in (1, 2)])
            await anyio.wait_all_tasks_blocked()
            assert grove.engine.running == 3
            group.cancel_scope.cancel()
        await anyio.wait_all_tasks_blocked()
        assert grove.engine.running == 1
        grove.engine.gate.set()
        assert (await other.result()).outcome == DONE
    assert ends(grove) == {"a1.1": "final", "a1.2": "cancelled", "a1.3": "cancelled"}


async def test_a_tree_is_no_deeper_than_its_limit(grove: Grove) -> None:
    seat, context = grove.root(grove.tree(Limits(max_depth=1)))

    async def child(seat: Seat, task: str, context: AgentContext) -> Outcome:
        async with Children(seat, context) as children:
            children.start(FINISHES, "grandchild")
        return DONE

    async with Children(seat, context) as children:
        result = await children.start(Acting(child), "child").result()
    assert result.outcome.stop_reason is StopReason.MAX_DEPTH
    assert "max_depth=1" in result.outcome.error
    assert list(started(grove)) == ["a1.1"]


async def test_agents_do_not_go_round_in_a_circle(grove: Grove) -> None:
    grove.store.put_text("report", "text")
    grove.store.put_text("letter", "text")
    refused: list[tuple[str, str]] = []

    async def again(seat: Seat, task: str, context: AgentContext) -> Outcome:
        async with Children(seat, context) as children:
            for next_task, names in (("a", None), ("b", None), ("b", ["report"])):
                try:
                    children.start(Acting(again), next_task, names=names)
                except InputError as err:
                    refused.append((seat.agent_id, str(err)))
                except LimitExceeded:
                    assert seat.depth == 2
            await anyio.wait_all_tasks_blocked()
        return DONE

    seat, context = grove.root(grove.tree(Limits(max_depth=2)))
    await run_agent(Acting(again), seat, "a", context)
    # a1.2 does "b", below a1's "a": it may start neither, but "b" with less. a1.3 does that.
    circles = sorted(agent for agent, _ in refused)
    assert circles == ["a1", "a1.2", "a1.2", "a1.3", "a1.3"]
    assert "Agent a1 is at work on this very task" in refused[0][1]
    assert started(grove).keys() == {"a1", "a1.2", "a1.3", "a1.2.3", "a1.3.1"}


@pytest.mark.parametrize("task", ["", " \n", "Read it\ud800."])
async def test_a_task_that_can_be_none_fails_alone(grove: Grove, task: str) -> None:
    seat, context = grove.root(grove.tree())
    async with Children(seat, context) as children:
        failed, done = await children.run_all(
            [SubTask(agent=FINISHES, task=task), SubTask(agent=FINISHES, task="Read it.")]
        )
    assert isinstance(failed, InputError)
    assert outcome_of(done) == DONE


async def test_another_kind_of_agent_with_the_same_task_is_no_circle(grove: Grove) -> None:
    seat, context = grove.root(grove.tree())

    async def top(seat: Seat, task: str, context: AgentContext) -> Outcome:
        async with Children(seat, context) as children:
            await children.start(Acting(_finish, kind="search"), task).result()
        return DONE

    result = await run_agent(Acting(top), seat, "x", context)
    assert result.outcome == DONE
    assert ends(grove) == {"a1.1": "final", "a1": "final"}


async def test_children_read_under_the_budget_of_their_tree(grove: Grove) -> None:
    grove.store.put_text("report", "word " * 50)
    size = grove.layout.tokenizer.count("word " * 50)
    reads = ReadBudget(max_tokens=3 * size, owner="tree")
    tree = grove.tree(reads=reads)
    seat, context = grove.root(tree)
    context.read("report")

    async def read(seat: Seat, task: str, context: AgentContext) -> Outcome:
        context.read("report")
        return DONE

    async with Children(seat, context) as children:
        results = await children.run_all(
            [SubTask(agent=Acting(read), task=f"{i}") for i in range(4)]
        )
    kinds = [type(result) for result in results]
    assert kinds.count(AgentResult) == 2
    assert kinds.count(ContextBudgetExceeded) == 2
    assert reads.used == 3 * size
    assert any("tree max_tokens" in str(r) for r in results if isinstance(r, RLMError))


async def test_a_fork_needs_something_to_fork_and_an_agent_that_can(grove: Grove) -> None:
    seat, context = grove.root(grove.tree())
    prompt = grove.layout.prompt(task="parent")
    async with Children(seat, context) as children:
        with pytest.raises(InputError, match="nothing to fork"):
            children.start(FINISHES, "x", start="fork")
        with pytest.raises(InputError, match="search agent can't be a fork"):
            children.start(Acting(_finish, kind="search"), "x", start="fork", prompt=prompt)


async def test_a_batch_of_children_reaches_the_engine_together(grove: Grove) -> None:
    grove.engine.max_running = 8
    grove.engine.gate = anyio.Event()
    together: list[int] = []
    grove.engine.on_request = lambda _: together.append(grove.engine.running)
    # The scheduler was made for the engine's first width.
    wide = type(grove)(grove.engine, grove.layout)
    seat, context = wide.root(wide.tree())
    async with Children(seat, context) as children:
        handles = [children.start(ASKS, f"{i}") for i in range(8)]
        for _ in range(3):
            await anyio.lowlevel.checkpoint()
        assert together == list(range(1, 9)), "none waits for another's call"
        grove.engine.gate.set()
        await wait_all(handles)


async def test_the_log_has_where_a_result_is(grove: Grove) -> None:
    seat, context = grove.root(grove.tree())
    async with Children(seat, context) as children:
        await children.start(STORES, "x").result()
    (end,) = [e for e in grove.events if isinstance(e, AgentFinished)]
    assert (end.result_name, end.result_version) == ("answer_a1_1", 1)

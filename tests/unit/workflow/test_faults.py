"""Steps that fail, hang, make nothing or cost too much: the workflow ends, and says how."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest

from rlm_runtime.errors import EngineDead, InputError, ModelError, WorkflowError
from rlm_runtime.scaffold.agent import Agent, Outcome, run_agent
from rlm_runtime.scaffold.agent_context import AgentContext
from rlm_runtime.scaffold.recipes.direct import Direct
from rlm_runtime.scaffold.tree import Seat
from rlm_runtime.tracing import StateEntered
from rlm_runtime.types import AgentId, AgentKind, Limits, StopReason
from rlm_runtime.workflow import Function, Orchestrator, Step, To, step_agent
from tests.unit.workflow.conftest import (
    TASK,
    WORKERS,
    Stage,
    definition,
    ends,
    makes,
    nothing,
    review,
    run,
    visits,
    visits_of,
    wrote,
)

if TYPE_CHECKING:
    from tests.unit.scaffold.conftest import Grove

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def report(grove: Grove) -> None:
    grove.store.put_text("report", "Sales rose by two percent.")


@dataclass(frozen=True)
class Acting:
    """An agent that does what its test says."""

    steps: Callable[[Seat, str, AgentContext], Any]
    kind: AgentKind = "direct"

    async def run(self, seat: Seat, task: str, context: AgentContext) -> Outcome:
        outcome: Outcome = await self.steps(seat, task, context)
        return outcome


async def hang(seat: Seat, task: str, context: AgentContext) -> Outcome:
    context.store("half", "as far as I came")
    await anyio.sleep_forever()
    raise AssertionError


async def hang_as_function(context: AgentContext, task: str) -> object:
    return await hang(None, task, context)  # type: ignore[arg-type] # it looks at no seat


def raises(error: Exception) -> Function:
    def fail(context: AgentContext, task: str) -> object:
        raise error

    return fail


def raising(error: Exception) -> Acting:
    async def fail(seat: Seat, task: str, context: AgentContext) -> Outcome:
        context.store("half", 1)
        raise error

    return Acting(fail)


def ended(reason: StopReason, error: str = "") -> Acting:
    async def end(seat: Seat, task: str, context: AgentContext) -> Outcome:
        result = context.store(seat.result_name, "a part")
        return Outcome(stop_reason=reason, result=result, error=error)

    return Acting(end)


FAILING: dict[str, tuple[Agent | Function, StopReason, str]] = {
    "function raises": (
        raises(KeyError("ok")),
        StopReason.FAILED,
        "SUMMARISE, summariser: fail raised KeyError: 'ok' (test_faults.py, line ",
    ),
    "function raises an error of ours": (
        raises(InputError("It is red.", "Make it blue.")),
        StopReason.FAILED,
        "SUMMARISE, summariser: It is red. Make it blue.",
    ),
    "agent raises": (
        raising(ModelError("broken", "mend it")),
        StopReason.FAILED,
        "SUMMARISE, summariser: broken mend it",
    ),
    "agent raises what is no error of ours": (
        raising(ZeroDivisionError("by zero")),
        StopReason.FAILED,
        "SUMMARISE, summariser: Acting raised ZeroDivisionError: by zero (test_faults.py, line ",
    ),
    "function makes nothing": (
        nothing,
        StopReason.NO_FINAL,
        "SUMMARISE, summariser: it made nothing for 'summary'",
    ),
    "function makes what can't be stored": (
        makes({"when": object()}),
        StopReason.FAILED,
        "value['when']",
    ),
    "agent ends by a limit of its own": (
        ended(StopReason.MAX_TURNS),
        StopReason.MAX_TURNS,
        "SUMMARISE, summariser: a1.2 ended by max_turns",
    ),
    "agent gives up": (
        ended(StopReason.ERRORS_IN_A_ROW, "nothing works"),
        StopReason.ERRORS_IN_A_ROW,
        "SUMMARISE, summariser: nothing works",
    ),
}


@pytest.mark.parametrize(("agent", "reason", "message"), FAILING.values(), ids=FAILING)
async def test_a_step_that_fails_ends_the_workflow_and_what_was_stored_stays(
    grove: Grove, agent: Agent | Function, reason: StopReason, message: str
) -> None:
    outcome = (await run(grove, review(), WORKERS | {"summariser": agent})).outcome
    assert outcome.stop_reason is reason
    assert message in outcome.error
    assert visits(outcome) == ["ANALYSE", "SUMMARISE"]
    assert visits_of(outcome)[0].results == (grove.store.get("analysis").ref,)
    assert ends(grove)["a1"] == reason


async def test_the_error_of_a_function_keeps_where_it_came_from(grove: Grove) -> None:
    error = KeyError("ok")
    outcome = (await run(grove, review(), WORKERS | {"summariser": raises(error)})).outcome
    found = visits_of(outcome)[-1].outcomes[0]
    assert isinstance(found, WorkflowError)
    assert found.__cause__ is error


async def test_a_part_of_a_result_is_kept_under_its_name(grove: Grove) -> None:
    agents = WORKERS | {"summariser": ended(StopReason.BUDGET_TOKENS, "out of tokens")}
    outcome = (await run(grove, review(), agents)).outcome
    assert outcome.stop_reason is StopReason.BUDGET_TOKENS
    assert outcome.result == grove.store.get("summary").ref
    assert grove.store.load(outcome.result) == "a part"


async def test_a_step_that_writes_nothing_may_make_nothing(grove: Grove) -> None:
    steps = definition()["steps"] | {Stage.COMPLETE: Step(nothing, reads=["summary"])}
    outcome = (await run(grove, review(steps=steps), WORKERS)).outcome
    assert outcome.stop_reason is StopReason.FINAL
    assert outcome.result == grove.store.get("verdict").ref


async def test_one_of_several_steps_fails_and_the_others_come_to_their_end(grove: Grove) -> None:
    steps = definition()["steps"] | {
        Stage.ANALYSE: [
            Step(raises(ValueError("no")), writes="bad"),
            Step(makes(1), writes="one"),
            Step(makes(2), writes="analysis"),
        ]
    }
    outcome = (await run(grove, review(steps=steps), WORKERS)).outcome
    assert (outcome.stop_reason, visits(outcome)) == (StopReason.FAILED, ["ANALYSE"])
    assert "fail raised ValueError: no" in outcome.error
    assert {name for _, name, _ in wrote(grove)} == {"one", "analysis"}


async def test_a_budget_ends_it_where_it_is(grove: Grove) -> None:
    agents = WORKERS | {"summariser": Direct(), "validator": Direct()}
    outcome = (await run(grove, review(), agents, Limits(max_calls=1))).outcome
    assert outcome.stop_reason is StopReason.BUDGET_CALLS
    assert "VALIDATE, validator: The limit max_calls=1" in outcome.error
    assert outcome.result == grove.store.get("summary").ref
    assert len(grove.engine.seen) == 1


async def test_a_tree_without_room_for_steps_says_so(grove: Grove) -> None:
    outcome = (await run(grove, review(), WORKERS, Limits(max_depth=0))).outcome
    assert outcome.stop_reason is StopReason.MAX_DEPTH
    assert "max_depth=0" in outcome.error


HANGING: dict[str, Agent | Function] = {
    "agent": Acting(hang),
    "async function": hang_as_function,
}


@pytest.mark.parametrize("who", HANGING)
async def test_a_step_that_hangs_is_ended_by_the_clock(
    grove: Grove, monkeypatch: pytest.MonkeyPatch, who: str
) -> None:
    monkeypatch.setattr(step_agent, "GRACE_S", 0.0)
    agents = WORKERS | {"summariser": HANGING[who]}
    outcome = (await run(grove, review(), agents, Limits(max_seconds=0.2))).outcome
    assert outcome.stop_reason is StopReason.BUDGET_SECONDS
    assert "max_seconds=0.2" in outcome.error
    assert ends(grove)["a1.2"] == "budget_seconds"
    assert grove.store.load(grove.store.get("half").ref) == "as far as I came"


async def test_an_agent_that_ends_by_itself_is_given_the_time(grove: Grove) -> None:
    """It returns what it has; it is not cancelled at the stroke of the clock."""

    async def late(seat: Seat, task: str, context: AgentContext) -> Outcome:
        await anyio.sleep_until(seat.tree.job.deadline)
        return await ended(StopReason.BUDGET_SECONDS, "late").run(seat, task, context)

    agents = WORKERS | {"summariser": Acting(late)}
    outcome = (await run(grove, review(), agents, Limits(max_seconds=0.1))).outcome
    assert outcome.error == "SUMMARISE, summariser: late"
    assert outcome.result == grove.store.get("summary").ref


@pytest.mark.parametrize("where", ["step", "guard"])
async def test_code_that_hangs_in_a_thread_is_waited_for_no_longer(
    grove: Grove, where: str
) -> None:
    release, ended_thread = threading.Event(), threading.Event()

    def block(*_: object) -> bool:
        release.wait()
        ended_thread.set()
        return True

    changes: dict[str, Any] = {}
    agents = dict(WORKERS)
    if where == "step":
        agents["summariser"] = block
    else:
        table = definition()["transitions"]
        changes["transitions"] = table | {Stage.SUMMARISE: [To(Stage.VALIDATE, when=block)]}
    try:
        outcome = (await run(grove, review(**changes), agents, Limits(max_seconds=0.2))).outcome
        assert outcome.stop_reason is StopReason.BUDGET_SECONDS
        assert not ended_thread.is_set()
    finally:
        release.set()
    await anyio.to_thread.run_sync(ended_thread.wait)


async def test_code_that_hangs_takes_no_thread_from_others(grove: Grove) -> None:
    threads = int(anyio.to_thread.current_default_thread_limiter().total_tokens)
    release, all_there = threading.Event(), anyio.Event()
    arrived = count(1)

    def block(context: AgentContext, task: str) -> None:
        if next(arrived) == threads:
            anyio.from_thread.run_sync(all_there.set)
        release.wait()

    blocks = [Step(block) for _ in range(threads + 5)]
    steps = definition()["steps"] | {Stage.ANALYSE: [Step("analyser", writes="analysis"), *blocks]}
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(run, grove, review(steps=steps), WORKERS)
            await all_there.wait()
            with anyio.fail_after(10):
                assert await anyio.to_thread.run_sync(lambda: 7) == 7
            group.cancel_scope.cancel()
    finally:
        release.set()


async def test_cancelling_a_workflow_cancels_its_steps(grove: Grove) -> None:
    began = anyio.Event()

    async def wait(context: AgentContext, task: str) -> None:
        began.set()
        await anyio.sleep_forever()

    async with anyio.create_task_group() as group:
        group.start_soon(run, grove, review(), WORKERS | {"summariser": wait})
        await began.wait()
        group.cancel_scope.cancel()
    assert ends(grove) == {"a1": "cancelled", "a1.1": "final", "a1.2": "cancelled"}
    assert grove.store.get("analysis").ref.version == 1


async def test_a_dead_engine_ends_it_all(grove: Grove) -> None:
    with pytest.raises(EngineDead):
        await run(grove, review(), WORKERS | {"summariser": raising(EngineDead("out of memory"))})
    assert ends(grove) == {"a1": "engine_dead", "a1.1": "final", "a1.2": "engine_dead"}


async def test_a_guard_that_fails_ends_it_with_the_guards_error(grove: Grove) -> None:
    table = definition()["transitions"] | {
        Stage.ANALYSE: [To(Stage.SUMMARISE, when=lambda values: values["verdikt"])]
    }
    outcome = (await run(grove, review(transitions=table), WORKERS)).outcome
    assert outcome.stop_reason is StopReason.FAILED
    assert "The guard of ANALYSE -> SUMMARISE failed: KeyError: 'verdikt'" in outcome.error
    entered = [event.state for event in grove.events if isinstance(event, StateEntered)]
    assert entered == ["ANALYSE"]


async def test_one_workflow_that_fails_leaves_those_beside_it_alone(grove: Grove) -> None:
    reasons: dict[int, StopReason] = {}

    async def one(number: int) -> None:
        broken: dict[str, Agent | Function] = {}
        if number % 2:
            broken = {"summariser": raises(ValueError("no"))}
        seat = Seat(grove.tree(), AgentId(f"a{number}"))
        context = AgentContext(grove.store, grove.recorder, reader=seat.agent_id)
        orchestrator = Orchestrator(review(), WORKERS | broken)
        reasons[number] = (await run_agent(orchestrator, seat, TASK, context)).outcome.stop_reason

    async with anyio.create_task_group() as group:
        for number in range(8):
            group.start_soon(one, number)
    assert reasons == {n: StopReason.FAILED if n % 2 else StopReason.FINAL for n in range(8)}

"""Runs workflows: holds who works in them, by role, and goes from state to state.

    orchestrator = Orchestrator(review, {"analyser": MapReduce(), "summariser": Direct()})
    result = rlm.run("What is new?", {"report": Path("REPORT.txt")}, agent=orchestrator)

It is an agent itself, whose children are the steps: one tree with one set of limits, one place in
the log, and what cancels it cancels all. It can be a step of another workflow.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal

import anyio

from rlm_runtime.errors import LimitExceeded, RLMError, UnknownName, WorkflowError
from rlm_runtime.scaffold.agent import Agent, AgentResult, Outcome
from rlm_runtime.scaffold.agent_context import AgentContext
from rlm_runtime.scaffold.subagents import Children, SubTask
from rlm_runtime.scaffold.tree import Seat
from rlm_runtime.store.names import closest
from rlm_runtime.tracing import StateEntered
from rlm_runtime.types import AgentKind, Ref, StopReason
from rlm_runtime.workflow.definition import Step, Workflow
from rlm_runtime.workflow.function_agent import FunctionAgent, in_own_thread
from rlm_runtime.workflow.machine import Machine
from rlm_runtime.workflow.step_agent import StepAgent

_READERS: frozenset[AgentKind] = frozenset({"search", "map_reduce", "classify_each"})
"""Kinds that work on texts of their context, and on nothing that stands in their task."""


@dataclass(frozen=True, slots=True)
class Visit:
    """One stay of a workflow in a state.

    Attributes:
        state: Which.
        outcomes: Of each of its steps, in order, what came of it or its error; none of an end
            without steps.
    """

    state: Enum
    outcomes: tuple[AgentResult | RLMError, ...] = ()

    @property
    def results(self) -> tuple[Ref, ...]:
        """The values that it left."""
        outcomes = [each.outcome for each in self.outcomes if isinstance(each, AgentResult)]
        return tuple(outcome.result for outcome in outcomes if outcome.result is not None)


class Values(Mapping[str, object]):
    """A context's values as guards see them: by name or path, loaded as they are looked at.

    Args:
        context: Where they are; a look is recorded as a read.
    """

    def __init__(self, context: AgentContext) -> None:
        self._context = context

    def __getitem__(self, path: str) -> object:
        try:
            return self._context.read(path)
        except UnknownName as err:
            raise KeyError(path) from err

    def __iter__(self) -> Iterator[str]:
        return iter(self._context)

    def __len__(self) -> int:
        return len(self._context.list_available())


class Orchestrator:
    """The only runner of workflows, as an agent. Immutable: one can run many times at once.

    Args:
        workflow: What is run.
        agents: Who works in it, by role: agents of any kind, or functions `(context, task)` that
            return the value. One can be replaced by another kind, and nothing else changes.

    Attributes:
        workflow: As given.

    Raises:
        WorkflowError: A role has nobody, or somebody who can't do its step.
    """

    def __init__(
        self,
        workflow: Workflow[Any],
        # Each is an `Agent` or a `Function`, and that is checked here: a dict of several kinds is,
        # to a type checker, one of objects.
        agents: Mapping[str, object] | None = None,
    ) -> None:
        self.workflow = workflow
        given = dict(agents or {})
        self._steps: dict[Enum, tuple[StepAgent, ...]] = {
            state: tuple(_bound(step, given) for step in steps)
            for state, steps in workflow.steps.items()
        }

    @property
    def kind(self) -> Literal["workflow"]:
        """Its table of states."""
        return "workflow"

    async def run(self, seat: Seat, task: str, context: AgentContext) -> Outcome:
        """Go from the start to an end. What the steps stored stays, however it ends.

        A step that fails, or ends without a result, ends the workflow: the outcome says how, and
        its `detail` is where the workflow has been: a tuple of `Visit`.

        Raises:
            UnknownName: The context lacks a value that the workflow begins with; nothing was
                started.
            EngineDead: The engine's process ended.
        """
        available = context.list_available()
        for name in sorted(self.workflow.inputs):
            if name not in available:
                raise UnknownName(name, closest(name, available))
        # The values as they are now: what other workflows write meanwhile changes nothing here.
        own = context.child(seat.agent_id, available)
        run = _Run(self._steps, Machine(self.workflow, Values(own)), seat, task)
        async with Children(seat, own) as children:
            return await run.run(children)


class _Run:
    """One run: where it is, and where it has been."""

    def __init__(
        self,
        steps: Mapping[Enum, Sequence[StepAgent]],
        machine: Machine[Any],
        seat: Seat,
        task: str,
    ) -> None:
        self._steps = steps
        self._machine = machine
        self._seat = seat
        self._task = task
        self._visits: list[Visit] = []

    async def run(self, children: Children) -> Outcome:
        while True:
            state = self._machine.state
            steps = self._steps[state]
            self._enter(state)
            tasks = [
                SubTask(agent=each, task=each.step.told(self._task), names=sorted(each.step.names))
                for each in steps
            ]
            outcomes = await children.run_all(tasks)
            self._visits.append(Visit(state, tuple(outcomes)))
            for each, outcome in zip(steps, outcomes, strict=True):
                end = _end(outcome)
                if end is not None:
                    return self._ended(end[0], f"{state.name}, {each.step.who}: {end[1]}")
            if self._machine.is_done:
                return self._ended(StopReason.FINAL)
            try:
                await self._advance()
            except LimitExceeded as err:
                return self._ended(err.stop_reason, str(err))
            except WorkflowError as err:
                return self._ended(StopReason.FAILED, str(err))

    async def _advance(self) -> None:
        """Let the guards decide, in a thread: they may look at large values."""
        job = self._seat.tree.job
        with anyio.CancelScope(deadline=job.deadline) as scope:
            await in_own_thread(self._machine.advance)
        if scope.cancelled_caught:
            raise job.time_is_up()

    def _enter(self, state: Enum) -> None:
        tree = self._seat.tree
        previous = self._visits[-1].state if self._visits else None
        tree.recorder.emit(
            StateEntered(
                at_s=tree.recorder.now(),
                agent_id=self._seat.agent_id,
                state=state.name,
                visit=1 + sum(visit.state is state for visit in self._visits),
                previous=None if previous is None else previous.name,
            )
        )
        tree.job.begin_stage(state.name, 0)

    def _ended(self, reason: StopReason, error: str = "") -> Outcome:
        results = [ref for visit in self._visits for ref in visit.results]
        return Outcome(
            stop_reason=reason,
            result=results[-1] if results else None,
            error=error,
            detail=tuple(self._visits),
        )


def _end(outcome: AgentResult | RLMError) -> tuple[StopReason, str] | None:
    """How a step ends its workflow, and what is said of it; `None`: it does not."""
    if isinstance(outcome, LimitExceeded):
        return outcome.stop_reason, str(outcome)
    if isinstance(outcome, RLMError):
        return StopReason.FAILED, str(outcome)
    ended = outcome.outcome
    if ended.stop_reason is StopReason.FINAL:
        return None
    return ended.stop_reason, ended.error or f"{outcome.agent_id} ended by {ended.stop_reason}"


def _bound(step: Step, agents: Mapping[str, object]) -> StepAgent:
    given: object = step.agent
    if isinstance(given, str):
        if given not in agents:
            known = ", ".join(closest(given, agents)) or "none"
            raise WorkflowError(
                f"Nobody has the role {given!r}.", f"Give it in agents; there are: {known}."
            )
        given = agents[given]
    agent = _agent(step.who, given)
    if step.passing == "value" and agent.kind in _READERS:
        raise WorkflowError(
            f"{step.who} is a {agent.kind} agent: it works on texts of its context, not on values "
            "in its task.",
            'Give them with passing="reference".',
        )
    if isinstance(agent, Orchestrator):
        names = frozenset() if step.passing == "value" else step.names
        missing = sorted(agent.workflow.inputs - names)
        if missing:
            raise WorkflowError(
                f"The workflow {step.who} begins with {', '.join(missing)}, which its step does "
                "not give it.",
                "Name them in reads, by reference.",
            )
    return StepAgent(step, agent)


def _agent(who: str, given: object) -> Agent:
    if isinstance(given, type):
        raise WorkflowError(f"{who} is a class.", f"Make one: {given.__name__}().")
    if hasattr(given, "run") and hasattr(given, "kind"):
        return given
    if not callable(given):
        raise WorkflowError(
            f"{who} is a {type(given).__name__}.",
            "Give an agent (Direct(), MapReduce(), ...) or a function (context, task).",
        )
    try:
        inspect.signature(given).bind(None, "")
    except TypeError as err:
        raise WorkflowError(
            f"{who} can't be called with a context and a task: {err}.",
            "Write it as a function (context, task) that returns the value.",
        ) from err
    except ValueError:
        pass  # a builtin that does not say what it takes
    return FunctionAgent(given)

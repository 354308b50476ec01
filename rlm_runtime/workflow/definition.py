"""What a workflow is: states, a table of what may follow what, and who works in each.

It is data: `Machine` walks it without any agent, `Orchestrator` runs it, `drawing` draws it. It is
checked when it is made, so that a mistake in it costs no token.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Any, Generic, Literal, TypeVar

from rlm_runtime.errors import ContextError, InputError, WorkflowError
from rlm_runtime.scaffold.agent import Agent
from rlm_runtime.scaffold.agent_context import AgentContext
from rlm_runtime.store import parse_path
from rlm_runtime.store.names import check_name
from rlm_runtime.workflow.checks import inputs, mistakes, strangers

Function = Callable[[AgentContext, str], object | Awaitable[object]]
"""What can stand in place of an agent: of a context and a task it makes a value, or a `Ref`."""

Passing = Literal["reference", "value"]
"""reference: the agent is given names; value: the values stand in its prompt, in front of the
task."""

Guard = Callable[[Mapping[str, Any]], object]  # Any: stored values are of many types
"""Says, of the values by name (or by path), whether a transition is open; true or false. What it
looks at is read, and recorded."""

TASK = "{task}"
"""In a step's task: what the workflow was asked."""

_PLACEHOLDER = re.compile(r"\{[^\W\d]\w*\}")

S = TypeVar("S", bound=Enum)


@dataclass(frozen=True, slots=True)
class To(Generic[S]):
    """A transition.

    Attributes:
        target: Where it leads.
        when: Says whether it is open; `None`: always.
    """

    target: S
    when: Guard | None = None

    @property
    def condition(self) -> str:
        """The name of its guard; empty without one."""
        if self.when is None:
            return ""
        name = getattr(self.when, "__name__", type(self.when).__name__)
        return "a condition" if name == "<lambda>" else name


@dataclass(frozen=True, slots=True)
class Step:
    """One agent's part of a state.

    Attributes:
        agent: Who does it: a role, which the orchestrator fills, or the agent or function itself.
        task: What it is told; `{task}` in it is what the workflow was asked.
        reads: The values it is given, by name; by value also by path (`analysis['summary']`).
        writes: The name of its result. Without one, nothing has to come of it.
        passing: How it is given the values.

    Raises:
        WorkflowError: A name, a path or the task can't be used.
    """

    agent: str | Agent | Function
    task: str = TASK
    reads: Sequence[str] = ()
    writes: str = ""
    passing: Passing = "reference"

    def __post_init__(self) -> None:
        problem = self._problem()
        if problem:
            raise WorkflowError(f"The step of {self.who} can't be done: {problem[0]}", problem[1])
        object.__setattr__(self, "reads", tuple(self.reads))  # nobody changes it behind the checks

    @property
    def who(self) -> str:
        """The role, or what the agent or function is called."""
        if isinstance(self.agent, str):
            return self.agent
        name = getattr(self.agent, "__name__", None) or getattr(self.agent, "kind", None)
        return str(name or type(self.agent).__name__)

    @property
    def names(self) -> frozenset[str]:
        """The values that it is given, whole or in part."""
        return frozenset(parse_path(path).name for path in self.reads)

    def told(self, task: str) -> str:
        """What the agent is told when the workflow is asked a task."""
        return self.task.replace(TASK, task)

    def _problem(self) -> tuple[str, str] | None:
        """What is wrong, and what to do."""
        if self.agent == "":
            return "it has no agent.", "Name a role, or give an agent or a function."
        if self.passing not in ("reference", "value"):
            return f"passing={self.passing!r} is unknown.", 'Use "reference" or "value".'
        if isinstance(self.reads, str):
            return f"reads={self.reads!r} is one text.", f"Give a list of names: [{self.reads!r}]."
        unknown = [word for word in _PLACEHOLDER.findall(self.task) if word != TASK]
        if unknown:
            return f"its task has {unknown[0]}.", f"Only {TASK} can be filled in."
        if not self.task.strip():
            return "its task is empty.", "Leave it out for the workflow's own."
        try:
            for path in self.reads:
                if parse_path(path).steps and self.passing == "reference":
                    return (
                        f"{path!r} is a part of a value.",
                        "By reference give its name: the agent reads the part itself.",
                    )
            if self.writes:
                check_name(self.writes)
        except (ContextError, InputError) as err:
            return err.what, err.remedy
        return None


class Workflow(Generic[S]):
    """States, what may follow what, and who works in each. Immutable; one can run many times.

    Args:
        states: Their enum.
        start: Where it begins.
        ends: Where it is done; nothing follows them. They need no step.
        transitions: Of each other state, what may follow it. Of several that are open, the first is
            taken: only the last may be without a guard.
        steps: Of each state who works in it; several at once are done as one batch.
        max_visits: How often a state may be entered; a workflow that can go in a circle needs it.
            Where the way leads to a state that was entered so often, it ends there.

    Attributes:
        states: All, in the enum's order.
        start: As given.
        ends: As given.
        transitions: Of every state; none of an end.
        steps: Of every state; a step alone is a tuple of one.
        max_visits: As given.
        inputs: The names that must be there when it begins: they are read where no step has
            written them on every way.

    Raises:
        WorkflowError: It can't work as it is; all mistakes are named.
    """

    def __init__(
        self,
        *,
        states: type[S],
        start: S,
        ends: Collection[S],
        transitions: Mapping[S, Sequence[S | To[S]]],
        steps: Mapping[S, Step | list[Step] | tuple[Step, ...]],
        max_visits: int | None = None,
    ) -> None:
        self.states = tuple(states)
        self.start = start
        self.ends = frozenset(ends)
        self.max_visits = max_visits
        self.transitions: Mapping[S, tuple[To[S], ...]] = MappingProxyType(
            {state: tuple(map(_to, transitions.get(state, ()))) for state in self.states}
        )
        self.steps: Mapping[S, tuple[Step, ...]] = MappingProxyType(
            {state: _steps(steps.get(state, ())) for state in self.states}
        )
        ways = [way.target for state in self.states for way in self.transitions[state]]
        found = strangers(states, [start, *ends, *transitions, *ways, *steps]) or mistakes(self)
        if found:
            many = "a mistake" if len(found) == 1 else f"{len(found)} mistakes"
            raise WorkflowError(f"The workflow has {many}. {' '.join(found)}")
        self.inputs = inputs(self)


def _to(target: S | To[S]) -> To[S]:
    return target if isinstance(target, To) else To(target)


def _steps(given: Step | list[Step] | tuple[Step, ...]) -> tuple[Step, ...]:
    steps = tuple(given) if isinstance(given, list | tuple) else (given,)
    for step in steps:
        if not isinstance(step, Step):
            raise WorkflowError(f"{step!r} is no step.", "Write Step(...) around it.")
    return steps

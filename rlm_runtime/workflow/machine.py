"""A workflow's state, and the moves that its table allows from there. No agent and no model."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from typing import Any, Generic

from rlm_runtime.errors import InvalidTransition, WorkflowError
from rlm_runtime.workflow.definition import S, To, Workflow


class Machine(Generic[S]):
    """Where one run of a workflow is. Any thread may use it: of two moves at once, one is first.

        machine = Machine(review, {"verdict": "bad"})
        machine.transition(Stage.SUMMARISE)  # InvalidTransition: analyse has to come first

    Args:
        workflow: What is walked.
        values: What guards look at, by name; `None`: guards are not asked, the table alone decides.
    """

    def __init__(self, workflow: Workflow[S], values: Mapping[str, Any] | None = None) -> None:
        self.workflow = workflow
        self._values = values
        self._lock = threading.Lock()
        self._history = [workflow.start]
        self._visits = Counter(self._history)

    @property
    def state(self) -> S:
        """Where it is."""
        return self._history[-1]

    @property
    def history(self) -> tuple[S, ...]:
        """Where it has been, in order, the start first and `state` last."""
        with self._lock:
            return tuple(self._history)

    @property
    def is_done(self) -> bool:
        """It is in an end."""
        return self.state in self.workflow.ends

    def allowed(self) -> tuple[S, ...]:
        """Where it can go now, in the table's order.

        Raises:
            WorkflowError: A guard failed.
        """
        with self._lock:
            return self._allowed()

    def transition(self, new: S) -> None:
        """Go to a state.

        Raises:
            InvalidTransition: The table, a guard or `max_visits` does not allow it.
            WorkflowError: A guard failed.
        """
        with self._lock:
            allowed = self._allowed()
            if new not in allowed:
                raise self._refusal(new, allowed)
            self._enter(new)

    def advance(self) -> S:
        """Go where the first open transition leads.

        `max_visits` opens no other way: where that transition may not be taken any more, none is.

        Returns:
            The new state.

        Raises:
            InvalidTransition: No transition is open, or it leads to a state that was entered
                `max_visits` times.
            WorkflowError: A guard failed.
        """
        with self._lock:
            ways = self.workflow.transitions[self._history[-1]]
            target = next((way.target for way in ways if self._is_open(way)), None)
            if target is None:
                raise self._refusal(None, ())
            if self._is_spent(target):
                raise self._refusal(target, self._allowed())
            self._enter(target)
            return target

    def _enter(self, state: S) -> None:
        self._history.append(state)
        self._visits[state] += 1

    def _allowed(self) -> tuple[S, ...]:
        ways = self.workflow.transitions[self._history[-1]]
        open_ways = dict.fromkeys(
            way.target for way in ways if not self._is_spent(way.target) and self._is_open(way)
        )
        return tuple(open_ways)

    def _is_spent(self, target: S) -> bool:
        most = self.workflow.max_visits
        return most is not None and self._visits[target] >= most

    def _is_open(self, way: To[S]) -> bool:
        if way.when is None or self._values is None:
            return True
        try:
            return bool(way.when(self._values))
        except Exception as err:
            raise WorkflowError(
                f"The guard of {self._history[-1].name} -> {way.target.name} failed: "
                f"{type(err).__name__}: {err}",
                "It is given the values by name, and says whether the transition is open.",
            ) from err

    def _refusal(self, target: S | None, allowed: tuple[S, ...]) -> InvalidTransition:
        state = self._history[-1]
        ways = self.workflow.transitions[state]
        if not ways:
            why = "it is an end"
        elif target is None:
            why = f"the guards of {', '.join(way.target.name for way in ways)} say no"
        elif target not in [way.target for way in ways]:
            why = "the table has no such transition"
        elif self._is_spent(target):
            why = f"it was entered {self._visits[target]} times already (max_visits)"
        else:
            why = "its guard says no"
        name = None if target is None else getattr(target, "name", repr(target))
        return InvalidTransition(state.name, name, tuple(each.name for each in allowed), why)

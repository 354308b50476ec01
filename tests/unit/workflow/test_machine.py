"""Moves from state to state, with no agent and no model."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_runtime.errors import InvalidTransition, WorkflowError
from rlm_runtime.workflow import Machine, To
from tests.unit.workflow.conftest import Stage, definition, is_good, review

ANALYSE, SUMMARISE, VALIDATE, COMPLETE = Stage
GOOD, BAD = {"verdict": "good"}, {"verdict": "bad"}


def at_validate(values: Mapping[str, Any] | None = None) -> Machine[Stage]:
    machine = Machine(review(), values)
    machine.transition(SUMMARISE)
    machine.transition(VALIDATE)
    return machine


def test_a_machine_walks_the_table() -> None:
    machine = at_validate()
    assert machine.allowed() == (COMPLETE, SUMMARISE)
    machine.transition(COMPLETE)
    assert machine.is_done
    assert machine.history == (ANALYSE, SUMMARISE, VALIDATE, COMPLETE)


def test_a_wrong_move_names_state_target_and_what_is_allowed() -> None:
    machine = Machine(review())
    with pytest.raises(InvalidTransition) as caught:
        machine.transition(COMPLETE)
    error = caught.value
    assert (error.state, error.target, error.allowed) == ("ANALYSE", "COMPLETE", ("SUMMARISE",))
    assert str(error) == (
        "Cannot go from ANALYSE to COMPLETE: the table has no such transition. "
        "Allowed now: SUMMARISE."
    )
    assert machine.state is ANALYSE


def test_nothing_follows_an_end() -> None:
    machine = at_validate()
    machine.transition(COMPLETE)
    assert machine.allowed() == ()
    for move in (machine.advance, lambda: machine.transition(ANALYSE)):
        with pytest.raises(InvalidTransition, match=r"it is an end\. Allowed now: nothing\."):
            move()


def test_what_is_no_state_is_no_target() -> None:
    with pytest.raises(InvalidTransition, match="'SUMMARISE'"):
        Machine(review()).transition("SUMMARISE")  # type: ignore[arg-type] # what is tested


def test_guards_decide_on_values() -> None:
    assert at_validate(GOOD).advance() is COMPLETE
    machine = at_validate(BAD)
    assert machine.allowed() == (SUMMARISE,)
    with pytest.raises(InvalidTransition, match="to COMPLETE: its guard says no"):
        machine.transition(COMPLETE)
    assert machine.advance() is SUMMARISE


def test_a_state_without_an_open_way_out_says_so() -> None:
    table = definition()["transitions"] | {VALIDATE: [To(COMPLETE, when=is_good)]}
    machine = Machine(review(transitions=table), BAD)
    machine.advance()
    machine.advance()
    with pytest.raises(InvalidTransition, match="VALIDATE on: the guards of COMPLETE say no"):
        machine.advance()


def test_a_spent_state_opens_no_other_way() -> None:
    table = definition()["transitions"] | {
        VALIDATE: [To(SUMMARISE, when=lambda values: not is_good(values)), COMPLETE]
    }
    machine = Machine(review(transitions=table, max_visits=2), BAD)
    for _ in range(4):
        machine.advance()
    with pytest.raises(InvalidTransition) as caught:
        machine.advance()
    assert "to SUMMARISE: it was entered 2 times already (max_visits)" in str(caught.value)
    # Who moves it by hand may leave.
    assert caught.value.allowed == ("COMPLETE",)
    machine.transition(COMPLETE)


def test_a_guard_that_fails_is_named_with_its_error() -> None:
    machine = at_validate({})
    with pytest.raises(WorkflowError, match="VALIDATE -> COMPLETE failed: KeyError: 'verdict'"):
        machine.advance()
    assert machine.state is VALIDATE


def test_of_two_moves_at_once_one_is_first_and_the_other_is_refused() -> None:
    for _ in range(50):
        machine = Machine(review())
        start = threading.Barrier(8)

        def move(machine: Machine[Stage] = machine, start: threading.Barrier = start) -> bool:
            start.wait()
            try:
                machine.transition(SUMMARISE)
            except InvalidTransition:
                return False
            return True

        with ThreadPoolExecutor(8) as pool:
            moved = [each.result() for each in [pool.submit(move) for _ in range(8)]]
        assert sorted(moved) == [False] * 7 + [True]
        assert machine.history == (ANALYSE, SUMMARISE)


def test_a_move_waits_for_the_guards_of_the_one_before() -> None:
    """Both see COMPLETE open at first; only one may go there."""
    together = threading.Barrier(2)

    def slow(values: Mapping[str, Any]) -> bool:
        try:
            together.wait(0.05)  # both guards at once, unless one move waits for the other
        except threading.BrokenBarrierError:
            together.reset()
        return True

    table = definition()["transitions"] | {VALIDATE: [To(COMPLETE, when=slow), SUMMARISE]}
    machine = Machine(review(transitions=table), {})
    machine.advance()
    machine.advance()

    def move() -> bool:
        try:
            machine.transition(COMPLETE)
        except InvalidTransition:
            return False
        return True

    with ThreadPoolExecutor(2) as pool:
        moved = [each.result() for each in [pool.submit(move) for _ in range(2)]]
    assert sorted(moved) == [False, True]


@given(moves=st.lists(st.sampled_from(Stage), max_size=20), most=st.integers(1, 3))
def test_whatever_is_asked_for_the_history_is_a_way_through_the_table(
    moves: list[Stage], most: int
) -> None:
    workflow = review(max_visits=most)
    machine = Machine(workflow)
    for new in moves:
        before = machine.state
        allowed = machine.allowed()
        if new in allowed:
            machine.transition(new)
            assert machine.state is new
            continue
        with pytest.raises(InvalidTransition) as caught:
            machine.transition(new)
        assert caught.value.allowed == tuple(state.name for state in allowed)
        assert machine.state is before
    history = machine.history
    table = {(state, way.target) for state, out in workflow.transitions.items() for way in out}
    assert set(pairwise(history)) <= table
    assert max(map(history.count, Stage)) <= most

"""What can be a workflow, and what is said of what can't."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_runtime.errors import InvalidTransition, WorkflowError
from rlm_runtime.workflow import Machine, Step, To, Workflow
from tests.unit.workflow.conftest import Stage, definition, is_bad, is_good, makes, review

ANALYSE, SUMMARISE, VALIDATE, COMPLETE = Stage


class Other(Enum):
    ANALYSE = 1


def ways(**changes: Any) -> dict[str, Any]:
    """The review's transitions, some of them changed."""
    given = definition()["transitions"]
    return {"transitions": given | {Stage[name]: to for name, to in changes.items()}}


def steps(**changes: Any) -> dict[str, Any]:
    given = definition()["steps"]
    return {"steps": given | {Stage[name]: step for name, step in changes.items()}}


MISTAKES: dict[str, tuple[Mapping[str, Any], str]] = {
    "no end": ({"ends": []}, "no end"),
    "dead end": (ways(SUMMARISE=[]), "SUMMARISE is a dead end"),
    "end with a way out": (ways(COMPLETE=[ANALYSE]), "COMPLETE is an end, but has transitions"),
    "unreachable": (
        {**ways(ANALYSE=[VALIDATE], VALIDATE=[COMPLETE]), "max_visits": None},
        "No transition leads to SUMMARISE from ANALYSE",
    ),
    "trap": (
        ways(ANALYSE=[To(COMPLETE, when=is_good), SUMMARISE], VALIDATE=[SUMMARISE]),
        "No end can be reached from SUMMARISE, VALIDATE",
    ),
    "loop without a bound": (
        {"max_visits": None},
        "SUMMARISE -> VALIDATE -> SUMMARISE is a loop without a bound: give max_visits",
    ),
    "loop of one": (
        {**ways(VALIDATE=[To(VALIDATE, when=is_bad), COMPLETE]), "max_visits": None},
        "VALIDATE -> VALIDATE is a loop",
    ),
    "no visits": ({"max_visits": 0}, "max_visits is 0"),
    "shadowed": (
        ways(VALIDATE=[SUMMARISE, COMPLETE]),
        "VALIDATE -> COMPLETE is never taken: SUMMARISE stands before it",
    ),
    "no step": (steps(VALIDATE=[]), "VALIDATE has no step"),
    "one name, two steps": (
        steps(VALIDATE=[Step("a", writes="x"), Step("b", writes="x")]),
        "Two steps of VALIDATE write 'x'",
    ),
    "a bare function": (steps(VALIDATE=makes(1)), "is no step"),
    "another enum's state": ({"start": Other.ANALYSE}, "is no member of Stage"),
    "another enum's target": (ways(ANALYSE=[Other.ANALYSE]), "is no member of Stage"),
    "a name for a state": (ways(ANALYSE=["SUMMARISE"]), "'SUMMARISE' is no member of Stage"),
    "another enum's step": (
        {"steps": {**definition()["steps"], Other.ANALYSE: Step("a")}},
        "is no member of Stage",
    ),
    "another enum's end": ({"ends": [Other.ANALYSE]}, "is no member of Stage"),
}


@pytest.mark.parametrize(("changes", "says"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_named_when_the_workflow_is_made(
    changes: Mapping[str, Any], says: str
) -> None:
    with pytest.raises(WorkflowError) as caught:
        review(**changes)
    assert says in str(caught.value)


def test_all_mistakes_are_named_at_once() -> None:
    with pytest.raises(WorkflowError, match="2 mistakes") as caught:
        review(max_visits=None, **steps(ANALYSE=[]))
    assert "ANALYSE has no step" in str(caught.value)
    assert "is a loop" in str(caught.value)


STEPS: dict[str, tuple[Mapping[str, Any], str]] = {
    "no agent": ({"agent": ""}, "it has no agent"),
    "unknown passing": ({"passing": "copy"}, "passing='copy' is unknown"),
    "reads is one text": ({"reads": "report"}, r"Give a list of names: \['report'\]"),
    "an unknown word in the task": ({"task": "Do {tsk}"}, "Only {task} can be filled in"),
    "an empty task": ({"task": " "}, "its task is empty"),
    "a part by reference": ({"reads": ["report[0:9]"]}, "is a part of a value"),
    "a path that is none": ({"reads": ["report["]}, "report"),
    "a name that can't be one": ({"writes": "my result"}, "'my result' can't be a name"),
    "a name of a function": ({"writes": "FINAL"}, "'FINAL' can't be a name"),
}


@pytest.mark.parametrize(("given", "says"), STEPS.values(), ids=STEPS)
def test_a_step_that_cannot_be_done_is_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(WorkflowError, match=says):
        Step(**{"agent": "analyser", **given})


def test_a_part_of_a_value_may_be_passed_by_value() -> None:
    step = Step("a", reads=["analysis['summary'][0:9]", "rows"], passing="value")
    assert step.names == {"analysis", "rows"}


def test_a_task_may_hold_other_braces() -> None:
    assert Step("a", 'Answer {task} as {"date": ...}').told("it") == 'Answer it as {"date": ...}'


def test_what_is_given_can_be_changed_afterwards_and_changes_nothing() -> None:
    reads = ["report"]
    given = definition(**steps(ANALYSE=Step("a", reads=reads)))
    workflow: Workflow[Stage] = Workflow(**given)
    given["transitions"][ANALYSE].append(COMPLETE)
    given["steps"].clear()
    reads.append("secret")
    assert [way.target for way in workflow.transitions[ANALYSE]] == [SUMMARISE]
    assert workflow.steps[ANALYSE][0].reads == ("report",)


def test_a_workflow_begins_with_what_its_steps_do_not_make_on_every_way() -> None:
    assert review().inputs == {"report"}
    # Of the first visit nobody has written the verdict.
    early = Step("summariser", reads=["analysis", "verdict"], writes="summary")
    assert review(**steps(SUMMARISE=early)).inputs == {"report", "verdict"}
    # Two ways lead to COMPLETE, and one of them makes no summary.
    last = Step("teller", reads=["summary", "analysis"])
    short = ways(ANALYSE=[To(COMPLETE, when=is_good), SUMMARISE])
    assert review(**steps(COMPLETE=last), **short).inputs == {"report", "summary"}
    # Steps of one state do not wait for each other.
    both = [Step("a", writes="x"), Step("b", reads=["x"], writes="y")]
    assert review(**steps(ANALYSE=both)).inputs == {"x", "analysis"}


class Six(Enum):
    A, B, C, D, E, F = range(6)


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, Any]:
    """Any table; most of them with a way to every state, and an end where a way stops."""
    edges = draw(st.sets(st.tuples(st.sampled_from(Six), st.sampled_from(Six)), max_size=6))
    ends = draw(st.sets(st.sampled_from(Six), min_size=1, max_size=3))
    if draw(st.integers(0, 3)):
        edges |= {(draw(st.sampled_from(list(Six)[: to.value])), to) for to in list(Six)[1:]}
        ends = set(Six) - {state for state, _ in edges} or ends
    transitions: dict[Six, list[Six]] = {}
    for state, to in sorted(edges, key=lambda edge: (edge[0].value, edge[1].value)):
        transitions.setdefault(state, []).append(to)
    most = draw(st.sampled_from([None, 1, 3]))
    return {"transitions": transitions, "ends": ends, "max_visits": most}


def closed(edges: set[tuple[Six, Six]]) -> set[tuple[Six, Six]]:
    """Who can be reached from whom, in one step or more (Warshall)."""
    reach = set(edges)
    for k, i, j in product(Six, repeat=3):
        if (i, k) in reach and (k, j) in reach:
            reach.add((i, j))
    return reach


@given(graph=graphs())
def test_what_is_accepted_is_what_can_come_to_an_end(graph: dict[str, Any]) -> None:
    edges = {(state, to) for state, out in graph["transitions"].items() for to in out}
    reach, ends = closed(edges), graph["ends"]
    is_sound = (
        all((Six.A, state) in reach for state in Six if state is not Six.A)
        and all(any((state, end) in reach for end in ends) for state in set(Six) - ends)
        and not any(state in ends for state, _ in edges)
        and (graph["max_visits"] is not None or all((state, state) not in reach for state in Six))
    )
    try:
        workflow = Workflow(
            states=Six,
            start=Six.A,
            ends=ends,
            transitions={
                state: [To(to, when=is_good) for to in out]
                for state, out in graph["transitions"].items()
            },
            steps=dict.fromkeys(Six, Step("one")),
            max_visits=graph["max_visits"],
        )
    except WorkflowError:
        assert not is_sound
        return
    assert is_sound
    machine = Machine(workflow)
    for _ in range(len(Six) * (workflow.max_visits or 1)):
        if machine.is_done:
            return
        try:
            machine.advance()
        except InvalidTransition:
            return
    raise AssertionError(f"it goes on and on: {machine.history}")

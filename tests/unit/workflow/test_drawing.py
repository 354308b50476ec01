"""How workflows are drawn."""

from __future__ import annotations

from enum import Enum
from itertools import pairwise
from typing import Any

from rlm_runtime.workflow import Step, To, Workflow, as_mermaid, as_tree
from tests.unit.workflow.conftest import Stage, definition, is_good, review

TREE = """\
ANALYSE
|  analyser: report -> analysis
SUMMARISE
|  summariser: analysis (by value) -> summary
VALIDATE
|  validator: summary -> verdict
|- when is_good: COMPLETE (end)
`- ^ SUMMARISE
(each state at most 3 times)
"""

MERMAID = """\
stateDiagram-v2
    state "ANALYSE#58; analyser#58; report -#62; analysis" as s1
    state "SUMMARISE#58; summariser#58; analysis #40;by value#41; -#62; summary" as s2
    state "VALIDATE#58; validator#58; summary -#62; verdict" as s3
    state "COMPLETE" as s4
    [*] --> s1
    s1 --> s2
    s2 --> s3
    s3 --> s4: when is_good
    s3 --> s2
    s4 --> [*]
"""


def test_a_workflow_is_drawn_as_a_tree() -> None:
    assert as_tree(review()) == TREE


def test_a_workflow_is_drawn_for_mermaid() -> None:
    assert as_mermaid(review()) == MERMAID


def test_branches_hold_what_follows_them() -> None:
    table: dict[Stage, Any] = {
        Stage.ANALYSE: [To(Stage.SUMMARISE, when=lambda values: values["long"]), Stage.VALIDATE],
        Stage.SUMMARISE: [Stage.VALIDATE],
        Stage.VALIDATE: [Stage.COMPLETE],
    }
    workers = {stage: [Step("a", writes="x"), Step("b")] for stage in Stage}
    drawn = as_tree(review(transitions=table, steps=workers, max_visits=None))
    assert (
        drawn
        == """\
ANALYSE
|  a: -> x
|  b
|- when a condition: SUMMARISE
|  |  a: -> x
|  |  b
|  VALIDATE
|  |  a: -> x
|  |  b
|  COMPLETE (end)
|     a: -> x
|     b
`- ^ VALIDATE
"""
    )


def test_names_cannot_break_the_drawing() -> None:
    hostile = Enum("hostile", ['a"]\n--> x;', "\x1b[31mred", "end"])
    first, second, last = hostile
    workflow: Workflow[Any] = Workflow(
        states=hostile,
        start=first,
        ends=[last],
        transitions={first: [To(second, when=is_good)], second: [last]},
        steps={first: Step('w"<b>\n'), second: Step("b")},
    )
    mermaid = as_mermaid(workflow)
    assert mermaid.splitlines()[1] == (
        '    state "a#34;#93;#92;n--#62; x#59;#58; w#34;#60;b#62;#92;n" as s1'
    )
    assert len(mermaid.splitlines()) == 1 + 3 + 1 + 2 + 1
    assert as_tree(workflow).splitlines()[0] == 'a"]\\n--> x;'
    assert "\x1b" not in as_tree(workflow) + mermaid


def test_a_long_workflow_is_drawn_as_deep_as_it_branches() -> None:
    many = Enum("many", [f"S{i}" for i in range(2000)])  # type: ignore[misc] # made, as above
    states = list(many)
    workflow: Workflow[Any] = Workflow(
        **{
            **definition(),
            "states": many,
            "start": states[0],
            "ends": states[-1:],
            "transitions": {state: [after] for state, after in pairwise(states)},
            "steps": dict.fromkeys(states, Step("one")),
            "max_visits": None,
        }
    )
    lines = as_tree(workflow).splitlines()
    assert len(lines) == 4000
    assert max(map(len, lines)) < 20

"""A workflow as a picture: Mermaid for documents, a tree for terminals. Strings; nobody prints."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import Any

from rlm_runtime.workflow.definition import Step, To, Workflow

_MERMAID_SIGNS = '#;:"<>{}[]()|&`\\%'
"""What means something in Mermaid, or in the HTML that it makes of labels."""


def as_mermaid(workflow: Workflow[Any]) -> str:
    """A state diagram."""
    ids = {state: f"s{number}" for number, state in enumerate(workflow.states, 1)}
    lines = ["stateDiagram-v2"]
    for state in workflow.states:
        label = ": ".join(filter(None, (state.name, "; ".join(map(_words, workflow.steps[state])))))
        lines.append(f'state "{_mermaid(label)}" as {ids[state]}')
    lines.append(f"[*] --> {ids[workflow.start]}")
    for state, ways in workflow.transitions.items():
        for way in ways:
            condition = f": {_mermaid(f'when {way.condition}')}" if way.condition else ""
            lines.append(f"{ids[state]} --> {ids[way.target]}{condition}")
    lines += [f"{ids[state]} --> [*]" for state in workflow.states if state in workflow.ends]
    return "\n    ".join(lines) + "\n"


def as_tree(workflow: Workflow[Any]) -> str:
    """Its states from the start on, each shown once; where several may follow, they branch.

    What is drawn already is named with an arrow back to it.
    """
    lines: list[str] = []
    drawn: set[Enum] = set()
    # The state or way to draw, how its lines begin, and its own first line.
    to_do: list[tuple[To[Any], str, str]] = [(To(workflow.start), "", "")]
    while to_do:
        way, indent, first = to_do.pop()
        state = way.target
        condition = f"when {way.condition}: " if way.condition else ""
        if state in drawn:
            lines.append(f"{first}{condition}^ {state.name}")
            continue
        drawn.add(state)
        lines.append(f"{first}{condition}{state.name}{_end(workflow, state)}")
        ways = workflow.transitions[state]
        mark = "|  " if ways else "   "
        lines += [f"{indent}{mark}{_words(step)}" for step in workflow.steps[state]]
        if len(ways) == 1 and not ways[0].condition:
            to_do.append((ways[0], indent, indent))
            continue
        for number, way in reversed(list(enumerate(ways, 1))):
            is_last = number == len(ways)
            branch, below = ("`- ", "   ") if is_last else ("|- ", "|  ")
            to_do.append((way, indent + below, indent + branch))
    if workflow.max_visits is not None:
        lines.append(f"(each state at most {workflow.max_visits} times)")
    return "\n".join(map(_plain, lines)) + "\n"


def _end(workflow: Workflow[Any], state: Enum) -> str:
    return " (end)" if state in workflow.ends else ""


def _words(step: Step) -> str:
    """Who makes what of what: `summariser: analysis (by value) -> summary`."""
    parts = [f"{step.who}:"]
    parts += [", ".join(step.reads)] if step.reads else []
    parts += ["(by value)"] if step.reads and step.passing == "value" else []
    parts += [f"-> {step.writes}"] if step.writes else []
    return " ".join(parts) if len(parts) > 1 else step.who


def _mermaid(text: str) -> str:
    return "".join(f"#{ord(sign)};" if sign in _MERMAID_SIGNS else sign for sign in _plain(text))


def _plain(text: str) -> str:
    """Without what could end a line or steer a terminal."""
    return "".join(_escaped(text))


def _escaped(text: str) -> Iterator[str]:
    for sign in text:
        yield sign if sign.isprintable() else sign.encode("unicode_escape").decode()

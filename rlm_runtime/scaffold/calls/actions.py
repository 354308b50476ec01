"""What an agent can do in one turn, as data: one class a function.

Nothing here is checked against a store: a path is text until it is followed, a name may be unknown.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from rlm_runtime.scaffold.agent import Start


@dataclass(frozen=True, slots=True)
class Path:
    """A stored value, or a part of one, by reference.

    Attributes:
        text: As it was written (`store.parse_path`).
    """

    text: str


@dataclass(frozen=True, slots=True)
class Read:
    """Show a value."""

    path: Path


@dataclass(frozen=True, slots=True)
class Write:
    """Store a value.

    Attributes:
        name: Its name.
        value: A literal; or a path, whose value is stored once more without being shown.
    """

    name: str
    value: object


@dataclass(frozen=True, slots=True)
class ListContext:
    """Show names.

    Attributes:
        page: From 1.
    """

    page: int = 1


@dataclass(frozen=True, slots=True)
class Query:
    """Ask the model one question.

    Attributes:
        path: What about; `None` is nothing.
        question: In words.
    """

    path: Path | None
    question: str


@dataclass(frozen=True, slots=True)
class Map:
    """Ask every question about every chunk.

    Attributes:
        paths: Whose chunks: the items of a list, the pieces of a text.
        questions: In words.
    """

    paths: tuple[Path, ...]
    questions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SubAgent:
    """Give a task to another agent.

    Attributes:
        task: In words.
        names: The values it may read; `None` is all.
        start: With an empty mind, or with all that this agent has seen.
    """

    task: str
    names: tuple[str, ...] | None = None
    start: Start = "fresh"


@dataclass(frozen=True, slots=True)
class Budget:
    """Show what is left."""


@dataclass(frozen=True, slots=True)
class Final:
    """End the work.

    Attributes:
        result: A path, or a literal. A text that is a value's name means that value.
    """

    result: object


Action = Read | Write | ListContext | Query | Map | SubAgent | Budget | Final


class Signature(NamedTuple):
    """How a function is called.

    Attributes:
        parameters: Their names, in order.
        required: How many of them a call must give.
        usage: An example, for hints.
    """

    parameters: tuple[str, ...]
    required: int
    usage: str


SIGNATURES = {
    "READ": Signature(("path",), 1, "READ(report[0:2000])"),
    "WRITE": Signature(("name", "value"), 2, 'WRITE(summary, "...")'),
    "LIST_CONTEXT": Signature(("page",), 0, "LIST_CONTEXT()"),
    "QUERY": Signature(("path", "question"), 2, 'QUERY(report, "...")'),
    "llm_query": Signature(("question", "data"), 1, 'llm_query("...", report)'),
    "llm_map": Signature(("chunks", "questions"), 2, 'llm_map(report, ["..."])'),
    "agent": Signature(("task", "context", "start"), 1, 'agent("...", context=[report])'),
    "BUDGET": Signature((), 0, "BUDGET()"),
    "FINAL": Signature(("result",), 1, "FINAL(summary)"),
}
"""The functions that can be called in a turn, as the shared prefix tells them to the model."""


def function_name(action: Action) -> str:
    """What a call is called in the log."""
    return _NAMES[type(action)]


_NAMES: dict[type[Action], str] = {
    Read: "READ",
    Write: "WRITE",
    ListContext: "LIST_CONTEXT",
    Query: "QUERY",
    Map: "llm_map",
    SubAgent: "agent",
    Budget: "BUDGET",
    Final: "FINAL",
}

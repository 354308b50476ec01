"""Ways to label rows and to count them, beside each other on one engine.

`classify_each` is the recipe: one call a row, held to the labels, counted in Python. `direct_each`
asks the same of each row and lets the model answer in its own words; the label that they name is
taken. `direct` asks for all counts at once, about the rows that fit the window, held to a JSON
object of numbers: no answer is lost by its form.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal

import anyio.to_thread

from rlm_runtime.errors import InputError, SchemaMismatch
from rlm_runtime.scaffold.agent import Agent, Outcome
from rlm_runtime.scaffold.agent_context import AgentContext
from rlm_runtime.scaffold.leaf_calls import Leaf, LeafCalls
from rlm_runtime.scaffold.recipes.classify_each import ClassifyEach
from rlm_runtime.scaffold.recipes.search_agent import texts_of
from rlm_runtime.scaffold.tree import Seat
from rlm_runtime.scaffold.typed_answer import AnswerType
from rlm_runtime.types import StopReason


class RowsArm(StrEnum):
    """A way to find out how many rows there are of each label."""

    CLASSIFY_EACH = "classify_each"
    """The recipe, which the others are compared with."""
    DIRECT_EACH = "direct_each"
    """A call a row, whose answer is free text."""
    DIRECT = "direct"
    """One call with the rows that fit the window."""


DEFAULT = RowsArm.CLASSIFY_EACH


@dataclass(frozen=True, slots=True)
class DirectCounted:
    """What one call said of the rows it saw.

    Attributes:
        shown: Rows that it saw, from the first one on.
        counts: Rows by label; `None` when no attempt was of the type.
        is_constrained: It could answer with such counts only.
        error: Why there are none; empty when there are.
    """

    shown: int
    counts: dict[str, int] | None
    is_constrained: bool
    error: str = ""


@dataclass(frozen=True, slots=True)
class FreeEach:
    """The recipe on an engine that can hold no answer to anything: the same prompts, free answers.

    Attributes:
        labels: To look for in the answers.
    """

    labels: tuple[str, ...]

    @property
    def kind(self) -> Literal["classify_each"]:
        """As the recipe's."""
        return "classify_each"

    async def run(self, seat: Seat, task: str, context: AgentContext) -> Outcome:
        """As `ClassifyEach.run`."""
        info = replace(seat.tree.info, can_choose=False)
        free = replace(seat, tree=replace(seat.tree, info=info))
        return await ClassifyEach(labels=self.labels).run(free, task, context)


@dataclass(frozen=True, slots=True)
class DirectCounts:
    """One call with as many lines as fit, for the counts of all labels.

    Attributes:
        labels: To be counted.
    """

    labels: tuple[str, ...]

    @property
    def kind(self) -> Literal["direct"]:
        """One call, decided in Python."""
        return "direct"

    async def run(self, seat: Seat, task: str, context: AgentContext) -> Outcome:
        """Ask once; `Outcome.detail` is `DirectCounted`.

        Raises:
            InputError: There is no text, or no line of it fits the window.
            EngineError: The engine can't go on.
        """
        (ref, *_) = texts_of(context)
        lines = list(context.lines(ref))
        kind = _counts_of(self.labels, len(lines))
        calls = LeafCalls(seat)
        room = calls.prompts.room(Leaf(question=task, answer=kind))
        shown = await anyio.to_thread.run_sync(_fitting, seat, lines, room)
        if not shown:
            raise InputError("The window has no room for a row.", "Use a larger window.")
        text = "\n".join(lines[:shown])
        data = context.data(f"{ref.name}[0:{len(text)}]", room).text
        seat.tree.job.begin_stage("counting", 1)
        counts, error = None, ""
        try:
            answer = await calls.query(task, data, answer=kind, label="count directly")
            if isinstance(answer.value, dict):  # as the schema says
                counts = {label: int(answer.value[label]) for label in self.labels}
        except SchemaMismatch as err:
            error = str(err)
        counted = DirectCounted(shown, counts, seat.tree.info.can_choose, error)
        return Outcome(stop_reason=StopReason.FINAL, detail=counted)


def agent_of(arm: RowsArm, labels: tuple[str, ...]) -> Agent:
    """The agent that does an arm's work."""
    match arm:
        case RowsArm.CLASSIFY_EACH:
            return ClassifyEach(labels=labels)
        case RowsArm.DIRECT_EACH:
            return FreeEach(labels)
        case RowsArm.DIRECT:
            return DirectCounts(labels)


def task_of(arm: RowsArm, question: str, labels: tuple[str, ...]) -> str:
    """What an arm's agent is told to do.

    Args:
        arm: The arm.
        question: About one row.
        labels: To choose from.
    """
    if arm is not RowsArm.DIRECT:
        return question  # the recipe adds the labels
    return (
        "Each line above is a report to the town office. How many of the lines tell of an event of "
        f"each of these kinds: {', '.join(labels)}?"
    )


def _counts_of(labels: tuple[str, ...], most: int) -> AnswerType:
    count = {"type": "integer", "minimum": 0, "maximum": most}
    return AnswerType.of(
        {
            "type": "object",
            "properties": dict.fromkeys(labels, count),
            "required": list(labels),
            "additionalProperties": False,
        }
    )


def _fitting(seat: Seat, lines: list[str], room_tokens: int) -> int:
    """How many of the first lines fit; for a thread."""
    count = seat.tree.layout.tokenizer.count
    numbers = range(1, len(lines) + 1)
    return bisect_right(numbers, room_tokens, key=lambda n: count("\n".join(lines[:n])))

"""A program's own leaf calls, as an agent: begun and ended in the log like any other."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rlm_runtime.errors import InputError
from rlm_runtime.scaffold.agent import Outcome
from rlm_runtime.scaffold.agent_context import AgentContext
from rlm_runtime.scaffold.leaf_calls import LeafAnswer, LeafCalls
from rlm_runtime.scaffold.tree import Seat
from rlm_runtime.types import StopReason


def check_texts(**given: Sequence[object]) -> None:
    """See whether texts were given, each as one item.

    Args:
        given: Lists by the name of their argument.

    Raises:
        InputError: It is one text, which would be taken letter by letter; or one is no text.
    """
    for name, texts in given.items():
        if isinstance(texts, str | bytes):
            raise InputError(f"{name} is one text.", "Give a list of texts, also for one.")
        for text in texts:
            if not isinstance(text, str):
                raise InputError(
                    f"One of the {name} is of type {type(text).__name__}.",
                    "Give texts, as strings; what is stored is read by an agent (`run`).",
                )


@dataclass(frozen=True, slots=True)
class LeafAgent:
    """Makes the calls that it is given; its `Outcome.detail` is their answers.

    Attributes:
        ask: Makes them.
    """

    ask: Callable[[LeafCalls], Coroutine[Any, Any, list[list[LeafAnswer]]]]

    @property
    def kind(self) -> Literal["direct"]:
        """Calls that Python decided."""
        return "direct"

    async def run(self, seat: Seat, task: str, context: AgentContext) -> Outcome:
        """Make the calls. The task is what the log calls them.

        Raises:
            EngineDead: The engine's process ended.
        """
        seat.tree.job.begin_stage("asking", 0)
        return Outcome(stop_reason=StopReason.FINAL, detail=await self.ask(LeafCalls(seat)))

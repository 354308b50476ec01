"""A program's own leaf calls, as an agent: begun and ended in the log like any other."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Literal

from rlm_runtime.scaffold.agent import Outcome
from rlm_runtime.scaffold.agent_context import AgentContext
from rlm_runtime.scaffold.leaf_calls import LeafAnswer, LeafCalls
from rlm_runtime.scaffold.tree import Seat
from rlm_runtime.types import StopReason


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

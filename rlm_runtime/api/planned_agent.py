"""An agent that says what it can cost at most before it begins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rlm_runtime.scaffold.agent import Outcome
from rlm_runtime.scaffold.agent_context import AgentContext
from rlm_runtime.scaffold.recipes.classify_each import ClassifyEach
from rlm_runtime.scaffold.recipes.map_reduce import MapReduce
from rlm_runtime.scaffold.recipes.plan import Plan
from rlm_runtime.scaffold.tree import Seat
from rlm_runtime.types import AgentKind


@dataclass(frozen=True, slots=True)
class PlannedAgent:
    """An agent whose plan somebody wants to hear.

    Attributes:
        agent: What does the work.
        on_plan: Called with the plan of all of the work, in the event loop.
    """

    agent: MapReduce | ClassifyEach
    on_plan: Callable[[Plan], None]

    @property
    def kind(self) -> AgentKind:
        """The agent's own."""
        return self.agent.kind

    async def run(self, seat: Seat, task: str, context: AgentContext) -> Outcome:
        """Plan, say it, and run; the texts are measured once more for the run.

        Raises:
            RLMError: As the agent's `plan` and `run`.
        """
        self.on_plan(await self.agent.plan(seat, task, context))
        return await self.agent.run(seat, task, context)

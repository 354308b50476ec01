"""Agents by the name of their kind, and an agent that belongs to a session."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import signature
from typing import TYPE_CHECKING, Any, Literal

from rlm_runtime.errors import InputError
from rlm_runtime.scaffold.agent import Agent
from rlm_runtime.scaffold.calls.agent import CallsAgent
from rlm_runtime.scaffold.recipes.classify_each import ClassifyEach
from rlm_runtime.scaffold.recipes.direct import Direct
from rlm_runtime.scaffold.recipes.map_reduce import MapReduce
from rlm_runtime.scaffold.recipes.search_agent import SearchAgent
from rlm_runtime.types import AgentKind, Limits

if TYPE_CHECKING:
    from rlm_runtime.api.result import Result
    from rlm_runtime.api.session import AsyncRLM
    from rlm_runtime.api.texts import Sources
    from rlm_runtime.scaffold.agent_context import AgentContext
    from rlm_runtime.scheduler import Progress

KINDS: Mapping[AgentKind, Callable[..., Agent]] = {
    "direct": Direct,
    "search": SearchAgent,
    "map_reduce": MapReduce,
    "classify_each": ClassifyEach,
    "calls": CallsAgent,
}
"""What makes an agent of a kind; its options are the fields of each."""


def make(kind: AgentKind, **options: Any) -> Agent:
    """An agent of a kind.

    Args:
        kind: Who decides its steps.
        options: Of the kind: `exhaustive` of `search`, `labels` of `classify_each`, `combine` of
            `map_reduce`, `role` of `calls`, ... A class in `KINDS` says all of them.

    Raises:
        InputError: There is no such kind, or it has no such option.
    """
    maker = KINDS.get(kind)
    if maker is None:
        raise InputError(f"There is no agent {kind!r}.", f"One of: {', '.join(KINDS)}.")
    known = signature(maker).parameters
    for name in options:
        if name not in known:
            has = f"It has: {', '.join(known)}." if known else "It has none."
            raise InputError(f"An agent {kind!r} has no option {name!r}.", has)
    return maker(**options)


class SessionAgent:
    """An agent of a session. Made by `AsyncRLM.agent`; it can run many times, at the same time.

    Attributes:
        agent: What it does.
    """

    def __init__(self, session: AsyncRLM, agent: Agent | Literal["auto"]) -> None:
        self._session = session
        self.agent = agent

    async def run(
        self,
        task: str,
        context: Sources | AgentContext | None = None,
        *,
        limits: Limits | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Result:
        """Work on a task; see `AsyncRLM.run`."""
        return await self._session.run(
            task, context, agent=self.agent, limits=limits, on_progress=on_progress
        )

"""Agents by the name of their kind, and an agent that belongs to a session."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, cast, get_type_hints

from pydantic import TypeAdapter, ValidationError

from rlm_runtime.errors import InputError
from rlm_runtime.scaffold.agent import Agent
from rlm_runtime.scaffold.calls.agent import CallsAgent
from rlm_runtime.scaffold.recipes.classify_each import ClassifyEach
from rlm_runtime.scaffold.recipes.direct import Direct
from rlm_runtime.scaffold.recipes.labels import check_labels, labels_of
from rlm_runtime.scaffold.recipes.map_reduce import MapReduce
from rlm_runtime.scaffold.recipes.search_agent import SearchAgent
from rlm_runtime.scaffold.typed_answer import AnswerType
from rlm_runtime.types import AgentKind, Limits

if TYPE_CHECKING:
    from rlm_runtime.api.result import Result
    from rlm_runtime.api.session import AsyncRLM
    from rlm_runtime.api.texts import Sources
    from rlm_runtime.scaffold.agent_context import AgentContext
    from rlm_runtime.scaffold.recipes.plan import Plan
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
            `map_reduce`, `role` of `calls`, ... A class in `KINDS` says all of them. An
            `answer_type` may be whatever `llm_map` takes for one.

    Raises:
        InputError: There is no such kind, it has no such option, or an option can't be that.
    """
    maker = KINDS.get(kind)
    if maker is None:
        raise InputError(f"There is no agent {kind!r}.", f"One of: {', '.join(KINDS)}.")
    types = get_type_hints(maker.__init__)
    known = [name for name in types if name != "return"]
    for name in options:
        if name not in known:
            raise InputError(
                f"An agent {kind!r} has no option {name!r}.", f"It has: {', '.join(known)}."
            )
    agent = maker(**{name: _option(name, value, types[name]) for name, value in options.items()})
    if isinstance(agent, ClassifyEach) and "labels" in options:
        check_labels(agent.labels)
    return agent


def _option(name: str, value: object, kind: object) -> object:
    """What is given for an option, as the agent has it: labels from a list are a tuple."""
    if name == "answer_type" and value is not None:
        return AnswerType.of(value)
    try:
        # Any: what can be a type is known to pydantic alone
        return TypeAdapter(cast(Any, kind)).validate_python(value)
    except ValidationError as err:
        why = "; ".join(error["msg"] for error in err.errors(include_url=False))
        raise InputError(
            f"The option {name}={value!r} can't be used: {why}.", "Give another."
        ) from err


def meant(
    agent: Agent | AgentKind | Literal["auto"], task: str, *, exhaustive: bool
) -> Agent | None:
    """The agent that was asked for; `None`: the best one for the task.

    Raises:
        InputError: It is none; it is no search, and is to be exhaustive; or it has no labels.
    """
    if agent == "auto":
        return None
    if isinstance(agent, str):
        agent = make(agent, **({"exhaustive": True} if exhaustive else {}))
    if isinstance(agent, type) or not hasattr(agent, "kind"):
        raise InputError(
            f"{agent!r} is no agent.", f"Give one, or its kind: auto, {', '.join(KINDS)}."
        )
    if isinstance(agent, ClassifyEach):
        check_labels(agent.labels or labels_of(task))
    if not exhaustive:
        return agent
    if not isinstance(agent, SearchAgent):
        raise InputError("Only a search can be exhaustive.", "Leave it out.")
    return replace(agent, exhaustive=True)


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
        on_plan: Callable[[Plan], None] | None = None,
    ) -> Result:
        """Work on a task; see `AsyncRLM.run`."""
        return await self._session.run(
            task,
            context,
            agent=self.agent,
            limits=limits,
            on_progress=on_progress,
            on_plan=on_plan,
        )

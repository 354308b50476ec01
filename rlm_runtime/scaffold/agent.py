"""What an agent is, and how one is run: begun and ended in the log, whatever its kind.

The kinds differ in who decides the steps: Python (`direct` and the recipes) or the model
(`calls`). Everything else is the same: a task, a context of values by name, a result by reference.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Protocol

import anyio

from rlm_runtime.errors import EngineDead, InputError, LimitExceeded
from rlm_runtime.scaffold.tree import Seat, Work
from rlm_runtime.tracing import AgentFinished, AgentStarted
from rlm_runtime.types import AgentId, AgentKind, Ref, StopReason

if TYPE_CHECKING:
    from rlm_runtime.scaffold.agent_context import AgentContext

Start = Literal["fresh", "fork"]
"""fresh: a prompt of its own from the shared prefix; fork: its parent's ids, and a task behind."""

FORKABLE: frozenset[AgentKind] = frozenset({"calls"})
"""Kinds whose prompts can go on behind another agent's. The others put a text in front of all they
say about it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What an agent's steps led to.

    Attributes:
        stop_reason: `final`, or what ended it before.
        result: The stored value that is the result; `None` when there is none.
        answer: The answer in words, where it is not a stored value.
        found: Whether there is an answer; `None` where that is no question.
        turns: Turns that the model decided.
        error: The message of the error that ended it; empty when none did.
        detail: What the agent's kind has to say beside it (`SearchFindings` of `search`, ...).
    """

    stop_reason: StopReason
    result: Ref | None = None
    answer: str | None = None
    found: bool | None = None
    turns: int = 0
    error: str = ""
    detail: object = None


class Agent(Protocol):
    """Something that works on a task. Immutable: one can run many times, at the same time."""

    @property
    def kind(self) -> AgentKind:
        """Who decides its steps."""
        ...

    async def run(self, seat: Seat, task: str, context: AgentContext) -> Outcome:
        """Work on a task.

        Args:
            seat: Its place in the tree.
            task: What to do, in words.
            context: The values it can read and write.

        Raises:
            LimitExceeded: A limit ended it with nothing to show. One that has something to show
                returns it with the limit's `stop_reason`.
            RLMError: It can't go on.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentResult:
    """An outcome with whose it is.

    Attributes:
        agent_id: Its name in the log.
        kind: Who decided its steps.
        outcome: What came of it.
        stored: The values it wrote, in order; they stay, however it ended.
    """

    agent_id: AgentId
    kind: AgentKind
    outcome: Outcome
    stored: tuple[Ref, ...]


def check_task(task: str) -> None:
    """See whether words can be a task, whatever the agent is.

    Raises:
        InputError: There are none, or they can't be UTF-8.
    """
    if not task.strip():
        raise InputError("The task is empty.", "Ask something, or say what is to be done.")
    try:
        task.encode()
    except UnicodeEncodeError as err:
        raise InputError(
            f"The task has half a surrogate pair at character {err.start}.",
            "Decode it from its source without `surrogateescape`.",
        ) from err


async def run_agent(agent: Agent, seat: Seat, task: str, context: AgentContext) -> AgentResult:
    """Run an agent at its place; its beginning and end are in the log, whatever the end.

    A limit of the tree is an end: the outcome has its `stop_reason`.

    Raises:
        EngineDead: The engine's process ended.
        RLMError: The agent can't go on.
    """
    recorder = seat.tree.recorder
    started_at_s = recorder.now()
    names = context.visible
    seat = replace(seat, work=Work(agent.kind, task, names))
    recorder.emit(
        AgentStarted(
            at_s=started_at_s,
            agent_id=seat.agent_id,
            parent_id=None if seat.parent is None else seat.parent.agent_id,
            depth=seat.depth,
            kind=agent.kind,
            task_blob=recorder.blob(task.encode()),
            start="fresh" if seat.forked is None else "fork",
            names=None if names is None else tuple(sorted(names)),
        )
    )
    outcome = Outcome(stop_reason=StopReason.FAILED)
    try:
        outcome = await agent.run(seat, task, context)
    except LimitExceeded as err:
        outcome = Outcome(stop_reason=err.stop_reason, error=str(err))
    except anyio.get_cancelled_exc_class():
        outcome = Outcome(stop_reason=StopReason.CANCELLED)
        raise
    except EngineDead:
        outcome = Outcome(stop_reason=StopReason.ENGINE_DEAD)
        raise
    finally:
        now, result, answer = recorder.now(), outcome.result, outcome.answer
        recorder.emit(
            AgentFinished(
                at_s=now,
                agent_id=seat.agent_id,
                stop_reason=outcome.stop_reason,
                found=outcome.found,
                result_blob=None if answer is None else recorder.blob(answer.encode()),
                wall_s=now - started_at_s,
                result_name=None if result is None else result.name,
                result_version=None if result is None else result.version,
            )
        )
    return AgentResult(
        agent_id=seat.agent_id, kind=agent.kind, outcome=outcome, stored=context.written
    )

"""Sub-agents: started, waited for and cancelled; none outlives the agent that started it.

    async with Children(seat, context) as children:
        handles = [children.start(agent, task, names=["report"]) for task in tasks]
        first = await wait_any(handles)
        outcomes = await wait_all(handles)

A fresh child begins from the shared prefix with the names it was given and its task. A fork goes on
behind its parent's exact ids, so that of many forks each computes its own tail only. Either way
what a child stores stays in the store, and its parent sees the names.

What fails is one child: its error is its handle's, and the others go on. Only the end of the engine
ends them all, and whatever the parent was waiting for.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import anyio

from rlm_runtime.errors import Cancelled, EngineDead, InputError, RLMError
from rlm_runtime.prompt import Prompt
from rlm_runtime.scaffold.agent import (
    FORKABLE,
    Agent,
    AgentResult,
    Start,
    check_task,
    run_agent,
)
from rlm_runtime.scaffold.agent_context import AgentContext
from rlm_runtime.scaffold.tree import Seat, Work
from rlm_runtime.types import AgentId, Ref

FORK_TURN = (
    "You are now the sub-agent. What came before is what you know. This is your only task, and you "
    "end it with FINAL:\n\n"
)
"""What a fork reads in front of its task: the turns before it were about its parent's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SubTask:
    """What one child is to do.

    Attributes:
        agent: Who does it.
        task: What, in words.
        names: The values it may read; `None`: all that its parent may.
        start: With an empty mind, or with all that its parent has seen.
        prompt: Of a fork: the parent's last prompt, as it was sent.
        generated_ids: Of a fork: what the parent generated behind it.
    """

    agent: Agent
    task: str
    names: Collection[str] | None = None
    start: Start = "fresh"
    prompt: Prompt | None = None
    generated_ids: tuple[int, ...] = ()


class Handle:
    """A child that was started. Made by `Children.start`.

    Attributes:
        agent_id: Its name in the log.
    """

    def __init__(self, agent_id: AgentId, context: AgentContext) -> None:
        self.agent_id = agent_id
        self._context = context
        self._scope = anyio.CancelScope()
        self._ended = anyio.Event()
        self._outcome: AgentResult | RLMError | None = None

    @property
    def is_done(self) -> bool:
        """It ended, in whatever way."""
        return self._ended.is_set()

    @property
    def stored(self) -> tuple[Ref, ...]:
        """What it has written so far; an error or a cancellation loses none of it."""
        return self._context.written

    def cancel(self) -> None:
        """End it, its calls and its own children; nothing to do for one that ended."""
        self._scope.cancel()

    async def outcome(self) -> AgentResult | RLMError:
        """Wait for its end: what came of it, or the error that ended it."""
        await self._ended.wait()
        if self._outcome is None:
            return Cancelled(f"Agent {self.agent_id} was cancelled.")
        return self._outcome

    async def result(self) -> AgentResult:
        """Wait for its end.

        Raises:
            Cancelled: It was cancelled.
            RLMError: What ended it.
        """
        outcome = await self.outcome()
        if isinstance(outcome, RLMError):
            raise outcome
        return outcome


class Children:
    """The children of one running agent: an async context manager.

    At most `agents.max_children` of them run at once; the others wait, in the order in which they
    were started. Leaving the block cancels those that are not done, and waits for their end.

    Args:
        seat: The agent's place.
        context: The agent's values.

    Raises:
        EngineDead: The engine's process ended while a child ran, whatever the block was doing.
    """

    def __init__(self, seat: Seat, context: AgentContext) -> None:
        self._seat = seat
        self._context = context
        self._group = anyio.create_task_group()
        self._places = anyio.Semaphore(seat.tree.config.agents.max_children)

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        self._group.cancel_scope.cancel()
        try:
            return await self._group.__aexit__(kind, error, trace)
        except BaseExceptionGroup as errors:
            chief = _chief(errors)
        raise chief

    def start(
        self,
        agent: Agent,
        task: str,
        names: Collection[str] | None = None,
        *,
        start: Start = "fresh",
        prompt: Prompt | None = None,
        generated_ids: tuple[int, ...] = (),
    ) -> Handle:
        """Start a child; the arguments are those of `SubTask`.

        Raises:
            InputError: The task can't be one, the child would do what an agent above it is
                doing, or it can't be forked.
            UnknownName: A name that the parent does not see.
            LimitExceeded: The tree may not be that deep.
        """
        seat = self._seat.child(self._forked(agent, task, start, prompt, generated_ids))
        context = self._context.child(seat.agent_id, names, self._seat.tree.agent_reads())
        self._refuse_circle(Work(agent.kind, task, context.visible))
        handle = Handle(seat.agent_id, context)
        self._group.start_soon(self._run, handle, agent, seat, task)
        return handle

    async def run_all(self, tasks: Sequence[SubTask]) -> list[AgentResult | RLMError]:
        """Run children as one batch and wait for all.

        Cancelled, it cancels these children and leaves the others alone.

        Returns:
            Of each task, in order, what came of it or its error; one that could not be started
            has its error too.

        Raises:
            EngineDead: The engine's process ended.
        """
        started = [self._start_or_error(task) for task in tasks]
        handles = [child for child in started if isinstance(child, Handle)]
        try:
            outcomes = dict(zip(handles, await wait_all(handles), strict=True))
        finally:
            for handle in handles:
                handle.cancel()
        return [outcomes[child] if isinstance(child, Handle) else child for child in started]

    def _start_or_error(self, task: SubTask) -> Handle | RLMError:
        try:
            return self.start(
                task.agent,
                task.task,
                task.names,
                start=task.start,
                prompt=task.prompt,
                generated_ids=task.generated_ids,
            )
        except RLMError as err:
            return err

    async def _run(self, handle: Handle, agent: Agent, seat: Seat, task: str) -> None:
        context = handle._context
        try:
            with handle._scope:
                async with self._places:
                    handle._outcome = await run_agent(agent, seat, task, context)
        except Exception as err:
            if isinstance(err, RLMError):
                handle._outcome = err
            if isinstance(err, EngineDead) or not isinstance(err, RLMError):
                # Now, before its end shows: who waits for it is ended, and does not go on.
                self._group.cancel_scope.cancel()
                raise
        finally:
            handle._ended.set()

    def _forked(
        self,
        agent: Agent,
        task: str,
        start: Start,
        prompt: Prompt | None,
        generated_ids: tuple[int, ...],
    ) -> Prompt | None:
        check_task(task)
        if start == "fresh":
            return None
        if agent.kind not in FORKABLE:
            raise InputError(
                f"A {agent.kind} agent can't be a fork: its prompts begin with a text.",
                'Start it with start="fresh".',
            )
        if prompt is None:
            raise InputError(
                "There is nothing to fork: this agent has sent no prompt.",
                'Start the sub-agent with start="fresh".',
            )
        layout = self._seat.tree.layout
        return layout.append_turn(prompt, generated_ids, f"{FORK_TURN}{task}")

    def _refuse_circle(self, work: Work) -> None:
        if work.kind == "workflow":  # its steps are known when it is made: it can't hold itself
            return
        for seat in self._seat.lineage():
            if seat.work == work:
                raise InputError(
                    f"Agent {seat.agent_id} is at work on this very task, with the same values: "
                    "a sub-agent would go round in a circle.",
                    "Give it a smaller task, or fewer values.",
                )


async def wait_any(handles: Sequence[Handle]) -> tuple[Handle, ...]:
    """Wait until one of them ended.

    Cancelled, it leaves the children alone.

    Returns:
        All that ended, in the order given; at least one.

    Raises:
        InputError: There is none to wait for.
    """
    if not handles:
        raise InputError("There is no sub-agent to wait for.", "Start one first.")

    async def watch(handle: Handle) -> None:
        await handle._ended.wait()
        group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        for handle in handles:
            group.start_soon(watch, handle)
    return tuple(handle for handle in handles if handle.is_done)


async def wait_all(handles: Sequence[Handle]) -> list[AgentResult | RLMError]:
    """Wait until all of them ended.

    Cancelled, it leaves the children alone.

    Returns:
        What came of each, or its error, in the order given.
    """
    return [await handle.outcome() for handle in handles]


def _chief(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """What to raise of all that was raised: the engine's end; else the only one; else all."""
    leaves = list(_leaves(errors))
    for leaf in leaves:
        if isinstance(leaf, EngineDead):
            return leaf
    return leaves[0] if len(leaves) == 1 else errors


def _leaves(errors: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    leaves: list[BaseException] = []
    for error in errors.exceptions:
        leaves += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return leaves

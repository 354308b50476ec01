"""`calls`: does the model write legal calls, and does it come to an end with them?

Agents of the kind `calls` work on small tasks (`workloads/calls.py`), many at once, until they have
made the number of turns that was asked for. The model decides every turn; nothing is given. Agents
that are at work by then go on to their own end, so a few more turns are made.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import anyio

from rlm_runtime.api import AsyncRLM, Result
from rlm_runtime.benchmark.calls_result import CallsCase, CallsResult
from rlm_runtime.benchmark.workloads.calls import NAME, CallTask, call_tasks
from rlm_runtime.errors import EngineDead, InputError, RLMError
from rlm_runtime.scaffold.calls import CallsAgent
from rlm_runtime.tracing import AgentFinished, AgentStarted, AnyEvent, TurnFinished
from rlm_runtime.types import StopReason

ANSWER_CHARACTERS = 400
"""Of what an agent ended with, so much is kept."""

OnTurn = Callable[[CallsResult, int, int], None]
"""Gets the result so far, turns made and turns wanted. Quick, in the event loop."""


async def measure(
    session: AsyncRLM, *, turns: int, seed: int, on_turn: OnTurn | None = None
) -> CallsResult:
    """Let agents work until there were so many turns.

    Args:
        session: Nothing was asked of it, and nothing else is meanwhile.
        turns: At least so many, those of sub-agents included.
        seed: Of the tasks.
        on_turn: Called at each change.

    Raises:
        InputError: `turns` is below 1.
        EngineDead: The engine's process ended.
    """
    if turns < 1:
        raise InputError(f"{turns} turns can't be measured.", "Take at least 1.")
    return await _Measurement(session, turns, seed, on_turn).run()


class _Measurement:
    """One measurement: what was noted so far, and who goes on."""

    def __init__(self, session: AsyncRLM, turns: int, seed: int, on_turn: OnTurn | None) -> None:
        self._session = session
        self._wanted = turns
        self._seed = seed
        self._on_turn = on_turn
        self._tasks = call_tasks(seed)
        self._events: list[AgentStarted | TurnFinished | AgentFinished] = []
        self._cases: list[CallsCase] = []
        self._made = 0
        self._told = -1
        self._died: list[EngineDead] = []
        self._began_s = self._now_s = 0.0

    async def run(self) -> CallsResult:
        parts = await self._session.internals()
        # No more at once than could use up all turns: the last ones would only add to them.
        agents = math.ceil(self._wanted / self._session.config.limits.max_turns)
        self._began_s = parts.recorder.now()
        forget = parts.recorder.subscribe(self._note)
        try:
            async with anyio.create_task_group() as group:
                for _ in range(min(parts.engine.info.max_running, agents)):
                    group.start_soon(self._work, group.cancel_scope)
        finally:
            forget()
        if self._died:
            raise self._died[0]
        return self._so_far()

    async def _work(self, scope: anyio.CancelScope) -> None:
        """One task after the other, each by a new agent."""
        while self._made < self._wanted:
            task = next(self._tasks)
            try:
                ended = await self._session.run(
                    task.task,
                    task.values,
                    agent=CallsAgent(),
                    on_progress=lambda _: self._tell(),
                )
            except EngineDead as err:
                self._died.append(err)
                scope.cancel()
                return
            except RLMError as err:
                # An agent that can't go on has come to an end too.
                self._cases.append(_failed(task, err))
            else:
                self._cases.append(_judged(task, ended))
            self._tell()

    def _note(self, event: AnyEvent) -> None:
        self._now_s = event.at_s
        if isinstance(event, AgentStarted | TurnFinished | AgentFinished):
            self._events.append(event)
            self._made += isinstance(event, TurnFinished)

    def _tell(self) -> None:
        known = self._made + len(self._cases)
        if self._on_turn is not None and known != self._told:
            self._told = known
            self._on_turn(self._so_far(), min(self._made, self._wanted), self._wanted)

    def _so_far(self) -> CallsResult:
        return CallsResult(
            workload=NAME,
            seed=self._seed,
            wanted_turns=self._wanted,
            cases=tuple(self._cases),
            events=tuple(self._events),
            run=self._session.ledger.figures(),
            wall_s=self._now_s - self._began_s,
        )


def _judged(task: CallTask, ended: Result) -> CallsCase:
    is_final = ended.stop_reason is StopReason.FINAL
    answer = ended.answer or ""
    return CallsCase(
        id=task.id,
        kind=task.kind.value,
        task=task.task,
        agent_id=ended.agent_id,
        stop_reason=ended.stop_reason.value,
        turns=ended.turns,
        is_final=is_final,
        is_right=is_final and task.is_right(answer),
        answer=answer[:ANSWER_CHARACTERS],
        error=ended.error,
    )


def _failed(task: CallTask, err: RLMError) -> CallsCase:
    return CallsCase(
        id=task.id,
        kind=task.kind.value,
        task=task.task,
        agent_id=None,
        stop_reason=StopReason.FAILED.value,
        turns=None,
        is_final=False,
        is_right=False,
        answer="",
        error=str(err),
    )

"""One tree of calls: its limits, what it used, its cancellation, and what a watcher sees of it.

Invariant: used + reserved never exceeds `Limits.max_tokens`. A call reserves the most it can cost
before it waits for the engine and gives back what it did not use, so concurrent calls can't
overrun a limit together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import anyio

from rlm_runtime.engine.base import RequestFacts
from rlm_runtime.errors import LimitExceeded
from rlm_runtime.types import Limits, StopReason, Usage


@dataclass(frozen=True, slots=True)
class Progress:
    """What people wait for, at one moment.

    Attributes:
        stage: What the tree is doing, in words ("ranking chunks").
        done: Calls of the stage that are finished.
        total: Calls the stage will make.
        running: Calls in the engine.
        queued: Calls that wait for the engine.
        depth: Deepest agent so far; the root is 0.
        usage: Sums of the finished calls.
        limits: The tree's limits.
        elapsed_s: Since the tree began.
    """

    stage: str
    done: int
    total: int
    running: int
    queued: int
    depth: int
    usage: Usage
    limits: Limits
    elapsed_s: float


class Job:
    """The root of a tree; every call of the tree names it.

    Args:
        limits: Bounds of the whole tree.
        on_progress: Called in the event loop at every change; must be quick and not raise.
    """

    def __init__(
        self, limits: Limits | None = None, on_progress: Callable[[Progress], None] | None = None
    ) -> None:
        self.limits = limits or Limits()
        self.scope = anyio.CancelScope()
        self.usage = Usage()
        self._on_progress = on_progress
        self._started_at = anyio.current_time()
        self._reserved_tokens = 0
        self._reserved_calls = 0
        self._changed = anyio.Event()
        self._stage, self._done, self._total = "", 0, 0
        self._running = self._queued = self._depth = 0

    @property
    def deadline(self) -> float:
        """Clock of `anyio.current_time` at which `max_seconds` is over; infinite without one."""
        seconds = self.limits.max_seconds
        return float("inf") if seconds is None else self._started_at + seconds

    def cancel(self) -> None:
        """End the tree: its owner runs it inside `scope`. Idempotent."""
        self.scope.cancel()

    def time_is_up(self) -> LimitExceeded:
        """The error of a tree that reached `max_seconds`."""
        elapsed = round(anyio.current_time() - self._started_at, 1)
        limit = self.limits.max_seconds or 0
        return LimitExceeded(StopReason.BUDGET_SECONDS, "max_seconds", limit, elapsed)

    async def reserve(self, tokens: int) -> None:
        """Take room for a call that costs at most `tokens`; give it back with `settle`.

        Waits while only other calls' unsettled reservations are in the way.

        Raises:
            LimitExceeded: The call does not fit, whatever the calls under way will cost.
        """
        while True:
            refused = self._refusal(tokens)
            if refused is None:
                self._reserved_tokens += tokens
                self._reserved_calls += 1
                return
            if not self._reserved_calls or refused.stop_reason is StopReason.BUDGET_CALLS:
                raise refused
            await self._changed.wait()

    def settle(self, reserved: int, facts: RequestFacts | None, *, was_started: bool) -> None:
        """End a reservation with what the call did cost.

        Args:
            reserved: As given to `reserve`.
            facts: The engine's; `None` for a call that ended without.
            was_started: The engine got the request.
        """
        self._reserved_tokens -= reserved
        self._reserved_calls -= 1
        if facts is not None:
            self.usage += Usage(
                calls=1,
                prompt_tokens=facts.prompt_tokens,
                cached_tokens=facts.cached_tokens,
                computed_tokens=facts.computed_tokens,
                generated_tokens=facts.generated_tokens,
            )
        elif was_started:
            self.usage += Usage(calls=1, calls_without_facts=1)
        self._changed.set()
        self._changed = anyio.Event()

    def begin_stage(self, stage: str, total: int) -> None:
        """Name what comes next and how many calls it will make."""
        self._stage, self._done, self._total = stage, 0, total
        self._tell()

    def note_step(self, stage: str, done: int, total: int) -> None:
        """Show work that makes no calls, in whatever unit.

        Raises:
            LimitExceeded: The tree's `max_seconds` are over.
        """
        if anyio.current_time() >= self.deadline:
            raise self.time_is_up()
        self._stage, self._done, self._total = stage, done, total
        self._tell()

    def note_queued(self, depth: int) -> None:
        """A call waits for the engine."""
        self._queued += 1
        self._depth = max(self._depth, depth)
        self._tell()

    def note_started(self) -> None:
        """A waiting call went to the engine."""
        self._queued -= 1
        self._running += 1
        self._tell()

    def note_ended(self, *, was_started: bool) -> None:
        """A call ended, in the engine or while waiting."""
        if was_started:
            self._running -= 1
            self._done += 1
        else:
            self._queued -= 1
        self._tell()

    def progress(self) -> Progress:
        """The tree at this moment."""
        return Progress(
            stage=self._stage,
            done=self._done,
            total=self._total,
            running=self._running,
            queued=self._queued,
            depth=self._depth,
            usage=self.usage,
            limits=self.limits,
            elapsed_s=anyio.current_time() - self._started_at,
        )

    def _refusal(self, tokens: int) -> LimitExceeded | None:
        limits, usage = self.limits, self.usage
        calls = usage.calls + self._reserved_calls + 1
        if limits.max_calls is not None and calls > limits.max_calls:
            return LimitExceeded(StopReason.BUDGET_CALLS, "max_calls", limits.max_calls, calls)
        need = usage.computed_tokens + usage.generated_tokens + self._reserved_tokens + tokens
        if limits.max_tokens is not None and need > limits.max_tokens:
            return LimitExceeded(StopReason.BUDGET_TOKENS, "max_tokens", limits.max_tokens, need)
        if anyio.current_time() >= self.deadline:
            return self.time_is_up()
        return None

    def _tell(self) -> None:
        if self._on_progress is not None:
            self._on_progress(self.progress())

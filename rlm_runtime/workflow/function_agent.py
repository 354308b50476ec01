"""A plain function in an agent's place: begun and ended in the log like any other agent."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePath
from typing import Literal, TypeVar

import anyio
import anyio.to_thread

from rlm_runtime.errors import RLMError, WorkflowError
from rlm_runtime.scaffold.agent import Outcome
from rlm_runtime.scaffold.agent_context import AgentContext
from rlm_runtime.scaffold.tree import Seat
from rlm_runtime.types import Ref, StopReason
from rlm_runtime.workflow.definition import Function

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class FunctionAgent:
    """Does what its function does, and stores what that returns.

    The function is given a context and the task. What it reads enters no prompt, so it is bound by
    no budget of tokens. One that is not async runs in a thread of its own.

    Attributes:
        function: Sync or async. Of `None` nothing is stored; of a `Ref` the value stays as it is.
    """

    function: Function

    @property
    def kind(self) -> Literal["function"]:
        """The caller's own code."""
        return "function"

    async def run(self, seat: Seat, task: str, context: AgentContext) -> Outcome:
        """Call the function.

        Raises:
            LimitExceeded: The tree's `max_seconds` are over. A thread can't be ended: what the
                function does then is its own affair, nobody waits for it.
            WorkflowError: It raised an error; that of this package are passed on.
            InputError: What it returned can't be stored.
            QuotaExceeded: The store is full.
        """
        view = context.child(seat.agent_id)
        job = seat.tree.job
        with anyio.CancelScope(deadline=job.deadline) as scope:
            value = await self._call(view, task)
        if scope.cancelled_caught:
            raise job.time_is_up()
        if value is None or isinstance(value, Ref):
            return Outcome(stop_reason=StopReason.FINAL, result=value)
        ref = await anyio.to_thread.run_sync(context.store, seat.result_name, value)
        return Outcome(stop_reason=StopReason.FINAL, result=ref)

    async def _call(self, context: AgentContext, task: str) -> object:
        function = self.function
        try:
            if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
                getattr(function, "__call__", None)  # noqa: B004 # of an object: is that one async
            ):
                value = function(context, task)
            else:
                value = await in_own_thread(lambda: function(context, task))
            return await value if inspect.isawaitable(value) else value
        except RLMError:
            raise
        except Exception as err:
            raise broken(function, err) from err


async def in_own_thread(function: Callable[[], T]) -> T:
    """Run code of the caller's; cancelled, nobody waits for it any more.

    Not one of the threads that all others wait for: code that hangs would keep it for ever.
    """
    return await anyio.to_thread.run_sync(
        function, abandon_on_cancel=True, limiter=anyio.CapacityLimiter(1)
    )


def broken(code: object, error: Exception) -> WorkflowError:
    """What is said of the caller's code that raised an error: which, and where."""
    name = getattr(code, "__name__", type(code).__name__)
    last = traceback.extract_tb(error.__traceback__)[-1]
    return WorkflowError(
        f"{name} raised {type(error).__name__}: {error} "
        f"({PurePath(last.filename).name}, line {last.lineno})."
    )

"""The same session for code without an event loop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import wait
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

import anyio.from_thread

from rlm_runtime.api.result import Result, Source
from rlm_runtime.api.session import AsyncRLM
from rlm_runtime.api.texts import Sources
from rlm_runtime.config import Config
from rlm_runtime.errors import InputError
from rlm_runtime.profiler import Ledger
from rlm_runtime.scaffold.agent import Agent
from rlm_runtime.scaffold.agent_context import AgentContext
from rlm_runtime.scaffold.leaf_calls import LeafAnswer
from rlm_runtime.scaffold.recipes.plan import Plan
from rlm_runtime.scheduler import FinishedCalls, Progress
from rlm_runtime.types import AgentKind, Limits, Ref

T = TypeVar("T")


class RLM:
    """The same session for code without an event loop: scripts, notebooks, a prompt.

    Calls block until they are done; Ctrl-C ends the call, not the session. Use it as a context
    manager, or call `close`.

    Args:
        config: As `AsyncRLM`.
        on_stage: As `AsyncRLM`; called in the session's own thread.
        shared_text: As `AsyncRLM`.
        resume: As `AsyncRLM`.
        anyway: As `AsyncRLM`.
    """

    def __init__(
        self,
        config: Config | str | Path | None = None,
        *,
        on_stage: Callable[[str], None] | None = None,
        shared_text: str | None = None,
        resume: Path | str | None = None,
        anyway: bool = False,
    ) -> None:
        self._is_closed = False
        self._exit = ExitStack()
        self._portal = self._exit.enter_context(anyio.from_thread.start_blocking_portal())
        try:
            self._session = AsyncRLM(
                config, on_stage=on_stage, shared_text=shared_text, resume=resume, anyway=anyway
            )
        except BaseException:
            self._exit.close()
            raise

    @property
    def config(self) -> Config:
        """The configuration in force."""
        return self._session.config

    @property
    def ledger(self) -> Ledger:
        """Figures of everything so far."""
        return self._session.ledger

    @property
    def resumed(self) -> FinishedCalls | None:
        """The finished calls of the run that is resumed; `None` when none is."""
        return self._session.resumed

    @property
    def run_directory(self) -> Path | None:
        """Where events and blobs are written; `None` when nothing is kept."""
        return self._session.run_directory

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._is_closed:
            return
        try:
            self.call(lambda session: session.__aexit__(kind, error, trace))
        finally:
            self._is_closed = True
            self._exit.close()

    def store(self, value: Source, name: str | None = None) -> Ref:
        """As `AsyncRLM.store`."""
        return self._session.store(value, name)

    def context(
        self, *, max_tokens_per_read: int | None = None, max_tokens: int | None = None
    ) -> AgentContext:
        """As `AsyncRLM.context`."""
        return self._session.context(max_tokens_per_read=max_tokens_per_read, max_tokens=max_tokens)

    def agent(self, kind: Agent | AgentKind | Literal["auto"], **options: Any) -> BlockingAgent:
        """As `AsyncRLM.agent`; its `run` blocks."""
        return BlockingAgent(self, self._session.agent(kind, **options).agent)

    def check(self, task: str) -> None:
        """As `AsyncRLM.check`."""
        self._session.check(task)

    def start(self) -> None:
        """As `AsyncRLM.start`."""
        self.call(AsyncRLM.start)

    def run(
        self,
        task: str,
        context: Sources | AgentContext | None = None,
        *,
        agent: Agent | AgentKind | Literal["auto"] | None = None,
        limits: Limits | None = None,
        exhaustive: bool = False,
        on_progress: Callable[[Progress], None] | None = None,
        on_plan: Callable[[Plan], None] | None = None,
    ) -> Result:
        """As `AsyncRLM.run`; what it calls is called in the session's own thread."""
        return self.call(
            lambda session: session.run(
                task,
                context,
                agent=agent,
                limits=limits,
                exhaustive=exhaustive,
                on_progress=on_progress,
                on_plan=on_plan,
            )
        )

    def llm_map(
        self, chunks: Sequence[str], questions: Sequence[str], **options: Any
    ) -> list[list[LeafAnswer]]:
        """As `AsyncRLM.llm_map`."""
        return self.call(lambda session: session.llm_map(chunks, questions, **options))

    def llm_query(self, question: str, data: str = "", **options: Any) -> object:
        """As `AsyncRLM.llm_query`."""
        return self.call(lambda session: session.llm_query(question, data, **options))

    def close(self) -> None:
        """As `AsyncRLM.close`."""
        self.__exit__(None, None, None)

    def call(self, function: Callable[[AsyncRLM], Awaitable[T]]) -> T:
        """Run a coroutine function on the session, in its own event loop.

        An interrupt here cancels it there, and waits until it has ended.

        Raises:
            InputError: The session is closed.
        """
        if self._is_closed:
            raise InputError("The session is closed.", "Open a new one.")
        future = self._portal.start_task_soon(function, self._session)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            wait([future])
            raise


class BlockingAgent:
    """An agent of a session, for code without an event loop. Made by `RLM.agent`.

    Attributes:
        agent: What it does.
    """

    def __init__(self, session: RLM, agent: Agent | Literal["auto"]) -> None:
        self._session = session
        self.agent = agent

    def run(
        self,
        task: str,
        context: Sources | AgentContext | None = None,
        *,
        limits: Limits | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        on_plan: Callable[[Plan], None] | None = None,
    ) -> Result:
        """Work on a task; see `AsyncRLM.run`."""
        return self._session.run(
            task,
            context,
            agent=self.agent,
            limits=limits,
            on_progress=on_progress,
            on_plan=on_plan,
        )

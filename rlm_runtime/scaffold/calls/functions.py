"""The functions of an agent: what each call does, and the short text that comes of it.

Whatever is large stays in the store: of it the agent sees a name, a size and a beginning. What goes
wrong is raised; who calls decides whether the agent can act on it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

import anyio
import anyio.to_thread

from rlm_runtime.errors import InputError, RLMError, UnknownName
from rlm_runtime.prompt import Document, Prompt
from rlm_runtime.scaffold.agent import Agent, AgentResult
from rlm_runtime.scaffold.agent_context import AgentContext
from rlm_runtime.scaffold.calls.actions import (
    Action,
    Budget,
    Final,
    ListContext,
    Map,
    Path,
    Query,
    Read,
    SubAgent,
    Write,
)
from rlm_runtime.scaffold.calls.chunks import Item, chunks_of, documents
from rlm_runtime.scaffold.calls.names_page import NamesPages
from rlm_runtime.scaffold.corpus import Piece
from rlm_runtime.scaffold.leaf_calls import LeafAnswer, LeafCalls
from rlm_runtime.scaffold.leaf_prompts import Leaf
from rlm_runtime.scaffold.recipes.reading import WAVE, note_read
from rlm_runtime.scaffold.subagents import Children
from rlm_runtime.scaffold.tree import Seat
from rlm_runtime.store import Chunk as ByteRange
from rlm_runtime.store.names import closest
from rlm_runtime.store.paths import ValuePath, parse_path
from rlm_runtime.types import Ref

DONE = "done"
"""What a call gives that has nothing to say."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What a call gave.

    Attributes:
        text: As the agent sees it.
        names: The values it names: the agent knows them from here on.
        error_code: Of the error it tells of; `None` for a call that did what it should.
    """

    text: str
    names: tuple[str, ...] = ()
    error_code: str | None = None


class Functions:
    """One agent's functions.

    Args:
        seat: Its place.
        context: Its values.
        pages: The names it sees.
        children: Where its sub-agents run.
        helper: Who does what `agent` gives away.
    """

    def __init__(
        self,
        seat: Seat,
        context: AgentContext,
        pages: NamesPages,
        children: Children,
        helper: Agent,
    ) -> None:
        self._seat = seat
        self._context = context
        self._pages = pages
        self._children = children
        self._helper = helper
        self._leaves = LeafCalls(seat)
        self._read_tokens = 0

    async def do(
        self, action: Action, prompt: Prompt, generated_ids: tuple[int, ...], turns_left: int
    ) -> Observation:
        """Do what a call says; `Final` is its caller's to do.

        Args:
            action: The call.
            prompt: What the agent was asked with.
            generated_ids: What it answered: a fork goes on behind both.
            turns_left: Turns it still has.

        Raises:
            ContextError: Of a value or a path.
            InputError: An argument can't be used.
            PromptTooLong: A question and its data.
            LimitExceeded: A limit of the tree.
            EngineError: The engine refused a call, or died.
        """
        match action:
            case Read(path):
                shown = self._context.show(path.text)
                self._read_tokens += shown.tokens
                return Observation(shown.text or "(empty)")
            case Write(name, value):
                return await self.write(name, value)
            case ListContext(page):
                listed = self._pages.page(page)
                return Observation(str(listed) or "There are no values yet.", listed.names)
            case Query(path, question):
                return await self.query(path, question)
            case Map(paths, questions):
                return await self.map(paths, questions)
            case SubAgent():
                return await self.agent(action, prompt, generated_ids)
            case Budget():
                return Observation(self.budget(turns_left))
            case Final():
                raise TypeError("FINAL ends the agent; it gives nothing to go on with")
            case _:
                assert_never(action)

    async def write(self, name: str, value: object) -> Observation:
        """Store a value: a literal, or what a path leads to, which nobody reads for it."""
        if isinstance(value, Path):
            value = await self.look_at(value)
        ref = self._context.store(name, value)
        return Observation(DONE, (ref.name,))

    async def query(self, path: Path | None, question: str) -> Observation:
        """Ask the model one question about a value."""
        data = None
        if path is not None:
            room = self._leaves.prompts.room(Leaf(question=question))
            data = self._context.data(path.text, max(1, room)).text
        answer = await self._leaves.query(question, data, label="QUERY")
        return Observation(answer.text)

    async def map(self, paths: Sequence[Path], questions: Sequence[str]) -> Observation:
        """Ask every question about every chunk, and store the answers.

        Item `[i][j]` of what is stored answers question `j` about chunk `i`; `None` where there is
        no answer.
        """
        chunks: list[Piece | Item] = []
        for path in map(_parsed, paths):
            chunks += await chunks_of(self._seat, self.ref(path.name), path)
        if not chunks:
            raise InputError("There are no chunks to ask about.", "Name a value that is not empty.")
        rows: list[list[LeafAnswer]] = []
        wave = max(1, WAVE // len(questions))
        for start in range(0, len(chunks), wave):
            part = chunks[start : start + wave]
            data = await anyio.to_thread.run_sync(
                documents, self._seat, part, abandon_on_cancel=True
            )
            rows += await self._leaves.map(data, questions, label="llm_map")
            for chunk, document in zip(part, data, strict=True):
                self._note_read(chunk, document)
        errors = [answer.error for row in rows for answer in row if answer.error is not None]
        if len(errors) == len(rows) * len(questions):
            raise errors[0]
        values = [[None if answer.error else answer.text for answer in row] for row in rows]
        ref = self._context.store(self._free_name("answers"), values)
        text = f"{len(rows):,} x {len(questions)} answers:\n{self._pages.line(ref)}"
        if errors:
            text += f"\n{len(errors):,} of them are missing: {errors[0]}"
        return Observation(text, (ref.name,))

    async def agent(
        self, action: SubAgent, prompt: Prompt, generated_ids: tuple[int, ...]
    ) -> Observation:
        """Give a task to another agent and wait for its end; its result stays in the store."""
        is_fork = action.start == "fork"
        handle = self._children.start(
            self._helper,
            action.task,
            action.names,
            start=action.start,
            prompt=prompt if is_fork else None,
            generated_ids=generated_ids if is_fork else (),
        )
        outcome = await handle.outcome()
        names = tuple(dict.fromkeys(ref.name for ref in handle.stored))
        if isinstance(outcome, RLMError):
            return Observation(f"error: the agent failed. {outcome}", names, outcome.code)
        return self._told(outcome, names)

    def budget(self, turns_left: int) -> str:
        """What is left, one line a bound."""
        job, agents = self._seat.tree.job, self._seat.tree.config.agents
        limits, usage = job.limits, job.usage
        lines = [f"turns: {turns_left:,}"]
        if limits.max_tokens is not None:
            left = limits.max_tokens - usage.computed_tokens - usage.generated_tokens
            lines.append(f"tokens: {max(0, left):,}")
        if limits.max_calls is not None:
            lines.append(f"calls: {max(0, limits.max_calls - usage.calls):,}")
        if math.isfinite(job.deadline):
            lines.append(f"seconds: {max(0.0, job.deadline - anyio.current_time()):,.0f}")
        if agents.max_tokens_per_read is not None:
            lines.append(f"tokens of one READ: {agents.max_tokens_per_read:,}")
        if agents.max_read_tokens is not None:
            lines.append(f"tokens of all READs: {agents.max_read_tokens - self._read_tokens:,}")
        return "\n".join(lines)

    async def look_at(self, path: Path) -> object:
        """What a path leads to, in Python: no prompt shows it, no budget is charged."""
        parsed = _parsed(path)
        ref = self.ref(parsed.name)
        load = self._seat.tree.corpus.store.load
        return await anyio.to_thread.run_sync(load, ref, parsed.steps, abandon_on_cancel=True)

    def ref(self, name: str) -> Ref:
        """The value that a name means to the agent.

        Raises:
            UnknownName: It sees none of that name.
        """
        available = self._context.list_available()
        if name not in available:
            raise UnknownName(name, closest(name, available))
        return available[name]

    def _note_read(self, chunk: Piece | Item, document: Document) -> None:
        read = ByteRange(0, chunk.ref.size_bytes)
        if isinstance(chunk, Piece):
            read = ByteRange(chunk.start_byte, chunk.end_byte)
        note_read(self._seat, chunk.ref, read.start, read.end, len(document.ids))

    def _told(self, result: AgentResult, names: tuple[str, ...]) -> Observation:
        outcome = result.outcome
        if outcome.result is not None:
            text = f"The result is {outcome.result.name}:\n{self._pages.line(outcome.result)}"
            return Observation(text, (*names, outcome.result.name))
        text = f"error: the agent ended without a result ({outcome.stop_reason})."
        if outcome.error:
            text += f" {outcome.error}"
        if names:
            text += f" It stored {', '.join(names)}."
        return Observation(text, names, outcome.stop_reason.value)

    def _free_name(self, stem: str) -> str:
        """A name that no other agent will take, with a number if this one used it before."""
        available = self._context.list_available()
        stem = f"{stem}_{self._seat.agent_id.replace('.', '_')}"
        name, number = stem, 1
        while name in available:
            number += 1
            name = f"{stem}_{number}"
        return name


def _parsed(path: Path) -> ValuePath:
    return parse_path(path.text)

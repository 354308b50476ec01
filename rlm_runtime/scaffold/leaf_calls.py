"""Leaf calls: one question about one piece of data, answered by a model call that acts on nothing.

Many leaves are one batch; one that fails takes none of the others with it. An answer of a type is
checked, and where it is wrong the model is told so in a further turn behind the same prompt: what
was computed stays computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import anyio
import anyio.to_thread

from rlm_runtime.errors import (
    EngineDead,
    EngineError,
    InputError,
    PromptTooLong,
    QueueFull,
    RLMError,
    SchemaMismatch,
)
from rlm_runtime.prompt import Document, Prompt
from rlm_runtime.scaffold.leaf_prompts import LABEL, Leaf, LeafPrompt, LeafPrompts
from rlm_runtime.scaffold.tree import Seat
from rlm_runtime.scaffold.typed_answer import AnswerType
from rlm_runtime.scheduler import Call, CallResult
from rlm_runtime.scheduler.scheduler import FEED_AT_ONCE

__all__ = ["NOT_FOUND", "Leaf", "LeafAnswer", "LeafCalls"]

NOT_FOUND = "not found"
"""What the shared prefix has the model say where a text does not say what is asked."""

WRONG = (
    "That can't be used: {why}. Answer again with one JSON value of the schema, and nothing else."
)
"""The turn behind an answer that is not of its type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeafAnswer:
    """What came of a leaf.

    Attributes:
        text: What the model said last, without the end of its turn; empty when nothing was asked.
        ids: The same as it was generated, the end included.
        prompt: What it was asked with; `None` when nothing was asked.
        value: The answer: of its type, or one of the choices, or the text; `None` after an error.
        was_cut: The model did not end it: `max_tokens` did, or it went on in circles.
        error: Why there is no answer; `None` when there is one.
    """

    text: str = ""
    ids: tuple[int, ...] = field(default=(), repr=False)
    prompt: Prompt | None = field(default=None, repr=False)
    value: object = None
    was_cut: bool = False
    error: RLMError | None = None

    @property
    def says_nothing(self) -> bool:
        """The data does not say what was asked, the model says; or it said nothing."""
        return self.text.strip(" \n.!").lower() in ("", NOT_FOUND)


class LeafCalls:
    """One agent's leaf calls.

    Args:
        seat: The agent's place in its tree: limits, sampling, and whose calls they are.

    Attributes:
        prompts: Makes their prompts; says what fits into one.
    """

    def __init__(self, seat: Seat) -> None:
        self.prompts = LeafPrompts(seat.tree)
        self._seat = seat
        self._refused_schemas: set[str] = set()

    async def query(
        self,
        question: str,
        data: Document | str | None = None,
        *,
        answer: AnswerType | None = None,
        choices: Sequence[str] = (),
        max_tokens: int | None = None,
        label: str = LABEL,
    ) -> LeafAnswer:
        """Ask one question; see `Leaf` for the arguments.

        Raises:
            InputError: The question is empty, or the arguments contradict each other.
            PromptTooLong: Question and data do not fit the window; nothing was computed.
            LimitExceeded: A limit of the tree.
            SchemaMismatch: No attempt gave an answer of the type.
            EngineError: The engine refused the call, or died (`EngineDead`).
        """
        leaf = Leaf(
            question=question,
            data=data,
            answer=answer,
            choices=tuple(choices),
            max_tokens=max_tokens,
            label=label,
        )
        (answered,) = await self.batch([leaf])
        if answered.error is not None:
            raise answered.error
        return answered

    async def batch(self, leaves: Sequence[Leaf]) -> list[LeafAnswer]:
        """Ask many questions as one batch, those about the same data next to each other.

        Data that several of the leaves share is computed once, and equal leaves at temperature 0
        are one call. At most `1 + agents.schema_retries` calls a leaf; of a type whose schema the
        engine refuses, one more that costs no token.

        Returns:
            Answers in the order of `leaves`. What goes wrong with one is its `error`; a limit of
            the tree, and data that does not fit the window, too.

        Raises:
            EngineDead: The engine's process ended.
        """
        prepared = await anyio.to_thread.run_sync(
            self.prompts.prepared, leaves, abandon_on_cancel=True
        )
        return await self._run(prepared)

    async def map(
        self,
        chunks: Sequence[Document | str | None],
        questions: Sequence[str],
        *,
        answer: AnswerType | None = None,
        choices: Sequence[str] = (),
        max_tokens: int | None = None,
        label: str = LABEL,
    ) -> list[list[LeafAnswer]]:
        """Ask every question about every chunk, as one batch: each chunk is computed once.

        Returns:
            Item `[i][j]` answers question `j` about chunk `i`.

        Raises:
            EngineDead: The engine's process ended.
        """
        leaves = [
            Leaf(
                question=question,
                data=chunk,
                answer=answer,
                choices=tuple(choices),
                max_tokens=max_tokens,
                label=label,
            )
            for chunk in chunks
            for question in questions
        ]
        answers = iter(await self.batch(leaves))
        return [[next(answers) for _ in questions] for _ in chunks]

    async def _run(self, prepared: Sequence[LeafPrompt | RLMError]) -> list[LeafAnswer]:
        answers: dict[int, LeafAnswer] = {}
        deaths: list[EngineDead] = []
        # As a scheduler's batch: a queue that is full of our own calls is no error.
        most = min(FEED_AT_ONCE, self._seat.tree.config.scheduler.max_queued_calls)
        room = anyio.Semaphore(most, fast_acquire=True)

        async def one(position: int, ready: LeafPrompt) -> None:
            try:
                answers[position] = await self._answered(ready)
            except EngineDead as err:
                deaths.append(err)
                group.cancel_scope.cancel()
            finally:
                room.release()

        async with anyio.create_task_group() as group:
            for position, ready in _grouped(prepared):
                if isinstance(ready, RLMError):
                    answers[position] = LeafAnswer(error=ready)
                    continue
                await room.acquire()
                group.start_soon(one, position, ready)
        if deaths:
            raise deaths[0]
        return [answers[position] for position in range(len(prepared))]

    async def _answered(self, ready: LeafPrompt) -> LeafAnswer:
        """Ask, and ask again behind a wrong answer, as often as is allowed and fits."""
        tree = self._seat.tree
        answer = LeafAnswer()
        prompt, attempt = ready.prompt, 0
        while True:
            attempt += 1
            try:
                result = await self._call(ready, prompt)
            except EngineDead:
                raise
            except RLMError as err:
                return replace(answer, error=err)
            answer = self._checked(ready.leaf, prompt, result, attempt)
            if not isinstance(answer.error, SchemaMismatch) or ready.leaf.answer is None:
                return answer
            prompt = tree.layout.append_turn(prompt, result.ids, WRONG.format(why=answer.error.why))
            is_last = attempt > tree.config.agents.schema_retries
            if is_last or len(prompt.ids) + ready.max_tokens > tree.info.window:
                return answer

    async def _call(self, ready: LeafPrompt, prompt: Prompt) -> CallResult:
        """One attempt, held to its type where the engine can."""
        tree, leaf = self._seat.tree, ready.leaf
        call = Call(
            prompt=prompt,
            agent_id=self._seat.agent_id,
            depth=self._seat.depth,
            label=leaf.label,
            group=ready.group,
            max_tokens=ready.max_tokens,
            temperature=0.0 if leaf.choices else tree.config.temperature,
            seed=tree.config.seed,
        )
        schema = "" if leaf.answer is None else leaf.answer.schema
        if tree.info.can_choose and leaf.choices:
            return await tree.scheduler.run(tree.job, replace(call, choices=leaf.choices))
        if tree.info.can_choose and schema and schema not in self._refused_schemas:
            try:
                return await tree.scheduler.run(tree.job, replace(call, json_schema=schema))
            except (EngineDead, PromptTooLong, QueueFull):
                raise
            except (InputError, EngineError):
                # Valid schemas have rules that no grammar can hold, and some models no grammars.
                # The check holds the answer to its type all the same.
                self._refused_schemas.add(schema)
        end = tree.layout.template.turn_end_ids[-1:]
        call = replace(call, stop_token_ids=end, stop_repetition=True)
        return await tree.scheduler.run(tree.job, call)

    def _checked(self, leaf: Leaf, prompt: Prompt, result: CallResult, attempt: int) -> LeafAnswer:
        text = self._seat.tree.layout.tokenizer.decode(result.ids, skip_special=True).strip()
        answer = LeafAnswer(
            text=text,
            ids=result.ids,
            prompt=prompt,
            was_cut=result.facts.finish_reason != "stop",
        )
        if leaf.answer is None and not leaf.choices:
            return replace(answer, value=text)
        if answer.was_cut and result.choice is None:
            # Even where it can be read: of a number, more digits might have followed.
            why = f"it was cut after {len(result.ids):,} tokens"
            return replace(answer, error=SchemaMismatch(text, attempt, why))
        try:
            if leaf.answer is not None:
                return replace(answer, value=leaf.answer.parse(text))
            return replace(answer, value=result.choice or _choice(leaf.choices, text))
        except SchemaMismatch as err:
            return replace(answer, error=SchemaMismatch(text, attempt, err.why))


def _choice(choices: Sequence[str], text: str) -> str:
    """The choice that an unconstrained answer is, apart from case and what encloses it."""
    for choice in choices:
        if _bare(choice) == _bare(text):
            return choice
    raise SchemaMismatch(text, 1, "it is none of the choices")


def _bare(text: str) -> str:
    return text.strip(" \n\t.,;:!\"'`*").casefold()


def _grouped(prepared: Sequence[LeafPrompt | RLMError]) -> list[tuple[int, LeafPrompt | RLMError]]:
    """Leaves with their positions, those about the same data behind the first of them."""
    first: dict[str, int] = {}

    def place(item: tuple[int, LeafPrompt | RLMError]) -> int:
        position, ready = item
        if isinstance(ready, RLMError) or ready.group is None:
            return position
        return first.setdefault(ready.group, position)

    return sorted(enumerate(prepared), key=place)

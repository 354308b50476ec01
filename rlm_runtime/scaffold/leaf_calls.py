"""Leaf calls: one question about one piece of data, answered by a model call that acts on nothing.

    [shared][data] CONNECTIVE [question]

The data stands first, so that every further question about it finds it in the prefix cache. Many
leaves are one batch; one that fails takes none of the others with it. An answer of a type is
checked, and where it is wrong the model is told so in a further turn behind the same prompt: what
was computed stays computed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import anyio
import anyio.to_thread

from rlm_runtime.errors import EngineDead, InputError, PromptTooLong, RLMError, SchemaMismatch
from rlm_runtime.prompt import CONNECTIVE, Document, Prompt
from rlm_runtime.scaffold.tree import Seat
from rlm_runtime.scaffold.typed_answer import AnswerType
from rlm_runtime.scheduler import Call, CallResult
from rlm_runtime.scheduler.scheduler import FEED_AT_ONCE

HEAD_CHARACTERS = 16
"""Characters of a text that are encoded for each token of the window, before the rest is looked at:
most texts have 2 to 5 a token, so a text that is far too long is refused without encoding it."""

LABEL = "answer"

WRONG = (
    "That can't be used: {why}. Answer again with one JSON value of the schema, and nothing else."
)
"""The turn behind an answer that is not of its type."""

_SHORTER = "Ask about parts of it, or choose a recipe that reads it in parts."


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """One question.

    Attributes:
        question: In words.
        data: What it is about; `None` is nothing.
        answer: The type of the answer; `None` is text.
        choices: The answer is one of these, the likeliest whatever `temperature` says; the question
            should name them. One call: what an engine that can't be held to them answers is taken
            where it is one of them, and is not asked for again.
        max_tokens: Most tokens of an answer; `None` is `agents.answer_tokens`. Held to choices, an
            answer has the room that the longest one needs.
        label: What for, in a few words; the same for all calls of a stage.
    """

    question: str
    data: Document | str | None = None
    answer: AnswerType | None = None
    choices: tuple[str, ...] = ()
    max_tokens: int | None = None
    label: str = LABEL


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
    ids: tuple[int, ...] = ()
    prompt: Prompt | None = None
    value: object = None
    was_cut: bool = False
    error: RLMError | None = None


@dataclass(frozen=True, slots=True)
class _Ready:
    """A leaf with its prompt, which fits the window."""

    leaf: Leaf
    prompt: Prompt
    max_tokens: int
    group: str | None = None


class LeafCalls:
    """One agent's leaf calls.

    Args:
        seat: The agent's place in its tree: limits, sampling, and whose calls they are.
    """

    def __init__(self, seat: Seat) -> None:
        self._seat = seat
        self._refused_schemas: set[str] = set()

    def document(self, text: str) -> Document:
        """A text as data that more than one question will be asked about. Encodes it, 1 MB/s.

        Filled to whole blocks, so that the cache holds all of it. Depends on the text alone.

        Raises:
            InputError: It can't be encoded.
        """
        layout = self._seat.tree.layout
        return layout.document(text, followed_by=len(layout.tokenizer.encode(CONNECTIVE)))

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
        are one call. At most `1 + agents.schema_retries` calls a leaf.

        Returns:
            Answers in the order of `leaves`. What goes wrong with one is its `error`; a limit of
            the tree, and data that does not fit the window, too.

        Raises:
            EngineDead: The engine's process ended.
        """
        prepared = await anyio.to_thread.run_sync(self._prepared, leaves, abandon_on_cancel=True)
        return await self._run(prepared)

    async def map(
        self,
        chunks: Sequence[Document | str],
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

    def room(self, leaf: Leaf) -> int:
        """Tokens of data that fit in front of a leaf's question; below 1 when it is too long.

        Raises:
            InputError: The question can't be encoded.
        """
        tree = self._seat.tree
        tail = len(tree.layout.tail(CONNECTIVE + _task(leaf)))
        return tree.info.window - len(tree.layout.shared_ids) - tail - self._max_tokens(leaf)

    def _prepared(self, leaves: Sequence[Leaf]) -> list[_Ready | RLMError]:
        """The prompts of leaves; for a thread: encoding long texts takes its time."""
        times = Counter(leaf.data for leaf in leaves if isinstance(leaf.data, str))
        documents: dict[str, Document | RLMError] = {}
        prepared: list[_Ready | RLMError] = []
        for leaf in leaves:
            data = leaf.data
            if not isinstance(data, str):
                prepared.append(self._ready(leaf, data))
                continue
            if data not in documents:
                documents[data] = self._encoded(data, fill=times[data] > 1)
            prepared.append(self._ready(leaf, documents[data]))
        return prepared

    def _encoded(self, text: str, *, fill: bool) -> Document | RLMError:
        tree = self._seat.tree
        window, size = tree.info.window, tree.info.window * HEAD_CHARACTERS
        try:
            while len(text) > size:
                tokens = tree.layout.tokenizer.count(text[:size])
                if tokens > window:
                    return PromptTooLong(
                        tokens * len(text) // size,
                        window,
                        f"(Estimated from the beginning of its data.) {_SHORTER}",
                    )
                size *= 4
            return self.document(text) if fill else tree.layout.document(text, fill=False)
        except InputError as err:
            return err

    def _ready(self, leaf: Leaf, document: Document | RLMError | None) -> _Ready | RLMError:
        if isinstance(document, RLMError):
            return document
        if not leaf.question.strip():
            return InputError("The question is empty.", "Ask something.")
        if leaf.answer is not None and leaf.choices:
            return InputError("An answer has a type or choices, not both.", "Leave one out.")
        task = _task(leaf) if document is None else CONNECTIVE + _task(leaf)
        tree, max_tokens = self._seat.tree, self._max_tokens(leaf)
        try:
            prompt = tree.layout.prompt(task=task, document=document)
        except InputError as err:
            return err
        limit = tree.info.window - max_tokens
        if len(prompt.ids) <= limit:
            return _Ready(leaf, prompt, max_tokens, None if document is None else document.digest)
        if document is None or (room := self.room(leaf)) < 1:
            return PromptTooLong(len(prompt.ids), limit, "Shorten the question.")
        tokens = len(document.ids)
        fits = f"Of the {tokens:,} tokens of its data, {room:,} fit"
        if isinstance(leaf.data, str):
            fits += f", about {len(leaf.data) * room // tokens:,} of {len(leaf.data):,} characters"
        return PromptTooLong(len(prompt.ids), limit, f"{fits}. {_SHORTER}")

    def _max_tokens(self, leaf: Leaf) -> int:
        tree = self._seat.tree
        if leaf.choices and tree.info.can_choose:
            return 1 + max(map(tree.layout.tokenizer.count, leaf.choices))
        return tree.config.agents.answer_tokens if leaf.max_tokens is None else leaf.max_tokens

    async def _run(self, prepared: Sequence[_Ready | RLMError]) -> list[LeafAnswer]:
        answers: dict[int, LeafAnswer] = {}
        deaths: list[EngineDead] = []
        # As a scheduler's batch: a queue that is full of our own calls is no error.
        most = min(FEED_AT_ONCE, self._seat.tree.config.scheduler.max_queued_calls)
        room = anyio.Semaphore(most, fast_acquire=True)

        async def one(position: int, ready: _Ready) -> None:
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

    async def _answered(self, ready: _Ready) -> LeafAnswer:
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

    async def _call(self, ready: _Ready, prompt: Prompt) -> CallResult:
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
        )
        schema = "" if leaf.answer is None else leaf.answer.schema
        if tree.info.can_choose and leaf.choices:
            return await tree.scheduler.run(tree.job, replace(call, choices=leaf.choices))
        if tree.info.can_choose and schema and schema not in self._refused_schemas:
            try:
                return await tree.scheduler.run(tree.job, replace(call, json_schema=schema))
            except InputError:
                # Valid schemas have rules that no grammar can hold. The check holds them.
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


def _task(leaf: Leaf) -> str:
    if leaf.answer is None:
        return leaf.question
    return f"{leaf.question}{CONNECTIVE}{leaf.answer.instruction}"


def _choice(choices: Sequence[str], text: str) -> str:
    """The choice that an unconstrained answer is, apart from case and what encloses it."""
    for choice in choices:
        if _bare(choice) == _bare(text):
            return choice
    raise SchemaMismatch(text, 1, "it is none of the choices")


def _bare(text: str) -> str:
    return text.strip(" \n\t.,;:!\"'`*").casefold()


def _grouped(prepared: Sequence[_Ready | RLMError]) -> list[tuple[int, _Ready | RLMError]]:
    """Leaves with their positions, those about the same data behind the first of them."""
    first: dict[str, int] = {}

    def place(item: tuple[int, _Ready | RLMError]) -> int:
        position, ready = item
        if isinstance(ready, RLMError) or ready.group is None:
            return position
        return first.setdefault(ready.group, position)

    return sorted(enumerate(prepared), key=place)

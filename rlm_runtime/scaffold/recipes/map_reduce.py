"""`map_reduce`: ask the task of each chunk of a text, and make one answer of what comes back.

1. The texts are cut into chunks. The task is asked of each; every result is stored by name.
2. The results become one. `model`: in levels, each call reading as many results as fit, until one
   is left. `join`: where every part must appear (translate, rewrite, list all) they are joined in
   the store; no token is generated twice, and the result is as long as it likes.

Which chunks there are and which results are combined depends on the texts alone, never on what the
model says: so the cost is known before (`plan`), and a second run finds the same prompts. A list of
the parts, with where each one comes from, is stored beside the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal, NamedTuple

import anyio.to_thread

from rlm_runtime.errors import InputError, LimitExceeded, RLMError
from rlm_runtime.prompt import CONNECTIVE, Document
from rlm_runtime.scaffold.agent import Outcome
from rlm_runtime.scaffold.agent_context import AgentContext
from rlm_runtime.scaffold.corpus import Piece
from rlm_runtime.scaffold.leaf_calls import NOT_FOUND, Leaf, LeafAnswer, LeafCalls
from rlm_runtime.scaffold.recipes.levels import COMBINE, Combine, Levels, groups_of
from rlm_runtime.scaffold.recipes.plan import Over, Plan, fit
from rlm_runtime.scaffold.recipes.reading import WAVE, Chunks, note_read
from rlm_runtime.scaffold.recipes.search_agent import texts_of
from rlm_runtime.scaffold.tree import Seat
from rlm_runtime.tracing import blob_digest, ids_to_blob
from rlm_runtime.types import Ref, StopReason


@dataclass(frozen=True, slots=True)
class Part:
    """One chunk and what was made of it.

    Attributes:
        piece: The chunk.
        result: Its result, stored; `None` when its call failed.
        says_nothing: The result is empty or "not found": it is left out of what is made of all.
        was_cut: The result ended because it was long enough, not because the model ended it.
        error: Why there is no result; empty when there is one.
    """

    piece: Piece
    result: Ref | None = None
    says_nothing: bool = False
    was_cut: bool = False
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MapReduced:
    """What a run says beside its result.

    Attributes:
        plan: What it could cost at most; `plan.left_out` chunks were not read.
        parts: The chunks that were, in order. Fewer than planned when a limit came first.
        parts_list: The stored list of them: where each comes from, and its place in the result.
        levels: Results of each level, the parts first.
        is_combined: The result is made of all parts by the model; False for one that was joined.
    """

    plan: Plan
    parts: tuple[Part, ...]
    parts_list: Ref
    levels: tuple[int, ...]
    is_combined: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class MapReduce:
    """The recipe.

    Attributes:
        combine: How the results become one.
        answer_tokens: Most tokens of a result; `None`: `agents.answer_tokens`, and joined, as many
            as a chunk may have, or the window has beside one.
        over: With a limit below the plan, refuse, or leave out chunks from the end.
    """

    combine: Combine = "model"
    answer_tokens: int | None = None
    over: Over = "refuse"

    @property
    def kind(self) -> Literal["map_reduce"]:
        """A recipe."""
        return "map_reduce"

    async def plan(self, seat: Seat, task: str, context: AgentContext) -> Plan:
        """What `run` costs at most. Encodes the texts, about a second per MB.

        Raises:
            InputError: The task is empty, or the context has no text.
            PromptTooLong: The task and a chunk, or two results, do not fit the window.
            LimitExceeded: The tree's `max_seconds` are over.
        """
        chunks = await self._chunks(task, seat, context)
        return self._levels(task, seat).plan(chunks.tokens)

    async def run(self, seat: Seat, task: str, context: AgentContext) -> Outcome:
        """Ask the task of all texts of the context, together.

        Raises:
            LimitExceeded: The plan is over a limit; or a limit came before the first result.
            InputError: As `plan`.
            PromptTooLong: As `plan`.
            EngineDead: The engine's process ended; the results before are stored.
            RLMError: No part has a result; this is the first one's error.
        """
        chunks = await self._chunks(task, seat, context)
        levels = self._levels(task, seat)
        job = seat.tree.job
        plan = fit(levels.plan(chunks.tokens), job.limits, self.over, job.usage)
        return await _Run(levels, seat, task, context).run(chunks, plan)

    def _levels(self, task: str, seat: Seat) -> Levels:
        return Levels.of(seat.tree, task, self.combine, self.answer_tokens)

    async def _chunks(self, task: str, seat: Seat, context: AgentContext) -> Chunks:
        if not task.strip():
            raise InputError("The task is empty.", "Say what is to be done with the text.")
        return await Chunks.of(seat, texts_of(context))


class _Results(NamedTuple):
    """Results as a combining call reads them, and how many tokens each has."""

    document: Document
    tokens: list[int]


class _Run:
    """One run: what is stored so far, and what went wrong first."""

    def __init__(self, levels: Levels, seat: Seat, task: str, context: AgentContext) -> None:
        self._levels = levels
        self._seat = seat
        self._task = task
        self._context = context
        self._calls = LeafCalls(seat)
        self._name = seat.result_name
        self._error: RLMError | None = None

    async def run(self, chunks: Chunks, plan: Plan) -> Outcome:
        parts = await self._extract(chunks, plan.parts)
        if self._error is not None and not any(part.result for part in parts):
            raise self._error
        levels, combined = [len(parts)], None
        if self._levels.combine == "model" and not isinstance(self._error, LimitExceeded):
            levels, combined = await self._combine(parts)
        is_joined = combined is None
        text = self._joined(parts) if combined is None else self._text(combined)
        result = self._context.store(self._name, text)
        parts_list = self._context.store(f"{self._name}_parts", _listed(parts, is_joined=is_joined))
        limit = self._error if isinstance(self._error, LimitExceeded) else None
        return Outcome(
            stop_reason=StopReason.FINAL if limit is None else limit.stop_reason,
            result=result,
            found=not LeafAnswer(text=text).says_nothing,
            error="" if limit is None else str(limit),
            detail=MapReduced(
                plan=plan,
                parts=tuple(parts),
                parts_list=parts_list,
                levels=tuple(levels),
                is_combined=not is_joined,
            ),
        )

    async def _extract(self, chunks: Chunks, count: int) -> list[Part]:
        self._seat.tree.job.begin_stage("reading chunks", count)
        parts: list[Part] = []
        for start in range(0, count, WAVE):
            wave = range(start, min(start + WAVE, count))
            documents = await anyio.to_thread.run_sync(chunks.documents, wave)
            leaves = [self._leaf(self._task, document, "extract") for document in documents]
            answers = await self._calls.batch(leaves)
            for i, document, answer in zip(wave, documents, answers, strict=True):
                if answer.error is None:
                    chunks.note_read(i, document)
                parts.append(self._part(chunks.pieces[i], answer, f"part_{i + 1}"))
            if isinstance(self._error, LimitExceeded):
                break
        return parts

    def _part(self, piece: Piece, answer: LeafAnswer, name: str) -> Part:
        result = self._stored(answer, name)
        return Part(
            piece=piece,
            result=result,
            says_nothing=answer.says_nothing,
            was_cut=answer.was_cut,
            error="" if answer.error is None else str(answer.error),
        )

    async def _combine(self, parts: Sequence[Part]) -> tuple[list[int], Ref | None]:
        """The sizes of all levels, and what all parts became; `None` where they became nothing."""
        level = [None if part.says_nothing else part.result for part in parts]
        sizes = [len(level)]
        while len(level) > 1:
            groups = groups_of(len(level), self._levels.fan_in)
            combined = await self._combine_level(
                [[*level[g.start : g.stop]] for g in groups], sizes
            )
            if combined is None:
                return sizes, None
            level = combined
            sizes.append(len(level))
        return sizes, level[0] if level else None

    async def _combine_level(
        self, groups: Sequence[Sequence[Ref | None]], below: Sequence[int]
    ) -> list[Ref | None] | None:
        """What becomes of each group: one result alone stays as it is. `None`: a call failed."""
        members = [[ref for ref in group if ref is not None] for group in groups]
        level = [group[0] if group else None for group in members]
        places = [i for i, group in enumerate(members) if len(group) > 1]
        self._seat.tree.job.begin_stage("combining results", len(places))
        for start in range(0, len(places), WAVE):
            wave = places[start : start + WAVE]
            read = await anyio.to_thread.run_sync(self._results, [members[i] for i in wave])
            question = COMBINE + self._task
            leaves = [self._leaf(question, results.document, "combine") for results in read]
            answers = await self._calls.batch(leaves)
            for place, results, answer in zip(wave, read, answers, strict=True):
                level[place] = self._stored(answer, f"level_{len(below) + 1}_{place + 1}")
                if answer.error is None:
                    for ref, tokens in zip(members[place], results.tokens, strict=True):
                        note_read(self._seat, ref, 0, ref.size_bytes, tokens)
            if any(answer.error for answer in answers):
                return None
        return level

    def _leaf(self, question: str, document: Document, label: str) -> Leaf:
        return Leaf(
            question=question, data=document, max_tokens=self._levels.answer_tokens, label=label
        )

    def _results(self, groups: Sequence[Sequence[Ref]]) -> list[_Results]:
        """Each group's results, one behind the other.

        Read again, a result may have more tokens than it was generated in: what is over the plan's
        bound is cut.
        """
        encode, most = self._seat.tree.layout.tokenizer.encode, self._levels.answer_tokens
        joint = encode(CONNECTIVE)
        read: list[_Results] = []
        for group in groups:
            texts = [encode(self._text(ref))[:most] for ref in group]
            ids = texts[0] + tuple(chain.from_iterable(joint + text for text in texts[1:]))
            document = Document(ids, blob_digest(ids_to_blob(ids)), len(ids))
            read.append(_Results(document, [len(text) for text in texts]))
        return read

    def _stored(self, answer: LeafAnswer, name: str) -> Ref | None:
        if answer.error is not None:
            is_limit = isinstance(answer.error, LimitExceeded)
            if self._error is None or is_limit:
                self._error = answer.error
            return None
        return self._context.store(f"{self._name}_{name}", answer.text)

    def _joined(self, parts: Sequence[Part]) -> str:
        said = [part.result for part in parts if part.result and not part.says_nothing]
        return CONNECTIVE.join(map(self._text, said)) or NOT_FOUND

    def _text(self, ref: Ref) -> str:
        return self._seat.tree.corpus.store.text(ref, 0, ref.size_bytes)


def _listed(parts: Sequence[Part], *, is_joined: bool) -> list[dict[str, object]]:
    """The parts as a stored list; with their place (bytes) in a result that they are joined in."""
    at = 0
    listed: list[dict[str, object]] = []
    for part in parts:
        piece, result = part.piece, part.result
        place = None
        if is_joined and result is not None and not part.says_nothing:
            place = [at, at + result.size_bytes]
            at += result.size_bytes + len(CONNECTIVE)
        listed.append(
            {
                "part": None if result is None else result.name,
                "text": piece.ref.name,
                "bytes": [piece.start_byte, piece.end_byte],
                "place": place,
                "was_cut": part.was_cut,
                "error": part.error,
            }
        )
    return listed

"""What a task is about, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from rlm_runtime.profiler import Figures, Ledger
from rlm_runtime.scaffold.agent import AgentResult
from rlm_runtime.scaffold.recipes.search_agent import SearchFindings
from rlm_runtime.scaffold.recipes.search_result import PartResult, Passage, RankedChunk
from rlm_runtime.scaffold.rendering import render
from rlm_runtime.scaffold.short_form import ShortForm
from rlm_runtime.store import ContextStore
from rlm_runtime.types import AgentId, AgentKind, Ref, StopReason, Usage

Source = str | bytes | Path | Ref
"""A text, its UTF-8 bytes, a file (which is never read whole), or what `store` gave for one."""

ANSWER_BYTES = 2**20
"""A result up to this size is also `Result.answer`; a larger one is had by `value` or in parts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of one task.

    Attributes:
        kind: Who decided the agent's steps.
        answer: Of a search the sentence that answers it, quoted; of a question of several parts,
            one under the other. Of other agents the result as text, up to `ANSWER_BYTES`. `None`
            when there is none, or it is larger.
        ref: The stored value that is the result; `None` of a search, whose answer is a place.
        found: There is an answer; `None` where that is no question. "Not found" is an answer of its
            own, not an error.
        stop_reason: `final`, or what ended the task early.
        error: The message of the error that ended it; empty when none did.
        stored: The values the agent wrote, in order; they stay, however it ended.
        turns: Turns that the model decided.
        usage: Token sums of this task's calls, sub-agents included.
        figures: The agent's own figures, by the names of `docs/measure.md`.
        agent_id: The agent's name in the event log.
        run_directory: Where the event log is; `None` when nothing is kept.
        detail: What the agent's kind has to say beside it: `MapReduced`, `Classified`...
        answers: Of a search, the same as `answer` with their places: the sentence of each part that
            was found.
        shorts: Of each of `answers`, the words that the model takes for what was asked: a
            highlight, right less often than the sentence. `None` where `search.short_form` is off,
            the engine can't choose, there is nothing to choose from, or a limit came first.
        parts: What each part of the question came to, in its order: answered, uncertain, not found,
            or left out because of a limit. One, without words, for a question of one part.
        is_uncertain: Found, but with a likelihood that wrong answers often reach too.
        passages: The sentences of the best chunks with their places, likeliest first; of a question
            of several parts, the best one of each, then the second best ones, and so on.
        chunks: The chunks that the model ranked, best first.
        pieces: Chunks of all texts.
        ranked: Of these, ranked by the model; the others were left out by word search.
    """

    kind: AgentKind
    answer: str | None
    found: bool | None
    stop_reason: StopReason
    usage: Usage
    figures: Figures
    agent_id: AgentId
    run_directory: Path | None
    ref: Ref | None = None
    error: str = ""
    stored: tuple[Ref, ...] = ()
    turns: int = 0
    detail: object = None
    answers: tuple[Passage, ...] = ()
    shorts: tuple[ShortForm | None, ...] = ()
    parts: tuple[PartResult, ...] = ()
    is_uncertain: bool = False
    passages: tuple[Passage, ...] = ()
    chunks: tuple[RankedChunk, ...] = ()
    pieces: int = 0
    ranked: int = 0
    _load: Callable[[Ref], object] | None = field(default=None, repr=False, compare=False)

    def value(self) -> object:
        """The result as a Python value; the answer of a search as text.

        Raises:
            InputError: A file behind it has changed.
        """
        return self.answer if self.ref is None or self._load is None else self._load(self.ref)

    @classmethod
    def of(
        cls,
        result: AgentResult,
        values: ContextStore,
        ledger: Ledger,
        usage: Usage,
        run_directory: Path | None,
    ) -> Result:
        """The result of a root agent."""
        outcome = result.outcome
        ref, answer = outcome.result, outcome.answer
        if answer is None and ref is not None and ref.size_bytes <= ANSWER_BYTES:
            answer = render(values.load(ref))
        common = cls(
            kind=result.kind,
            answer=answer,
            ref=ref,
            found=outcome.found,
            stop_reason=outcome.stop_reason,
            error=outcome.error,
            stored=result.stored,
            turns=outcome.turns,
            usage=usage,
            figures=ledger.agent_figures(result.agent_id),
            agent_id=result.agent_id,
            run_directory=run_directory,
            detail=outcome.detail,
            _load=values.load,
        )
        if not isinstance(outcome.detail, SearchFindings):
            return common
        findings, search = outcome.detail, outcome.detail.result
        return replace(
            common,
            answers=search.answers,
            shorts=findings.shorts,
            parts=search.parts,
            is_uncertain=search.is_uncertain,
            passages=search.passages,
            chunks=search.chunks,
            pieces=search.pieces,
            ranked=search.ranked,
        )

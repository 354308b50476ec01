"""What a question is asked about, and what comes of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rlm_runtime.profiler import Figures
from rlm_runtime.scaffold.recipes.search_result import PartResult, Passage, RankedChunk
from rlm_runtime.scaffold.short_form import ShortForm
from rlm_runtime.types import AgentId, Ref, StopReason, Usage

Source = str | bytes | Path | Ref
"""A text, its UTF-8 bytes, a file (which is never read whole), or what `store` gave for one."""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one question.

    Attributes:
        answer: The sentence that answers it, quoted; of a question of several parts, one under the
            other; `None` when nothing was found.
        answers: The same with their places: the sentence of each part that was found.
        shorts: Of each of `answers`, the words that the model takes for what was asked: a
            highlight, right less often than the sentence. `None` where `search.short_form` is off,
            the engine can't choose, there is nothing to choose from, or a limit came first.
        parts: What each part of the question came to, in its order: answered, uncertain, not found,
            or left out because of a limit. One, without words, for a question of one part.
        found: There is an answer. "Not found" is an answer of its own, not an error.
        is_uncertain: Found, but with a likelihood that wrong answers often reach too.
        passages: The sentences of the best chunks with their places, likeliest first; of a question
            of several parts, the best one of each, then the second best ones, and so on.
        chunks: The chunks that the model ranked, best first.
        stop_reason: `final`, or the limit that ended the search early.
        usage: Token sums of this question's calls.
        figures: This question's figures, by the names of `docs/measure.md`.
        pieces: Chunks of all texts.
        ranked: Of these, ranked by the model; the others were left out by word search.
        agent_id: The question's name in the event log.
        run_directory: Where the event log is; `None` when nothing is kept.
    """

    answer: str | None
    answers: tuple[Passage, ...]
    shorts: tuple[ShortForm | None, ...]
    parts: tuple[PartResult, ...]
    found: bool
    is_uncertain: bool
    passages: tuple[Passage, ...]
    chunks: tuple[RankedChunk, ...]
    stop_reason: StopReason
    usage: Usage
    figures: Figures
    pieces: int
    ranked: int
    agent_id: AgentId
    run_directory: Path | None

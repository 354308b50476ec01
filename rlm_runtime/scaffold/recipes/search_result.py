"""What the `search` recipe found, and where."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from rlm_runtime.scaffold.corpus import Piece
from rlm_runtime.types import StopReason


@dataclass(frozen=True, slots=True)
class Passage:
    """A quotation.

    Attributes:
        variable: Name of the text it stands in.
        start_byte: Its first byte in that text.
        end_byte: Behind its last byte.
        text: The bytes, as text.
        heading: The line that says what it is about; empty without one.
        lift: How much likelier it makes the question than no text does, nats.
        part: The part of the question that it was scored for; empty for the whole question.
    """

    variable: str
    start_byte: int
    end_byte: int
    text: str
    heading: str
    lift: float
    part: str = ""


@dataclass(frozen=True, slots=True)
class RankedChunk:
    """A chunk that the model ranked.

    Attributes:
        piece: Its place.
        lift: How much likelier it makes the question than no text does, nats.
        bm25: Its BM25 score.
        score: What it was ranked by: `lift` plus the weighted `bm25`.
    """

    piece: Piece
    lift: float
    bm25: float
    score: float


class Outcome(StrEnum):
    """What one thing that was asked came to."""

    ANSWERED = "answered"
    UNCERTAIN = "uncertain"
    """It has a sentence whose lift is one that wrong answers often reach too."""
    NOT_FOUND = "not_found"
    LEFT_OUT = "left_out"
    """A limit ended the search before one sentence was scored for it."""


@dataclass(frozen=True, slots=True)
class PartResult:
    """One thing that was asked.

    Attributes:
        part: Its words, as in `Passage.part`; empty for the whole question.
        outcome: What it came to.
    """

    part: str
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What `search` found.

    Attributes:
        answers: The likeliest sentence of each part of the question that was found; empty when
            nothing was.
        parts: What each part of the question came to, in its order; one for a whole question.
        passages: The sentences of the best chunks, likeliest first: the best one of each part,
            then the second best ones, and so on.
        chunks: The chunks that were ranked, best first; with their best part's scores.
        is_uncertain: Found, but a lift is one that wrong answers often reach too, or a part of the
            question was not found.
        pieces: Chunks of all texts.
        ranked: Of these, ranked by the model. Fewer than `pieces`: BM25 chose them, and a passage
            that shares no words with the question may have been missed.
        stop_reason: `FINAL`, or the limit that ended the search early.
    """

    answers: tuple[Passage, ...]
    parts: tuple[PartResult, ...]
    passages: tuple[Passage, ...]
    chunks: tuple[RankedChunk, ...]
    is_uncertain: bool
    pieces: int
    ranked: int
    stop_reason: StopReason

    @property
    def found(self) -> bool:
        """There is an answer, to a part of the question at least."""
        return bool(self.answers)

    @property
    def answer(self) -> str | None:
        """The answers, one under the other; `None` when nothing was found."""
        return "\n".join(passage.text for passage in self.answers) or None

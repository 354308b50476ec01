"""A question with its ground truth, and whether what came back is right.

Answers are compared loosely (whole words, whatever the case, quotation marks and markup), places
exactly: a quotation is right where it overlaps the bytes of a passage that answers the question.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

_MARKUP = str.maketrans("", "", "\"'`*“”‘’")


class ByteSpan(NamedTuple):
    """A stretch of a text, in bytes, end exclusive."""

    start: int
    end: int


class Wanted(NamedTuple):
    """One thing that is asked.

    Attributes:
        answers: Short strings of which an answer must hold one.
        places: Where the passages stand that answer it; any of them is right.
    """

    answers: tuple[str, ...]
    places: tuple[ByteSpan, ...]


@dataclass(frozen=True, slots=True)
class Asked:
    """A question over a text.

    Attributes:
        id: Unique in its workload.
        kind: What makes it easy or hard; figures are reported for each kind apart.
        question: As a person would ask it.
        wanted: All of it must be answered; nothing if the right answer is "not found".
    """

    id: str
    kind: str
    question: str
    wanted: tuple[Wanted, ...] = ()

    @property
    def is_answerable(self) -> bool:
        """False if "not found" is the right answer."""
        return bool(self.wanted)

    def is_right(self, answer: str) -> bool:
        """Whether `answer` holds an expected string for everything that is asked.

        Always false for an unanswerable question: there the right result is that nothing was found.
        """
        return self.is_answerable and all(holds(answer, want.answers) for want in self.wanted)

    def rank(self, quoted: Sequence[Sequence[ByteSpan]]) -> int | None:
        """The place, from 1, at which everything that is asked has been quoted.

        Args:
            quoted: The places that were quoted, best first; a list for each part that the question
                was split into. What is asked may be answered in any of them.

        Returns:
            `None` if something is not there at all, or nothing is asked for.
        """
        ranks = [_rank(quoted, want.places) for want in self.wanted]
        found = [rank for rank in ranks if rank is not None]
        return max(found) if found and len(found) == len(ranks) else None


def holds(answer: str, expected: Sequence[str]) -> bool:
    """Whether one of the expected strings stands in `answer`, as whole words."""
    bare = _bare(answer)
    return any(re.search(rf"(?<!\w){re.escape(_bare(one))}(?!\w)", bare) for one in expected)


def _rank(quoted: Sequence[Sequence[ByteSpan]], places: Sequence[ByteSpan]) -> int | None:
    ranks = (
        rank
        for spans in quoted
        for rank, span in enumerate(spans, start=1)
        if any(_overlap(span, place) for place in places)
    )
    return min(ranks, default=None)


def _overlap(a: ByteSpan, b: ByteSpan) -> bool:
    return a.start < b.end and b.start < a.end


def _bare(text: str) -> str:
    # Not casefold(): one expected answer is the letter that it would turn into "ss".
    return " ".join(text.translate(_MARKUP).lower().split())

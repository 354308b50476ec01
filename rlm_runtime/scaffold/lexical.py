"""Word search: which pieces of texts have the words of a question, scored by BM25.

Each text has an index of its own, made piece by piece, so that making one can be watched, stopped
and gone on with. What BM25 needs to know of all texts (how many pieces have a word, how long pieces
are on average) is a sum over the texts: any of them are searched together with exactly the scores
that one index of all would give.

Written here because libraries index a corpus in one call: bm25s takes 13 s for 100 MB and can't
be asked to stop, and its scores hold for one set of texts only. Variant and constants are bm25s's
own defaults, and a test compares the scores.
"""

from __future__ import annotations

import math
import re
import threading
from array import array
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

K1 = 1.5
B = 0.75
"""Saturation of a word's count, and how much a piece's length weighs: bm25s's defaults."""

SEGMENT_POSTINGS = 2**20
"""A word's occurrence in a piece is a posting. So many are sorted at a time: some 0.1 s, and 50 MB
of working memory however long the text is."""

_SEGMENT_OVERHEAD_BYTES = 1_000

_TERM = re.compile(r"[^\W_]+")
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")

_Unsigned = NDArray[np.unsignedinteger[Any]]  # Any: as wide as its largest number needs


class _Postings(NamedTuple):
    """Pieces that have a word, and how often: `(pieces,)` each."""

    pieces: _Unsigned
    counts: _Unsigned


class _Segment(NamedTuple):
    """Postings of consecutive pieces, sorted by word.

    Attributes:
        first: Number of its first piece.
        end: Behind its last one.
        words: Hashes of the words, sorted, `(words,)`.
        starts: Where the postings of each word begin, and where the last one's end, `(words + 1,)`.
        pieces: Of each posting, the piece's number less `first`.
        counts: Of each posting, how often the piece has the word.
    """

    first: int
    end: int
    words: NDArray[np.int64]
    starts: _Unsigned
    pieces: _Unsigned
    counts: _Unsigned

    def postings(self, word: int) -> _Postings | None:
        """Those of one word, by its hash."""
        at = int(np.searchsorted(self.words, word))
        if at == len(self.words) or self.words[at] != word:
            return None
        found = slice(int(self.starts[at]), int(self.starts[at + 1]))
        return _Postings(self.pieces[found], self.counts[found])

    @property
    def size_bytes(self) -> int:
        arrays = (self.words, self.starts, self.pieces, self.counts)
        return _SEGMENT_OVERHEAD_BYTES + sum(array.nbytes for array in arrays)


class TextIndex:
    """The words of one text's pieces. Some 3 bytes a posting, 60 MB for 100 MB of English.

    Words are known by their 64-bit hash, so a text of nothing but different words costs little more
    than one that repeats itself. Two words of a text of 20 million different ones have the same
    hash in one of 100,000 processes, and then count as one word.

    Attributes:
        lock: To be held while a piece is added. Questions about the same text at the same time make
            its index together, a piece each in turn, so that each can stop when it wants.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._lengths = array("Q")
        self._segments: list[_Segment] = []
        self._open: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
        self._open_postings = 0

    def __len__(self) -> int:
        """Pieces so far."""
        return len(self._lengths)

    def add(self, text: str) -> None:
        """Index the next piece. O(its length), about 20 MB/s; a sort now and then."""
        words = terms(text)
        hashes = np.fromiter(map(hash, words), np.int64, len(words))
        found, counts = np.unique(hashes, return_counts=True)
        self._open.append((found, counts))
        self._open_postings += len(found)
        self._lengths.append(len(words))
        if self._open_postings >= SEGMENT_POSTINGS:
            self.seal()

    def seal(self) -> None:
        """Make the last pieces searchable; for the one who added the last piece."""
        if not self._open:
            return
        first = len(self) - len(self._open)
        hashes = np.concatenate([found for found, _ in self._open])
        counts = np.concatenate([counted for _, counted in self._open])
        pieces = np.repeat(np.arange(len(self._open)), [len(found) for found, _ in self._open])
        order = np.argsort(hashes, kind="stable")
        hashes = hashes[order]
        starts = np.flatnonzero(np.concatenate(([True], hashes[1:] != hashes[:-1], [True])))
        if not len(hashes):
            starts = np.zeros(1, np.int64)
        self._segments.append(
            _Segment(
                first,
                len(self),
                hashes[starts[:-1]],
                _narrow(starts),
                _narrow(pieces[order]),
                _narrow(counts[order]),
            )
        )
        self._open, self._open_postings = [], 0

    def lengths(self) -> NDArray[np.uint64]:
        """Words of each piece."""
        return np.array(self._lengths, np.uint64)

    def segments(self) -> Iterator[_Segment]:
        """All that is sealed."""
        return iter(self._segments)

    @property
    def size_bytes(self) -> int:
        """Memory it holds, nearly all of it in arrays."""
        waiting = sum(found.nbytes + counts.nbytes for found, counts in self._open)
        sealed = sum(segment.size_bytes for segment in self._segments)
        return sealed + waiting + _SEGMENT_OVERHEAD_BYTES + 8 * len(self)


def scores(indexes: Sequence[TextIndex], question: str) -> list[float]:
    """BM25 score of each piece for a question, the pieces of the first text first.

    A text may stand there twice. Cost: some milliseconds for 40,000 pieces.

    Args:
        indexes: Of the texts, complete and sealed.
        question: In words; one that stands there twice counts twice.
    """
    if not indexes:
        return []
    lengths = np.concatenate([index.lengths() for index in indexes]).astype(np.float64)
    total = np.zeros(len(lengths))
    if not lengths.any():
        return list(map(float, total))
    saturation = K1 * (1 - B + B * lengths / lengths.mean())
    offsets = np.cumsum([0, *map(len, indexes)])
    for word in map(hash, terms(question)):
        found = [
            (slice(offset + segment.first, offset + segment.end), postings)
            for offset, index in zip(map(int, offsets), indexes, strict=False)
            for segment in index.segments()
            if (postings := segment.postings(word)) is not None
        ]
        having = sum(len(postings.pieces) for _, postings in found)
        idf = math.log(1 + (len(lengths) - having + 0.5) / (having + 0.5))
        for window, (pieces, counts) in found:
            # A piece stands once in a word's postings: the sum below misses none.
            total[window][pieces] += idf * counts / (saturation[window][pieces] + counts)
    return list(map(float, total))


def terms(text: str) -> list[str]:
    """Words in lower case; of one with ideographs each character (Chinese has no spaces)."""
    words = _TERM.findall(text.lower())
    if text.isascii() or _CJK.search(text) is None:
        return words
    return list(chain.from_iterable(word if _CJK.search(word) else (word,) for word in words))


def _narrow(numbers: NDArray[np.int64]) -> _Unsigned:
    """The same in as few bytes as the largest needs."""
    narrow: _Unsigned = numbers.astype(np.min_scalar_type(int(numbers.max(initial=0))))
    return narrow

"""Text that was computed before: the same `WINDOW_TOKENS` or more ids in a row, at any place.

Every window of that many ids that calls computed gets a hash (a polynomial over the ids, modulo
2**64, made for all windows at once in five passes over the ids). A stable sort of the hashes finds
the first window of each; windows that are equal to one of an earlier call are compared id by id
before they count. So what is found are exactly the stretches of 32 equal ids and more, wherever
they begin: no sampling, no alignment. Time is one sort, memory about 50 bytes an id.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

WINDOW_TOKENS = 32
"""Shorter repetitions are not counted: turns of phrase, markup, the template's own tokens."""

_BASE = 0x9E3779B97F4A7C15
_MIX = np.uint64(0xD6E8FEB86659FD93)


class Span(NamedTuple):
    """Ids of one call that were computed in it, with up to 31 before them.

    Attributes:
        ids: `(n,)`, uint32.
        start: Position of the first in the call's prompt.
        asks_from: Copies are looked for from this position on (in the prompt),
        asks_to: up to this one; what comes behind it is only there to be found by others.
    """

    ids: NDArray[np.uint32]
    start: int
    asks_from: int
    asks_to: int


@dataclass(frozen=True, slots=True)
class Copy:
    """Positions `start..end` of a call stood at `earlier_start` in the call of an earlier span."""

    start: int
    end: int
    earlier: int  # index of the earlier span
    earlier_start: int


def find_copies(spans: Sequence[Span]) -> list[list[Copy]]:
    """For each span, what of its asked part an earlier span has: in order, without overlap."""
    found: list[list[Copy]] = [[] for _ in spans]
    lengths = np.array([len(span.ids) for span in spans], dtype=np.int64)
    if lengths.sum() < WINDOW_TOKENS:
        return found
    ids = np.concatenate([span.ids for span in spans])
    ends = np.cumsum(lengths)
    offsets = ends - lengths
    first = _first_equal_window(ids, ends)
    for number, span in enumerate(spans):
        offset, end = int(offsets[number]), int(ends[number])
        shift = span.start - offset  # from a place in `ids` to a position in the call
        low = max(offset, span.asks_from - shift)
        high = min(end - WINDOW_TOKENS + 1, span.asks_to - shift)
        reached = span.asks_from
        for place, source, windows in _runs(first, low, high, offset):
            equal = _equal(ids, place, source, windows + WINDOW_TOKENS - 1)
            start = max(place + shift, reached)
            stop = min(place + shift + equal, span.asks_to)
            if equal < WINDOW_TOKENS or start >= stop:
                continue  # two windows with one hash, or nothing more than the copy before has
            earlier = int(np.searchsorted(ends, source, side="right"))
            at = source - int(offsets[earlier]) + spans[earlier].start
            found[number].append(Copy(start, stop, earlier, at + start - (place + shift)))
            reached = stop
    return found


def _first_equal_window(ids: NDArray[np.uint32], ends: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each place in `ids`, where the first window equal to the one that begins there begins."""
    hashes = _hash_windows(ids)
    first = np.arange(len(ids), dtype=np.int64)
    is_whole = np.ones(len(ids), dtype=bool)  # a window lies inside one span
    for back in range(1, WINDOW_TOKENS):
        is_whole[np.maximum(ends - back, 0)] = False
    places = np.flatnonzero(is_whole)
    if not len(places):
        return first
    order = places[np.argsort(hashes[places], kind="stable")]
    ordered = hashes[order]
    begins = np.concatenate(([True], ordered[1:] != ordered[:-1]))
    first[order] = order[begins][np.cumsum(begins) - 1]
    return first


def _hash_windows(ids: NDArray[np.uint32]) -> NDArray[np.uint64]:
    """Polynomial hash of the window at each place, `(len(ids) - 31,)`."""
    hashes = (ids.astype(np.uint64) + np.uint64(1)) * _MIX
    hashes ^= hashes >> np.uint64(32)
    width, power = 1, _BASE
    while width < WINDOW_TOKENS:
        hashes = hashes[:-width] * np.uint64(power) + hashes[width:]
        width, power = 2 * width, power * power % 2**64
    return hashes


def _runs(
    first: NDArray[np.int64], low: int, high: int, offset: int
) -> Iterator[tuple[int, int, int]]:
    """Windows `low..high` with an earlier equal in a row: place, source, number of windows."""
    if low >= high:
        return
    places = np.flatnonzero(first[low:high] < offset) + low
    if not len(places):
        return
    sources = first[places]
    breaks = np.flatnonzero((np.diff(places) != 1) | (np.diff(sources) != 1)) + 1
    for run in np.split(np.arange(len(places)), breaks):
        yield int(places[run[0]]), int(sources[run[0]]), len(run)


def _equal(ids: NDArray[np.uint32], place: int, source: int, length: int) -> int:
    """How many of `length` ids from two places on are equal, up to the first that differ."""
    differs = np.flatnonzero(ids[place : place + length] != ids[source : source + length])
    return int(differs[0]) if len(differs) else length


class Siblings:
    """The blocks that were computed behind the same prefix, to see how far one agrees with them.

    What two prompts share beyond the last whole block is lost to the block size.
    """

    def __init__(self) -> None:
        self._children: defaultdict[bytes, list[bytes]] = defaultdict(list)

    def add(self, parent: bytes, block: bytes) -> None:
        """Remember a block, or the part of one, behind the prefix `parent`."""
        insort(self._children[parent], block)

    def shared_tokens(self, parent: bytes, block: bytes) -> int:
        """Leading ids that the block has in common with one of its siblings.

        In the order of their bytes, the block that agrees longest stands next to it.
        """
        children = self._children.get(parent, [])
        at = bisect_left(children, block)
        return max(
            (_common(block, child) for child in children[max(0, at - 1) : at + 1]), default=0
        )


def packed(ids: NDArray[np.uint32]) -> bytes:
    """Ids as bytes whose order is theirs."""
    return ids.astype(">u4").tobytes()


def _common(a: bytes, b: bytes) -> int:
    ids = zip(memoryview(a).cast("I"), memoryview(b).cast("I"), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], ids))

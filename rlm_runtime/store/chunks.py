"""Cutting a text by its bytes, at places where a reader would pause.

A boundary depends on the text alone, never on a question, so that the next question finds the same
chunks in the prefix cache. The rule looks at one window around the target and never back, so

- what follows a boundary is cut as if the text began there, and
- text added at the end moves no boundary but the last two (with targets of 16 bytes or more).

Every call reads each byte a bounded number of times.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from rlm_runtime.errors import InputError
from rlm_runtime.store.values import Sliceable

SAMPLE_PIECES = 16
SAMPLE_BYTES = 4096
"""Bytes per token come from this many pieces of this size: 64 KiB, about 16,000 tokens."""

CountTokens = Callable[[str], int]

_SPACE_MARKS = (b" ", rb"\t", rb"\r", rb"\n", rb"\f", rb"\v", "\u3000".encode())
_SPACES = rb"(?:[ \t\r\n\f\v]|" + _SPACE_MARKS[-1] + rb")"
_SPACED_ENDS = (rb"\.", b"!", rb"\?", *(mark.encode() for mark in "…؟۔।"))
_BARE_ENDS = tuple(mark.encode() for mark in "。！？")
_CLOSING = rb"(?:[\"')\]*_]|" + b"|".join(mark.encode() for mark in "”’」』）") + rb")*"


def _any(marks: tuple[bytes, ...], tail: bytes) -> bytes:
    # Spelt out branch by branch: only so does `re` skip ahead to the marks' first bytes, which
    # makes a text without any of them ten times as fast to search.
    return b"|".join(mark + tail for mark in marks)


_PAUSES = tuple(
    re.compile(pattern)
    for pattern in (
        # a paragraph: an empty line
        rb"\n(?:[ \t\r\f\v]*\n)+",
        # a line
        rb"\n",
        # a sentence; Chinese and Japanese put no space behind it
        _any(_SPACED_ENDS, _CLOSING + _SPACES + b"+")
        + b"|"
        + _any(_BARE_ENDS, _CLOSING + _SPACES + b"*"),
        # a word
        _any(_SPACE_MARKS, _SPACES + b"*"),
    )
)
"""From the best place to the worst; the last resort is the end of any character."""


class Chunk(NamedTuple):
    """Bytes `start <= i < end` of a text; both lie between characters."""

    start: int
    end: int


def cut(data: Sliceable, target_bytes: int) -> tuple[Chunk, ...]:
    """Cut a text into chunks near `target_bytes`, without gap or overlap.

    A boundary is the one nearest to the target among the best kind there is in the window of a
    quarter to either side: the end of a paragraph, else of a line, a sentence, a word, a character.
    White space stays with what it follows. What is left at the end is shared by the last two.

    Args:
        data: UTF-8 text. Only half of it is looked at, a window at a time.
        target_bytes: At least 1.

    Returns:
        Chunks in order. With more than one, each has from 3/8 to 5/4 of the target, give or take
        the three bytes that a character's end may be away; an empty text has none.

    Raises:
        InputError: The target is below 1.
    """
    return _cut(data, Chunk(0, len(data)), target_bytes)


def cut_tokens(
    data: Sliceable, target_tokens: int, max_tokens: int, count_tokens: CountTokens
) -> tuple[Chunk, ...]:
    """Cut near a size in tokens; no chunk has more than `max_tokens`.

    Tokenises the whole text, about 1 s per MB. A caller who will look at few of the chunks takes
    `cut(data, target_bytes(...))`, and `fit` for those.

    Args:
        data: UTF-8 text.
        target_tokens: Wanted, at least 1.
        max_tokens: The bound, at least `target_tokens`.
        count_tokens: Tokens of a text.

    Raises:
        InputError: The target is below 1 or above the bound.
    """
    if not 1 <= target_tokens <= max_tokens:
        raise InputError(
            f"Chunks of {target_tokens:,} tokens with at most {max_tokens:,} can't be.",
            "The target must be at least 1 and at most the bound.",
        )
    chunks = cut(data, target_bytes(data, target_tokens, count_tokens))
    return tuple(part for chunk in chunks for part in fit(data, chunk, max_tokens, count_tokens))


def fit(
    data: Sliceable, chunk: Chunk, max_tokens: int, count_tokens: CountTokens
) -> tuple[Chunk, ...]:
    """Split a chunk that has too many tokens, by the rule of `cut`; else give it back.

    The result depends on the chunk's own bytes only. A single character is never split, however
    many tokens it has. Costs a tokenisation of the chunk and of its parts, however large it is;
    where tokens crowd in a place, of that place's parts again.
    """
    size = chunk.end - chunk.start
    text = bytes(data[chunk.start : chunk.end]).decode("utf-8")
    tokens = 0 if len(text) <= 1 else count_tokens(text)
    if tokens <= max_tokens:
        return (chunk,)
    # Parts may be a quarter larger than they should, and their tokens are not spread evenly.
    parts = _cut(data, chunk, max(1, min(size // 2, size * max_tokens * 3 // (4 * tokens))))
    return tuple(piece for part in parts for piece in fit(data, part, max_tokens, count_tokens))


def target_bytes(data: Sliceable, target_tokens: int, count_tokens: CountTokens) -> int:
    """The size in bytes that has about `target_tokens`, in this text."""
    return max(1, round(target_tokens * bytes_per_token(data, count_tokens)))


def bytes_per_token(data: Sliceable, count_tokens: CountTokens) -> float:
    """Mean bytes of a token, from a sample that is spread over the text.

    The same text gives the same number. Costs one tokenisation of 64 KiB, or of the text if that
    is shorter.

    Args:
        data: Text; bytes that are not UTF-8 are left out.
        count_tokens: Tokens of a text.
    """
    size = len(data)
    if size <= SAMPLE_PIECES * SAMPLE_BYTES:
        pieces = [bytes(data[0:size])]
    else:
        last = size - SAMPLE_BYTES
        starts = (last * piece // (SAMPLE_PIECES - 1) for piece in range(SAMPLE_PIECES))
        pieces = [bytes(data[start : start + SAMPLE_BYTES]) for start in starts]
    texts = [piece.decode("utf-8", "ignore") for piece in pieces]
    tokens = sum(count_tokens(text) for text in texts)
    return sum(len(text.encode()) for text in texts) / tokens if tokens else 1.0


def _cut(data: Sliceable, span: Chunk, target: int) -> tuple[Chunk, ...]:
    if target < 1:
        raise InputError(f"Chunks of {target} bytes can't be cut.", "Give at least 1.")
    slack = target // 4
    chunks: list[Chunk] = []
    start = span.start
    while span.end - start > target + slack:
        left = span.end - start
        aim = start + (target if left >= 2 * target else left // 2)
        end = _boundary(data, start, aim, slack, span.end)
        chunks.append(Chunk(start, end))
        start = end
    if start < span.end:
        chunks.append(Chunk(start, span.end))
    return tuple(chunks)


def _boundary(data: Sliceable, start: int, aim: int, slack: int, limit: int) -> int:
    """The best place to cut near `aim`; `start < place <= limit`."""
    # Wider by three bytes on both sides: `aim` may lie inside a character of four.
    low = max(start, aim - slack - 3)
    window = bytes(data[low : min(limit, aim + slack + 3)])
    middle = aim - low
    for pause in _PAUSES:
        place = _nearest(pause, window, middle, slack)
        if place is not None:
            return low + place
    return low + _character_end(window, middle, is_first=low == start)


def _nearest(pause: re.Pattern[bytes], window: bytes, middle: int, slack: int) -> int | None:
    """The end of a match that is nearest to `middle` and at most `slack` away."""
    best = None
    for match in pause.finditer(window, 0, middle + slack):
        end = match.end()
        if abs(end - middle) <= (slack if best is None else abs(best - middle) - 1):
            best = end
        if end >= middle:
            break
    return best


def _character_end(window: bytes, middle: int, *, is_first: bool) -> int:
    place = middle
    while place > 0 and place < len(window) and _continues(window[place]):
        place -= 1
    if place == 0 and is_first:  # the character is larger than the target: it goes whole
        place = middle + 1
        while place < len(window) and _continues(window[place]):
            place += 1
    return place


def _continues(byte: int) -> bool:
    return byte & 0xC0 == 0x80

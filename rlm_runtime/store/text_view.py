"""A stored text by its characters, of which only what is asked for becomes a `str`.

The text is UTF-8 bytes, in memory or in a file. A sparse index (how many characters begin in front
of each block) turns a character's number into a byte's; it grows as far as it is needed.
"""

from __future__ import annotations

import codecs
import re
import threading
from bisect import bisect_right
from collections.abc import Iterator
from itertools import chain
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from rlm_runtime.errors import InputError
from rlm_runtime.store.values import Sliceable

BLOCK_BYTES = 64 * 2**10
"""What is looked through for one character: some 20 us."""

PIECE_BYTES = 2**20
"""What is in memory at once when a whole text is gone through."""

MAX_MATCH_CHARACTERS = 64 * 2**10
"""Longest match of `find`, with what its lookarounds see."""


class EncodedText:
    """A text's UTF-8 bytes, made piece by piece each time they are gone through.

    Args:
        text: The text.
        shown: What messages call it.
    """

    def __init__(self, text: str, shown: str) -> None:
        self._text = text
        self._shown = shown

    def __iter__(self) -> Iterator[bytes]:
        for start in range(0, len(self._text), PIECE_BYTES):
            try:
                yield self._text[start : start + PIECE_BYTES].encode("utf-8")
            except UnicodeEncodeError as err:
                raise InputError(
                    f"{self._shown} has half a surrogate pair at character {start + err.start:,}.",
                    "Decode it from its source without `surrogateescape`.",
                ) from err


class TextMatch(NamedTuple):
    """A match of a pattern.

    Attributes:
        start: Number of its first character in the text.
        end: One behind its last.
        text: What matched.
        groups: The pattern's groups; `None` where one took no part.
    """

    start: int
    end: int
    text: str
    groups: tuple[str | None, ...]


class TextView:
    """A text that is read in place. Any thread may use it.

    Every method raises `InputError` where the file behind the text has changed.

    Args:
        content: UTF-8.
    """

    def __init__(self, content: Sliceable) -> None:
        self._content = content
        self._lock = threading.Lock()
        self._begun = [0]  # characters that begin in front of each block, as far as is known

    def __len__(self) -> int:
        """Characters; the first call reads the whole text, about 1 s per GB."""
        return self._index(None)

    def __getitem__(self, where: int | slice) -> str:
        """A character, or the characters `[start:stop]`, as of `str`.

        Reads what it returns and a block or two; the first time, all in front of it. Ends that are
        negative or behind the text cost as much as its length.

        Raises:
            InputError: The slice has a step.
            IndexError: There is no such character.
        """
        if isinstance(where, int):
            where = range(len(self))[where]  # which knows what is outside
            where = slice(where, where + 1)
        if where.step not in (None, 1):
            raise InputError("A slice of a text has no step.", "Slice what you get.")
        start, stop = where.start or 0, where.stop
        if start < 0 or (stop is not None and stop < 0):
            start, stop, _ = where.indices(len(self))
        begin = self.byte(start)
        end = len(self._content) if stop is None else self.byte(stop)
        return bytes(self._content[begin:end]).decode("utf-8")

    def byte(self, character: int) -> int:
        """The byte at which a character begins; the text's end for one behind it."""
        if character >= self._index(character):
            return len(self._content)
        block = bisect_right(self._begun, character) - 1
        starts = np.flatnonzero(self._starts(block))
        return block * BLOCK_BYTES + int(starts[character - self._begun[block]])

    def lines(self) -> Iterator[str]:
        """The lines in order, without their ends, as of `str.splitlines`.

        Memory: a piece of the text, and a line.
        """
        pending: list[str] = []
        for piece in self._pieces(holds_back="\r"):  # which may be half of "\r\n"
            for line in piece.splitlines(keepends=True):
                bare = line.splitlines()[0]
                pending.append(bare)
                if len(bare) < len(line):
                    yield "".join(pending)
                    pending.clear()
        if pending:
            yield "".join(pending)

    def chunks(self, characters: int) -> Iterator[str]:
        """The text in parts of so many characters; the last one may be shorter.

        Memory: a piece of the text, and a part.

        Raises:
            InputError: Fewer than 1.
        """
        if characters < 1:
            raise InputError(f"Chunks of {characters} characters can't be cut.", "Give at least 1.")
        return self._chunks(characters)

    def find(self, pattern: str | re.Pattern[str]) -> Iterator[TextMatch]:
        """All matches of a regular expression, in order, as of `re.finditer`.

        A match, with what its lookarounds see, may be `MAX_MATCH_CHARACTERS` long; what can only
        match beyond that is not found. Memory: a piece of the text.

        Raises:
            InputError: The pattern can't be read; or, on the way, a match is longer than that.
        """
        try:
            compiled = re.compile(pattern)
        except (re.error, OverflowError, RecursionError) as err:
            raise InputError(
                f"The pattern can't be read: {err}.", "Write it as for Python's re module."
            ) from err
        return self._find(compiled)

    def _chunks(self, characters: int) -> Iterator[str]:
        pending: list[str] = []
        missing = characters
        for piece in self._pieces():
            at = 0
            while len(piece) - at >= missing:
                pending.append(piece[at : at + missing])
                yield "".join(pending)
                pending.clear()
                at, missing = at + missing, characters
            pending.append(piece[at:])
            missing -= len(piece) - at
        if missing < characters:
            yield "".join(pending)

    def _find(self, pattern: re.Pattern[str]) -> Iterator[TextMatch]:
        # The window holds what lies around `at`, so that anchors and lookarounds see the same as
        # in the whole text; a match that begins in the last part of it is left for the next one.
        window, first, at = "", 0, 0
        for piece in chain(self._pieces(), (None,)):
            window += piece or ""
            limit = first + len(window) + (1 if piece is None else -MAX_MATCH_CHARACTERS)
            for match in pattern.finditer(window, at - first):
                start, end = first + match.start(), first + match.end()
                if start >= limit:
                    break
                if end - start > MAX_MATCH_CHARACTERS:
                    raise InputError(
                        f"What matches at character {start:,} is longer than "
                        f"{MAX_MATCH_CHARACTERS:,} characters.",
                        "Write a pattern that ends sooner, as with *? in place of *.",
                    )
                yield TextMatch(start, end, match[0], match.groups())
                at = end
            at = max(at, limit)
            dropped = max(0, at - MAX_MATCH_CHARACTERS - first)
            window, first = window[dropped:], first + dropped

    def _pieces(self, holds_back: str = "") -> Iterator[str]:
        """The text in pieces; none but the last ends with the character that is held back."""
        decoder = codecs.getincrementaldecoder("utf-8")("strict")
        held, size = "", len(self._content)
        for offset in range(0, size, PIECE_BYTES):
            is_last = offset + PIECE_BYTES >= size
            block = bytes(self._content[offset : offset + PIECE_BYTES])
            piece = held + decoder.decode(block, final=is_last)
            held = holds_back if holds_back and not is_last and piece.endswith(holds_back) else ""
            yield piece[: len(piece) - len(held)]

    def _index(self, character: int | None) -> int:
        """Characters in the blocks known, which reach behind `character`, or to the end."""
        with self._lock:
            blocks = -(-len(self._content) // BLOCK_BYTES)
            while len(self._begun) <= blocks and not (
                character is not None and character < self._begun[-1]
            ):
                starts = self._starts(len(self._begun) - 1)
                self._begun.append(self._begun[-1] + int(np.count_nonzero(starts)))
            return self._begun[-1]

    def _starts(self, block: int) -> npt.NDArray[np.bool_]:
        """Which bytes of a block begin a character: all but those of the form 10xxxxxx."""
        data = self._content[block * BLOCK_BYTES : (block + 1) * BLOCK_BYTES]
        starts: npt.NDArray[np.bool_] = np.frombuffer(data, np.int8) > -65
        return starts

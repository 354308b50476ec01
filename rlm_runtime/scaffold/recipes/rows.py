"""The rows of values: items of a list, lines of a text. Python finds them; no model is asked.

A line is what stands between two newlines; blank ones are no rows. So a file of CSV or JSON Lines
has a row a line (the line of CSV column names, where there is one, is a row like the others).
A row that is longer than a prompt can hold is read as far as it fits, and listed as cut.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import anyio.to_thread

from rlm_runtime.errors import InputError
from rlm_runtime.prompt import Document
from rlm_runtime.scaffold.recipes.reading import note_read
from rlm_runtime.scaffold.rendering import render
from rlm_runtime.scaffold.thread_watch import ThreadWatch
from rlm_runtime.scaffold.tree import Seat
from rlm_runtime.store import ContextStore, Value
from rlm_runtime.tracing import blob_digest, ids_to_blob
from rlm_runtime.types import Ref

BLOCK_BYTES = 2**20

TOKEN_CHARACTERS = 16
"""Of a row longer than this for each token of its room, the rest is never encoded."""


class Row(NamedTuple):
    """A row's place.

    Attributes:
        ref: The value.
        start: Its first byte in a text; its position in a list.
        end: Behind its last byte; the next position.
    """

    ref: Ref
    start: int
    end: int


class Rows:
    """The rows of values, in order.

    Attributes:
        seat: Who reads them.
        places: Where each one is.
        tokens: Of each one's document.
        cut: Positions of those of which the document holds the beginning only.
    """

    def __init__(self, seat: Seat, refs: Sequence[Ref], room_tokens: int) -> None:
        """Find the rows; about 0.1 s per 10 MB of text.

        Args:
            seat: Who reads them.
            refs: Texts and lists.
            room_tokens: What a prompt has for a row.

        Raises:
            InputError: A value is neither.
        """
        self.seat = seat
        self.places: list[Row] = []
        self.tokens: list[int] = []
        self.cut: list[int] = []
        self._room = room_tokens
        self._store = seat.tree.corpus.store
        self._lists: dict[Ref, list[object]] = {}
        for ref in refs:
            if ref.kind == "str":
                value = self._store.get(ref.name, ref.version)
                self.places += (Row(ref, start, end) for start, end in _lines(value))
            else:
                items = self._lists[ref] = _items(self._store, ref)
                self.places += (Row(ref, i, i + 1) for i in range(len(items)))

    @classmethod
    async def of(cls, seat: Seat, refs: Sequence[Ref], room_tokens: int) -> Rows:
        """Find the rows and measure them, in a thread: about a second per MB.

        Raises:
            InputError: A value is no list and no text.
            LimitExceeded: The tree's `max_seconds` are over.
        """

        def measure() -> Rows:
            rows = cls(seat, refs, room_tokens)
            done, to_do = 0, sum(ref.size_bytes for ref in refs)
            for position in range(len(rows.places)):
                ids, is_whole, size = rows._read(position)
                rows.tokens.append(len(ids))
                if not is_whole:
                    rows.cut.append(position)
                done += size
                watch.encoding(min(done, to_do), to_do)
            return rows

        with ThreadWatch(seat.tree.job) as watch:
            return await anyio.to_thread.run_sync(measure, abandon_on_cancel=True)

    def documents(self, positions: range) -> list[Document]:
        """The documents of rows; for a thread. Each is asked about once: it is not filled."""
        read = (self._read(position)[0] for position in positions)
        return [Document(ids, blob_digest(ids_to_blob(ids)), len(ids)) for ids in read]

    def note_read(self, position: int, document: Document) -> None:
        """Record that a row stood in a prompt. Of a list, the log has the value, not the place."""
        ref, start, end = self.places[position]
        if ref.kind != "str":
            start, end = 0, ref.size_bytes
        note_read(self.seat, ref, start, end, len(document.ids))

    def _read(self, position: int) -> tuple[tuple[int, ...], bool, int]:
        """A row's ids as far as there is room, whether these are all, and characters looked at."""
        most = self._room * TOKEN_CHARACTERS
        text = self._text(self.places[position], most)
        ids = self.seat.tree.layout.tokenizer.encode(text[:most])
        is_whole = len(text) <= most and len(ids) <= self._room
        return ids[: self._room], is_whole, len(text)

    def _text(self, row: Row, max_characters: int) -> str:
        """A row's words; longer ones are cut one character behind the bound."""
        if row.ref.kind != "str":
            return render(self._lists[row.ref][row.start], max_characters)
        # A character has up to four bytes; the one at the end may be cut.
        end = min(row.end, row.start + 4 * (max_characters + 1))
        text = self._store.slice(row.ref, row.start, end).decode("utf-8", "ignore")
        return text[: max_characters + 1]


def _items(store: ContextStore, ref: Ref) -> list[object]:
    value = store.load(ref) if ref.kind == "mp" else None
    if isinstance(value, list):
        return value
    what = type(value).__name__ if ref.kind == "mp" else ref.kind
    raise InputError(
        f"{ref.name!r} has no rows: it is {what}, no list and no text.",
        "Store the list or the lines of it under a name, and give that one.",
    )


def _lines(value: Value) -> Iterator[tuple[int, int]]:
    """Bytes of each line that is not blank, without the white space at its ends."""
    size = value.ref.size_bytes
    start = end = -1  # of the line so far
    for offset in range(0, size, BLOCK_BYTES):
        at = offset
        block = value.read(offset, min(size, offset + BLOCK_BYTES))
        for number, piece in enumerate(block.split(b"\n")):
            if number and start >= 0:  # a newline stood in front of this piece
                yield start, end
                start = -1
            ink = piece.strip()
            if ink:
                first = at + len(piece) - len(piece.lstrip())
                start = first if start < 0 else start
                end = first + len(ink)
            at += len(piece) + 1
    if start >= 0:
        yield start, end

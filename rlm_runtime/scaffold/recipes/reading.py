"""The chunks of texts as recipes read them: measured before, encoded as they are asked about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import anyio.to_thread

from rlm_runtime.prompt import Document
from rlm_runtime.scaffold.corpus import Piece
from rlm_runtime.scaffold.thread_watch import ThreadWatch
from rlm_runtime.scaffold.tree import Seat
from rlm_runtime.scheduler.scheduler import FEED_AT_ONCE
from rlm_runtime.tracing import ValueRead
from rlm_runtime.types import Ref

WAVE = FEED_AT_ONCE
"""Leaf calls of one batch. More would wait outside the queue with their prompts in memory, and what
a wave gave is stored before the next one begins."""


@dataclass(frozen=True, slots=True)
class Chunks:
    """The chunks of texts, in order; each fits a prompt.

    Attributes:
        seat: Who reads them.
        pieces: Their places.
        tokens: Of each one's document, fillers included.
    """

    seat: Seat
    pieces: tuple[Piece, ...]
    tokens: tuple[int, ...]

    @classmethod
    async def of(cls, seat: Seat, refs: Sequence[Ref]) -> Chunks:
        """Cut texts and encode all of them, in a thread: about a second per MB, once.

        Raises:
            LimitExceeded: The tree's `max_seconds` are over.
        """
        corpus = seat.tree.corpus

        def measure() -> Chunks:
            pieces: list[Piece] = []
            tokens: list[int] = []
            done, to_do = 0, sum(ref.size_bytes for ref in refs)
            for chunk in corpus.pieces(refs):
                for piece in corpus.fitted(chunk):
                    pieces.append(piece)
                    tokens.append(len(corpus.document(piece).ids))
                done += chunk.end_byte - chunk.start_byte
                watch.encoding(done, to_do)
            return cls(seat, tuple(pieces), tuple(tokens))

        with ThreadWatch(seat.tree.job) as watch:
            return await anyio.to_thread.run_sync(measure, abandon_on_cancel=True)

    def documents(self, positions: range) -> list[Document]:
        """The documents of chunks; for a thread: what is not kept of them is encoded again."""
        return [self.seat.tree.corpus.document(self.pieces[i]) for i in positions]

    def note_read(self, position: int, document: Document) -> None:
        """Record that a chunk stood in a prompt; it is in the engine's cache now."""
        piece = self.pieces[position]
        self.seat.tree.corpus.read.add(document.digest, len(document.ids))
        note_read(self.seat, piece.ref, piece.start_byte, piece.end_byte, len(document.ids))


def note_read(seat: Seat, ref: Ref, start_byte: int, end_byte: int, tokens: int) -> None:
    """Record that a part of a value stood in a leaf call's prompt."""
    recorder = seat.tree.recorder
    recorder.emit(
        ValueRead(
            at_s=recorder.now(),
            reader=seat.agent_id,
            name=ref.name,
            version=ref.version,
            start_byte=start_byte,
            end_byte=end_byte,
            tokens=tokens,
        )
    )

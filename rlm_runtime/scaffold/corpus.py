"""Stored texts as chunks that prompts can hold, kept from one question to the next.

Chunk bounds depend on the text alone, so that a further question finds the same chunks in the
prefix cache. Nothing of a text is tokenised before it is needed, and what is kept of it is bounded:
what was used longest ago is forgotten and made again when it is asked for.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rlm_runtime.prompt import Document, Layout
from rlm_runtime.scaffold import lexical
from rlm_runtime.scaffold.lexical import TextIndex
from rlm_runtime.scaffold.likelihood import QuestionLikelihood
from rlm_runtime.scaffold.units import MAX_UNIT_CHARS, across
from rlm_runtime.store import Chunk, ContextStore, cut, fit, target_bytes
from rlm_runtime.store.recent import Recent
from rlm_runtime.types import Ref

KEPT_CHUNKS = 500_000
"""Chunks whose bounds are kept: 65 MB, those of 1.3 GB of English. Where all of them are ranked,
300 MB more for their parts and digests."""

KEPT_DOCUMENT_TOKENS = 2_000_000
"""Tokens of the documents that are kept: 80 MB, which saves a second per MB of text."""

KEPT_INDEX_BYTES = 512 * 2**20
"""Word indexes that are kept: those of some 800 MB of English."""

SEAM_BYTES = 4 * MAX_UNIT_CHARS
"""What is looked at on both sides of a border between chunks: holds any unit across it, in any
script."""

Watch = Callable[[int, int], None]
"""Called between pieces with the bytes that are done and the bytes to do, in the thread that does
them. It may raise: that ends the work, and what is done of it is kept."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A chunk of a stored text: bytes `start_byte <= b < end_byte`."""

    ref: Ref
    start_byte: int
    end_byte: int


class ReadDocuments:
    """Digests of the documents that were computed before, and are probably still cached.

    The engine's cache gives up the blocks that were used longest ago, and so does this.

    Args:
        typical_tokens: What a document weighs whose tokens are not told.
    """

    def __init__(self, typical_tokens: int) -> None:
        self._typical_tokens = typical_tokens
        self._recent: Recent[str, None] = Recent(2**63)

    def bound(self, capacity_tokens: int) -> None:
        """Tell how many tokens the cache has room for, the shared prefix left out."""
        self._recent.limit(capacity_tokens)

    def add(self, digest: str, tokens: int | None = None) -> None:
        """A document was computed, or used again.

        Args:
            digest: The document's.
            tokens: What it takes of the cache, with the task and the question behind it.
        """
        self._recent.put(digest, None, self._typical_tokens if tokens is None else tokens)

    def clear(self) -> None:
        """The cache was emptied."""
        self._recent.clear()

    def __contains__(self, digest: object) -> bool:
        return digest in self._recent

    def __iter__(self) -> Iterator[str]:
        return iter(self._recent)


class Corpus:
    """The texts of a session, cut into pieces. Any thread may call it.

    Args:
        store: Where the texts are.
        layout: Makes documents of pieces.
        chunk_tokens: Target size of a piece.

    Attributes:
        read: The documents that are probably in the engine's cache.
    """

    def __init__(self, store: ContextStore, layout: Layout, chunk_tokens: int) -> None:
        self.store = store
        self.layout = layout
        self.chunk_tokens = chunk_tokens
        self.read = ReadDocuments(chunk_tokens)
        self._chunks: Recent[str, tuple[Chunk, ...]] = Recent(KEPT_CHUNKS)
        self._fitted: Recent[Piece, tuple[Piece, ...]] = Recent(KEPT_CHUNKS)
        self._documents: Recent[Piece, Document] = Recent(KEPT_DOCUMENT_TOKENS)
        self._digests: Recent[Piece, str] = Recent(KEPT_CHUNKS)
        self._indexes: Recent[str, TextIndex] = Recent(KEPT_INDEX_BYTES)
        self._making_index = threading.Lock()

    def pieces(self, refs: Sequence[Ref]) -> tuple[Piece, ...]:
        """The pieces of texts, in order. The first call reads each text once, 0.3 s per 100 MB."""
        return tuple(piece for ref in refs for piece in self._pieces_of(ref))

    def fitted(self, piece: Piece) -> tuple[Piece, ...]:
        """The piece itself; split, where it has far more tokens than the text has on average."""
        known = self._fitted.get(piece)
        if known is not None:
            return known
        if self.document(piece).text_tokens <= self.max_piece_tokens:
            fitted: tuple[Piece, ...] = (piece,)
        else:
            content = self.store.get(piece.ref.name, piece.ref.version).content
            chunk = Chunk(piece.start_byte, piece.end_byte)
            parts = fit(content, chunk, self.max_piece_tokens, self.layout.tokenizer.count)
            fitted = tuple(Piece(piece.ref, part.start, part.end) for part in parts)
        self._fitted.put(piece, fitted, len(fitted))
        return fitted

    @property
    def max_piece_tokens(self) -> int:
        """What no fitted piece exceeds: the room that a prompt must have for one."""
        return self.chunk_tokens * 3 // 2

    def text(self, piece: Piece) -> str:
        """A piece's own words."""
        return self.store.text(piece.ref, piece.start_byte, piece.end_byte)

    def quotable(self, piece: Piece) -> Piece:
        """A piece with the units at its ends whole, so that no border cuts what is quoted.

        A unit across a border is quoted for both pieces: the model may have found the one or the
        other. Depends on what is around the piece's two ends only.
        """
        start, _ = self._across(piece.ref, piece.start_byte)
        _, end = self._across(piece.ref, piece.end_byte)
        return Piece(piece.ref, start, end)

    def document(self, piece: Piece) -> Document:
        """A piece as the document of a prompt. Encodes it, about a second per MB, once."""
        document = self._documents.get(piece)
        if document is None:
            document = QuestionLikelihood.document(self.layout, self.text(piece))
            self._documents.put(piece, document, len(document.ids))
            self._digests.put(piece, document.digest, 1)
        return document

    def digest(self, piece: Piece) -> str:
        """The digest of a piece's document, which is kept longer than the document."""
        return self._digests.get(piece) or self.document(piece).digest

    def documents(self, pieces: Sequence[Piece]) -> tuple[Document, ...]:
        """The documents of pieces; for a thread, so that the event loop need not encode them."""
        return tuple(self.document(piece) for piece in pieces)

    def bm25(
        self, refs: Sequence[Ref], questions: Sequence[str], watch: Watch | None = None
    ) -> list[list[float]]:
        """For each question the BM25 score of each piece, in the order of `pieces(refs)`.

        The first call for a text indexes it, 5 s per 100 MB; the indexes of the texts asked about
        lately are kept. Words count by how rare they are in all of `refs` together.

        Args:
            refs: The texts.
            questions: In words. Texts that are too long to stay indexed are indexed once for all
                of them.
            watch: Told of the bytes that are indexed; can stop it. A later question goes on there.
        """
        to_do = sum(ref.size_bytes for ref in refs)
        indexes: list[TextIndex] = []
        done = 0
        for ref in refs:
            indexes.append(self._index(ref, watch, done, to_do))
            done += ref.size_bytes
        return [lexical.scores(indexes, question) for question in questions]

    def _index(self, ref: Ref, watch: Watch | None, done: int, to_do: int) -> TextIndex:
        pieces = self._pieces_of(ref)
        with self._making_index:
            index = self._indexes.get(ref.digest)
            if index is None:  # an empty one is false
                index = TextIndex()
            self._indexes.put(ref.digest, index, index.size_bytes)
        try:
            while True:
                with index.lock:
                    position = len(index)
                    if position == len(pieces):
                        index.seal()
                        return index
                    index.add(self.text(pieces[position]))
                if watch is not None:
                    watch(done + pieces[position].end_byte, to_do)
        finally:
            self._indexes.put(ref.digest, index, index.size_bytes)

    def _across(self, ref: Ref, border: int) -> tuple[int, int]:
        begin, end = max(0, border - SEAM_BYTES), min(ref.size_bytes, border + SEAM_BYTES)
        # The characters that its ends cut are left out.
        before = self.store.slice(ref, begin, border).decode("utf-8", "ignore")
        around = before + self.store.slice(ref, border, end).decode("utf-8", "ignore")
        first, last = across(around, len(before))
        start = border - len(around[first : len(before)].encode())
        return start, border + len(around[len(before) : last].encode())

    def _pieces_of(self, ref: Ref) -> tuple[Piece, ...]:
        chunks = self._chunks.get(ref.digest)
        if chunks is None:
            content = self.store.get(ref.name, ref.version).content
            count = self.layout.tokenizer.count
            chunks = cut(content, target_bytes(content, self.chunk_tokens, count))
            self._chunks.put(ref.digest, chunks, len(chunks))
        return tuple(Piece(ref, chunk.start, chunk.end) for chunk in chunks)

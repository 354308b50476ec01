"""Stored texts as chunks that prompts can hold, kept from one question to the next.

Chunk bounds depend on the text alone, so that a further question finds the same chunks in the
prefix cache. Nothing of a text is tokenised before it is needed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlm_runtime.prompt import Document, Layout
from rlm_runtime.scaffold.likelihood import QuestionLikelihood
from rlm_runtime.store import Chunk, ContextStore, cut, fit, target_bytes
from rlm_runtime.types import Ref

if TYPE_CHECKING:
    import bm25s

_TERM = re.compile(r"[^\W_]+")
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")


@dataclass(frozen=True, slots=True)
class Piece:
    """A chunk of a stored text: bytes `start_byte <= b < end_byte`."""

    ref: Ref
    start_byte: int
    end_byte: int


class Corpus:
    """The texts of a session, cut into pieces.

    Args:
        store: Where the texts are.
        layout: Makes documents of pieces.
        chunk_tokens: Target size of a piece.
    """

    def __init__(self, store: ContextStore, layout: Layout, chunk_tokens: int) -> None:
        self.store = store
        self.layout = layout
        self.chunk_tokens = chunk_tokens
        self.read: set[str] = set()
        """Digests of the documents that were computed before, so probably cached."""
        self._chunks: dict[str, tuple[Chunk, ...]] = {}
        self._fitted: dict[Piece, tuple[Piece, ...]] = {}
        self._documents: dict[Piece, Document] = {}
        self._index: tuple[tuple[Ref, ...], bm25s.BM25 | None] | None = None

    def pieces(self, refs: Sequence[Ref]) -> tuple[Piece, ...]:
        """The pieces of texts, in order. The first call reads each text once."""
        return tuple(piece for ref in refs for piece in self._pieces_of(ref))

    def fitted(self, piece: Piece) -> tuple[Piece, ...]:
        """The piece itself; split, where it has far more tokens than the text has on average."""
        known = self._fitted.get(piece)
        if known is not None:
            return known
        content = self.store.get(piece.ref.name, piece.ref.version).content
        chunk = Chunk(piece.start_byte, piece.end_byte)
        parts = fit(content, chunk, self.max_piece_tokens, self.layout.tokenizer.count)
        fitted = tuple(Piece(piece.ref, part.start, part.end) for part in parts)
        self._fitted[piece] = fitted
        return fitted

    @property
    def max_piece_tokens(self) -> int:
        """What no fitted piece exceeds: the room that a prompt must have for one."""
        return self.chunk_tokens * 3 // 2

    def text(self, piece: Piece) -> str:
        """A piece's own words."""
        return self.store.text(piece.ref, piece.start_byte, piece.end_byte)

    def document(self, piece: Piece) -> Document:
        """A piece as the document of a prompt, encoded once."""
        document = self._documents.get(piece)
        if document is None:
            document = QuestionLikelihood.document(self.layout, self.text(piece))
            self._documents[piece] = document
        return document

    def bm25(self, refs: Sequence[Ref], question: str) -> list[float]:
        """BM25 score of each piece for a question, in the order of `pieces(refs)`.

        The index of the last texts asked for is kept: a session's questions are mostly about the
        same ones. Terms are lower-case words; each ideograph is one (Chinese and Japanese have no
        spaces).
        """
        key = tuple(refs)
        # Read once: questions about other texts may replace it meanwhile, in threads of their own.
        current = self._index
        if current is None or current[0] != key:
            current = self._index = (key, _index([_terms(self.text(p)) for p in self.pieces(refs)]))
        index = current[1]
        known = [] if index is None else [t for t in _terms(question) if t in index.vocab_dict]
        if index is None or not known:
            return [0.0] * len(self.pieces(refs))
        return [float(score) for score in index.get_scores(known)]

    def _pieces_of(self, ref: Ref) -> tuple[Piece, ...]:
        chunks = self._chunks.get(ref.digest)
        if chunks is None:
            content = self.store.get(ref.name, ref.version).content
            count = self.layout.tokenizer.count
            chunks = cut(content, target_bytes(content, self.chunk_tokens, count))
            self._chunks[ref.digest] = chunks
        return tuple(Piece(ref, chunk.start, chunk.end) for chunk in chunks)


def _index(texts: Sequence[Sequence[str]]) -> bm25s.BM25 | None:
    """`None` where there is not one word to index."""
    if not any(texts):
        return None
    # Late: bm25s brings numba, which must not be in the process before vLLM has booted.
    import bm25s

    index = bm25s.BM25()
    index.index(texts, show_progress=False)
    return index


def _terms(text: str) -> list[str]:
    terms: list[str] = []
    for word in _TERM.findall(text.lower()):
        if _CJK.search(word):
            terms.extend(word)
        else:
            terms.append(word)
    return terms

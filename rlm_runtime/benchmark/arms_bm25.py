"""The arm without a model: BM25 finds the chunks, and once more their sentences."""

from __future__ import annotations

from typing import NamedTuple

from rlm_runtime.benchmark.workloads.truth import ByteSpan
from rlm_runtime.scaffold.corpus import Corpus
from rlm_runtime.scaffold.units import units
from rlm_runtime.store import ContextStore
from rlm_runtime.types import Ref

CHUNKS = 3
"""As many as the search recipe takes sentences of."""


class Sentence(NamedTuple):
    """A quotation with its place."""

    text: str
    place: ByteSpan


def best_sentences(corpus: Corpus, ref: Ref, question: str) -> list[Sentence]:
    """The sentences of the best chunks, best first; none if no chunk has a word of the question.

    Each is scored with the heading that it stands under, and whole where a chunk's border cuts it,
    as the search recipe does; and against the others, so that words that all of them have count
    little. The first question about a text
    reads and indexes it.

    Args:
        corpus: The text in chunks.
        ref: The text.
        question: In words.
    """
    (scores,) = corpus.bm25([ref], [question])
    pieces = corpus.pieces([ref])
    best = sorted(range(len(pieces)), key=lambda i: (-scores[i], i))[:CHUNKS]
    # One across a border is found in both chunks, perhaps with its heading in the first only.
    shown: dict[Sentence, str] = {}
    for i in (i for i in best if scores[i] > 0):
        piece = corpus.quotable(pieces[i])
        text = corpus.text(piece)
        for unit in units(text):
            words = text[unit.start : unit.end]
            start = piece.start_byte + len(text[: unit.start].encode())
            sentence = Sentence(words, ByteSpan(start, start + len(words.encode())))
            heading = "" if unit.heading is None else f"{text[slice(*unit.heading)]}\n"
            if heading or sentence not in shown:
                shown[sentence] = f"{heading}{words}"
    found = list(shown)
    own = _scores(corpus, list(shown.values()), question)
    order = sorted(range(len(found)), key=lambda i: (-own[i], i))
    return [found[i] for i in order]


def _scores(corpus: Corpus, texts: list[str], question: str) -> list[float]:
    """BM25 of texts among themselves: each is a value of a store of its own, and one chunk."""
    if not texts:
        return []
    longest = max(len(text.encode()) for text in texts)
    store = ContextStore(len)
    refs = [store.put_text(f"text_{i}", text) for i, text in enumerate(texts)]
    (scores,) = Corpus(store, corpus.layout, chunk_tokens=2 * longest).bm25(refs, [question])
    return scores

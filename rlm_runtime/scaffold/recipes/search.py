"""`search`: find the sentence that answers a question, and quote it.

1. The texts are cut into chunks. Short enough together, all are ranked by the model; of longer
   texts BM25 picks the chunks to rank, and the answer says so.
2. Chunks are ranked by how likely they make the question, plus their BM25 score.
3. The sentences of the best chunks, each behind its heading, are scored the same way.
4. The likeliest sentence is the answer, verbatim, with its byte offsets. How much likelier it
   makes the question (`lift`, nats) decides between an answer, an uncertain one and "not found".

The answer is a quotation, so it can't be invented; measured against generated answers in
`docs/quality.md`. What a limit of the tree leaves undone is left out, and the result says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import anyio.to_thread

from rlm_runtime.config import SearchConfig
from rlm_runtime.errors import LimitExceeded
from rlm_runtime.prompt import Document
from rlm_runtime.scaffold.corpus import Corpus, Piece
from rlm_runtime.scaffold.likelihood import Asker, QuestionLikelihood
from rlm_runtime.scaffold.units import units
from rlm_runtime.tracing import Recorder, ValueRead
from rlm_runtime.types import Limits, Ref, StopReason

LEAD_BYTES = 2_000
"""How far in front of a chunk the heading of its first sentence is looked for."""

MAX_WAVE = 64
"""Chunks that are computed and then scored together, less where the KV cache is small."""

LIMITED_WAVE = 4
"""The same for a question with a limit."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A quotation.

    Attributes:
        variable: Name of the text it stands in.
        start_byte: Its first byte in that text.
        end_byte: Behind its last byte.
        text: The bytes, as text.
        heading: The line that says what it is about; empty without one.
        lift: How much likelier it makes the question than no text does, nats.
    """

    variable: str
    start_byte: int
    end_byte: int
    text: str
    heading: str
    lift: float


@dataclass(frozen=True, slots=True)
class RankedChunk:
    """A chunk that the model ranked.

    Attributes:
        piece: Its place.
        lift: How much likelier it makes the question than no text does, nats.
        bm25: Its BM25 score.
        score: What it was ranked by: `lift` plus the weighted `bm25`.
    """

    piece: Piece
    lift: float
    bm25: float
    score: float


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What `search` found.

    Attributes:
        passages: The sentences of the best chunks, likeliest first; the first one is the answer if
            one was found.
        chunks: The chunks that were ranked, best first.
        found: The best one's lift says that it answers the question.
        is_uncertain: Found, but the lift is one that wrong answers often reach too.
        pieces: Chunks of all texts.
        ranked: Of these, ranked by the model. Fewer than `pieces`: BM25 chose them, and a passage
            that shares no words with the question may have been missed.
        stop_reason: `FINAL`, or the limit that ended the search early.
    """

    passages: tuple[Passage, ...]
    chunks: tuple[RankedChunk, ...]
    found: bool
    is_uncertain: bool
    pieces: int
    ranked: int
    stop_reason: StopReason


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A sentence with its place and the document that asks about it."""

    piece: Piece
    start_byte: int
    end_byte: int
    text: str
    heading: str
    document: Document


class Search:
    """The recipe, for one session's texts.

    Args:
        corpus: The texts in chunks.
        config: Sizes and thresholds.
        recorder: Where reads are recorded.
        kv_tokens: Tokens the KV cache holds: chunks in work at once stay below half of it.
    """

    def __init__(
        self, corpus: Corpus, config: SearchConfig, recorder: Recorder, kv_tokens: int
    ) -> None:
        self._corpus = corpus
        self._config = config
        self._recorder = recorder
        self._wave = max(1, min(MAX_WAVE, kv_tokens // 2 // corpus.chunk_tokens))

    async def run(
        self, asker: Asker, refs: Sequence[Ref], question: str, *, exhaustive: bool = False
    ) -> SearchResult:
        """Answer one question about texts.

        Args:
            asker: The agent.
            refs: The texts.
            question: In words.
            exhaustive: Rank all chunks, however long the texts are.
        """
        likelihood = QuestionLikelihood(asker, question)

        def choose() -> tuple[list[float], int, list[tuple[Piece, int]]]:
            lexical = self._corpus.bm25(refs, question)
            pieces = self._corpus.pieces(refs)
            places = self._choose(lexical, exhaustive=exhaustive)
            parts = [(part, i) for i in places for part in self._corpus.fitted(pieces[i])]
            return lexical, len(pieces), parts

        # Reading and indexing a long text takes seconds of Python: not in the event loop.
        lexical, count, chosen = await anyio.to_thread.run_sync(choose, abandon_on_cancel=True)
        (base,) = await likelihood.scores([None], "score without text")
        if isinstance(base, LimitExceeded):
            return SearchResult((), (), False, False, count, 0, base.stop_reason)
        scores, stop = await self._rank(likelihood, asker, [part for part, _ in chosen])
        chunks = []
        for i, score in scores.items():
            part, position = chosen[i]
            bm25, lift = lexical[position], score - base
            total = lift + self._config.bm25_weight * bm25
            chunks.append(RankedChunk(part, lift, bm25, total))
        chunks.sort(key=lambda chunk: -chunk.score)
        best = [chunk.piece for chunk in chunks[: self._config.passages]]
        passages, stop_sentences = await self._quote(likelihood, asker, best, base)
        found = bool(passages) and passages[0].lift > self._config.not_found_below_z
        return SearchResult(
            passages=passages,
            chunks=tuple(chunks),
            found=found,
            is_uncertain=found and passages[0].lift <= self._config.certain_above_z,
            pieces=count,
            ranked=len({chosen[i][1] for i in scores}),
            stop_reason=stop or stop_sentences or StopReason.FINAL,
        )

    def _choose(self, lexical: Sequence[float], *, exhaustive: bool) -> list[int]:
        """Positions of the chunks to rank, in the order of the text."""
        room = max(1, self._config.max_ranked_tokens // self._corpus.chunk_tokens)
        if exhaustive or len(lexical) <= room:
            return list(range(len(lexical)))
        return sorted(sorted(range(len(lexical)), key=lambda i: (-lexical[i], i))[:room])

    async def _rank(
        self, likelihood: QuestionLikelihood, asker: Asker, pieces: Sequence[Piece]
    ) -> tuple[dict[int, float], StopReason | None]:
        """Log-probability of the question behind each chunk, by position in `pieces`."""
        scores: dict[int, float] = {}
        stop: StopReason | None = None
        read = self._corpus.read
        known = sum(self._corpus.document(piece).digest in read for piece in pieces)
        asker.job.begin_stage("ranking chunks", 2 * len(pieces) - known)
        # Under a limit a read chunk is soon a ranked one: little is lost when the limit comes.
        is_limited = asker.job.limits != Limits()
        step = min(self._wave, LIMITED_WAVE) if is_limited else self._wave
        for start in range(0, len(pieces), step):
            wave = pieces[start : start + step]
            documents = [self._corpus.document(piece) for piece in wave]
            new = [document for document in documents if document.digest not in read]
            await likelihood.read(new, "read chunk")
            for i, outcome in enumerate(await likelihood.scores(documents, "rank chunk")):
                if isinstance(outcome, LimitExceeded):
                    stop = outcome.stop_reason
                    continue
                scores[start + i] = outcome
                read.add(documents[i].digest)
                self._note_read(asker, wave[i], wave[i].start_byte, wave[i].end_byte, documents[i])
            if stop is not None:
                break
        return scores, stop

    async def _quote(
        self, likelihood: QuestionLikelihood, asker: Asker, pieces: Sequence[Piece], base: float
    ) -> tuple[tuple[Passage, ...], StopReason | None]:
        """The sentences of the chunks, likeliest first."""
        candidates = [c for piece in pieces for c in self._candidates(piece)]
        asker.job.begin_stage("scoring sentences", len(candidates))
        outcomes = await likelihood.scores([c.document for c in candidates], "score sentence")
        stop: StopReason | None = None
        passages: list[Passage] = []
        for candidate, outcome in zip(candidates, outcomes, strict=True):
            if isinstance(outcome, LimitExceeded):
                stop = outcome.stop_reason
                continue
            start, end = candidate.start_byte, candidate.end_byte
            self._note_read(asker, candidate.piece, start, end, candidate.document)
            name = candidate.piece.ref.name
            lift = outcome - base
            passages.append(Passage(name, start, end, candidate.text, candidate.heading, lift))
        passages.sort(key=lambda passage: -passage.lift)
        # Texts repeat themselves; a sentence is shown once.
        distinct: dict[tuple[str, str], Passage] = {}
        for passage in passages:
            distinct.setdefault((passage.heading, passage.text), passage)
        return tuple(distinct.values()), stop

    def _candidates(self, piece: Piece) -> Iterator[_Candidate]:
        store, ref = self._corpus.store, piece.ref
        lead_start = max(0, piece.start_byte - LEAD_BYTES)
        # A character cut by the lead's start is left out; nothing of the lead is quoted.
        lead = store.slice(ref, lead_start, piece.start_byte).decode("utf-8", "ignore")
        text = lead + self._corpus.text(piece)
        for unit in units(text):
            if unit.start < len(lead):
                continue
            start = piece.start_byte + len(text[len(lead) : unit.start].encode())
            words = text[unit.start : unit.end]
            heading = "" if unit.heading is None else text[slice(*unit.heading)]
            shown = f"{heading}\n{words}" if heading else words
            yield _Candidate(
                piece=piece,
                start_byte=start,
                end_byte=start + len(words.encode()),
                text=words,
                heading=heading,
                document=self._corpus.layout.document(shown, fill=False),
            )

    def _note_read(
        self, asker: Asker, piece: Piece, start: int, end: int, document: Document
    ) -> None:
        self._recorder.emit(
            ValueRead(
                at_s=self._recorder.now(),
                reader=asker.agent_id,
                name=piece.ref.name,
                version=piece.ref.version,
                start_byte=start,
                end_byte=end,
                tokens=len(document.ids),
            )
        )

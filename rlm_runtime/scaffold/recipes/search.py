"""`search`: find the sentence that answers a question, and quote it.

1. The texts are cut into chunks. Short enough together, all are ranked by the model; of longer
   texts BM25 picks the chunks to rank, and the answer says so.
2. Chunks are ranked by how likely they make the question, plus their BM25 score.
3. The sentences of the best chunks, each behind its heading, are scored the same way, chunk after
   chunk until one is certain.
4. The likeliest sentence is the answer, verbatim, with its byte offsets. How much likelier it
   makes the question (`lift`, nats) decides between an answer, an uncertain one and "not found".

A question that asks two things is searched as two, over the same chunks. The answer is a
quotation, so it can't be invented; measured against generated answers in `docs/quality.md`. What a
limit of the tree leaves undone is left out, and the result says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, zip_longest
from typing import NamedTuple

import anyio.to_thread

from rlm_runtime.config import SearchConfig
from rlm_runtime.errors import LimitExceeded
from rlm_runtime.prompt import Document
from rlm_runtime.scaffold.corpus import Corpus, Piece
from rlm_runtime.scaffold.likelihood import Asker, QuestionLikelihood, ScoreMemo
from rlm_runtime.scaffold.questions import question_parts
from rlm_runtime.scaffold.recipes.search_part import Part, words_of
from rlm_runtime.scaffold.recipes.search_result import (
    PartResult,
    Passage,
    RankedChunk,
    SearchResult,
)
from rlm_runtime.scaffold.thread_watch import ThreadWatch
from rlm_runtime.scaffold.units import units
from rlm_runtime.tracing import Recorder, ValueRead
from rlm_runtime.types import Ref, StopReason

LEAD_BYTES = 2_000
"""How far in front of a chunk the heading of its first sentence is looked for."""

MAX_WAVE = 64
"""Chunks that are computed and then scored together, less where the KV cache is small."""

LIMITED_WAVE = 4
"""The same for a question with a limit."""

FIRST_LOOK = 8
"""Of the chunks that BM25 picked, so many are ranked first: mostly they hold the answer, and the
rest need not be read when it is a certain one."""


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A sentence with its place and the document that asks about it."""

    piece: Piece
    start_byte: int
    end_byte: int
    text: str
    heading: str
    document: Document


class _Place(NamedTuple):
    """A piece that will be ranked.

    Attributes:
        piece: A chunk, or a part of one that is too long for a prompt.
        position: Of the chunk among those of the texts.
        digest: Of the piece's document, which is made when its turn comes.
    """

    piece: Piece
    position: int
    digest: str


@dataclass(frozen=True, slots=True)
class _Choice:
    """Which chunks will be ranked.

    Attributes:
        lexical: Of each part of the question, the BM25 score of each chunk of the texts.
        rounds: The pieces to rank, in the order of the texts. A round is left out when the one
            before it found certain answers.
    """

    lexical: list[list[float]]
    rounds: list[list[_Place]]


class Search:
    """The recipe, for one session's texts.

    Args:
        corpus: The texts in chunks.
        config: Sizes and thresholds.
        recorder: Where reads are recorded.
        kv_tokens: Tokens the KV cache holds: chunks in work at once stay below half of it.
        memo: Scores of the session's earlier questions; `None` computes all.
    """

    def __init__(
        self,
        corpus: Corpus,
        config: SearchConfig,
        recorder: Recorder,
        kv_tokens: int,
        memo: ScoreMemo | None = None,
    ) -> None:
        self._corpus = corpus
        self._config = config
        self._recorder = recorder
        self._memo = memo
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
        questions = question_parts(question)
        echoes = frozenset(map(words_of, (question, *questions))) - {()}
        parts = [
            Part(
                name=text if len(questions) > 1 else "",
                likelihood=QuestionLikelihood(asker, text, self._memo),
                config=self._config,
                echoes=echoes,
            )
            for text in questions
        ]

        # Reading and indexing a long text takes seconds of Python: not in the event loop.
        pieces = await anyio.to_thread.run_sync(self._corpus.pieces, refs, abandon_on_cancel=True)
        with ThreadWatch(asker.job) as watch:
            choose = partial(self._choose, refs, pieces, questions, watch, exhaustive=exhaustive)
            try:
                choice = await anyio.to_thread.run_sync(choose, abandon_on_cancel=True)
            except LimitExceeded as err:
                return self._result(parts, len(pieces), 0, err.stop_reason)
        for part, lexical in zip(parts, choice.lexical, strict=True):
            part.lexical = lexical
        ranked: set[int] = set()
        stop = await self._score_without_text(parts)
        for places in choice.rounds:
            if stop is not None or all(part.is_certain for part in parts):
                break
            stop = await self._rank(parts, asker, places, ranked)
            for part in parts:
                stop = await self._quote(part, asker) or stop
        return self._result(parts, len(pieces), len(ranked), stop)

    def _choose(
        self,
        refs: Sequence[Ref],
        pieces: Sequence[Piece],
        questions: Sequence[str],
        watch: ThreadWatch,
        *,
        exhaustive: bool,
    ) -> _Choice:
        lexical = self._corpus.bm25(refs, questions, watch.indexing)
        room = max(1, self._config.max_ranked_tokens // self._corpus.chunk_tokens)
        if exhaustive or len(pieces) <= room:
            rounds = [list(range(len(pieces)))]
        else:
            # The best of each part in turn.
            orders = [sorted(range(len(pieces)), key=lambda i: (-s[i], i)) for s in lexical]
            picked = list(dict.fromkeys(chain.from_iterable(zip(*orders, strict=True))))[:room]
            rounds = [sorted(picked[:FIRST_LOOK]), sorted(picked[FIRST_LOOK:])]
        to_do = sum(pieces[i].end_byte - pieces[i].start_byte for places in rounds for i in places)
        done = 0
        chosen: list[list[_Place]] = []
        for places in rounds:
            chosen.append([])
            for i in places:
                for part in self._corpus.fitted(pieces[i]):
                    chosen[-1].append(_Place(part, i, self._corpus.digest(part)))
                done += pieces[i].end_byte - pieces[i].start_byte
                watch.encoding(done, to_do)
        return _Choice(lexical, chosen)

    async def _score_without_text(self, parts: Sequence[Part]) -> StopReason | None:
        for part in parts:
            (base,) = await part.likelihood.scores([None], "score without text")
            if isinstance(base, LimitExceeded):
                return base.stop_reason
            part.base = base
        return None

    async def _rank(
        self,
        parts: Sequence[Part],
        asker: Asker,
        places: Sequence[_Place],
        ranked: set[int],
    ) -> StopReason | None:
        """Score the question behind each piece; `ranked` gets the positions of their chunks."""
        read = self._corpus.read
        # Chunks that are in the cache cost little now, and more once others have taken their room.
        ordered = sorted(places, key=lambda place: place.digest not in read)
        unknown = [
            place.digest
            for place in places
            for part in parts
            if part.likelihood.known(place.digest) is None
        ]
        new = set(unknown) - set(read)
        asker.job.begin_stage("ranking chunks", len(unknown) + len(new))
        # Under a limit a read chunk is soon a ranked one: little is lost when the limit comes.
        is_limited = asker.job.limits.has_budget
        stop: StopReason | None = None
        step = min(self._wave, LIMITED_WAVE) if is_limited else self._wave
        for start in range(0, len(ordered), step):
            wave = ordered[start : start + step]
            # Of texts longer than what is kept of them, these are encoded anew: in a thread, and
            # not all of them at once.
            pieces = [place.piece for place in wave]
            documents = await anyio.to_thread.run_sync(self._corpus.documents, pieces)
            unread = [document for document in documents if document.digest in new]
            await parts[0].likelihood.read(unread, "read chunk")
            for part in parts:
                stop = await self._rank_wave(part, asker, wave, documents, ranked) or stop
            if stop is not None:
                break
        return stop

    async def _rank_wave(
        self,
        part: Part,
        asker: Asker,
        wave: Sequence[_Place],
        documents: Sequence[Document],
        ranked: set[int],
    ) -> StopReason | None:
        stop: StopReason | None = None
        remembered = [part.likelihood.known(place.digest) is not None for place in wave]
        outcomes = await part.likelihood.scores(documents, "rank chunk")
        for place, document, is_old, outcome in zip(
            wave, documents, remembered, outcomes, strict=True
        ):
            if isinstance(outcome, LimitExceeded):
                stop = outcome.stop_reason
                continue
            piece = place.piece
            ranked.add(place.position)
            part.chunks[piece] = self._ranked_chunk(part, piece, place.position, outcome)
            if not is_old:
                self._corpus.read.add(document.digest, len(document.ids))
                self._note_read(asker, piece, piece.start_byte, piece.end_byte, document)
        return stop

    def _ranked_chunk(self, part: Part, piece: Piece, position: int, score: float) -> RankedChunk:
        bm25, lift = part.lexical[position], score - part.base
        return RankedChunk(piece, lift, bm25, lift + self._config.bm25_weight * bm25)

    async def _quote(self, part: Part, asker: Asker) -> StopReason | None:
        """Score the sentences of the best chunks that have not been, until one is certain."""
        best = sorted(part.chunks.values(), key=lambda chunk: -chunk.score)
        pieces = [c.piece for c in best[: self._config.passages] if c.piece not in part.quoted]
        candidates = [list(self._candidates(piece)) for piece in pieces]
        asker.job.begin_stage("scoring sentences", sum(map(len, candidates)))
        stop: StopReason | None = None
        for piece, sentences in zip(pieces, candidates, strict=True):
            if stop is not None or part.is_certain:
                break
            part.quoted.add(piece)
            documents = [sentence.document for sentence in sentences]
            remembered = [part.likelihood.known(d.digest) is not None for d in documents]
            outcomes = await part.likelihood.scores(documents, "score sentence")
            for sentence, is_old, outcome in zip(sentences, remembered, outcomes, strict=True):
                if isinstance(outcome, LimitExceeded):
                    stop = outcome.stop_reason
                    continue
                part.keep(_passage(part, sentence, outcome - part.base))
                if not is_old:
                    start, end = sentence.start_byte, sentence.end_byte
                    self._note_read(asker, sentence.piece, start, end, sentence.document)
        return stop

    def _result(
        self, parts: Sequence[Part], pieces: int, ranked: int, stop: StopReason | None
    ) -> SearchResult:
        listed = [part.passages for part in parts]
        answers = tuple(
            passages[0]
            for passages in listed
            if passages and passages[0].lift > self._config.not_found_below_z
        )
        in_turn = chain.from_iterable(zip_longest(*listed))
        chunks: dict[Piece, RankedChunk] = {}
        for chunk in chain.from_iterable(part.chunks.values() for part in parts):
            known = chunks.get(chunk.piece)
            if known is None or chunk.score > known.score:
                chunks[chunk.piece] = chunk
        return SearchResult(
            answers=answers,
            parts=tuple(PartResult(part.name, part.outcome(stop)) for part in parts),
            passages=tuple(passage for passage in in_turn if passage is not None),
            chunks=tuple(sorted(chunks.values(), key=lambda chunk: -chunk.score)),
            is_uncertain=bool(answers) and not all(part.is_certain for part in parts),
            pieces=pieces,
            ranked=ranked,
            stop_reason=stop or StopReason.FINAL,
        )

    def _candidates(self, piece: Piece) -> Iterator[_Candidate]:
        own = self._corpus.quotable(piece)
        lead_start = max(0, own.start_byte - LEAD_BYTES)
        # A character cut by the lead's start is left out; nothing of the lead is quoted.
        lead = self._corpus.store.slice(own.ref, lead_start, own.start_byte).decode(
            "utf-8", "ignore"
        )
        text = lead + self._corpus.text(own)
        for unit in units(text, len(lead)):
            start = own.start_byte + len(text[len(lead) : unit.start].encode())
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


def _passage(part: Part, sentence: _Candidate, lift: float) -> Passage:
    return Passage(
        variable=sentence.piece.ref.name,
        start_byte=sentence.start_byte,
        end_byte=sentence.end_byte,
        text=sentence.text,
        heading=sentence.heading,
        lift=lift,
        part=part.name,
    )

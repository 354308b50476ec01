"""Ways to answer a question over a text, beside each other on one engine.

An arm changes one thing: `direct` reads what fits the window and generates; `bm25` has no model;
`ranking` is the search recipe by likelihood alone; `both` is the recipe as `rlm run` does it. Each
has its own memory of what was read, and calls are shared (`arms_calls.py`), so an arm's tokens do
not depend on the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

import anyio.to_thread

from rlm_runtime.api import Internals
from rlm_runtime.benchmark.arms_bm25 import best_sentences
from rlm_runtime.benchmark.arms_calls import ArmCalls, Spent
from rlm_runtime.benchmark.arms_direct import Direct
from rlm_runtime.benchmark.bench import Bench, bench
from rlm_runtime.benchmark.workloads.truth import ByteSpan
from rlm_runtime.config import SearchConfig
from rlm_runtime.errors import InputError
from rlm_runtime.scaffold.corpus import Corpus
from rlm_runtime.scaffold.likelihood import Asker
from rlm_runtime.scaffold.questions import question_parts
from rlm_runtime.scaffold.recipes.search import Search
from rlm_runtime.scaffold.recipes.search_result import Passage, RankedChunk
from rlm_runtime.types import Ref, Usage

MAX_RANKING_TOKENS = 1 << 16
"""Longer texts have no arm that ranks every chunk: it reads all of them first."""


Store = Callable[[str, str], Ref]
"""Stores a text under a name."""


class Arm(StrEnum):
    """A way to answer."""

    BOTH = "both"
    """The search recipe: likelihood and BM25. The default, which the others are compared with."""
    RANKING = "ranking"
    """The same without BM25: every chunk is ranked, by likelihood alone."""
    BM25 = "bm25"
    """The best sentence of the best three chunks by BM25; no model."""
    DIRECT = "direct"
    """The text cut to the window, and one generated answer."""


DEFAULT = Arm.BOTH


@dataclass(frozen=True, slots=True)
class ArmAnswer:
    """What an arm made of a question.

    Attributes:
        answer: Its words, quoted or generated; may be empty.
        quoted: Places of its quotations, best first; a list for each part of the question, none
            where nothing is quoted.
        found: It says that it found something.
        is_uncertain: And is not sure.
        lift: Of the best sentence, nats; `None` where nothing is scored.
        chunks: Those that the model ranked, best first.
        pieces: Chunks of the text; 0 where it is not cut.
        usage: What the answer would have cost alone.
        wall_s: Its time; `None` when calls of another arm answered some of its own.
    """

    answer: str
    quoted: tuple[tuple[ByteSpan, ...], ...]
    found: bool
    is_uncertain: bool = False
    lift: float | None = None
    chunks: tuple[RankedChunk, ...] = ()
    pieces: int = 0
    usage: Usage = field(default_factory=Usage)
    wall_s: float | None = None


def parse_arms(text: str) -> tuple[Arm, ...]:
    """Arms by their names, in their fixed order.

    Args:
        text: Names with commas between them.

    Raises:
        InputError: One is unknown, or there is none.
    """
    names = {name.strip().lower() for name in text.split(",") if name.strip()}
    unknown = names - set(Arm)
    if unknown or not names:
        raise InputError(
            f"{text!r} are no arms.", f"Name some of {', '.join(Arm)}, with commas between them."
        )
    return tuple(arm for arm in Arm if arm in names)


def rotated(arms: Sequence[Arm], turn: int) -> tuple[Arm, ...]:
    """The arms beginning with another one each turn, so that none is always first."""
    first = turn % len(arms)
    return (*arms[first:], *arms[:first])


class Arms:
    """All arms over one text of a session.

    Args:
        parts: A started session's; nothing else is asked of it meanwhile.
        config: The recipe's.
        calls: The way to the engine that all texts share.
        ref: The text.
        exhaustive: Arms that rank do so with every chunk, however long the text is.
    """

    def __init__(
        self,
        parts: Internals,
        config: SearchConfig,
        calls: ArmCalls,
        ref: Ref,
        *,
        exhaustive: bool,
    ) -> None:
        self._parts = parts
        self._config = config
        self._calls = calls
        self._ref = ref
        self._exhaustive = exhaustive
        self._direct = Direct(parts, ref)
        self._corpora = {arm: _corpus(parts, config.chunk_tokens) for arm in Arm}

    @property
    def shown_bytes(self) -> int:
        """How much of the text `direct` sees."""
        return self._direct.shown_bytes

    async def ask(self, arm: Arm, question: str) -> ArmAnswer:
        """Answer one question.

        Raises:
            EngineDead: The engine's process ended.
        """
        recorder = self._parts.recorder
        with bench(self._parts, f"quality-{arm}", seed=0) as measurement:
            began_s = recorder.now()
            match arm:
                case Arm.DIRECT:
                    answer = await self._by_direct(measurement, question)
                case Arm.BM25:
                    answer = await self._by_bm25(question)
                case Arm.RANKING | Arm.BOTH:
                    answer = await self._by_search(arm, measurement, question)
            wall_s = recorder.now() - began_s
        spent = self._calls.spent.pop(measurement.agent_id, Spent())
        return replace(answer, usage=spent.usage, wall_s=None if spent.replayed else wall_s)

    async def _by_direct(self, measurement: Bench, question: str) -> ArmAnswer:
        call = self._direct.call(measurement.agent_id, question)
        result = await self._calls.run(measurement.job, call)
        answer = self._direct.answer(result.ids)
        return ArmAnswer(answer.text, (), found=answer.found)

    async def _by_bm25(self, question: str) -> ArmAnswer:
        corpus = self._corpora[Arm.BM25]
        questions = question_parts(question)
        quoted = await anyio.to_thread.run_sync(
            lambda: [best_sentences(corpus, self._ref, part) for part in questions],
            abandon_on_cancel=True,
        )
        firsts = [sentences[0].text for sentences in quoted if sentences]
        return ArmAnswer(
            "\n".join(firsts),
            tuple(tuple(sentence.place for sentence in sentences) for sentences in quoted),
            found=bool(firsts),
            pieces=len(corpus.pieces([self._ref])),
        )

    async def _by_search(self, arm: Arm, measurement: Bench, question: str) -> ArmAnswer:
        parts, config = self._parts, self._config
        if arm is Arm.RANKING:
            config = config.model_copy(update={"bm25_weight": 0.0})
        search = Search(self._corpora[arm], config, parts.recorder, parts.engine.info.kv_tokens)
        asker = Asker(self._calls, parts.layout, measurement.job, measurement.agent_id)
        is_exhaustive = self._exhaustive or arm is Arm.RANKING
        found = await search.run(asker, [self._ref], question, exhaustive=is_exhaustive)
        by_part: dict[str, list[ByteSpan]] = {}
        for passage in found.passages:
            by_part.setdefault(passage.part, []).append(_place(passage))
        return ArmAnswer(
            found.answer or "",
            tuple(tuple(places) for places in by_part.values()),
            found=found.found,
            is_uncertain=found.is_uncertain,
            lift=found.passages[0].lift if found.passages else None,
            chunks=found.chunks,
            pieces=found.pieces,
        )


def _corpus(parts: Internals, chunk_tokens: int) -> Corpus:
    """What an arm knows of the text, and has read of it."""
    corpus = Corpus(parts.corpus.store, parts.layout, chunk_tokens)
    corpus.read.bound(parts.engine.info.kv_tokens - len(parts.layout.shared_ids))
    return corpus


def _place(passage: Passage) -> ByteSpan:
    return ByteSpan(passage.start_byte, passage.end_byte)

"""How likely a question becomes after a text: what a small model can judge reliably.

    score(text) = log P(question | S, text, TAIL)        lift z = score(text) - score(no text)

The text that makes the question likeliest is the one that answers it. Asked in words ("does this
text answer ...?") the default model is near chance; so measured, it finds the passage
(`docs/quality.md`). Only tokens of the question are scored, never generated, so no text can talk
the model into anything.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from rlm_runtime.engine.base import Span
from rlm_runtime.errors import EngineError, LimitExceeded
from rlm_runtime.prompt import Document, Layout, Prompt
from rlm_runtime.scheduler import Call, CallResult, Job, Scheduler
from rlm_runtime.types import AgentId

TAIL = "\n\nWrite a question that the text above answers."
"""The task behind the text. Its wording matters little (11 were measured); its place does: data
first, so that the next question finds the text in the cache."""


@dataclass(frozen=True, slots=True)
class Asker:
    """One agent's way to the model: its tree, its name, its depth."""

    scheduler: Scheduler
    layout: Layout
    job: Job
    agent_id: AgentId
    depth: int = 0


class ScoreMemo:
    """Scores of a session, so that a question asked again costs nothing.

    More than a saving: a prompt that is sent again is cached beyond the question's first token,
    and the engine would have to compute it whole to have its log-probabilities (`Span`). Bounded:
    the scores used longest ago are forgotten.
    """

    def __init__(self, max_scores: int = 65_536) -> None:
        self._max_scores = max_scores
        self._scores: OrderedDict[tuple[str | None, tuple[int, ...]], float] = OrderedDict()

    def get(self, digest: str | None, question_ids: tuple[int, ...]) -> float | None:
        """The score of this question behind this document, if it is known."""
        key = (digest, question_ids)
        score = self._scores.get(key)
        if score is not None:
            self._scores.move_to_end(key)
        return score

    def put(self, digest: str | None, question_ids: tuple[int, ...], score: float) -> None:
        """Keep a score; of no document, the digest is `None`."""
        key = (digest, question_ids)
        self._scores[key] = score
        self._scores.move_to_end(key)
        if len(self._scores) > self._max_scores:
            self._scores.popitem(last=False)


class QuestionLikelihood:
    """Scores texts for one question.

    Documents made by `document` are filled so that everything in front of the question ends one
    token behind a block border. A second question about a text then computes one token and itself,
    and its own first words can't come from the cache, where their log-probabilities would be lost.

    Args:
        asker: Who asks.
        question: Its text.
        memo: Where scores are kept and looked up; `None` computes all.
    """

    def __init__(self, asker: Asker, question: str, memo: ScoreMemo | None = None) -> None:
        self._asker = asker
        self._memo = memo
        self._question_ids = asker.layout.tokenizer.encode(question)

    @staticmethod
    def document(layout: Layout, text: str) -> Document:
        """`text` as the document of a prompt that is asked about more than once."""
        return layout.document(text, followed_by=len(layout.tail(TAIL)) - 1)

    @property
    def cost_tokens(self) -> int:
        """Prompt tokens one text costs when its document is in the cache."""
        return len(self._question_ids) + 1

    async def scores(
        self, documents: Sequence[Document | None], label: str
    ) -> list[float | LimitExceeded]:
        """Log-probability of the question behind each text; `None` is no text.

        Returns:
            Sums over the question's tokens, in nats, or the limit that refused the call.
        """
        scores: list[float | LimitExceeded | None] = [self.known(_digest(d)) for d in documents]
        missing = [i for i, score in enumerate(scores) if score is None]
        calls = [self.score_call(documents[i], label) for i in missing]
        outcomes = await self._asker.scheduler.run_all(self._asker.job, calls)
        for i, outcome in zip(missing, outcomes, strict=True):
            scores[i] = outcome if isinstance(outcome, LimitExceeded) else _total(outcome)
            if self._memo is not None and isinstance(score := scores[i], float):
                self._memo.put(_digest(documents[i]), self._question_ids, score)
        return [score for score in scores if score is not None]

    def known(self, digest: str | None) -> float | None:
        """The score behind a document that is remembered from an earlier question, if one is."""
        return None if self._memo is None else self._memo.get(digest, self._question_ids)

    async def read(self, documents: Sequence[Document], label: str) -> None:
        """Compute documents as plain requests, so that scoring takes them from the cache.

        Scoring alone would be right too, but makes log-probabilities for every position that it
        computes, which for long documents costs time and gigabytes of memory. A limit of the tree
        that refuses some is left for `scores` to meet.
        """
        calls = [self.read_call(document, label) for document in documents]
        await self._asker.scheduler.run_all(self._asker.job, calls)

    def score_call(self, document: Document | None, label: str) -> Call:
        """The call that scores the question behind a text."""
        layout = self._asker.layout
        scored = layout.scored(layout.prompt(task=TAIL, document=document), self._question_ids)
        return self._call(scored.prompt, document, label, Span(scored.start, scored.end))

    def read_call(self, document: Document, label: str) -> Call:
        """The call that computes a document, and scores nothing."""
        return self._call(self._asker.layout.prompt(task=TAIL, document=document), document, label)

    def _call(
        self, prompt: Prompt, document: Document | None, label: str, score: Span | None = None
    ) -> Call:
        return Call(
            prompt=prompt,
            agent_id=self._asker.agent_id,
            depth=self._asker.depth,
            label=label,
            group=_digest(document),
            score=score,
        )


def _digest(document: Document | None) -> str | None:
    return None if document is None else document.digest


def _total(result: CallResult) -> float:
    if result.logprobs is None:
        # Never 0, which would be certainty.
        raise EngineError("A scored request came back without scores.", "Report this.")
    return sum(result.logprobs)

"""What the `qa` workload measured: ranks of the right passage, kind by kind."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from rlm_runtime.benchmark.results import Table
from rlm_runtime.profiler import Figures

CUTS = (1, 3, 5, 10)
UNANSWERABLE = ("unanswerable_field", "unanswerable_off_topic")
LIFTS = (4.0, 6.0, 8.0, 10.0, 12.0, 16.0, 20.0, 25.0)
"""Thresholds that are shown for choosing `search.not_found_below_z` and `certain_above_z`."""


class CaseResult(msgspec.Struct, frozen=True):
    """One question.

    Attributes:
        id: The case's.
        kind: The case's.
        chunk_rank_bm25: Place of the right chunk (the later one of two) by BM25, from 1.
        chunk_rank_ranking: The same by likelihood.
        chunk_rank_both: The same by both, the recipe's order.
        sentence_rank: Place of the right sentence among those of the best chunks.
        is_right: The quoted sentence holds the expected string.
        found: The recipe says that it found something.
        is_uncertain: And is not sure.
        lift: Of the best sentence, nats.
        computed_tokens: Prompt tokens that the engine computed for the question.
        wall_s: Its time.
        answer: The sentence.
    """

    id: str
    kind: str
    chunk_rank_bm25: int | None
    chunk_rank_ranking: int | None
    chunk_rank_both: int | None
    sentence_rank: int | None
    is_right: bool
    found: bool
    is_uncertain: bool
    lift: float | None
    computed_tokens: int
    wall_s: float
    answer: str


class QaResult(msgspec.Struct, frozen=True):
    """All questions of a half.

    Attributes:
        workload: Name and version of the question set.
        half: `tune` or `test`.
        seed: Of the planted sentences' places.
        text_digest: Of the text, which differs between Python versions.
        text_tokens: Its length.
        dropped: Cases whose truth does not stand in this text.
        planned: How many were to be asked.
        cases: In the order in which they were asked.
    """

    workload: str
    half: str
    seed: int
    text_digest: str
    text_tokens: int
    dropped: tuple[str, ...]
    planned: int
    cases: tuple[CaseResult, ...]

    @property
    def name(self) -> str:
        """The measurement's name."""
        return "qa"

    def figures(self) -> Figures:
        """`accuracy` is of the questions that share words with the text."""
        figures: dict[str, float | int | None] = {"cases": len(self.cases)}
        for kind in self._kinds():
            cases = self._of(kind)
            if kind in UNANSWERABLE:
                figures[f"not_found_rate_{kind}"] = _share(cases, lambda c: not c.found)
                continue
            figures[f"accuracy_{kind}"] = _share(cases, lambda c: c.is_right)
            figures[f"passage_accuracy_{kind}"] = _share(cases, lambda c: c.sentence_rank == 1)
        figures["accuracy"] = figures.get("accuracy_shared")
        figures["passage_accuracy"] = figures.get("passage_accuracy_shared")
        unanswerable = [c for c in self.cases if c.kind in UNANSWERABLE]
        figures["not_found_rate"] = _share(unanswerable, lambda c: not c.found)
        return figures

    def detail(self) -> dict[str, object]:
        """Every case."""
        return msgspec.to_builtins(self)  # type: ignore[no-any-return] # a dict, by its type

    def tables(self) -> tuple[Table, ...]:
        """Chunks found, sentences found, and what each threshold would do."""
        return self._chunks(), self._sentences(), self._thresholds()

    def notes(self) -> tuple[str, ...]:
        """The text and what was left out."""
        text = f"Text: {self.text_tokens:,} tokens, digest {self.text_digest[:12]}."
        notes = [text]
        if len(self.cases) < self.planned:
            notes.append(f"Ended early: {len(self.cases)} of {self.planned} questions were asked.")
        if self.dropped:
            left_out = f"{len(self.dropped)} cases do not hold for this Python's text: "
            notes.append(left_out + ", ".join(self.dropped) + ".")
        return tuple(notes)

    def _chunks(self) -> Table:
        answerable = [c for c in self.cases if c.kind not in UNANSWERABLE]
        arms = (
            ("BM25", [c.chunk_rank_bm25 for c in answerable]),
            ("likelihood", [c.chunk_rank_ranking for c in answerable]),
            ("both", [c.chunk_rank_both for c in answerable]),
        )
        rows = [(arm, *(str(_within(ranks, cut)) for cut in CUTS)) for arm, ranks in arms]
        title = f"The right chunk among the first (of {len(answerable)})"
        return Table(title, ("ranked by", *map(str, CUTS)), tuple(rows))

    def _sentences(self) -> Table:
        rows = []
        for kind in self._kinds():
            cases = self._of(kind)
            ranks = [c.sentence_rank for c in cases]
            is_open = kind in UNANSWERABLE
            rows.append(
                (
                    kind,
                    str(len(cases)),
                    "-" if is_open else str(_within([c.chunk_rank_both for c in cases], 3)),
                    "-" if is_open else str(_within(ranks, 3)),
                    "-" if is_open else str(_within(ranks, 1)),
                    "-" if is_open else str(sum(c.is_right for c in cases)),
                    str(sum(c.found and not c.is_uncertain for c in cases)),
                    str(sum(c.is_uncertain for c in cases)),
                    str(sum(not c.found for c in cases)),
                )
            )
        header = (
            "kind",
            "cases",
            "chunk in 3",
            "sentence in 3",
            "sentence first",
            "right",
            "answered",
            "uncertain",
            "not found",
        )
        return Table("The whole way", header, tuple(rows))

    def _thresholds(self) -> Table:
        rows = []
        for kind in self._kinds():
            lifts = [c.lift for c in self._of(kind) if c.lift is not None]
            rows.append((kind, *(str(sum(lift > at for lift in lifts)) for at in LIFTS)))
        header = ("lift above", *(f"{at:g}" for at in LIFTS))
        return Table("Best sentence's lift, nats", header, tuple(rows))

    def _kinds(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(c.kind for c in self.cases))

    def _of(self, kind: str) -> list[CaseResult]:
        return [c for c in self.cases if c.kind == kind]


def _within(ranks: Sequence[int | None], cut: int) -> int:
    return sum(rank is not None and rank <= cut for rank in ranks)


def _share(cases: Sequence[CaseResult], holds: Callable[[CaseResult], bool]) -> float | None:
    return sum(map(holds, cases)) / len(cases) if cases else None

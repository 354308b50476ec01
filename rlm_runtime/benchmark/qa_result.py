"""What the `qa` workload measured: ranks of the right passage, kind by kind, arm by arm."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from rlm_runtime.benchmark.arms import Arm
from rlm_runtime.benchmark.arms_result import ArmCase, ArmRows
from rlm_runtime.benchmark.results import Table
from rlm_runtime.profiler import Figures

CUTS = (1, 3, 5, 10)
UNANSWERABLE = ("unanswerable_field", "unanswerable_off_topic")
LIFTS = (4.0, 6.0, 8.0, 10.0, 12.0, 16.0, 20.0, 25.0)
"""Thresholds that are shown for choosing `search.not_found_below_z` and `certain_above_z`."""


class QaCase(ArmCase, frozen=True, kw_only=True):
    """One question, answered by one arm.

    Attributes:
        chunk_rank_bm25: Of the arm `both`: place of the right chunk (the later one of two) by
            BM25, from 1.
        chunk_rank_ranking: The same by likelihood.
        chunk_rank_both: The same by both, the recipe's order.
    """

    chunk_rank_bm25: int | None
    chunk_rank_ranking: int | None
    chunk_rank_both: int | None


class QaResult(msgspec.Struct, frozen=True):
    """All questions of a half.

    Attributes:
        workload: Name and version of the question set.
        half: `tune` or `test`.
        seed: Of the planted sentences' places.
        arms: Ways in which each question was answered.
        text_digest: Of the text, which differs between Python versions.
        text_tokens: Its length.
        dropped: Cases whose truth does not stand in this text.
        planned: How many answers were to be had.
        cases: In the order in which they were had.
    """

    workload: str
    half: str
    seed: int
    arms: tuple[str, ...]
    text_digest: str
    text_tokens: int
    dropped: tuple[str, ...]
    planned: int
    cases: tuple[QaCase, ...]

    @property
    def name(self) -> str:
        """The measurement's name."""
        return "qa"

    @property
    def rows(self) -> ArmRows:
        """The cases, arm by arm."""
        return ArmRows(self.cases)

    def figures(self) -> Figures:
        """`accuracy` is of the default arm, and of the questions that share words with the text."""
        return self.rows.figures()

    def detail(self) -> dict[str, object]:
        """Every case."""
        return msgspec.to_builtins(self)  # type: ignore[no-any-return] # a dict, by its type

    def tables(self) -> tuple[Table, ...]:
        """Arms, chunks found, sentences found, and what each threshold would do."""
        rows = self.rows
        kinds = [(kind, self._of(kind)) for kind in rows.kinds if kind not in UNANSWERABLE]
        tables = [
            rows.right_table("Right answers", kinds),
            rows.differences_table(),
            rows.passages_table(),
            rows.certainty_table(),
            rows.costs_table(),
        ]
        if Arm.BOTH in rows.arms:
            tables += [self._chunks(), self._sentences(), self._thresholds()]
        return tuple(table for table in tables if table.rows)

    def notes(self) -> tuple[str, ...]:
        """The text, what was left out, and what the arms are."""
        notes = [
            f"Text: {self.text_tokens:,} tokens, digest {self.text_digest[:12]}. Arms that rank do "
            "so with every chunk.",
            "Tokens of an arm are those it would have cost alone; its time is that of questions "
            "whose calls no other arm had made before. The arm direct sees the beginning of the "
            "text, as much as fits the window.",
        ]
        if len(self.cases) < self.planned:
            notes.append(f"Ended early: {len(self.cases)} of {self.planned} answers were had.")
        if self.dropped:
            left_out = f"{len(self.dropped)} cases do not hold for this Python's text: "
            notes.append(left_out + ", ".join(self.dropped) + ".")
        return tuple(notes)

    def _chunks(self) -> Table:
        answerable = [case for case in self._both() if case.is_answerable]
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
        for kind in self.rows.kinds:
            cases = self._both(kind)
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
                    str(sum(c.is_certain for c in cases)),
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
        return Table(f"The whole way of {Arm.BOTH}", header, tuple(rows))

    def _thresholds(self) -> Table:
        rows = []
        for kind in self.rows.kinds:
            lifts = [c.lift for c in self._both(kind) if c.lift is not None]
            rows.append((kind, *(str(sum(lift > at for lift in lifts)) for at in LIFTS)))
        header = ("lift above", *(f"{at:g}" for at in LIFTS))
        return Table("Best sentence's lift, nats", header, tuple(rows))

    def _of(self, kind: str) -> list[QaCase]:
        return [case for case in self.cases if case.kind == kind]

    def _both(self, kind: str | None = None) -> list[QaCase]:
        return [c for c in self.cases if c.arm == Arm.BOTH and kind in (None, c.kind)]


def _within(ranks: Sequence[int | None], cut: int) -> int:
    return sum(rank is not None and rank <= cut for rank in ranks)

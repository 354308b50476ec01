"""What the `needle` workload found, by size, kind of question, arm and depth."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

import msgspec

from rlm_runtime.benchmark.arms import DEFAULT, MAX_RANKING_TOKENS, Arm
from rlm_runtime.benchmark.arms_result import ArmCase, ArmRows, told_share
from rlm_runtime.benchmark.results import Table
from rlm_runtime.benchmark.workloads.needle import Kind, size_label
from rlm_runtime.profiler import Figures

_FIFTHS = 5
_BY_DEPTH = (Kind.SHARED, Kind.PARAPHRASED)
"""Kinds that ask for one fact, so that its depth is theirs."""


class NeedleCase(ArmCase, frozen=True, kw_only=True):
    """One question, answered by one arm.

    Attributes:
        size: Of the text, as it was asked for: "16k".
        depth: Where the (first) fact stands, as a share of the text; `None` without one.
        needed_bytes: How much of the text has all that is asked for; `None` likewise.
    """

    size: str
    depth: float | None
    needed_bytes: int | None


class NeedleText(msgspec.Struct, frozen=True, kw_only=True):
    """A document.

    Attributes:
        size: As it was asked for.
        tokens: Its length, counted in pieces.
        digest: Of its bytes: text that ships with Python differs between versions.
        stored_s: Time to store it.
        depths: Where the facts stand, as shares of the text.
        shown_bytes: How much of it the arm `direct` sees; 0 where that was not asked.
    """

    size: str
    tokens: int
    digest: str
    stored_s: float
    depths: tuple[float, ...]
    shown_bytes: int = 0


class NeedleResult(msgspec.Struct, frozen=True, kw_only=True):
    """All questions over documents of all sizes.

    Attributes:
        workload: Name and version of the workload.
        seed: Of the documents.
        cases_per_kind: Questions of each kind and size.
        sizes: Of the documents.
        arms: Ways in which each question was answered.
        max_ranked_tokens: Longer texts are searched by words first, by the arm `both`.
        planned: How many answers were to be had.
        texts: The documents so far.
        cases: In the order in which they were answered.
    """

    workload: str
    seed: int
    cases_per_kind: int
    sizes: tuple[str, ...]
    arms: tuple[str, ...]
    max_ranked_tokens: int
    planned: int
    texts: tuple[NeedleText, ...]
    cases: tuple[NeedleCase, ...]

    @property
    def name(self) -> str:
        """The measurement's name."""
        return "needle"

    def figures(self) -> Figures:
        """All sizes together, then each, with the size behind the name."""
        figures = dict(ArmRows(self.cases).figures())
        for text in self.texts:
            rows = ArmRows(self._of(text.size))
            own = {name: value for name, value in rows.figures().items() if name != "cases"}
            figures |= {_of_size(name, text.size): value for name, value in own.items()}
            figures |= self._times(text)
        return figures

    def detail(self) -> dict[str, object]:
        """Every case."""
        return msgspec.to_builtins(self)  # type: ignore[no-any-return] # a dict, by its type

    def tables(self) -> tuple[Table, ...]:
        """Right answers by size and kind, by depth, how sure, and what it cost."""
        rows = ArmRows(self.cases)
        groups = [
            (f"{text.size} {kind}", [case for case in self._of(text.size) if case.kind == kind])
            for text in self.texts
            for kind in Kind
        ]
        answerable = [(n, cases) for n, cases in groups if cases and cases[0].is_answerable]
        tables = [
            rows.right_table("Right answers", answerable),
            rows.differences_table(),
            rows.right_table(f"Right answers by depth ({', '.join(_BY_DEPTH)})", self._by_depth()),
            rows.passages_table(),
            rows.certainty_table(),
        ]
        for text in self.texts:
            costs = ArmRows(self._of(text.size)).costs_table()
            tables.append(costs._replace(title=f"{costs.title}, {text.size}"))
        return tuple(table for table in tables if table.rows)

    def notes(self) -> tuple[str, ...]:
        """The texts, which arms saw how much of them, and what was left out."""
        texts = ", ".join(
            f"{text.size} {text.tokens:,} ({text.digest[:12]})" for text in self.texts
        )
        notes = [
            f"{self.workload}, seed {self.seed}; tokens of the texts, with their digests: {texts}.",
            "Tokens of an arm are those it would have cost alone; its time is that of questions "
            "whose calls no other arm had made before.",
        ]
        filtered = [t.size for t in self.texts if t.tokens > self.max_ranked_tokens]
        if filtered and DEFAULT in self.arms:
            notes.append(
                f"Of {' and '.join(filtered)} the arm {DEFAULT} ranked chunks of at most "
                f"{self.max_ranked_tokens:,} tokens together, which BM25 chose: what is asked in "
                "other words may have been left out."
            )
        if Arm.RANKING in self.arms:
            notes.append(
                f"The arm {Arm.RANKING} reads everything, and has texts of at most "
                f"{size_label(MAX_RANKING_TOKENS)} tokens only."
            )
        notes += self._shown_notes()
        if len(self.cases) < self.planned:
            notes.append(f"Ended early: {len(self.cases)} of {self.planned} answers were had.")
        return tuple(notes)

    def _times(self, text: NeedleText) -> Figures:
        """The default arm's first question with all that a new text takes, and a further one."""
        own = [case for case in self._of(text.size) if case.arm == DEFAULT]
        first = own[0].wall_s if own else None
        others = [case.wall_s for case in own[1:] if case.wall_s is not None]
        size = text.size.lower()
        return {
            f"wall_s_{size}": None if first is None else text.stored_s + first,
            f"wall_s_per_question_{size}": fmean(others) if others else None,
        }

    def _by_depth(self) -> list[tuple[str, Sequence[NeedleCase]]]:
        groups: list[tuple[str, Sequence[NeedleCase]]] = []
        for fifth in range(_FIFTHS):
            cases = [
                case
                for case in self.cases
                if case.kind in _BY_DEPTH
                and case.depth is not None
                and fifth == min(_FIFTHS - 1, int(case.depth * _FIFTHS))
            ]
            low, high = (100 * n // _FIFTHS for n in (fifth, fifth + 1))
            if cases:
                groups.append((f"{low} to {high} % of the text", cases))
        return groups

    def _shown_notes(self) -> list[str]:
        """What the arm `direct` made of facts that it saw."""
        seen: list[NeedleCase] = []
        shares = []
        for text in self.texts:
            if not text.shown_bytes:
                continue
            own = [case for case in self._of(text.size) if case.arm == Arm.DIRECT]
            seen += [c for c in own if 0 < (c.needed_bytes or 0) <= text.shown_bytes]
            shares.append(f"{text.shown_bytes:,} bytes of {text.size}")
        if not shares:
            return []
        told = told_share(seen, lambda case: case.is_right)
        return [
            f"The arm {Arm.DIRECT} sees the first {', '.join(shares)}; of the questions whose "
            f"facts stand there it answered right: {told}."
        ]

    def _of(self, size: str) -> list[NeedleCase]:
        return [case for case in self.cases if case.size == size]


def _of_size(name: str, size: str) -> str:
    """The size stands behind a figure's name, and before what says which end of an interval."""
    for end in ("_low", "_high"):
        if name.endswith(end):
            return f"{name.removesuffix(end)}_{size.lower()}{end}"
    return f"{name}_{size.lower()}"

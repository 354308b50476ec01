"""What the `rows` workload found: labels by arm and kind of row, counts, and what they cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from rlm_runtime.benchmark.paired import difference_of_shares
from rlm_runtime.benchmark.results import LOUD, Table
from rlm_runtime.benchmark.rows_arms import DEFAULT, RowsArm
from rlm_runtime.benchmark.run_tables import percent
from rlm_runtime.benchmark.statistics import Estimate, share, told_share, with_ends
from rlm_runtime.benchmark.workloads.rows import LabelledRow
from rlm_runtime.profiler import Figures

_SPENT = ("calls", "prompt_tokens", "cached_tokens", "computed_tokens", "generated_tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmLabels:
    """What one arm said of the rows.

    Attributes:
        arm: The arm.
        labels: One a row, `None` where there is none; `None` for an arm that only counts, or was
            refused.
        counts: Rows by label, as it says; `None` when it could not say.
        shown: Rows that it saw, from the first one on.
        is_constrained: It could answer with a label only, or with numbers only.
        error: What went wrong; empty when nothing did.
        spent: Its agent's figures, by the names of `docs/measure.md`.
        gap: How far its counts are from its own labels, in rows; anything but 0 is a fault.
    """

    arm: RowsArm
    labels: tuple[str | None, ...] | None
    counts: dict[str, int] | None
    shown: int
    is_constrained: bool
    error: str
    spent: Figures
    gap: int = 0


@dataclass(frozen=True, kw_only=True)
class RowsResult:
    """The same rows, labelled or counted by every arm that came to its end.

    Attributes:
        workload: Name and version of the workload.
        seed: Of the rows.
        text_digest: Of their text.
        labels: To choose from.
        rows: With the truth.
        arms: In the order in which they were asked.
    """

    workload: str
    seed: int
    text_digest: str
    labels: tuple[str, ...]
    rows: tuple[LabelledRow, ...]
    arms: tuple[ArmLabels, ...]

    @property
    def name(self) -> str:
        """`rows`."""
        return "rows"

    @cached_property
    def counts(self) -> dict[str, int]:
        """Rows by label, in truth."""
        counted = Counter(row.label for row in self.rows)
        return {label: counted[label] for label in self.labels}

    def accuracy(self, arm: ArmLabels, label: str | None = None) -> Estimate | None:
        """Share of rows that have their label; of all rows, or of those of one label."""
        right = self._right(arm, label)
        return share(sum(right), len(right))

    def error(self, arm: ArmLabels, label: str) -> int | None:
        """Rows that an arm counts too many (or, below 0, too few) of a label."""
        return None if arm.counts is None else arm.counts[label] - self.counts[label]

    def errors(self, arm: ArmLabels) -> int | None:
        """The errors of all labels, without their signs, added up."""
        if arm.counts is None:
            return None
        return sum(abs(arm.counts[label] - self.counts[label]) for label in self.labels)

    def figures(self) -> Figures:
        """Of each arm, with its name behind; those of the recipe's accuracy without, too."""
        figures: dict[str, float | int | None] = {"cases": len(self.rows)}
        figures |= {f"count_{label}": count for label, count in self.counts.items()}
        for arm in self.arms:
            name = arm.arm.value
            figures |= {
                f"count_{label}_{name}": None if arm.counts is None else arm.counts[label]
                for label in self.labels
            }
            for label in self.labels:
                error = self.error(arm, label)
                figures[f"count_error_{label}_{name}"] = None if error is None else abs(error)
            figures[f"count_error_{name}"] = self.errors(arm)
            figures[f"rows_shown_{name}"] = arm.shown
            figures |= {f"{spent}_{name}": arm.spent[spent] for spent in (*_SPENT, "wall_s")}
            if arm.labels is None:
                continue
            figures[f"unlabelled_{name}"] = sum(label is None for label in arm.labels)
            figures[f"count_gap_{name}"] = arm.gap
            figures |= with_ends(f"accuracy_{name}", self.accuracy(arm))
            for label in self.labels:
                own = self.accuracy(arm, label)
                figures[f"accuracy_{label}_{name}"] = None if own is None else own.value
            if arm.arm is DEFAULT:
                figures |= with_ends("accuracy", self.accuracy(arm))
            else:
                figures |= with_ends(f"accuracy_difference_{name}", self.difference(arm))
        return figures

    def difference(self, arm: ArmLabels) -> Estimate | None:
        """The recipe's accuracy less that of `arm`, over the same rows."""
        own = next((one for one in self.arms if one.arm is DEFAULT), None)
        if own is None or own.labels is None or arm.labels is None:
            return None
        return difference_of_shares(list(zip(self._right(arm), self._right(own), strict=True)))

    def detail(self) -> dict[str, object]:
        """Every row with what each arm took it for."""
        labelled = [arm for arm in self.arms if arm.labels is not None]
        return {
            "workload": self.workload,
            "seed": self.seed,
            "text_digest": self.text_digest,
            "labels": list(self.labels),
            "asked": len(self.rows),
            "is_complete": self._is_complete,
            "arms": [
                {
                    "arm": arm.arm.value,
                    "counts": arm.counts,
                    "shown": arm.shown,
                    "is_constrained": arm.is_constrained,
                    "error": arm.error,
                    "figures": dict(arm.spent),
                }
                for arm in self.arms
            ],
            "rows": [
                row._asdict() | {arm.arm.value: (arm.labels or ())[number] for arm in labelled}
                for number, row in enumerate(self.rows)
            ],
        }

    def tables(self) -> tuple[Table, ...]:
        """Labels, counts and costs."""
        if not self.arms:
            return ()
        return (self._accuracy_table(), self._counts_table(), self._costs_table())

    def notes(self) -> tuple[str, ...]:
        """The rows, what would be right without looking, and how far each arm could see."""
        most = max(self.counts, key=lambda label: self.counts[label])
        blind = percent(self.counts[most] / len(self.rows))
        notes = [
            f"{self.workload}, seed {self.seed}, digest {self.text_digest[:12]}: "
            f"{len(self.rows):,} rows. Who calls all of them {most!r} is right for {blind}.",
            "Counts of an arm that labels are of its labels, counted in Python: what is wrong with "
            "them is the labels.",
        ]
        for arm in self.arms:
            if arm.gap:
                notes.append(
                    f"{LOUD} the counts of {arm.arm} differ from its own labels by {arm.gap:,} "
                    "rows: a fault."
                )
            if 0 < arm.shown < len(self.rows):
                notes.append(
                    f"The window showed the arm {arm.arm} {arm.shown:,} of {len(self.rows):,} rows."
                )
            if arm.arm is DEFAULT and arm.labels is not None and not arm.is_constrained:
                notes.append(
                    "The engine can't hold answers to the labels: both arms that label took the "
                    "labels from free answers."
                )
            if arm.error:
                notes.append(f"The arm {arm.arm}: {arm.error}")
        if not self._is_complete:
            notes.append(f"Ended early: {len(self.arms)} of {len(RowsArm)} arms came to their end.")
        return tuple(notes)

    @property
    def _is_complete(self) -> bool:
        return len(self.arms) == len(RowsArm)

    def _right(self, arm: ArmLabels, label: str | None = None) -> list[bool]:
        return [
            said == row.label
            for row, said in zip(self.rows, arm.labels or (), strict=arm.labels is not None)
            if label in (None, row.label)
        ]

    def _accuracy_table(self) -> Table:
        arms = [arm for arm in self.arms if arm.labels is not None]
        rows = [(label, *(_told(self._right(arm, label)) for arm in arms)) for label in self.labels]
        rows.append(("all", *(_told(self._right(arm)) for arm in arms)))
        none = (sum(label is None for label in arm.labels or ()) for arm in arms)
        rows.append(("without a label", *(f"{count:,}" for count in none)))
        return Table("Right labels", ("rows", *(arm.arm.value for arm in arms)), tuple(rows))

    def _counts_table(self) -> Table:
        def cells(tell: Callable[[ArmLabels], tuple[int | None, int | None]]) -> tuple[str, ...]:
            return tuple(
                text
                for arm in self.arms
                for count, error in (tell(arm),)
                for text in (_number(count), "-" if error is None else f"{error:+,}")
            )

        def of(label: str) -> Callable[[ArmLabels], tuple[int | None, int | None]]:
            return lambda arm: (
                None if arm.counts is None else arm.counts[label],
                self.error(arm, label),
            )

        def whole(arm: ArmLabels) -> tuple[int | None, int | None]:
            return None if arm.counts is None else sum(arm.counts.values()), self.errors(arm)

        rows = [(label, f"{self.counts[label]:,}", *cells(of(label))) for label in self.labels]
        rows.append(("together", f"{len(self.rows):,}", *cells(whole)))
        header = ("label", "true", *(h for arm in self.arms for h in (arm.arm.value, "error")))
        return Table("How many of each (together: errors without their signs)", header, tuple(rows))

    def _costs_table(self) -> Table:
        rows = [
            (
                arm.arm.value,
                *(_number(arm.spent[spent]) for spent in _SPENT),
                "-" if arm.spent["wall_s"] is None else f"{arm.spent['wall_s']:,.1f} s",
            )
            for arm in self.arms
        ]
        header = ("arm", "calls", "prompt tokens", "cached", "computed", "generated", "time")
        return Table("What it cost, each from an empty cache", header, tuple(rows))


def _told(right: list[bool]) -> str:
    return told_share(sum(right), len(right))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"

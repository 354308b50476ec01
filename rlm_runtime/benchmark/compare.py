"""Two results of the same benchmark, figure by figure: B against A.

Counts and times are told as ratios, shares (quality, hit rates) as differences in points. An
interval stands where the results hold samples: times are resampled, cases are paired by their ids.
A count that is the same whenever it is counted has no interval.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from rlm_runtime.benchmark.compared_samples import PairedCases, sampled_ratios
from rlm_runtime.benchmark.figure_kinds import Better, FigureKind, figure_kind
from rlm_runtime.benchmark.result_file import ResultFile
from rlm_runtime.benchmark.results import Table
from rlm_runtime.benchmark.statistics import Estimate
from rlm_runtime.errors import InputError
from rlm_runtime.profiler import Figures

_SHOWN_CHARACTERS = 60


_EVEN = 0.005
"""Two runs of one program differ in their counts by less, because the order within a batch is not
fixed: 0.04 % of the computed and 0.3 % of all prompt tokens in two runs of `rlm-bench run qa`."""


class Verdict(StrEnum):
    """What a comparison of one figure comes to."""

    SAME = "same"
    EVEN = "even"
    """A count that differs by less than `_EVEN`, or a share by less than that of all."""
    BETTER = "better"
    WORSE = "worse"
    DIFFERENT = "different"
    """It changed, and neither way is better."""
    UNCLEAR = "unclear"
    """The interval holds "no change"; or a time or a share has none, and it decides nothing."""


@dataclass(frozen=True, slots=True)
class Change:
    """One figure in two results.

    Attributes:
        figure: Its name.
        kind: How it is compared.
        a: In the first result.
        b: In the second one.
        change: b / a, or b - a of a share; `None` where a is zero. Without an interval where
            there are no samples.
    """

    figure: str
    kind: FigureKind
    a: float
    b: float
    change: Estimate | None

    @property
    def verdict(self) -> Verdict:
        """Better, worse, or neither."""
        change, none = self.change, 0.0 if self.kind.is_share else 1.0
        if change is not None and change.low is not None and change.high is not None:
            if change.low <= none <= change.high:
                return Verdict.SAME if change.low == change.high else Verdict.UNCLEAR
        elif self.a == self.b:
            return Verdict.SAME
        elif self.kind.is_measured:
            return Verdict.UNCLEAR
        elif change is not None and abs(change.value - none) < _EVEN:
            return Verdict.EVEN
        elif self.kind.is_share and self.kind.better is not Better.NEITHER:
            return Verdict.UNCLEAR
        if self.kind.better is Better.NEITHER:
            return Verdict.DIFFERENT
        is_lower = self.b < self.a if change is None else change.value < none
        return Verdict.BETTER if is_lower is (self.kind.better is Better.LOWER) else Verdict.WORSE

    def document(self) -> dict[str, object]:
        """As JSON."""
        value, low, high = self.change or (None, None, None)
        return {
            "figure": self.figure,
            "a": self.a,
            "b": self.b,
            "compared_by": "difference" if self.kind.is_share else "ratio",
            "value": value,
            "low": low,
            "high": high,
            "better": str(self.kind.better),
            "verdict": str(self.verdict),
        }


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two results side by side.

    Attributes:
        a: What is compared with.
        b: What is compared.
        differing: Settings that are not equal, with both values; none unless it was forced.
        changes: Figures that both have.
        only_a: Figures that only the first has.
        only_b: Figures that only the second has.
    """

    a: ResultFile
    b: ResultFile
    differing: dict[str, tuple[object, object]]
    changes: tuple[Change, ...]
    only_a: tuple[str, ...] = field(default=())
    only_b: tuple[str, ...] = field(default=())

    def figures(self) -> Figures:
        """Flat: `<figure>_ratio` or `<figure>_difference`, each with `_low` and `_high`."""
        figures: dict[str, float | int | None] = {}
        for change in self.changes:
            value, low, high = change.change or (None, None, None)
            name = f"{change.figure}_{'difference' if change.kind.is_share else 'ratio'}"
            figures |= {name: value, f"{name}_low": low, f"{name}_high": high}
        return figures

    def document(self) -> dict[str, object]:
        """As JSON, but for the schema version."""
        return {
            "benchmark": "compare",
            "compared": self.b.benchmark,
            "settings_are_equal": not self.differing,
            "differing": [
                {"setting": name, "a": a, "b": b} for name, (a, b) in self.differing.items()
            ],
            "figures": self.figures(),
            "changes": [change.document() for change in self.changes],
            "only_in_a": list(self.only_a),
            "only_in_b": list(self.only_b),
            "a": _head(self.a),
            "b": _head(self.b),
        }

    def tables(self) -> tuple[Table, ...]:
        """Set-ups side by side, then a row a figure."""
        heads = (_head(self.a), _head(self.b))
        versions = {**self.a.versions, **self.b.versions}
        facts = [(name, *(str(head[name]) for head in heads)) for name in _HEAD]
        facts += [(n, self.a.versions.get(n, "-"), self.b.versions.get(n, "-")) for n in versions]
        facts += [
            (name, _shown(a), _shown(b))
            for name, (a, b) in self.differing.items()
            if name not in _HEAD
        ]
        rows = [(n, a, b, "" if a == b else "differs") for n, a, b in facts]
        found = (
            Table(f"{self.b.benchmark}: A and B", ("", "A", "B", ""), tuple(rows)),
            Table("B against A", _HEADER, tuple(map(_row, self.changes))),
        )
        return tuple(table for table in found if table.rows)

    def notes(self) -> tuple[str, ...]:
        """What a reader must know before believing the figures."""
        notes = []
        if self.differing:
            names = ", ".join(self.differing)
            notes.append(f"Forced: the settings are not equal ({names}). What differs may be that.")
        if not self.changes:
            notes.append("The two results have no figure in common.")
        if len(self.a.versions) and self.a.versions != self.b.versions:
            notes.append("The versions differ, see above.")
        for side, names_ in (("A", self.only_a), ("B", self.only_b)):
            if names_:
                notes.append(f"Only in {side}: {', '.join(names_)}.")
        return tuple(notes)


def compare(a: ResultFile, b: ResultFile, *, is_forced: bool = False) -> Comparison:
    """Compare two results.

    Args:
        a: What is compared with: ratios have it below the line.
        b: What is compared.
        is_forced: Compare although the settings differ; the comparison is then marked.

    Raises:
        InputError: The settings differ; the message says which, with both values. Or the samples of
            one are damaged.
    """
    differing = _differing(a, b)
    if differing and not is_forced:
        listed = "; ".join(f"{n}: {_shown(x)} / {_shown(y)}" for n, (x, y) in differing.items())
        raise InputError(
            f"The two results were not made under the same settings: {listed}.",
            "Measure both under the same ones, or compare them all the same with --force.",
        )
    shared = [name for name in a.figures if name in b.figures]
    return Comparison(
        a=a,
        b=b,
        differing=differing,
        changes=tuple(_changes(a, b, shared)),
        only_a=tuple(n for n in a.figures if n not in b.figures and figure_kind(n)),
        only_b=tuple(n for n in b.figures if n not in a.figures and figure_kind(n)),
    )


def _differing(a: ResultFile, b: ResultFile) -> dict[str, tuple[object, object]]:
    of_a, of_b = a.settings(), b.settings()
    names = dict.fromkeys((*of_a, *of_b))
    pairs = {name: _apart(of_a.get(name), of_b.get(name)) for name in names}
    # A result that ended early lacks texts, and is no other measurement for that.
    texts_a, texts_b = a.texts(), b.texts()
    pairs |= {n: (texts_a[n], texts_b[n]) for n in texts_a if n in texts_b}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _apart(a: object, b: object) -> tuple[object, object]:
    """Two values; of two lists only what the other lacks, unless just their order differs."""
    if isinstance(a, list) and isinstance(b, list) and set(a) != set(b):
        return [item for item in a if item not in b], [item for item in b if item not in a]
    return a, b


def _changes(a: ResultFile, b: ResultFile, names: list[str]) -> Iterator[Change]:
    ratios, cases = sampled_ratios(a, b), PairedCases(a, b)
    for name in names:
        kind, x, y = figure_kind(name), a.figures[name], b.figures[name]
        if kind is None or x is None or y is None:
            continue
        change: Estimate | None
        if kind.is_share:
            change = cases.share_difference(name, x, y) or Estimate(y - x, None, None)
        else:
            change = ratios.get(name) or (Estimate(y / x, None, None) if x else None)
        yield Change(name, kind, x, y, change)
    for figure, mean_a, mean_b, ratio in cases.per_case():
        kind = figure_kind(figure)
        if kind is not None:
            yield Change(figure, kind, mean_a, mean_b, ratio)


_HEAD = ("machine", "model", "config_digest", "run_id", "made_at")
_HEADER = ("figure", "A", "B", "B / A or B - A", "95 % interval", "verdict")


def _head(result: ResultFile) -> dict[str, object]:
    return {
        "benchmark": result.benchmark,
        "machine": result.machine,
        "model": result.model,
        "config_digest": result.config_digest,
        "run_id": result.run_id,
        "made_at": result.made_at,
        "versions": result.versions,
    }


def _row(change: Change) -> tuple[str, ...]:
    is_share, estimate = change.kind.is_share, change.change
    tell = _points if is_share else "{:.3f}".format
    interval = ""
    if estimate is not None and estimate.low is not None and estimate.high is not None:
        interval = f"{tell(estimate.low)} to {tell(estimate.high)}"
    value = "-" if estimate is None else tell(estimate.value) + (" points" if is_share else "")
    return (
        change.figure,
        _number(change.a),
        _number(change.b),
        value,
        interval,
        str(change.verdict),
    )


def _points(share: float) -> str:
    return f"{round(100 * share, 1) + 0.0:+.1f}"  # no "-0.0"


def _number(value: float) -> str:
    if isinstance(value, int) or value == int(value):
        return f"{value:,.0f}"
    return f"{value:,.1f}" if abs(value) >= 100 else f"{value:.3g}"


def _shown(value: object) -> str:
    text = "none" if value is None or value == [] else str(value)
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"

"""Intervals of a comparison, from the samples that two results hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, NamedTuple, TypeVar

import msgspec

from rlm_runtime.benchmark.arms import DEFAULT
from rlm_runtime.benchmark.batching_result import SPEED_UPS
from rlm_runtime.benchmark.paired import difference_of_shares, ratio_of_means
from rlm_runtime.benchmark.result_file import ResultFile
from rlm_runtime.benchmark.statistics import Estimate, ratio_of_medians, ratio_of_ratios
from rlm_runtime.benchmark.ttft_result import RATIOS, Series
from rlm_runtime.errors import InputError

Row = TypeVar("Row")

Amount = Annotated[float, msgspec.Meta(ge=0)]
Seconds = Annotated[float, msgspec.Meta(gt=0)]


class Case(msgspec.Struct, frozen=True):
    """One question of a workload, so far as it is compared; not every workload has every field."""

    id: str | int
    arm: str | None = None
    kind: str | None = None
    size: str | None = None
    is_right: bool | None = None
    sentence_rank: int | None = None
    found: bool | None = None
    is_uncertain: bool | None = None
    computed_tokens: Amount | None = None
    prompt_tokens: Amount | None = None
    generated_tokens: Amount | None = None
    wall_s: Amount | None = None


class _Request(msgspec.Struct, frozen=True):
    series: str
    ttft_s: Seconds
    is_as_meant: bool


class _Run(msgspec.Struct, frozen=True):
    arm: str
    wall_s: Seconds
    is_as_meant: bool


SEED = 0
"""Of all intervals: the same two files give the same ones."""

_LEAST_EQUAL = 1e-9
_PER_CASE = ("computed_tokens", "prompt_tokens", "generated_tokens", "wall_s")


class PerCase(NamedTuple):
    """A number that every case has.

    Attributes:
        figure: Its name, with `_per_case`.
        a: Mean in the first result.
        b: Mean in the second one.
        ratio: Of the means, over the cases that both have.
    """

    figure: str
    a: float
    b: float
    ratio: Estimate | None


def sampled_ratios(a: ResultFile, b: ResultFile) -> dict[str, Estimate | None]:
    """Ratios, second over first, of the figures that stand on samples of times.

    Raises:
        InputError: A file's samples are none.
    """
    times_a, times_b = _ttft_s(a), _ttft_s(b)
    walls_a, walls_b = _wall_s(a), _wall_s(b)
    ratios: dict[str, Estimate | None] = {}
    for series in (Series.COLD, Series.WARM, Series.VARIABLE):
        name = f"ttft_{series}_ms_p50"
        ratios[name] = ratio_of_medians(times_b(series), times_a(series), seed=SEED)
    for ratio in RATIOS:
        above, below = ratio.numerator, ratio.denominator
        ratios[ratio.figure] = ratio_of_ratios(
            (times_b(above), times_b(below)), (times_a(above), times_a(below)), seed=SEED
        )
    for speed_up in SPEED_UPS:
        above_, below_ = speed_up.in_turn, speed_up.batched
        ratios[speed_up.figure] = ratio_of_ratios(
            (walls_b(above_), walls_b(below_)), (walls_a(above_), walls_a(below_)), seed=SEED
        )
    return ratios


class PairedCases:
    """The cases of two results, matched by their ids (and arms).

    Raises:
        InputError: A file's cases are none.
    """

    def __init__(self, a: ResultFile, b: ResultFile) -> None:
        first, second = dict(_cases(a)), dict(_cases(b))
        self.pairs = tuple((first[key], second[key]) for key in first if key in second)
        self.is_complete = first.keys() == second.keys() and bool(first)

    def share_difference(self, name: str, a: float, b: float) -> Estimate | None:
        """The difference of a quality figure with its interval.

        Args:
            name: The figure's.
            a: Its value in the first result.
            b: Its value in the second one.

        Returns:
            `None` unless both have the same cases and these lead to just these two values.
        """
        if not self.is_complete:
            return None
        for prefix, holds in _QUALITY:
            if name.startswith(prefix):
                rest = name.removeprefix(prefix).removeprefix("_")
                for belongs in _selections(prefix, rest):
                    pairs = [(holds(x), holds(y)) for x, y in self.pairs if belongs(x)]
                    estimate = difference_of_shares(pairs)
                    if estimate is not None and _is_made_of(pairs, a, b):
                        return estimate
        return None

    def per_case(self) -> Iterator[PerCase]:
        """The costs of a case, over the cases that both results have; of several arms, the default.

        Other arms cost something else, and a mean over arms is nobody's.
        """
        for name in _PER_CASE:
            values = [(getattr(x, name), getattr(y, name)) for x, y in self.pairs if _is_default(x)]
            pairs = [(x, y) for x, y in values if x is not None and y is not None]
            if pairs:
                means = [sum(side) / len(pairs) for side in zip(*pairs, strict=True)]
                ratio = ratio_of_means(pairs, seed=SEED)
                yield PerCase(f"{name}_per_case", means[0], means[1], ratio)


def _cases(result: ResultFile) -> Iterator[tuple[tuple[object, ...], Case]]:
    for measurement, detail in result.detail.items():
        rows = detail.get("cases")
        if isinstance(rows, list):
            # Cases of a workload without ids are its own affair.
            named = [row for row in rows if isinstance(row, dict) and "id" in row]
            for case in _read(named, list[Case], f"{measurement}.cases", result):
                yield (measurement, case.id, case.arm), case


def _read(rows: object, kind: type[list[Row]], place: str, result: ResultFile) -> list[Row]:
    try:
        return msgspec.convert(rows, kind)
    except msgspec.ValidationError as err:
        raise InputError(
            f"The result of {result.benchmark} made at {result.made_at} is damaged: {err} in "
            f"{place}.",
            "Measure it again, or compare another file.",
        ) from err


def _is_right(case: Case) -> bool:
    return bool(case.is_right)


def _has_passage(case: Case) -> bool:
    return case.sentence_rank == 1


def _is_not_found(case: Case) -> bool:
    return case.found is False


def _is_certain(case: Case) -> bool:
    return bool(case.found) and not case.is_uncertain


def _is_default(case: Case) -> bool:
    return case.arm in (None, DEFAULT)


def _is_open(case: Case) -> bool:
    """The right result is that nothing was found."""
    return str(case.kind).startswith("unanswerable")


_QUALITY: tuple[tuple[str, Callable[[Case], bool]], ...] = (
    ("accuracy", _is_right),
    ("passage_accuracy", _has_passage),
    ("certain_rate", _is_certain),
    ("not_found_rate", _is_not_found),
    ("false_answer_rate", _is_certain),
)
_OF_OPEN = ("not_found_rate", "false_answer_rate")


def _selections(prefix: str, rest: str) -> Iterator[Callable[[Case], bool]]:
    """Which cases a figure may be made of, by what stands behind its name's beginning.

    Behind it may stand a kind, an arm and a size, in this order; without a kind it is the one that
    is reported first, without an arm the default one.
    """
    is_reported = _is_open if prefix in _OF_OPEN else _is_shared
    yield lambda case: _is_default(case) and is_reported(case) and rest in ("", _size(case))
    yield lambda case: rest in _labels(case)
    if not rest:
        yield _is_default


def _is_shared(case: Case) -> bool:
    return case.kind == "shared"


def _size(case: Case) -> str:
    return str(case.size).lower()


def _labels(case: Case) -> tuple[str, ...]:
    kind, arm, size = str(case.kind), str(case.arm), _size(case)
    labels = (arm, f"{kind}_{arm}", f"{kind}_{arm}_{size}")
    return (*labels, kind, f"{kind}_{size}") if _is_default(case) else labels


def _is_made_of(pairs: Sequence[tuple[bool, bool]], a: float, b: float) -> bool:
    shares = [sum(side) / len(pairs) for side in zip(*pairs, strict=True)]
    return bool(abs(shares[0] - a) < _LEAST_EQUAL and abs(shares[1] - b) < _LEAST_EQUAL)


def _ttft_s(result: ResultFile) -> Callable[[str], list[float]]:
    rows = result.detail.get("ttft", {}).get("samples", [])
    samples = _read(rows, list[_Request], "ttft.samples", result)
    return lambda name: [s.ttft_s for s in samples if s.series == name and s.is_as_meant]


def _wall_s(result: ResultFile) -> Callable[[str], list[float]]:
    rows = result.detail.get("batching", {}).get("runs", [])
    runs = _read(rows, list[_Run], "batching.runs", result)
    return lambda name: [run.wall_s for run in runs if run.arm == name and run.is_as_meant]

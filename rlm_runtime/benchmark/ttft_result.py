"""Samples of time to first token, and the figures that follow from them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import msgspec

from rlm_runtime.benchmark.results import Table
from rlm_runtime.benchmark.statistics import Estimate, percentile, ratio_of_medians
from rlm_runtime.profiler import Figures

OWN_TOKENS = 32
"""Tokens besides the shared prefix, the template's own among them. The ratio depends on them."""

LONG_OWN_TOKENS = 128
"""The same for the `tail128` series."""

ENOUGH_SAMPLES = 20
"""Fewer in a series are said to be few."""


class Series(StrEnum):
    """What a sample is a sample of."""

    COLD = "cold"
    WARM = "warm"
    VARIABLE = "variable"
    COLD_TAIL128 = "cold_tail128"
    WARM_TAIL128 = "warm_tail128"

    @property
    def own_tokens(self) -> int:
        """Tokens besides the shared prefix."""
        is_long = self in (Series.COLD_TAIL128, Series.WARM_TAIL128)
        return LONG_OWN_TOKENS if is_long else OWN_TOKENS

    @property
    def is_cold(self) -> bool:
        """The cache is emptied before each sample."""
        return self in (Series.COLD, Series.COLD_TAIL128)


class Ratio(NamedTuple):
    """A published ratio: the median of one series over that of another."""

    figure: str
    label: str
    numerator: Series
    denominator: Series


RATIOS = (
    Ratio("ttft_warm_over_cold", "warm / cold", Series.WARM, Series.COLD),
    Ratio("ttft_variable_over_cold", "variable / cold", Series.VARIABLE, Series.COLD),
    Ratio(
        "ttft_warm_over_cold_tail128",
        f"warm / cold, {LONG_OWN_TOKENS} own tokens",
        Series.WARM_TAIL128,
        Series.COLD_TAIL128,
    ),
)


class Sample(msgspec.Struct, frozen=True):
    """One request, as the engine measured it.

    Attributes:
        series: What it is a sample of.
        round: Samples of one round were measured next to each other; counts from 0.
        ttft_s: From arrival to the first token.
        prefill_s: From the first scheduling to the first token.
        queue_s: `ttft_s - prefill_s`.
        prompt_tokens: All tokens of the prompt.
        cached_tokens: Of these, from the prefix cache.
        expected_cached_tokens: What an unbounded cache had to hold of it.
    """

    series: Series
    round: int
    ttft_s: float
    prefill_s: float
    queue_s: float
    prompt_tokens: int
    cached_tokens: int
    expected_cached_tokens: int

    @property
    def is_as_meant(self) -> bool:
        """The cache held of it exactly what its series says."""
        return self.cached_tokens == self.expected_cached_tokens


@dataclass(frozen=True, slots=True)
class TtftResult:
    """Samples in the order in which they were taken, finished or partial.

    Attributes:
        samples: Warm-up not among them.
        planned_samples: Of the whole measurement.
        seed: Of texts, order and intervals.
        shared_prefix_tokens: Length of the shared prefix.
        block_size: Tokens of one prefix-cache block.
        kv_tokens: Tokens the KV cache holds.
    """

    samples: tuple[Sample, ...]
    planned_samples: int
    seed: int
    shared_prefix_tokens: int
    block_size: int
    kv_tokens: int

    @property
    def name(self) -> str:
        """`ttft`."""
        return "ttft"

    @property
    def is_complete(self) -> bool:
        """Every planned sample was taken."""
        return len(self.samples) == self.planned_samples

    def of(self, series: Series) -> tuple[Sample, ...]:
        """The samples of a series that are what it says."""
        return tuple(s for s in self.samples if s.series is series and s.is_as_meant)

    def ttft_ms(self, series: Series) -> list[float]:
        """Times to first token of a series, milliseconds."""
        return [sample.ttft_s * 1e3 for sample in self.of(series)]

    def ratio(self, ratio: Ratio) -> Estimate | None:
        """The ratio with its interval; `None` without samples of both series."""
        numerator, denominator = self.ttft_ms(ratio.numerator), self.ttft_ms(ratio.denominator)
        return ratio_of_medians(numerator, denominator, seed=self.seed)

    @property
    def saved_ms(self) -> float | None:
        """Median of the cold series less that of the warm one, milliseconds."""
        cold, warm = self.ttft_ms(Series.COLD), self.ttft_ms(Series.WARM)
        return percentile(cold, 50) - percentile(warm, 50) if cold and warm else None

    def figures(self) -> Figures:
        """The `ttft_*` figures of `docs/measure.md`, the set-up's, and samples per series."""
        figures: dict[str, float | int | None] = {}
        for series in (Series.COLD, Series.WARM, Series.VARIABLE):
            times = self.ttft_ms(series)
            figures[f"ttft_{series}_ms_p50"] = percentile(times, 50) if times else None
        figures["ttft_saved_ms_p50"] = self.saved_ms
        for ratio in RATIOS:
            value, low, high = self.ratio(ratio) or (None, None, None)
            figures |= {ratio.figure: value}
            figures |= {f"{ratio.figure}_low": low, f"{ratio.figure}_high": high}
        figures |= {f"ttft_{series}_n": len(self.of(series)) for series in Series}
        figures["shared_prefix_tokens"] = self.shared_prefix_tokens
        figures["block_size"] = self.block_size
        figures["kv_tokens"] = self.kv_tokens
        return figures

    def detail(self) -> dict[str, object]:
        """Distributions by series, and every sample."""
        return {
            "is_complete": self.is_complete,
            "planned_samples": self.planned_samples,
            "seed": self.seed,
            "series": {str(s): _distributions(s, self.of(s)) for s in Series if self.of(s)},
            "samples": [
                {**msgspec.to_builtins(sample), "is_as_meant": sample.is_as_meant}
                for sample in self.samples
            ],
        }

    def tables(self) -> tuple[Table, ...]:
        """Ratios and what is saved first, then milliseconds by series."""
        ratios = [
            (ratio.label, f"{estimate.value:.3f}", estimate.interval)
            for ratio in RATIOS
            if (estimate := self.ratio(ratio)) is not None
        ]
        if self.saved_ms is not None:
            ratios.append(("saved a request, warm instead of cold", f"{self.saved_ms:,.1f} ms", ""))
        rows = [_row(series, self.of(series)) for series in Series if self.of(series)]
        found = (
            Table("Time to first token", ("medians", "", "95 % interval"), tuple(ratios)),
            Table("Time to first token by series", _HEADER, tuple(rows)),
        )
        return tuple(table for table in found if table.rows)

    def notes(self) -> tuple[str, ...]:
        """Few samples, samples that were left out, an early end."""
        notes = []
        counts = ((s, len(self.of(s))) for s in Series)
        if few := [f"{s} {n}" for s, n in counts if 0 < n < ENOUGH_SAMPLES]:
            notes.append(f"Fewer than {ENOUGH_SAMPLES} samples: {', '.join(few)}.")
        for series in Series:
            odd = [s for s in self.samples if s.series is series and not s.is_as_meant]
            if odd:
                notes.append(
                    f"Left out of {series}: {len(odd)} of {len(odd) + len(self.of(series))} "
                    f"samples, with {_range(s.cached_tokens for s in odd)} tokens cached instead "
                    f"of {_range(s.expected_cached_tokens for s in odd)}."
                )
        if not self.is_complete:
            notes.append(
                f"Ended early, after {len(self.samples)} of {self.planned_samples} samples."
            )
        return tuple(notes)


_HEADER = (
    "series",
    "n",
    "prompt tokens",
    "cached tokens",
    "p50 ms",
    "p90 ms",
    "max ms",
    "prefill p50 ms",
)


def _row(series: Series, samples: Sequence[Sample]) -> tuple[str, ...]:
    ttft_ms = [sample.ttft_s * 1e3 for sample in samples]
    prefill_ms = [sample.prefill_s * 1e3 for sample in samples]
    return (
        str(series),
        str(len(samples)),
        _range(sample.prompt_tokens for sample in samples),
        _range(sample.cached_tokens for sample in samples),
        f"{percentile(ttft_ms, 50):,.1f}",
        f"{percentile(ttft_ms, 90):,.1f}",
        f"{max(ttft_ms):,.1f}",
        f"{percentile(prefill_ms, 50):,.1f}",
    )


def _distributions(series: Series, samples: Sequence[Sample]) -> dict[str, object]:
    times_s = {
        "ttft_ms": [sample.ttft_s for sample in samples],
        "prefill_ms": [sample.prefill_s for sample in samples],
        "queue_ms": [sample.queue_s for sample in samples],
    }
    return {
        "n": len(samples),
        "own_tokens": series.own_tokens,
        **{
            name: {
                "p50": percentile(values, 50) * 1e3,
                "p90": percentile(values, 90) * 1e3,
                "max": max(values) * 1e3,
            }
            for name, values in times_s.items()
        },
    }


def _range(counts: Iterable[int]) -> str:
    """One number when all are equal, else the least and the most."""
    values = list(counts)
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"

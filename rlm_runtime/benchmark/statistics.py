"""Medians, their ratios, shares, and how far they can be trusted.

Times of requests have long right tails (another process, a page fault), so figures are medians and
intervals come from resampling, which assumes no shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

RESAMPLES = 10_000
"""Resampled medians; the ends of an interval then move by less than 2 % of its width."""

COVERAGE = 0.95

_Z = 1.959964
"""The normal distribution's 97.5 % point, for `COVERAGE`."""

LEAST_FOR_INTERVAL = 5
"""Values a series needs before it gets an interval: with n values their whole range misses the
true median in `2 ** (1 - n)` of all cases, 1 in 8 with 4 values, 1 in 16 with 5."""


class Estimate(NamedTuple):
    """A figure with its 95 % interval.

    Attributes:
        value: The figure.
        low: Lower end; `None` where too few values were measured.
        high: Upper end, likewise.
    """

    value: float
    low: float | None
    high: float | None

    @property
    def interval(self) -> str:
        """The interval in words, for tables."""
        if self.low is None or self.high is None:
            return "too few values"
        return f"{self.low:.3f} to {self.high:.3f}"


class Interval(NamedTuple):
    """Two ends between which a value lies."""

    low: float
    high: float


def percentile(values: Sequence[float], percent: float) -> float:
    """The value below which `percent` per cent of the values lie, between neighbours linearly.

    Args:
        values: At least one, in any order.
        percent: 0..100; 50 is the median.

    Raises:
        ValueError: There are no values, or `percent` is out of range.
    """
    if not values:
        raise ValueError("no values")
    return float(np.percentile(values, percent))


def ratio_of_medians(
    numerator: Sequence[float], denominator: Sequence[float], *, seed: int
) -> Estimate | None:
    """Median over median, with a percentile bootstrap interval.

    The two series are resampled independently. O(`RESAMPLES` x n), milliseconds.

    Args:
        numerator: Positive values.
        denominator: Positive values; the lengths may differ.
        seed: The same seed and values give the same interval.

    Returns:
        `None` when one of the series is empty.
    """
    if not numerator or not denominator:
        return None
    value = percentile(numerator, 50) / percentile(denominator, 50)
    if min(len(numerator), len(denominator)) < LEAST_FOR_INTERVAL:
        return Estimate(value, None, None)
    rng = np.random.default_rng(seed)
    ratios = _resampled_medians(numerator, rng) / _resampled_medians(denominator, rng)
    tail = 100 * (1 - COVERAGE) / 2
    low, high = np.percentile(ratios, [tail, 100 - tail])
    return Estimate(value, float(low), float(high))


def ratio_of_ratios(
    numerators: tuple[Sequence[float], Sequence[float]],
    denominators: tuple[Sequence[float], Sequence[float]],
    *,
    seed: int,
) -> Estimate | None:
    """How much a ratio of medians of one run is of that of another, with a bootstrap interval.

    All four series are resampled independently. O(`RESAMPLES` x n), milliseconds.

    Args:
        numerators: Positive values of the second run: above and below its own line.
        denominators: The same of the first run.
        seed: The same seed and values give the same interval.

    Returns:
        `None` when one of the series is empty.
    """
    series = (*numerators, *denominators)
    if not all(series):
        return None
    above, below, first_above, first_below = (percentile(values, 50) for values in series)
    value = above / below / (first_above / first_below)
    if min(map(len, series)) < LEAST_FOR_INTERVAL:
        return Estimate(value, None, None)
    rng = np.random.default_rng(seed)
    drawn = [_resampled_medians(values, rng) for values in series]
    tail = 100 * (1 - COVERAGE) / 2
    ratios = drawn[0] / drawn[1] / (drawn[2] / drawn[3])
    low, high = np.percentile(ratios, [tail, 100 - tail])
    return Estimate(value, float(low), float(high))


def wilson(count: int, n: int) -> Interval:
    """Wilson's score interval of a share; it has a width even where none or all have it.

    Source: E. B. Wilson, Journal of the American Statistical Association 22 (1927).

    Args:
        count: Of `n`, so many have it.
        n: At least 1.
    """
    value, z2 = count / n, _Z * _Z
    middle = value + z2 / (2 * n)
    half = _Z * sqrt(value * (1 - value) / n + z2 / (4 * n * n))
    return Interval((middle - half) / (1 + z2 / n), (middle + half) / (1 + z2 / n))


def share(count: int, n: int) -> Estimate | None:
    """A share with its interval (`wilson`); `None` without cases."""
    if not n:
        return None
    low, high = wilson(count, n)
    return Estimate(count / n, max(0.0, low), min(1.0, high))


def with_ends(name: str, estimate: Estimate | None) -> dict[str, float | None]:
    """An estimate as figures: its value and the ends of its interval; `None` is unknown."""
    value, low, high = estimate or (None, None, None)
    return {name: value, f"{name}_low": low, f"{name}_high": high}


def told_share(count: int, n: int) -> str:
    """A count and its share's interval, for tables: "7 of 10 (40-89 %)"; "-" without cases."""
    if not n:
        return "-"
    low, high = wilson(count, n)
    return f"{count:,} of {n:,} ({max(0.0, low) * 100:.0f}-{min(1.0, high) * 100:.0f} %)"


def _resampled_medians(
    values: Sequence[float], rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    picked = rng.choice(np.asarray(values, dtype=np.float64), size=(RESAMPLES, len(values)))
    medians: npt.NDArray[np.float64] = np.median(picked, axis=1)
    return medians

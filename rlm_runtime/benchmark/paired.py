"""Differences between two runs over the same cases: each case is its own comparison."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import numpy as np

from rlm_runtime.benchmark.statistics import (
    COVERAGE,
    LEAST_FOR_INTERVAL,
    RESAMPLES,
    Estimate,
    wilson,
)


def difference_of_shares(pairs: Sequence[tuple[bool, bool]]) -> Estimate | None:
    """Share that holds in the second run less that in the first, over the same cases.

    The interval is Newcombe's for paired proportions (Statistics in Medicine 17, 1998, method
    10). Resampling would give an interval of no width where no case changed, however few there are.

    Args:
        pairs: Whether it holds for a case, in the first and in the second run.

    Returns:
        `None` without cases.
    """
    n = len(pairs)
    if not n:
        return None
    both = sum(a and b for a, b in pairs)
    first, second = sum(a for a, _ in pairs), sum(b for _, b in pairs)
    value = (second - first) / n
    low_1, high_1 = wilson(first, n)
    low_2, high_2 = wilson(second, n)
    share_1, share_2 = first / n, second / n
    phi = _phi(both, first, second, n)

    def reach(one: float, other: float) -> float:
        return sqrt(max(0.0, one * one - 2 * phi * one * other + other * other))

    low = value - reach(share_2 - low_2, high_1 - share_1)
    high = value + reach(high_2 - share_2, share_1 - low_1)
    return Estimate(value, max(-1.0, low), min(1.0, high))


def ratio_of_means(pairs: Sequence[tuple[float, float]], *, seed: int) -> Estimate | None:
    """Mean of the second run over that of the first, over the same cases.

    Cases are resampled as pairs (percentile bootstrap): what differs between cases is in both
    means. O(`RESAMPLES` x n), milliseconds.

    Args:
        pairs: Values of a case, not negative, in the first and in the second run.
        seed: The same seed and values give the same interval.

    Returns:
        `None` without cases, or when the first run's are all zero.
    """
    if not pairs or not any(a for a, _ in pairs):
        return None
    values = np.asarray(pairs, dtype=np.float64)
    sums = values.sum(axis=0)
    value = float(sums[1] / sums[0])
    if len(pairs) < LEAST_FOR_INTERVAL:
        return Estimate(value, None, None)
    rng = np.random.default_rng(seed)
    resampled = values[rng.integers(0, len(pairs), size=(RESAMPLES, len(pairs)))].sum(axis=1)
    ratios = resampled[resampled[:, 0] > 0]
    tail = 100 * (1 - COVERAGE) / 2
    low, high = np.percentile(ratios[:, 1] / ratios[:, 0], [tail, 100 - tail])
    return Estimate(value, float(low), float(high))


def _phi(both: int, first: int, second: int, n: int) -> float:
    """How far the two runs agree on cases, 1.0 at most; corrected as in the source's method 10."""
    only_1, only_2 = first - both, second - both
    neither = n - both - only_1 - only_2
    margins = first * (n - first) * second * (n - second)
    if not margins:
        return 0.0
    agreement = float(both * neither - only_1 * only_2)
    if agreement > 0:
        agreement = max(0.0, agreement - n / 2)
    return agreement / sqrt(margins)

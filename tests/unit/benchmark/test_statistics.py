from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_runtime.benchmark.statistics import (
    LEAST_FOR_INTERVAL,
    Estimate,
    percentile,
    ratio_of_medians,
)

times = st.floats(0.001, 1_000)
series = st.lists(times, min_size=1, max_size=30)
long_series = st.lists(times, min_size=LEAST_FOR_INTERVAL, max_size=30)


@given(series)
def test_the_50th_percentile_is_the_median(values: list[float]) -> None:
    assert percentile(values, 50) == pytest.approx(statistics.median(values))


@given(series, st.floats(0, 100), st.floats(0, 100))
def test_percentiles_rise_from_the_least_to_the_most(
    values: list[float], one: float, other: float
) -> None:
    low, high = sorted((one, other))
    between = [percentile(values, p) for p in (0, low, high, 100)]
    assert between == pytest.approx(sorted(between))
    assert (between[0], between[-1]) == (min(values), max(values))


def test_a_percentile_lies_between_neighbours_linearly() -> None:
    assert percentile([10.0, 20.0], 90) == pytest.approx(19.0)


def test_no_values_have_no_percentile() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentile([], 50)


@given(long_series, long_series, st.integers(0, 5))
def test_an_interval_lies_within_what_the_values_allow(
    above: list[float], below: list[float], seed: int
) -> None:
    estimate = ratio_of_medians(above, below, seed=seed)
    assert estimate is not None
    assert estimate.low is not None
    assert estimate.high is not None
    least, most = min(above) / max(below), max(above) / min(below)
    inside = (least, estimate.low, estimate.value, estimate.high, most)
    assert list(inside) == pytest.approx(sorted(inside))
    assert estimate.value == pytest.approx(statistics.median(above) / statistics.median(below))


@given(long_series, st.floats(0.01, 100))
def test_a_scaled_series_scales_the_ratio(values: list[float], factor: float) -> None:
    plain = ratio_of_medians(values, [2.0] * 5, seed=1)
    scaled = ratio_of_medians([v * factor for v in values], [2.0] * 5, seed=1)
    assert plain is not None
    assert scaled == pytest.approx([figure * factor for figure in plain if figure is not None])


def test_equal_values_have_an_interval_without_width() -> None:
    assert ratio_of_medians([3.0] * 6, [2.0] * 6, seed=0) == (1.5, 1.5, 1.5)


def test_the_same_seed_gives_the_same_interval() -> None:
    above, below = [1.0, 2.0, 4.0, 8.0, 16.0], [1.0, 3.0, 9.0, 27.0, 81.0, 5.0]
    assert ratio_of_medians(above, below, seed=3) == ratio_of_medians(above, below, seed=3)


def test_more_values_of_the_same_spread_give_a_narrower_interval() -> None:
    few = ratio_of_medians([float(i % 5 + 1) for i in range(5)], [1.0] * 5, seed=0)
    many = ratio_of_medians([float(i % 5 + 1) for i in range(200)], [1.0] * 5, seed=0)
    assert width(many) < width(few)


def width(estimate: Estimate | None) -> float:
    assert estimate is not None
    assert estimate.low is not None
    assert estimate.high is not None
    return estimate.high - estimate.low


def test_too_few_values_have_no_interval() -> None:
    estimate = ratio_of_medians([1.0] * (LEAST_FOR_INTERVAL - 1), [2.0] * 30, seed=0)
    assert estimate == Estimate(0.5, None, None)
    assert estimate is not None
    assert estimate.interval == "too few values"


def test_an_empty_series_has_no_ratio() -> None:
    assert ratio_of_medians([], [1.0], seed=0) is None
    assert ratio_of_medians([1.0], [], seed=0) is None

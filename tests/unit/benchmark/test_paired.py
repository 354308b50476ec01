"""Differences over the same cases: published numbers, and bounds that always hold."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_runtime.benchmark.paired import difference_of_shares, ratio_of_means
from rlm_runtime.benchmark.statistics import ratio_of_ratios

PAIRS = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=80)


def pairs_of(both: int, first: int, second: int, neither: int) -> list[tuple[bool, bool]]:
    return (
        [(True, True)] * both
        + [(True, False)] * first
        + [(False, True)] * second
        + [(False, False)] * neither
    )


@pytest.mark.parametrize(
    ("counts", "low", "high"),
    [((36, 2, 12, 0), 0.0569, 0.3404), ((36, 0, 14, 0), 0.1528, 0.4167)],
)
def test_the_interval_is_the_one_that_was_published(
    counts: tuple[int, int, int, int], low: float, high: float
) -> None:
    estimate = difference_of_shares(pairs_of(*counts))
    assert estimate is not None
    assert estimate.low == pytest.approx(low, abs=5e-5)
    assert estimate.high == pytest.approx(high, abs=5e-5)


@given(PAIRS)
def test_a_difference_lies_in_its_interval_and_turns_with_the_runs(
    pairs: list[tuple[bool, bool]],
) -> None:
    there, back = difference_of_shares(pairs), difference_of_shares([(b, a) for a, b in pairs])
    assert there is not None
    assert back is not None
    assert None not in (there.low, there.high, back.low, back.high)
    assert -1 <= (there.low or 0) <= there.value <= (there.high or 0) <= 1
    assert (there.high or 0) > (there.low or 0), "few cases never prove that nothing changed"
    assert back.value == pytest.approx(-there.value)
    assert back.low == pytest.approx(-(there.high or 0))


def test_pairing_takes_out_what_differs_between_cases() -> None:
    pairs = [(float(n), n * 0.9) for n in range(1, 30)]
    paired = ratio_of_means(pairs, seed=0)
    assert paired is not None
    assert paired == pytest.approx((0.9, 0.9, 0.9))


def test_a_ratio_of_means_has_an_interval_from_five_cases_on() -> None:
    assert ratio_of_means([(1.0, 2.0)] * 4, seed=0) == (2.0, None, None)
    assert ratio_of_means([(1.0, 2.0)] * 5, seed=0) == (2.0, 2.0, 2.0)


def test_without_cases_or_with_nothing_to_divide_by_there_is_no_estimate() -> None:
    assert difference_of_shares([]) is None
    assert ratio_of_means([], seed=0) is None
    assert ratio_of_means([(0.0, 1.0)] * 9, seed=0) is None


def test_a_ratio_of_ratios_is_of_medians_and_needs_all_four_series() -> None:
    ten, five, two = [10.0] * 6, [5.0] * 6, [2.0] * 6
    assert ratio_of_ratios((five, ten), (two, ten), seed=0) == pytest.approx((2.5, 2.5, 2.5))
    assert ratio_of_ratios((five, ten), (two[:3], ten), seed=0) == (2.5, None, None)
    assert ratio_of_ratios((five, []), (two, ten), seed=0) is None

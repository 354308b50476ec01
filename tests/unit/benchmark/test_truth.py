from __future__ import annotations

import pytest

from rlm_runtime.benchmark.workloads.truth import Asked, ByteSpan, Wanted, holds

FIRST, SECOND, ELSEWHERE = ByteSpan(10, 20), ByteSpan(50, 60), ByteSpan(30, 40)


def asked(*places: ByteSpan) -> Asked:
    return Asked("a", "kind", "Which?", tuple(Wanted(("x",), (place,)) for place in places))


@pytest.mark.parametrize(
    ("answer", "is_held"),
    [
        ("It was 2,221.", True),
        ("2221 jars", True),
        ("12,221", False),
        ("22,210", False),
        ("", False),
    ],
)
def test_one_spelling_is_enough_and_stands_as_a_word(answer: str, is_held: bool) -> None:
    assert holds(answer, ("2,221", "2221")) is is_held


@pytest.mark.parametrize(
    ("quoted", "rank"),
    [
        ([[FIRST]], 1),
        ([[ByteSpan(0, 11)]], 1),
        ([[ByteSpan(0, 10)]], None),
        ([[ELSEWHERE, ByteSpan(19, 30)]], 2),
        ([[]], None),
        ([], None),
    ],
)
def test_a_rank_is_the_first_quotation_that_overlaps(
    quoted: list[list[ByteSpan]], rank: int | None
) -> None:
    assert asked(FIRST).rank(quoted) == rank


def test_any_passage_of_what_is_asked_is_right() -> None:
    either = Asked("a", "kind", "Which?", (Wanted(("x",), (FIRST, SECOND)),))
    assert either.rank([[ELSEWHERE, SECOND, FIRST]]) == 2


def test_two_things_are_found_where_the_later_one_is() -> None:
    both = asked(FIRST, SECOND)
    assert both.rank([[FIRST, ELSEWHERE], [SECOND]]) == 1
    assert both.rank([[FIRST, SECOND]]) == 2
    assert both.rank([[FIRST], [ELSEWHERE]]) is None


def test_nothing_is_right_where_nothing_is_asked_for() -> None:
    open_ = asked()
    assert not open_.is_answerable
    assert not open_.is_right("x")
    assert open_.rank([[FIRST]]) is None
    assert asked(FIRST, SECOND).is_right("an X here")

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlm_runtime.benchmark.workloads.qa import (
    Case,
    Kind,
    Part,
    Span,
    check,
    is_answered,
    load_cases,
    places,
    planted_text,
    reference_text,
    usable,
)


def case(*parts: tuple[str, str], absent: tuple[str, ...] = ()) -> Case:
    """A case with one answer and one passage a part."""
    return Case(
        "c",
        Kind.SHARED,
        "Which?",
        tuple(Part("", (answer,), (passage,)) for answer, passage in parts),
        absent=absent,
    )


def test_places_finds_every_occurrence_over_line_breaks() -> None:
    assert places("a  b", "a b, a\n   b; ab") == (Span(0, 3), Span(5, 11))


def test_places_takes_the_phrase_literally() -> None:
    assert places("r[i] = (x+1)", "r[i]\n= (x+1) and ri = x") == (Span(0, 12),)


def test_check_names_the_first_passage_of_a_part_that_is_gone() -> None:
    asked = case(("one", "one here"), ("two", "two there"))

    assert check(asked, "one here") == ("two there",)


def test_check_is_content_with_any_passage_of_a_part() -> None:
    asked = Case("c", Kind.SHARED, "Which?", (Part("", ("one",), ("one here", "one there")),))

    assert check(asked, "one\nthere") == ()


@pytest.mark.parametrize(("text", "found"), [("The GIL is gone.", ("gil",)), ("Gilded. vigil", ())])
def test_check_names_whole_absent_words_that_a_text_has(text: str, found: tuple[str, ...]) -> None:
    assert check(case(absent=("gil",)), text) == found


def test_usable_drops_a_case_that_the_text_does_not_hold_and_says_which() -> None:
    cases = load_cases("tune")
    text = planted_text(cases, seed=1)
    gone = next(c for c in cases if c.kind is Kind.SHARED)
    for passage in gone.parts[0].passages:
        for start, end in reversed(places(passage, text)):
            text = text[:start] + text[end:]

    kept, dropped = usable(cases, text)

    assert dropped == (gone.id,)
    assert kept == tuple(c for c in cases if c is not gone)


@pytest.mark.parametrize("half", ["tune", "test"])
def test_all_cases_are_usable_with_their_planted_text(half: str) -> None:
    cases = load_cases("tune" if half == "tune" else "test")

    assert usable(cases, planted_text(cases, seed=3)) == (cases, ())


@pytest.mark.parametrize(
    "answer",
    ['It uses "None" as\nthe default.', "none AS the default", "`None` as **the** default"],
)
def test_an_answer_counts_whatever_its_case_quotes_and_breaks(answer: str) -> None:
    assert is_answered(case(('"None" as the default', "")), answer)


@pytest.mark.parametrize(
    ("expected", "answer"),
    [("0x20", "bit 0x2000"), ("3.3", "13.3"), ("ß", "ss")],
)
def test_an_answer_counts_only_as_whole_words(expected: str, answer: str) -> None:
    assert not is_answered(case((expected, "")), answer)


def test_every_part_has_to_be_answered() -> None:
    asked = case(("KeyError", ""), ("ValueError", ""))

    assert is_answered(asked, "KeyError first, then ValueError.")
    assert not is_answered(asked, "KeyError first.")


def test_nothing_answers_an_unanswerable_question() -> None:
    assert not is_answered(case(), "Anything at all.")


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), count=st.integers(1, 10))
def test_plants_are_paragraphs_and_the_text_around_them_is_whole(seed: int, count: int) -> None:
    cases = [c for c in load_cases("test") if c.plant][:count]

    text = planted_text(cases, seed)

    starts = []
    for planted in cases:
        ((start, end),) = places(planted.plant, text)
        assert text[start - 2 : start] == text[end : end + 2] == "\n\n"
        text = text[:start] + text[end + 2 :]
        starts.append(start)
    assert text == reference_text()
    assert len(set(starts)) == count


def test_planting_depends_on_the_seed_alone() -> None:
    cases = load_cases("tune")

    assert planted_text(cases, 5) == planted_text(cases, 5) != planted_text(cases, 6)


@pytest.mark.parametrize("seed", range(5))
def test_every_tenth_of_the_text_has_one_of_ten_plants(seed: int) -> None:
    cases = [c for c in load_cases("tune") if c.plant]
    length = len(reference_text())

    starts = sorted(places(c.plant, planted_text(cases, seed))[0].start for c in cases)

    # Plants before it move a plant back by less than 100 characters each.
    assert len(cases) == 10
    for tenth, start in enumerate(starts):
        assert length * tenth // 10 <= start < length * (tenth + 1) // 10 + 100 * tenth

"""The question set says what is true of the text, and its two halves are alike and apart."""

from __future__ import annotations

import re
import sys
from collections import Counter
from itertools import combinations, pairwise
from pydoc_data.topics import topics
from statistics import fmean

import pytest

from rlm_runtime.benchmark.workloads.qa import (
    Case,
    Half,
    Kind,
    check,
    is_answered,
    load_cases,
    places,
    planted_text,
    reference_text,
)
from rlm_runtime.benchmark.workloads.wording import content_stems

HALVES: tuple[Half, Half] = ("tune", "test")
CASES = (*load_cases("tune"), *load_cases("test"))
TEXT = reference_text()
IN_TEXT = [c for c in CASES if c.parts and not c.plant and not check(c, TEXT)]
DROPPED = [c.id for c in CASES if not c.plant and check(c, TEXT)]
PLANTED = [case for case in CASES if case.plant]
UNANSWERABLE = [case for case in CASES if not case.parts]
SHARED = [case for case in CASES if case.kind in (Kind.SHARED, Kind.PLANTED)]
PARAPHRASED = [case for case in CASES if case.kind in (Kind.PARAPHRASED, Kind.PLANTED_PARAPHRASED)]

LEAST = {
    Kind.SHARED: 20,
    Kind.PARAPHRASED: 20,
    Kind.TWO_PASSAGES: 6,
    Kind.PLANTED: 5,
    Kind.PLANTED_PARAPHRASED: 5,
    Kind.UNANSWERABLE_FIELD: 6,
    Kind.UNANSWERABLE_OFF_TOPIC: 6,
}


def overlap(question: str, passages: tuple[str, ...]) -> float:
    """The share of the question's content words that one of the passages has."""
    return max(
        len(content_stems(question) & content_stems(p)) / len(content_stems(question))
        for p in passages
    )


def by_id(cases: list[Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.id)


@pytest.mark.parametrize("half", HALVES)
def test_a_half_has_enough_cases_of_each_kind(half: Half) -> None:
    counts = Counter(case.kind for case in load_cases(half))

    assert {kind: counts[kind] for kind in LEAST if counts[kind] < LEAST[kind]} == {}


def test_halves_have_equal_make_up() -> None:
    tune, test = (Counter(case.kind for case in load_cases(half)) for half in HALVES)

    assert tune == test


def test_ids_are_unique() -> None:
    assert [i for i, n in Counter(case.id for case in CASES).items() if n > 1] == []


def test_halves_are_from_different_topics() -> None:
    tune, test = (
        {part.topic for case in load_cases(half) for part in case.parts if part.topic}
        for half in HALVES
    )

    assert tune & test == set()


def test_no_two_questions_are_much_alike() -> None:
    alike = [
        (a.question, b.question)
        for a, b in combinations(CASES, 2)
        if len(content_stems(a.question) & content_stems(b.question))
        > 0.5 * len(content_stems(a.question) | content_stems(b.question))
    ]

    assert alike == []


def test_no_passage_serves_two_cases() -> None:
    spans = sorted(
        (*span, case.id)
        for case in IN_TEXT
        for part in case.parts
        for passage in part.passages
        for span in places(passage, TEXT)
    )

    shared = [(a, b) for (_, end, a), (start, _, b) in pairwise(spans) if start < end and a != b]
    assert shared == []


def test_cases_hold_for_the_text_of_this_python() -> None:
    # 3.11 has its last text. Later ones still change with patch releases: a few dropped cases
    # are what `usable` is for, more mean that the set has to be brought up to date.
    assert len(DROPPED) <= (0 if sys.version_info < (3, 12) else 6), DROPPED


@by_id(IN_TEXT)
def test_a_passage_is_one_paragraph_of_its_topic(case: Case) -> None:
    for part in case.parts:
        topic = topics[part.topic.partition("/")[0]]
        standing = [p for p in part.passages if places(p, TEXT)]

        assert places(standing[0], topic)
        for passage in standing:
            assert all("\n\n" not in TEXT[a:b] for a, b in places(passage, TEXT))


@by_id([*IN_TEXT, *PLANTED])
def test_every_passage_answers_and_every_answer_is_from_a_passage(case: Case) -> None:
    for part in case.parts:
        asked = Case(case.id, case.kind, case.question, (part,))

        assert [p for p in part.passages if not is_answered(asked, p)] == []
        assert [a for a in part.answers if not any(places(a, p) for p in part.passages)] == []


@by_id([*IN_TEXT, *PLANTED])
def test_a_question_does_not_give_its_answer_away(case: Case) -> None:
    assert [a for p in case.parts for a in p.answers if a.lower() in case.question.lower()] == []


@by_id(IN_TEXT)
def test_an_answer_is_rare_enough_that_a_wrong_sentence_seldom_holds_it(case: Case) -> None:
    # Of more than 4,000 sentences.
    counts = {a: len(places(a, TEXT)) for part in case.parts for a in part.answers}

    assert {answer: n for answer, n in counts.items() if n > 30} == {}


@by_id(PLANTED)
def test_a_plant_stands_once_in_the_planted_text_and_is_foreign_to_the_rest(case: Case) -> None:
    assert len(places(case.plant, planted_text((case,), seed=0))) == 1
    assert case.parts[0].passages == (case.plant,)
    assert [a for a in case.parts[0].answers if places(a, TEXT)] == []


def test_plants_are_not_connected() -> None:
    names = [frozenset(re.findall(r"(?<!^)[A-Z]\w+", case.plant)) for case in PLANTED]

    assert [(a, b) for a, b in combinations(names, 2) if a & b] == []


@by_id(UNANSWERABLE)
def test_an_unanswerable_question_names_words_that_the_text_must_not_have(case: Case) -> None:
    assert case.absent
    assert check(case, f"Something with {case.absent[0]} in it.") == (case.absent[0],)


@by_id(SHARED)
def test_a_shared_question_has_its_passage_s_words(case: Case) -> None:
    assert overlap(case.question, case.parts[0].passages) >= 0.5


@by_id(PARAPHRASED)
def test_a_paraphrased_question_avoids_its_passage_s_words(case: Case) -> None:
    assert overlap(case.question, case.parts[0].passages) <= 0.25


@pytest.mark.parametrize("half", HALVES)
def test_kinds_are_far_apart_in_shared_words(half: Half) -> None:
    shared, paraphrased = (
        fmean(
            overlap(case.question, case.parts[0].passages)
            for case in load_cases(half)
            if case.kind is kind
        )
        for kind in (Kind.SHARED, Kind.PARAPHRASED)
    )

    assert shared >= 0.75
    assert paraphrased <= 0.06


@by_id([case for case in IN_TEXT if case.kind is Kind.TWO_PASSAGES])
def test_two_passages_are_asked_by_one_and_stand_far_apart(case: Case) -> None:
    first, second = (
        [span.start for passage in part.passages for span in places(passage, TEXT)]
        for part in case.parts
    )

    assert case.question.count(", and ") == 1
    # More than a chunk of 700 tokens, so that no single chunk can serve.
    assert min(abs(a - b) for a in first for b in second) > 5000


@pytest.mark.parametrize("half", HALVES)
def test_a_half_is_spread_over_the_whole_text(half: Half) -> None:
    firsts = [
        min(span.start for passage in part.passages for span in places(passage, TEXT))
        for case in load_cases(half)
        if case in IN_TEXT
        for part in case.parts
    ]

    sixths = Counter(6 * first // len(TEXT) for first in firsts)
    assert {sixth: sixths[sixth] for sixth in range(6) if sixths[sixth] < 4} == {}
    assert len({p.topic for case in load_cases(half) for p in case.parts if p.topic}) >= 30

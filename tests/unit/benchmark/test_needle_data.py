"""Planted facts stand where the truth says, and questions can and cannot be answered as meant."""

from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rlm_runtime.benchmark.workloads.haystack import haystack
from rlm_runtime.benchmark.workloads.needle import (
    MAX_CASES,
    Form,
    Kind,
    NeedleDocument,
    forms,
    needle_document,
    size_label,
)
from rlm_runtime.benchmark.workloads.qa import reference_text
from rlm_runtime.benchmark.workloads.truth import Asked
from rlm_runtime.benchmark.workloads.wording import content_stems
from rlm_runtime.errors import InputError
from rlm_runtime.prompt import Tokenizer
from rlm_runtime.scaffold.questions import question_parts

SHORT = 14_400
MANY = settings(max_examples=12, deadline=None)
documents = given(seed=st.integers(0, 2**32), cases=st.integers(1, MAX_CASES))


def words(text: str) -> int:
    """Stands for a tokenizer; a text has fewer tokens than characters."""
    return len(re.findall(r"\w+|[^\w\s]", text))


def made(seed: int, cases: int = 2, tokens: int = SHORT) -> NeedleDocument:
    return needle_document(tokens, cases, seed, words)


def of(document: NeedleDocument, kind: Kind) -> list[Asked]:
    return [asked for asked in document.asked if asked.kind == kind]


def by_name() -> pytest.MarkDecorator:
    return pytest.mark.parametrize("form", forms(), ids=lambda form: form.name)


@MANY
@documents
@example(seed=108349, cases=7)  # a count that ended a number of another fact
def test_what_is_expected_stands_at_its_place_and_nowhere_else(seed: int, cases: int) -> None:
    document = made(seed, cases)
    data = document.text.encode()
    for needle in document.needles:
        start, end = needle.place
        planted = data[start:end].decode()
        assert " ".join(planted.split()) == needle.sentence
        assert data[start - 2 : start] == data[end : end + 2] == b"\n\n"
        assert needle.depth == start / len(data)
        rest = (data[:start] + data[end:]).decode().lower()
        for answer in needle.answers:
            assert not re.search(rf"(?<!\w){re.escape(answer.lower())}(?!\w)", rest)
        assert any(answer in planted for answer in needle.answers)


@MANY
@documents
def test_each_kind_is_asked_as_often_about_places_of_the_facts(seed: int, cases: int) -> None:
    document = made(seed, cases)
    places = {needle.place for needle in document.needles}
    assert len(places) == 2 * cases
    for kind in Kind:
        asked = of(document, kind)
        assert len(asked) == cases
        parts = {Kind.SHARED: 1, Kind.PARAPHRASED: 1, Kind.TWO_PASSAGES: 2}.get(kind, 0)
        assert {len(one.wanted) for one in asked} == {parts}
        assert {place for one in asked for want in one.wanted for place in want.places} <= places
    assert len({one.id for one in document.asked}) == 5 * cases


@MANY
@documents
def test_wording_is_all_that_shared_and_paraphrased_differ_by(seed: int, cases: int) -> None:
    document = made(seed, cases)
    sentences = {needle.place: needle.sentence for needle in document.needles}
    pairs = zip(of(document, Kind.SHARED), of(document, Kind.PARAPHRASED), strict=True)
    for shared, paraphrased in pairs:
        assert shared.wanted == paraphrased.wanted
        assert document.depths[shared.id] == document.depths[paraphrased.id]
        stems = content_stems(sentences[shared.wanted[0].places[0]])
        assert content_stems(paraphrased.question) & stems == frozenset()
        asked = content_stems(shared.question)
        assert len(asked & stems) >= 0.6 * len(asked)


@MANY
@documents
def test_who_is_asked_about_without_being_there_is_not_there(seed: int, cases: int) -> None:
    document = made(seed, cases)
    names = [
        re.findall(r"(?<!^)\b[A-Z]\w+", asked.question)
        for asked in of(document, Kind.UNANSWERABLE_NAME)
    ]
    # A word that a form capitalises itself ("Mount") and first names are no names of their own.
    for found in names:
        assert [name for name in found if name not in document.text] != []
        assert found[-1] not in document.text


@MANY
@documents
def test_who_is_asked_something_that_is_not_said_is_there(seed: int, cases: int) -> None:
    document = made(seed, cases)
    sentences = [needle.sentence for needle in document.needles]
    for asked in of(document, Kind.UNANSWERABLE_FACT):
        (name,) = re.findall(r"(?<!^)\b[A-Z]\w+", asked.question)[-1:]
        assert [sentence for sentence in sentences if name in sentence] != []


@MANY
@documents
def test_two_facts_that_are_asked_for_together_stand_far_apart(seed: int, cases: int) -> None:
    document = made(seed, cases)
    for asked in of(document, Kind.TWO_PASSAGES):
        one, other = (want.places[0].start for want in asked.wanted)
        assert asked.question.count(", and ") == 1
        assert abs(one - other) > len(document.text) // 5


@MANY
@given(
    seed=st.integers(0, 2**32), cases=st.integers(1, 5), tokens=st.integers(SHORT // 2, 3 * SHORT)
)
def test_a_text_has_the_size_that_was_asked_for(seed: int, cases: int, tokens: int) -> None:
    assert abs(words(made(seed, cases, tokens).text) / tokens - 1) < 0.02


def test_a_size_holds_for_a_real_tokenizer(model_dir: Path) -> None:
    count = Tokenizer.from_folder(model_dir).count
    text = needle_document(1 << 16, 10, 0, count).text
    assert abs(count(text) / (1 << 16) - 1) < 0.02


@pytest.mark.parametrize("seed", range(5))
def test_facts_are_evenly_spread(seed: int) -> None:
    depths = sorted(needle.depth for needle in made(seed, 5, 4 * SHORT).needles)
    for number, depth in enumerate(depths):
        assert depth == pytest.approx((number + 0.5) / 10, abs=0.04)


def test_equal_arguments_give_an_equal_document() -> None:
    assert made(3) == made(3)
    assert made(3).text != made(4).text
    assert made(3).asked != made(4).asked


def test_the_text_is_real_and_made_up_in_turn() -> None:
    text = haystack(20_000, 0, words)
    assert text.count("Yours faithfully") > 3
    reference = reference_text()
    real = [part for part in text.split("\n\n") if len(part) > 200 and part in reference]
    assert 0.2 < sum(map(len, real)) / len(text) < 0.8


def test_a_long_text_has_docstrings_of_the_standard_library() -> None:
    # More than the language reference has.
    text = haystack(400_000, 0, words)
    assert "    Return True" in text
    assert str(Path.home()) not in text


def test_a_haystack_that_cannot_be_filled_is_refused() -> None:
    with pytest.raises(InputError, match="too short"):
        haystack(50_000_000, 0, lambda text: len(text.split()))


@pytest.mark.parametrize(("tokens", "cases"), [(SHORT, 0), (SHORT, 13), (2_000, 2)])
def test_facts_that_do_not_fit_are_refused(tokens: int, cases: int) -> None:
    with pytest.raises(InputError):
        made(0, cases, tokens)


@pytest.mark.parametrize(
    ("tokens", "label"),
    [(1 << 14, "16k"), (1 << 20, "1M"), (1_500 << 10, "1500k"), (7_000, "7000")],
)
def test_sizes_are_named_as_they_are_asked_for(tokens: int, label: str) -> None:
    assert size_label(tokens) == label


def test_there_is_a_form_for_every_fact() -> None:
    assert len(forms()) == 2 * MAX_CASES == len({form.name for form in forms()})


@by_name()
def test_a_form_asks_for_a_field_of_its_sentence_alone(form: Form) -> None:
    assert f"{{{form.answer}}}" in form.sentence
    assert f"{{{form.answer}}}" not in form.shared + form.paraphrased + form.near_miss
    assert "{" not in form.paraphrased
    assert "{" in form.shared
    assert "{" in form.near_miss


@by_name()
def test_a_paraphrase_is_about_one_form_alone(form: Form) -> None:
    asked = content_stems(form.paraphrased)
    for other in forms():
        texts = [other.decoy] if other is form else [other.sentence, other.decoy]
        for text in (re.sub(r"\{\w+\}", "", text) for text in texts):
            assert len(asked & content_stems(text)) <= 1, (other.name, text)


def test_no_two_questions_are_much_alike() -> None:
    questions = [
        question for form in forms() for question in (form.shared, form.paraphrased, form.near_miss)
    ]
    bare = [content_stems(re.sub(r"\{\w+\}", "", question)) for question in questions]
    for (a, one), (b, other) in combinations(zip(questions, bare, strict=True), 2):
        assert len(one & other) <= 0.75 * len(one | other), (a, b)


def test_most_questions_for_two_facts_are_split_by_the_recipe() -> None:
    asked = [q for seed in range(10) for q in of(made(seed, 6), Kind.TWO_PASSAGES)]
    split = [q for q in asked if len(question_parts(q.question)) == 2]
    assert len(split) >= 0.9 * len(asked)

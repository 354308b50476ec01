"""Which labels a question names, and which one an answer means."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_runtime.errors import InputError
from rlm_runtime.scaffold.recipes.labels import check_labels, label_meant, labels_of


@pytest.mark.parametrize(
    ("question", "labels"),
    [
        ('Is each letter "angry" or "calm"?', ("angry", "calm")),
        ("Are they ‘in stock’, ‘sold out’ or ‘on order’?", ("in stock", "sold out", "on order")),
        ("Classify the tickets: bug, feature request, question.",
         ("bug", "feature request", "question")),
        ("Label each row:\nred\ngreen\nblue", ("red", "green", "blue")),
        ("Sort the rows into fruit, vegetables and meat.", ("fruit", "vegetables", "meat")),
        ("Classify each review as positive or negative.", ("positive", "negative")),
        ("Tag each line as a bug, a feature, or a question", ("bug", "feature", "question")),
        ("How many reviews are positive, negative or mixed?", ("positive", "negative", "mixed")),
        ("Rate each: -1, 0 or 1", ("-1", "0", "1")),
        ("Label each row:\n- red\n- light green", ("red", "light green")),
        ("Is it spam/ham? Answer: spam / ham", ("spam", "ham")),
    ],
)  # fmt: skip
def test_labels_are_taken_from_the_question(question: str, labels: tuple[str, ...]) -> None:
    assert labels_of(question) == labels


@pytest.mark.parametrize(
    "question",
    [
        "Who signed the treaty?",
        "How many complaints are there?",
        'What does "lien" mean?',
        "List them: every invoice that was paid late by one of the customers in the north.",
        "It's the customers' own choice, isn't it?",
        "as " * 3000,
        "",
    ],
)
def test_a_question_that_names_no_labels_gives_none(question: str) -> None:
    assert labels_of(question) == ()


@given(st.text(max_size=300))
def test_any_text_is_a_question_with_none_or_several_labels(question: str) -> None:
    labels = labels_of(question)
    assert len(labels) != 1
    assert all(label.strip() for label in labels)


@pytest.mark.parametrize(
    "labels",
    [(), ("one",), ("a", ""), ("a", "two\nlines"), ("Bug", "bug"), ("bug", " bug "), ("a", "a")],
)
def test_labels_that_cant_be_told_apart_are_refused(labels: tuple[str, ...]) -> None:
    with pytest.raises(InputError):
        check_labels(labels)


def test_labels_that_differ_in_a_sign_are_told_apart() -> None:
    check_labels(("-1", "1", "c", "c++"))


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ("bug", "bug"),
        ("  Bug.\n", "bug"),
        ('The text is a "feature", not a bug.', "feature"),
        ("It is a bug report.", "bug report"),
        ("I think -1.", "-1"),
        ("debugging", None),
        ("", None),
        ("none of them", None),
    ],
)
def test_a_free_answer_means_the_first_label_in_it(answer: str, label: str | None) -> None:
    assert label_meant(answer, ("bug", "bug report", "feature", "1", "-1")) == label

"""Which questions are two, and what each of the two asks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_runtime.benchmark.workloads.qa import Case, Kind, load_cases
from rlm_runtime.scaffold.questions import MAX_PARTS, question_parts

CASES = (*load_cases("tune"), *load_cases("test"))
TWO = [case for case in CASES if case.kind is Kind.TWO_PASSAGES]
ONE = [case for case in CASES if case.kind is not Kind.TWO_PASSAGES]


@pytest.mark.parametrize("case", TWO, ids=lambda case: case.id)
def test_a_question_about_two_passages_is_two(case: Case) -> None:
    first, second = question_parts(case.question)
    cut, rest = case.question.split(", and ", 1)
    assert first == f"{cut}?"
    # "which one" becomes the noun; all else stays.
    assert second.split()[-3:] == rest.split()[-3:]
    assert " one " not in second


@pytest.mark.parametrize("case", ONE, ids=lambda case: case.id)
def test_a_question_about_one_passage_stays_as_it_is(case: Case) -> None:
    assert question_parts(case.question) == (case.question,)


SPLIT = [
    (
        "Who founded the firm; and how many people worked there in 1900?",
        "Who founded the firm?",
        "How many people worked there in 1900?",
    ),
    (
        "Who wrote Emma? Who painted the Night Watch?",
        "Who wrote Emma?",
        "Who painted the Night Watch?",
    ),
    (
        "Who wrote Emma? And when did Anna leave Oslo?",
        "Who wrote Emma?",
        "When did Anna leave Oslo?",
    ),
    (
        "who wrote emma and who painted the night watch",
        "Who wrote emma?",
        "Who painted the night watch?",
    ),
    (
        "Where does the ferry leave, and how much does a ticket cost?",
        "Where does the ferry leave?",
        "How much does a ticket cost?",
    ),
    (
        "Which port does the server use, and on which day was the harbour closed?",
        "Which port does the server use?",
        "On which day was the harbour closed?",
    ),
    (
        "What is bread made of, and whom did the choir elect?",
        "What is bread made of?",
        "Whom did the choir elect?",
    ),
    # What is in front of the question holds for both halves.
    (
        "In the 1998 report, who signed the letter and what was decided?",
        "In the 1998 report, who signed the letter?",
        "In the 1998 report, what was decided?",
    ),
    # What "one" is.
    (
        "Which built-in function creates a slice, and which one returns a length?",
        "Which built-in function creates a slice?",
        "Which built-in function returns a length?",
    ),
    (
        "Which class holds the data, and which one may the parser use?",
        "Which class holds the data?",
        "Which class may the parser use?",
    ),
    (
        "In which year was Ann born, and in which one did Bob marry?",
        "In which year was Ann born?",
        "In which year did Bob marry?",
    ),
    (
        "Which exception is raised when a file is missing, and which is raised for a full disk?",
        "Which exception is raised when a file is missing?",
        "Which exception is raised for a full disk?",
    ),
    # What "it" is.
    (
        "When was the bridge over the Lind built and why was it torn down?",
        "When was the bridge over the Lind built?",
        "Why was the bridge over the Lind torn down?",
    ),
    (
        "Who signed the treaty and when was it ratified?",
        "Who signed the treaty?",
        "When was the treaty ratified?",
    ),
    # Not known what it is, but the half says enough of its own.
    (
        "Which company bought the mill, and in which year did it close the paper factory?",
        "Which company bought the mill?",
        "In which year did it close the paper factory?",
    ),
]


@pytest.mark.parametrize(("question", "first", "second"), SPLIT)
def test_two_things_are_asked_apart(question: str, first: str, second: str) -> None:
    assert question_parts(question) == (first, second)


def test_three_things_are_asked_apart() -> None:
    asked = "Who wrote Emma, and who did Anna marry, and when did the Berlin Wall fall?"
    wrote, married, fell = question_parts(asked)
    assert (wrote, married) == ("Who wrote Emma?", "Who did Anna marry?")
    assert fell == "When did the Berlin Wall fall?"
    asked = "Who wrote Emma? Who is Bob Day? When did Ann die, and where was she?"
    assert question_parts(asked)[1:] == ("Who is Bob Day?", "When did Ann die, and where was she?")


def test_a_list_of_questions_is_kept_whole() -> None:
    one = "Who wrote Emma? "
    assert len(question_parts(one * MAX_PARTS)) == MAX_PARTS
    assert question_parts(one * (MAX_PARTS + 1)) == (one * (MAX_PARTS + 1),)


WHOLE = [
    "What is the difference between A and B?",
    "Who bought bread and wine?",
    "What is the difference between how lists work and how tuples are stored?",
    "What do the terms who and whom mean?",
    "How do I run several coroutines at the same time and collect their results?",
    # The second half says nothing alone.
    "Who signed the treaty, and when?",
    "Who signed it? And when?",
    "Where does the ferry leave, and why not earlier?",
    "Who is Anna, and what about Bob?",
    "What is it, and what does it do?",
    "Who founded the firm with Anna, and where did he live?",
    "How much does a ticket cost and where can I buy one?",
    # Clauses that look like questions.
    "Do you know what type of book it is and what it costs?",
    "Which book explains what is wrong and what was done?",
    "Which book says how lists work and which class stores them?",
    "Which man, who lived in Paris and who died in 1900, wrote this?",
    "Which man, who lived in Paris, and who died in 1900, wrote this?",
    "What did the sailor say, and what the cook?",
    "Who told Anna when the ship left and where the crew was?",
    # Not a question by its form, or not wholly.
    "Anna wrote a letter. Who answered it?",
    "Tell me about the bridge and who built it",
    "Who wrote Emma? Please quote.",
    'Who said "stay here, and who are you to leave" to Anna?',
    "Which function (and which module of it) reads a file?",
    "the ferry, and when does it leave",
    "",
    "?",
    "and",
]


@pytest.mark.parametrize("question", WHOLE)
def test_one_thing_stays_one(question: str) -> None:
    assert question_parts(question) == (question,)


WORDS = (
    "who whom what which when where how the a it one is was does did and , and ; ? ( also many "
    "bridge bridges Anna built signs signed of in between that if but"
)
VOCABULARY = (*WORDS.split(), "?", '"', ", and which one ")


@given(st.lists(st.sampled_from(VOCABULARY), max_size=25).map(" ".join))
def test_whatever_is_asked_the_parts_are_questions_made_of_it(question: str) -> None:
    parts = question_parts(question)
    assert 1 <= len(parts) <= MAX_PARTS
    if len(parts) == 1:
        assert parts == (question,)
        return
    for part in parts:
        assert part.endswith("?")
        assert part[0] == part[0].upper()
        assert len(part.split()) >= 3
    known = {word.strip("?,;").lower() for word in question.split()}
    assert {word.strip("?,;").lower() for part in parts for word in part.split()} <= known


@pytest.mark.parametrize(
    "piece", ["what is alpha beta and ", "a", " ", "who built it, ", "and which one ", "? "]
)
def test_a_question_of_thousands_of_words_stays_one(piece: str) -> None:
    question = piece * 5_000
    assert question_parts(question) == (question,)


@given(st.text(max_size=60))
def test_any_text_has_parts(text: str) -> None:
    assert question_parts(text)

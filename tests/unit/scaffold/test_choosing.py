"""Which agent a task is for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlm_runtime.prompt import CONNECTIVE
from rlm_runtime.scaffold.agent_context import AgentContext
from rlm_runtime.scaffold.choosing import Choice, auto

if TYPE_CHECKING:
    from tests.unit.scaffold.conftest import Grove

WINDOW, ANSWER = 2048, 64
LONG = "The weather was mild. " * 2000
SHORT = "The weather was mild."


def choose(
    grove: Grove, task: str, *, window: int | None = WINDOW, visible: Sequence[str] | None = None
) -> Choice:
    context = AgentContext(grove.store, grove.recorder, visible=visible)
    return auto(task, context, grove.corpus, window=window, answer_tokens=ANSWER)


def test_without_context_it_is_one_call(grove: Grove) -> None:
    assert choose(grove, "Summarize the report.").kind == "direct"


def test_only_what_the_agent_sees_counts(grove: Grove) -> None:
    grove.store.put_text("report", LONG)
    assert choose(grove, "Who wrote it?", visible=()).kind == "direct"
    assert choose(grove, "Who wrote it?").kind == "search"


def test_a_context_that_fits_is_shown_whole(grove: Grove) -> None:
    grove.store.put_text("report", SHORT)
    assert choose(grove, "Who wrote it?").kind == "direct"
    assert choose(grove, "Summarize it.").kind == "direct"
    assert choose(grove, "Who wrote it?", window=None).kind == "search"


def test_several_texts_have_to_fit_together(grove: Grove) -> None:
    half = "mild " * 300
    grove.store.put_text("a", half)
    assert choose(grove, "Who wrote it?").kind == "direct"
    grove.store.put_text("b", half * 2)
    assert choose(grove, "Who wrote it?").kind == "search"


@given(words=st.integers(500, 1100))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_said_to_fit_does(grove: Grove, words: int) -> None:
    layout = grove.layout
    text = "mild " * words
    grove.store.put_text("report", text)
    task = "Who wrote it?"
    prompt = layout.prompt(task=f"{CONNECTIVE}{task}", document=layout.document(text))
    size = len(prompt.ids) + ANSWER
    kind = choose(grove, task).kind
    assert kind in ("direct", "search")
    if kind == "direct":
        assert size <= WINDOW
    else:
        assert size > WINDOW - 2 * layout.block_size, "some text that fits is not shown"


@pytest.mark.parametrize(
    ("task", "labels"),
    [
        ('Classify each letter as "angry" or "calm".', ("angry", "calm")),
        (
            "How many reviews are positive, negative or mixed?",
            ("positive", "negative", "mixed"),
        ),
        ("Please sort the rows into fruit, vegetables and meat.", ("fruit", "vegetables", "meat")),
        (
            "These are tickets. For each, say what it is: bug, feature, question",
            ("bug", "feature", "question"),
        ),
    ],
)
@pytest.mark.parametrize("text", [SHORT, LONG])
def test_labels_for_each_row_are_counted_in_python(
    task: str, labels: tuple[str, ...], text: str, grove: Grove
) -> None:
    grove.store.put_text("rows", text)
    choice = choose(grove, task)
    assert choice.kind == "classify_each"
    assert choice.options == {"labels": labels}


@pytest.mark.parametrize(
    "task",
    [
        "Is the ship red or blue?",
        "How many ships are there?",
        "Who counted the votes: Edith, Ruth or Ann?",
        "Which label did the tin have, red or blue?",
        "Who sorted the letters into angry and calm?",
    ],
)
def test_a_question_about_one_thing_is_no_classification(task: str, grove: Grove) -> None:
    grove.store.put_text("report", LONG)
    assert choose(grove, task).kind == "search"


@pytest.mark.parametrize(
    ("task", "combine"),
    [
        ("Summarize the report.", "model"),
        ("Here is a report. Could you please summarise it?", "model"),
        ("Write me a short summary of what happened.", "model"),
        ("What is this text about?", "model"),
        ("What are the main points?", "model"),
        ("Translate the text to French.", "join"),
        ("Please rewrite it in plain words", "join"),
        ("List all names in the text.", "join"),
        ("Extract every date", "join"),
    ],
)
def test_a_task_about_the_whole_reads_the_whole(task: str, combine: str, grove: Grove) -> None:
    grove.store.put_text("report", LONG)
    choice = choose(grove, task)
    assert choice.kind == "map_reduce"
    assert choice.options == {"combine": combine}


@pytest.mark.parametrize(
    "task",
    [
        "Who wrote the summary of the report?",
        "When was the text translated?",
        "What is said about cats in the second letter?",
        "Where does the list of all names stand?",
        "What does the outline show about the coast?",
        "Find the page on which the treaty is signed.",
    ],
)
def test_a_question_that_only_has_such_words_is_searched_for(task: str, grove: Grove) -> None:
    grove.store.put_text("report", LONG)
    assert choose(grove, task).kind == "search"


def test_values_that_are_no_text_are_read_by_path(grove: Grove) -> None:
    grove.store.put_value("rows", [{"title": "a", "size": i} for i in range(5)])
    assert choose(grove, "Which one is largest?").kind == "direct"
    grove.store.put_value("table", np.arange(100_000, dtype=np.int64))
    assert choose(grove, "Which one is largest?").kind == "calls"


@given(st.text(max_size=300))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_task_is_for_some_agent(grove: Grove, task: str) -> None:
    grove.store.put_text("report", LONG)
    choice = choose(grove, task)
    assert choice.kind in ("classify_each", "map_reduce", "search")
    assert choice.why

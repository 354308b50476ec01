"""Which agent a task is for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlm_runtime.errors import PromptTooLong
from rlm_runtime.scaffold.agent import run_agent
from rlm_runtime.scaffold.agent_context import AgentContext
from rlm_runtime.scaffold.choosing import Choice, auto
from rlm_runtime.scaffold.recipes.direct import Direct

if TYPE_CHECKING:
    from tests.unit.scaffold.conftest import Grove

WINDOW, ANSWER = 2048, 64
TASK = "Who wrote it?"
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


@pytest.mark.anyio
@pytest.mark.parametrize(
    "value",
    [
        lambda size: "mild " * size,
        lambda size: "ζ 文\n" * size,
        lambda size: [{"title": "a ship", "tons": i * 7919} for i in range(size)],
        lambda size: np.arange(size, dtype=np.int64),
        lambda size: bytes(i * 7919 % 251 for i in range(size)),
    ],
    ids=["words", "script", "rows", "array", "bytes"],
)
async def test_what_is_said_to_fit_does_and_little_else(
    value: Callable[[int], object], grove: Grove
) -> None:
    tree = grove.tree()
    seat, _ = grove.root(tree)

    def context(size: int) -> AgentContext:
        grove.store.put_value("value", value(size))
        return AgentContext(grove.store, grove.recorder, visible=["value"])

    async def fits(size: int) -> bool:
        try:
            await run_agent(Direct(), seat, TASK, context(size))
        except PromptTooLong:
            return False
        return True

    def is_shown(size: int) -> bool:
        window, answer_tokens = tree.info.window, tree.config.agents.answer_tokens
        given = context(size)
        choice = auto(TASK, given, grove.corpus, window=window, answer_tokens=answer_tokens)
        return choice.kind == "direct"

    most, too_many = 1, 20_000
    while too_many - most > 1:
        size = (most + too_many) // 2
        most, too_many = (size, too_many) if await fits(size) else (most, size)
    assert not is_shown(most + 1)
    assert is_shown(most * 99 // 100)


@pytest.mark.parametrize(
    "task",
    [
        'Classify each letter as "angry" or "calm".',
        "How many reviews are positive, negative or mixed?",
        "Please sort the rows into fruit, vegetables and meat.",
        "These are tickets. For each, say what it is: bug, feature, question",
    ],
)
@pytest.mark.parametrize("text", [SHORT, LONG])
def test_labels_for_each_row_are_counted_in_python(task: str, text: str, grove: Grove) -> None:
    grove.store.put_text("rows", text)
    assert choose(grove, task).kind == "classify_each"


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

"""The words of a sentence that answer a question: which can be chosen, and what is asked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_runtime.engine.choices import MAX_CHOICE_TOKENS, MAX_CHOICES
from rlm_runtime.prompt import ChatTemplate, Layout, Tokenizer
from rlm_runtime.scaffold.likelihood import Asker
from rlm_runtime.scaffold.short_form import EXAMPLES, MAX_WORDS, ShortForm, short_form, spans
from rlm_runtime.scheduler import Job, Scheduler
from rlm_runtime.tracing import AnyEvent, CallFinished, Recorder
from rlm_runtime.types import AgentId, Limits

if TYPE_CHECKING:
    from tests.unit.conftest import FakeEngine

QUESTION = "Who signed the treaty?"
SENTENCE = "The treaty was signed\n   by Märta  Meier."


def texts(sentence: str) -> list[str]:
    return [sentence[start:end] for start, end in spans(sentence)]


def test_spans_are_up_to_six_words_in_a_row() -> None:
    assert texts("one two three") == [
        "one",
        "one two",
        "one two three",
        "two",
        "two three",
        "three",
    ]
    assert max(len(text.split()) for text in texts("a " * 20)) == MAX_WORDS


@pytest.mark.parametrize(
    ("sentence", "whole"),
    [
        ("Anna Meier.", "Anna Meier"),
        ("from 3.10, on:", "from 3.10, on"),
        ('"__cause__"', "__cause__"),
        ("“termination”", "termination"),
        ("“termination” model", "“termination” model"),
        ('as "@"', 'as "@"'),
        ("(last-in,", "last-in"),
        ("first-out) order", "first-out) order"),
        ("order)", "order"),
        ("call popitem().", "call popitem()"),
        ("-(x+1)", "-(x+1)"),
        ("objects' names'", "objects' names'"),
        ('"yes" or "no"', '"yes" or "no"'),
        ("?!", None),
    ],
)
def test_what_encloses_a_span_is_left_out(sentence: str, whole: str | None) -> None:
    found = [text for text in texts(sentence) if len(text.split()) == len(sentence.split())]
    assert found == ([] if whole is None else [whole])


@given(st.text("ab .,\"'()“”\n-", max_size=40))
def test_spans_lie_in_the_sentence_and_begin_and_end_with_words(sentence: str) -> None:
    for start, end in spans(sentence):
        assert 0 <= start < end <= len(sentence)
        span = sentence[start:end]
        assert span == span.strip()
        assert span[-1] not in ".,;:!?"
        assert len(span.split()) <= MAX_WORDS


class Bench:
    """One agent with a fake engine, and its events."""

    def __init__(self, engine: FakeEngine, model_dir: Path) -> None:
        self.engine = engine
        self.tokenizer = Tokenizer.from_folder(model_dir)
        template = ChatTemplate.from_folder(model_dir, self.tokenizer)
        self.layout = Layout(self.tokenizer, template, 32)
        self.recorder = Recorder(None)
        self.events: list[AnyEvent] = []
        self.recorder.subscribe(self.events.append)
        self.scheduler = Scheduler(
            engine,
            self.recorder,
            shared_tokens=len(self.layout.shared_ids),
            max_queued_calls=10,
        )

    async def ask(
        self,
        sentence: str = SENTENCE,
        question: str = QUESTION,
        *,
        start_byte: int = 0,
        window: int = 8192,
        limits: Limits | None = None,
    ) -> ShortForm | None:
        asker = Asker(self.scheduler, self.layout, Job(limits), AgentId("a1"))
        return await short_form(asker, question, sentence, start_byte, window)


@pytest.fixture
def bench(fake_engine: FakeEngine, model_dir: Path) -> Bench:
    return Bench(fake_engine, model_dir)


@pytest.mark.anyio
async def test_the_choice_is_found_in_the_bytes_of_the_text(bench: Bench) -> None:
    bench.engine.choose = lambda _request: "by Märta Meier"
    text = "Präambel. " + SENTENCE
    start = len("Präambel. ".encode())
    short = await bench.ask(start_byte=start)
    assert short is not None
    assert short.text == "by Märta  Meier"
    assert text.encode()[short.start_byte : short.end_byte].decode() == short.text


@pytest.mark.anyio
async def test_it_is_one_greedy_call_whose_examples_stand_in_front(bench: Bench) -> None:
    await bench.ask()
    await bench.ask("Bob Kern watched it.", "Who watched it?")
    first, second = bench.engine.seen
    assert (first.temperature, first.read_cache) == (0.0, True)
    assert len(first.choices) == len(set(first.choices))
    assert "signed by Märta Meier" in first.choices
    longest = max(len(bench.tokenizer.encode(choice)) for choice in first.choices)
    assert first.max_tokens == longest + 1
    # All but the sentence and the question is the same, so it comes from the cache.
    ids = zip(first.prompt_ids, second.prompt_ids, strict=False)
    shared = next(position for position, (a, b) in enumerate(ids) if a != b)
    text = bench.tokenizer.decode(first.prompt_ids[:shared])
    assert all(part in text for example in EXAMPLES for part in example)
    assert text.endswith("Text:")
    calls = [event for event in bench.events if isinstance(event, CallFinished)]
    assert [(call.label, call.agent_id) for call in calls] == [("short form", "a1")] * 2
    assert calls[0].segments[0].kind == "shared"


@pytest.mark.anyio
async def test_neither_the_question_nor_loose_ends_are_choices(bench: Bench) -> None:
    await bench.ask("The treaty was signed by Anna and of old.", "Who signed the treaty?")
    (request,) = bench.engine.seen
    assert "by Anna" in request.choices
    assert "signed by Anna" in request.choices
    assert not {"The treaty", "treaty was signed", "signed by", "Anna and"} & set(request.choices)
    assert not [choice for choice in request.choices if choice.startswith(("and ", "of "))]


def test_an_answer_of_the_examples_is_a_span_of_its_sentence() -> None:
    for sentence, _question, answer in EXAMPLES:
        assert answer in texts(sentence)


@pytest.mark.anyio
@pytest.mark.parametrize("sentence", ["", "Yes.", "第一章は短い。", "..."])
async def test_where_there_is_nothing_to_choose_nothing_is_asked(
    bench: Bench, sentence: str
) -> None:
    assert await bench.ask(sentence) is None
    assert bench.engine.seen == []


@pytest.mark.anyio
@pytest.mark.parametrize(("word", "most"), [("a", MAX_CHOICES), ("長い文です", MAX_CHOICE_TOKENS)])
async def test_a_sentence_without_end_asks_what_a_grammar_can_hold(
    bench: Bench, word: str, most: int
) -> None:
    await bench.ask(" ".join(f"{word}{i}" for i in range(1_000)), window=10**6)
    (request,) = bench.engine.seen
    tokens = sum(len(bench.tokenizer.encode(choice)) for choice in request.choices)
    assert len(request.choices) <= MAX_CHOICES
    assert tokens <= MAX_CHOICE_TOKENS
    assert max(len(request.choices), tokens) > most - 100


@pytest.mark.anyio
async def test_a_prompt_that_does_not_fit_is_left_out(bench: Bench) -> None:
    await bench.ask()
    (request,) = bench.engine.seen
    need = len(request.prompt_ids) + request.max_tokens
    assert await bench.ask(window=need) is not None
    assert await bench.ask(window=need - 1) is None
    assert len(bench.engine.seen) == 2


@pytest.mark.anyio
@pytest.mark.parametrize("limits", [Limits(max_tokens=500), Limits(max_seconds=0.0)])
async def test_a_limit_leaves_the_sentence_without_it(bench: Bench, limits: Limits) -> None:
    assert await bench.ask(limits=limits) is None
    assert bench.engine.seen == []

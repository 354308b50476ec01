"""Where prompts part and what parts them, on a vocabulary of characters, pairs and marks."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from rlm_runtime.profiler.divergence import (
    AGREE_TOKENS,
    BEFORE_TOKENS,
    SHOWN_TOKENS,
    Divergence,
    Kind,
    Vocabulary,
    diverge,
    excerpt,
)
from rlm_runtime.prompt import Prompt
from rlm_runtime.tracing import Segment

MARKS = {1: "<|start|>", 2: "<|end|>", 3: "<think>", 4: "</think>"}
PAIR = 1 << 21
"""A character's id is its number; a pair of characters is one token above this."""

Parts = Sequence[tuple[str, str]]


def decode(ids: Sequence[int]) -> str:
    return "".join(
        chr((i - PAIR) >> 7) + chr((i - PAIR) & 127) if i >= PAIR else MARKS.get(i) or chr(i)
        for i in ids
    )


WORDS = Vocabulary(decode, frozenset(MARKS))


def encode(text: str) -> tuple[int, ...]:
    ids: list[int] = []
    while text:
        mark = next((m for m, name in MARKS.items() if text.startswith(name)), None)
        ids.append(ord(text[0]) if mark is None else mark)
        text = text[1 if mark is None else len(MARKS[mark]) :]
    return tuple(ids)


def paired(text: str) -> tuple[int, ...]:
    """Equal text as other ids."""
    pairs = [text[i : i + 2] for i in range(0, len(text), 2)]
    return tuple(PAIR + (ord(p[0]) << 7) + ord(p[1]) if len(p) == 2 else ord(p) for p in pairs)


def prompt(parts: str | Parts) -> Prompt:
    """One made of segments, or of bare text."""
    if isinstance(parts, str):
        return Prompt(encode(parts), ())
    ids: tuple[int, ...] = ()
    segments = []
    for kind, text in parts:
        more = encode(text)
        segments.append(Segment(kind, len(ids), len(ids) + len(more)))
        ids += more
    return Prompt(ids, tuple(segments))


def compare(here: Prompt, earlier: Prompt, shared: int, vocabulary: Vocabulary | None = WORDS,
) -> Divergence:  # fmt: skip
    """Both end with `shared` equal tokens."""
    assert here.ids[-shared:] == earlier.ids[-shared:]
    return diverge(
        here,
        earlier,
        start=len(here.ids) - shared,
        earlier_start=len(earlier.ids) - shared,
        length=shared,
        vocabulary=vocabulary,
    )


SYSTEM = "You work on texts. Answer from the text alone, in one sentence, and say what is missing. "
BOOK = "It was the best of times, it was the worst of times, it was the age of wisdom, and so on. "
OPEN, USER = "<|start|>system\n", "<|end|>\n<|start|>user\n"


def kind(here: str | Parts, earlier: str | Parts, shared: str) -> Kind:
    return compare(prompt(here), prompt(earlier), len(encode(shared))).kind


@pytest.mark.parametrize(
    "values",
    [
        ("2026-11-25", "2026-11-26"),
        ("Wednesday, 25 November 2026", "Friday, 4 December 2026"),
        ("9", "10"),
        ("/home/ann/papers", "/home/bob/x"),
        ("ann_17", "bob_3"),
        ("3f2a9c1d-77aa-4b60-9c55-2f1e0d9b8a7c", "b02c1d3e-1188-4a51-8d66-0a9f8e7d6c5b"),
    ],
)
def test_a_value_on_top_is_told_from_an_instruction(values: tuple[str, str]) -> None:
    texts = [f"{OPEN}Now: {value}. {SYSTEM}{USER}Why?" for value in values]
    assert kind(texts[0], texts[1], f"{SYSTEM}{USER}Why?") is Kind.VARYING_VALUE
    parts = [[("shared", f"{OPEN}Now: {v}. {SYSTEM}"), ("task", "Why?")] for v in values]
    assert kind(parts[0], parts[1], f"{SYSTEM}Why?") is Kind.VARYING_VALUE
    # Also where only one of them has the value.
    assert kind(texts[0], f"{OPEN}{SYSTEM}{USER}Why?", f"{SYSTEM}{USER}Why?") is Kind.VARYING_VALUE


def test_a_name_in_constant_text_is_a_value() -> None:
    parts = [[("shared", f"{OPEN}You are {n}. {SYSTEM}")] for n in ("the old planner", "a critic")]
    assert kind(parts[0], parts[1], SYSTEM) is Kind.VARYING_VALUE


@pytest.mark.parametrize("behind", ["task", "role", "turn"])
def test_an_instruction_in_front_of_its_document(behind: str) -> None:
    asks = ("Who walked to the mill at night? ", "How high was the tower before the fire? ")
    parts = [[("shared", SYSTEM), (behind, ask), ("document", BOOK)] for ask in asks]
    found = compare(prompt(parts[0]), prompt(parts[1]), len(BOOK))
    assert found.kind is Kind.DATA_AFTER_TASK
    assert found.position == len(SYSTEM)
    assert (found.here.segment, found.earlier.segment) == (behind, behind)
    # The instruction of one call, the document first in the other.
    first = [("shared", SYSTEM), ("document", BOOK), ("task", asks[1])]
    there = prompt(first)
    found = diverge(
        prompt(parts[0]),
        there,
        start=len(SYSTEM + asks[0]),
        earlier_start=len(SYSTEM),
        length=len(BOOK),
        vocabulary=WORDS,
    )
    assert found.kind is Kind.DATA_AFTER_TASK
    # Without segments, by their lengths.
    bare = [f"{OPEN}{SYSTEM}{USER}{ask}{BOOK * 3}" for ask in asks]
    assert kind(bare[0], bare[1], BOOK * 3) is Kind.DATA_AFTER_TASK


def test_a_value_inside_an_instruction_is_told_by_its_whole_word() -> None:
    parts = [
        [("shared", SYSTEM), ("task", f"See /srv/notes/{who} for it. "), ("document", BOOK)]
        for who in ("ann", "bob")
    ]
    assert kind(parts[0], parts[1], BOOK) is Kind.VARYING_VALUE


def test_a_long_difference_ends_where_the_shared_stretch_really_begins() -> None:
    asks = ("Who walked to the mill? " * 15, "How high was the tower? " * 15)
    parts = [[("shared", SYSTEM), ("task", ask), ("document", BOOK)] for ask in asks]
    # A stretch that is known to be shared may be only the part of it that had to be computed.
    found = compare(prompt(parts[0]), prompt(parts[1]), 40)
    assert found.here.end == len(SYSTEM + asks[0].rstrip("? "))


@pytest.mark.parametrize(
    ("here", "earlier"),
    [
        ("<|start|>system\n", "<|start|>user\n"),
        ("<|start|>system\n", "<|start|>system"),
        ("<|start|>system\n", ""),
        ("<|start|>system\nYou help.<|end|>\n<|start|>user\n", "<|start|>user\n"),
    ],
)
def test_the_templates_own_text_and_marks(here: str, earlier: str) -> None:
    rest = f"{SYSTEM}{USER}Why?"
    assert kind(here + rest, earlier + rest, rest) is Kind.TEMPLATE
    assert kind(earlier + rest, here + rest, rest) is Kind.TEMPLATE


def test_a_thinking_block_that_is_dropped_is_the_templates_doing() -> None:
    thought = f"<think>{BOOK * 2}</think>"
    rest = f"It is so.{USER}{SYSTEM}"
    start = f"{OPEN}{SYSTEM}{USER}Why?<|end|>\n<|start|>assistant\n"
    assert kind(start + rest, start + thought + rest, rest) is Kind.TEMPLATE


def test_a_whole_turn_that_is_dropped_is_not() -> None:
    turn = f"{BOOK}<|end|>\n<|start|>user\n"
    start, rest = f"{OPEN}{SYSTEM}{USER}", f"{SYSTEM}<|end|>"
    assert kind(start + rest, start + turn + rest, rest) is Kind.OTHER


def test_other_data_in_front_of_the_same_task_is_no_fault() -> None:
    documents = ("This is page 7. ", "This is page 8. ")
    parts = [[("shared", SYSTEM), ("document", d), ("task", SYSTEM)] for d in documents]
    assert kind(parts[0], parts[1], SYSTEM) is Kind.OTHER


def test_other_questions_in_front_of_the_same_turn_are_no_fault() -> None:
    parts = [
        [("shared", SYSTEM), ("task", ask), ("turn", BOOK)]
        for ask in ("Who walked at night? ", "How high was the tower? ")
    ]
    assert kind(parts[0], parts[1], BOOK) is Kind.OTHER


def test_text_that_stands_twice_is_no_difference() -> None:
    here = prompt([("shared", SYSTEM), ("document", BOOK), ("task", BOOK)])
    earlier = prompt([("shared", SYSTEM), ("document", BOOK), ("task", "Why?")])
    found = diverge(
        here,
        earlier,
        start=len(SYSTEM + BOOK),
        earlier_start=len(SYSTEM),
        length=len(BOOK),
        vocabulary=WORDS,
    )
    assert found.kind is Kind.OTHER
    assert found.position == len(SYSTEM + BOOK)
    assert (found.earlier.start, found.earlier.end) == (found.position, found.position)


def test_the_first_of_two_differences_is_the_one_that_is_named() -> None:
    asks = ("Who walked to the mill at night? ", "How high was the tower before the fire? ")
    parts = [
        [("shared", f"Today is day {day}. {SYSTEM}"), ("task", ask), ("document", BOOK)]
        for day, ask in zip("35", asks, strict=True)
    ]
    found = compare(prompt(parts[0]), prompt(parts[1]), len(BOOK))
    assert (found.kind, found.position) == (Kind.VARYING_VALUE, len("Today is day "))
    assert found.here.end == found.position + 1


def test_without_a_vocabulary_only_segments_speak() -> None:
    asks = ("Who walked at night? ", "How high was the tower? ")
    parts = [[("shared", SYSTEM), ("task", ask), ("document", BOOK)] for ask in asks]
    two = prompt(parts[0]), prompt(parts[1])
    assert compare(*two, len(BOOK), None).kind is Kind.DATA_AFTER_TASK
    bare = prompt(f"Day 3. {SYSTEM}"), prompt(f"Day 4. {SYSTEM}")
    found = compare(*bare, len(SYSTEM), None)
    assert (found.kind, found.position) == (Kind.OTHER, 4)


LINES = st.text("abcdefghij klm\n", max_size=60)


@given(start=LINES, text=st.text("abcdefgh ijkl", min_size=2, max_size=200), rest=LINES)
@example(start="", text="ab", rest="")
def test_equal_text_as_other_tokens_is_a_rejoined_turn(start: str, text: str, rest: str) -> None:
    end = encode(rest + SYSTEM)
    here = Prompt(encode(start) + paired(text) + end, ())
    earlier = Prompt(encode(start) + encode(text) + end, ())
    found = compare(here, earlier, len(SYSTEM))
    assert found.kind is Kind.REJOINED_TEXT
    assert found.position == len(start)
    assert decode(here.ids[found.position : found.here.end]) == decode(
        earlier.ids[found.position : found.earlier.end]
    )


@given(
    start=LINES,
    days=st.lists(st.integers(1, 10**9), min_size=2, max_size=2, unique=True),
    rest=LINES,
)
def test_a_planted_number_is_found_at_its_first_digit_that_differs(
    start: str, days: list[int], rest: str
) -> None:
    texts = [f"{start} {day} {rest}{SYSTEM}" for day in days]
    found = compare(prompt(texts[0]), prompt(texts[1]), len(SYSTEM))
    a, b = (str(day) for day in days)
    same = next(
        (i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b))
    )
    assert found.kind is Kind.VARYING_VALUE
    assert found.position == len(start) + 1 + same
    assert max(found.here.end, found.earlier.end) <= len(start) + 1 + max(len(a), len(b))


IDS = st.lists(st.integers(1, 6), max_size=80).map(tuple)


@given(
    start=IDS, own=st.tuples(IDS, IDS), shared=st.lists(st.integers(1, 9), min_size=32).map(tuple)
)
def test_both_sides_agree_up_to_the_parting_and_from_their_ends_on(
    start: tuple[int, ...], own: tuple[tuple[int, ...], tuple[int, ...]], shared: tuple[int, ...]
) -> None:
    here, earlier = (Prompt((*start, *mine, *shared), ()) for mine in own)
    assume(here.ids != earlier.ids)
    found = compare(here, earlier, len(shared))
    at, a, b = found.position, found.here, found.earlier
    assert a.start == b.start == at
    assert here.ids[:at] == earlier.ids[:at]
    assert here.ids[at : at + 1] != earlier.ids[at : at + 1]
    starts = len(here.ids) - len(shared), len(earlier.ids) - len(shared)
    left = len(shared) - max(0, at - min(starts))
    assert at <= a.end <= max(at, len(here.ids) - left)
    assert at <= b.end <= max(at, len(earlier.ids) - left)
    same = min(left, AGREE_TOKENS)
    if same > 0:
        assert here.ids[a.end : a.end + same] == earlier.ids[b.end : b.end + same]


def test_an_excerpt_is_short_and_reads_on_where_both_agree() -> None:
    values = "5", "6" * (SHOWN_TOKENS + 1)
    texts = [prompt(f"{SYSTEM}Day {value} {BOOK}") for value in values]
    found = compare(texts[0], texts[1], len(BOOK))
    here, earlier = excerpt(texts[0], found.here), excerpt(texts[1], found.earlier)
    assert here.texts(WORDS) == (f"{SYSTEM}Day "[-BEFORE_TOKENS:], "5", " It was ")
    assert earlier.texts(WORDS)[1:] == ("6" * SHOWN_TOKENS, "")
    assert (here.is_cut, earlier.is_cut) == (False, True)

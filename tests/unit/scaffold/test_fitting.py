from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlm_runtime.prompt import Layout
from rlm_runtime.scaffold.fitting import count_up_to, path_that_fits
from rlm_runtime.scaffold.rendering import estimate_characters, render
from rlm_runtime.store import ContextStore, ValuePath, parse_path

WORDS = ["plain words, ", "日本語の文。", "🙂", "\n\n\n", "0x7f3a", " " * 90, "ß" * 7, "the "]
texts = st.lists(st.sampled_from(WORDS), max_size=60).map("".join)
values = st.recursive(
    texts | st.integers(0, 10**9) | st.binary(max_size=50) | st.none(),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(texts, inner, max_size=6),
    max_leaves=40,
)
arrays = st.integers(1, 400).map(np.arange) | st.integers(1, 20).map(np.eye)


class Counter:
    """Counts a character as a token, and how many it was given."""

    def __init__(self) -> None:
        self.characters = 0

    def __call__(self, text: str) -> int:
        self.characters += len(text)
        return len(text)


@given(text=texts, limit=st.integers(0, 300))
def test_counts_are_exact_up_to_the_limit_and_certain_over_it(
    text: str, limit: int, layout: Layout
) -> None:
    exact = layout.tokenizer.count(text)
    count = count_up_to(
        limit, lambda most: render(text, most), lambda: len(text), layout.tokenizer.count
    )
    assert (count.text == text) == (exact <= limit)
    if count.is_estimated:
        assert count.tokens > limit
    else:
        assert count.tokens == exact


@pytest.mark.parametrize("size", [10**5, 10**8])
def test_counting_costs_what_the_limit_is_not_what_the_value_is(size: int) -> None:
    counter = Counter()
    value = np.broadcast_to(np.zeros(1), (size,))
    count = count_up_to(
        100, lambda most: render(value, most), lambda: estimate_characters(value), counter
    )
    assert counter.characters < 10_000
    assert count.is_estimated
    assert 3 * size < count.tokens < 5 * size


def test_a_text_whose_tokens_are_long_is_counted_until_it_is_certain() -> None:
    # A token for 100 characters: the first look sees too little of it to be over the limit.
    text = "x" * 10**6
    count = count_up_to(
        100, lambda most: render(text, most), lambda: len(text), lambda seen: len(seen) // 100
    )
    assert count.is_estimated
    assert 9_000 < count.tokens < 11_000


@settings(max_examples=60)
@given(value=values | arrays, limit=st.integers(0, 120))
def test_the_part_advised_is_there_and_fits(value: object, limit: int, layout: Layout) -> None:
    store = ContextStore(layout.tokenizer.count)
    ref = store.put_value("v", value)
    root = store.view(ref) if ref.kind == "str" else store.load(ref)
    advised = path_that_fits(root, ValuePath("v"), limit, layout.tokenizer.count)
    if advised:
        part = store.load(ref, parse_path(advised).steps)
        assert layout.tokenizer.count(render(part)) <= limit
    elif isinstance(value, str):
        assert limit < 4 or not value  # no character has more tokens than bytes


@pytest.mark.parametrize(
    ("value", "limit", "advised"),
    [
        ("x" * 1000, 100, "v[0:100]"),
        ({"long": "x" * 1000, "short": "y"}, 50, "v['short']"),
        ({"long": ["x" * 1000], "longer": "x" * 5000}, 50, "v['long'][0][0:50]"),
        ([{"a": 1}] * 1000, 50, "v[0:6]"),
        (["x" * 1000], 50, "v[0][0:50]"),
        (np.zeros((100, 10)), 56, "v[0]"),
        (b"x" * 1000, 50, "v[0:18]"),
        ({}, 1, ""),
        ({"k" * 3000: "y", "b": "z"}, 9, "v['b']"),
        ({"a": "", "b": "y" * 9}, 9, "v['b']"),
        (["", "x" * 50], 3, ""),
        (10**18, 5, ""),
        ("x", 0, ""),
    ],
)
def test_advice_begins_where_a_reader_would(value: object, limit: int, advised: str) -> None:
    assert path_that_fits(value, ValuePath("v"), limit, len) == advised


@pytest.mark.parametrize("within", [slice(200, None), slice(200, 900), slice(-800, None)])
@pytest.mark.parametrize("kind", ["text", "view", "list"])
def test_advice_about_a_slice_stays_in_it(within: slice, kind: str) -> None:
    text = "x" * 1000
    store = ContextStore(len)
    value = {"text": text, "view": store.view(store.put_text("v", text)), "list": [1] * 1000}[kind]
    advised = path_that_fits(value, ValuePath("v"), 40, len, within)
    assert advised.startswith("v[200:2")

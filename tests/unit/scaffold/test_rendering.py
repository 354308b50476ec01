from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_runtime.errors import InputError
from rlm_runtime.scaffold.rendering import estimate_characters, render

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | texts
plain = st.recursive(
    scalars | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=5),
    max_leaves=30,
)
values = st.recursive(
    scalars | st.floats() | st.binary(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(texts | st.integers(), inner, max_size=5)
    ),
    max_leaves=30,
)
arrays = st.builds(
    lambda kind, shape: np.arange(int(np.prod(shape))).astype(kind).reshape(shape),
    st.sampled_from(["bool", "int8", "uint64", "float16", "float32", "float64", "complex64"]),
    st.lists(st.integers(0, 5), max_size=3),
)


@given(plain)
def test_a_structure_is_shown_as_json(value: object) -> None:
    if isinstance(value, str):
        assert render(value) == value
    else:
        assert json.loads(render(value)) == value


@given(values | arrays, st.integers(0, 60))
def test_a_cut_text_is_the_beginning_of_the_whole_one(value: object, most: int) -> None:
    assert render(value, most) == render(value)[: most + 1]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("as it is\n", "as it is\n"),
        (b"\x00\x01", "base64:AAE="),
        ({"a": [1, None, True], "ü": b"\xff"}, '{"a":[1,null,true],"ü":"base64:/w=="}'),
        ({3: "c", "3": "d"}, '{3:"c","3":"d"}'),  # as paths name them: [3] and ['3']
        ([float("nan"), float("-inf"), 1e300], "[NaN,-Infinity,1e+300]"),
        ({}, "{}"),
        ([], "[]"),
        (np.float32(0.1), "0.1"),
        (np.array([[1, 2], [3, 4]], "int16"), "int16 (2, 2)\n[[1,2],[3,4]]"),
        (np.array([0.1, np.nan], "float32"), "float32 (2,)\n[0.1,nan]"),
        (np.array([True, False]), "bool (2,)\n[true,false]"),
        (np.array(7), "int64 ()\n7"),
        (np.zeros((3, 0, 2)), "float64 (3, 0, 2)\n[]"),
    ],
)
def test_each_kind_has_its_form(value: object, shown: str) -> None:
    assert render(value) == shown


def test_long_arrays_have_all_their_numbers() -> None:
    assert render(np.arange(1000)) == f"int64 (1000,)\n{json.dumps(list(range(1000)))}".replace(
        ", ", ","
    )
    tall = render(np.arange(1200).reshape(600, 2)).partition("\n")[2]
    assert json.loads(tall) == np.arange(1200).reshape(600, 2).tolist()


def test_what_no_store_holds_is_refused_by_its_type() -> None:
    with pytest.raises(InputError, match="Exception can't be shown"):
        render([1, Exception("no")])


class Counted(Sequence[int]):
    """A long list that counts what is looked at."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.seen = 0

    def __len__(self) -> int:
        return self.length

    @overload
    def __getitem__(self, where: int) -> int: ...
    @overload
    def __getitem__(self, where: slice) -> list[int]: ...
    def __getitem__(self, where: int | slice) -> int | list[int]:
        if isinstance(where, slice):
            return [self[i] for i in range(*where.indices(self.length))]
        self.seen += 1
        return where

    def __iter__(self) -> Iterator[int]:
        for i in range(self.length):
            yield self[i]


def test_a_structure_is_looked_at_no_further_than_it_is_shown() -> None:
    items = Counted(10**6)
    render({"items": items}, 100)
    assert items.seen < 60


@pytest.mark.parametrize(
    "value",
    [
        np.broadcast_to(np.zeros(1), (10**12,)),
        np.broadcast_to(np.zeros(1), (10**6, 10**6)),
        "x" * 10**7,
        [["x" * 10**7]],
        {"x" * 10**7: b"x" * 10**7},
        b"x" * 10**7,
    ],
    ids=["array", "matrix", "text", "nested text", "key", "bytes"],
)
def test_showing_a_little_of_a_huge_value_takes_little_memory(value: object) -> None:
    tracemalloc.start()
    try:
        shown = render(value, 1000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(shown) == 1001
    assert peak < 2**20


@given(arrays.filter(lambda array: array.size > 0) | st.lists(st.integers(0, 9), min_size=1))
def test_the_estimate_is_about_right_for_even_values(value: object) -> None:
    shown = render(value).partition("\n")[2] or render(value)
    assert len(shown) / 3 <= estimate_characters(value) + 2 <= 3 * len(shown) + 6


def test_the_estimate_looks_at_a_few_items_only() -> None:
    items = Counted(10**6)
    assert 10**6 <= estimate_characters(items) <= 10**7
    assert items.seen < 100

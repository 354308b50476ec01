from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_runtime.errors import InputError, UnknownName
from rlm_runtime.store import FUNCTIONS, ContextStore, check_name, closest, name_for

MANY = 10_000


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_a_name_that_agents_call_is_refused_and_not_made(name: str) -> None:
    with pytest.raises(InputError, match="means something else in what agents call"):
        check_name(name)
    with pytest.raises(InputError):
        ContextStore(len).put_value(name, 1)
    check_name(name_for(Path(f"{name}.txt")))


def test_only_the_exact_names_of_functions_are_taken() -> None:
    for name in ("read", "agents", "contexts", "Final"):
        check_name(name)


@pytest.mark.parametrize(
    ("wanted", "nearest"),
    [
        ("reprot", "report"),
        ("Report", "report"),
        ("report2", "report_2"),
        ("summry", "summary"),
        ("analysis_of_north", "analysis_north"),
        ("nots", "notes"),
    ],
)
def test_a_slip_finds_the_name_that_was_meant(wanted: str, nearest: str) -> None:
    names = ["analysis_north", "analysis_south", "notes", "report", "report_2", "summary", "zzz"]
    assert closest(wanted, names)[0] == nearest


@given(st.text(max_size=300), st.lists(st.text(), max_size=60))
def test_the_closest_are_some_of_the_names(wanted: str, names: list[str]) -> None:
    found = closest(wanted, names)
    assert len(found) == min(3, len(names))
    assert set(found) <= set(names)
    if wanted in names and len(wanted) <= 200:
        assert found[0] == wanted


def test_a_miss_among_ten_thousand_names_compares_few_in_full(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = ContextStore(len)
    for number in range(MANY):
        store.put_text(f"chapter_{number}", f"{number % 100}")
    compared = 0

    class Counting(difflib.SequenceMatcher[str]):
        def set_seq1(self, *args: Any) -> None:
            nonlocal compared
            compared += 1
            super().set_seq1(*args)

    monkeypatch.setattr(difflib, "SequenceMatcher", Counting)
    with pytest.raises(UnknownName) as caught:
        store.get("chpter_1234")
    assert caught.value.nearest[0] == "chapter_1234"
    assert store.nearest("chpter_1234") == caught.value.nearest
    assert compared <= 4 * 50
    assert len(store.names()) == MANY
    assert store.total_bytes == sum(len(str(number)) for number in range(100))

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_runtime.errors import ContextError, InputError, UnknownName
from rlm_runtime.store import ContextStore
from rlm_runtime.types import Ref


@pytest.fixture
def store() -> ContextStore:
    return ContextStore(lambda text: len(text.split()))


@given(st.lists(st.tuples(st.sampled_from("abc"), st.text(max_size=8))))
def test_every_version_keeps_its_text(puts: list[tuple[str, str]]) -> None:
    store = ContextStore(len)
    expected: dict[str, list[str]] = {}
    for name, text in puts:
        ref = store.put_text(name, text)
        expected.setdefault(name, []).append(text)
        assert ref.version == len(expected[name])
    assert store.names() == tuple(sorted(expected))
    for name, written in expected.items():
        refs = store.versions(name)
        assert [store.text(ref, 0, ref.size_bytes) for ref in refs] == written
        assert store.get(name).ref == refs[-1]
        assert store.get(name, 1).ref == refs[0]


def test_equal_contents_are_kept_once(store: ContextStore) -> None:
    one = store.put_text("one", "the same " * 100)
    two = store.put_text("two", "the same " * 100)
    assert one.digest == two.digest
    assert store.get("one").content is store.get("two").content


def test_equal_bytes_of_other_kinds_are_other_values(store: ContextStore) -> None:
    refs = [store.put_text("a", "x"), store.put_bytes("b", b"x"), store.put("c", "mp", b"x")]
    assert len({ref.digest for ref in refs}) == 3
    assert [ref.kind for ref in refs] == ["str", "bytes", "mp"]


def test_an_unknown_name_offers_the_nearest(store: ContextStore) -> None:
    with pytest.raises(UnknownName, match="Nothing is stored yet"):
        store.get("reprot")
    for name in ("report", "notes", "summary", "zzz"):
        store.put_text(name, name)
    with pytest.raises(UnknownName) as caught:
        store.versions("reprot")
    assert caught.value.nearest[0] == "report"
    assert len(caught.value.nearest) == 3


@pytest.mark.parametrize("version", [0, 2, -1])
def test_an_unknown_version_is_refused(store: ContextStore, version: int) -> None:
    store.put_text("a", "x")
    with pytest.raises(ContextError, match=f"no version {version}; it has 1"):
        store.get("a", version)


@pytest.mark.parametrize(("start", "end"), [(0, 6), (-1, 2), (3, 2), (6, 6)])
def test_a_range_outside_the_value_is_refused(store: ContextStore, start: int, end: int) -> None:
    ref = store.put_text("a", "12345")
    with pytest.raises(ContextError, match="it has 5"):
        store.slice(ref, start, end)


def test_text_is_strict_about_characters_and_kinds(store: ContextStore) -> None:
    ref = store.put_text("a", "né")
    assert store.text(ref, 1, 3) == "é"
    for start, end in ((0, 2), (2, 3)):
        with pytest.raises(ContextError, match="inside a character"):
            store.text(ref, start, end)
    with pytest.raises(ContextError, match="is bytes, not text"):
        store.text(store.put_bytes("b", b"x"), 0, 1)


def test_a_reference_of_another_store_is_refused(store: ContextStore) -> None:
    foreign = ContextStore(len).put_text("a", "theirs")
    store.put_text("a", "ours!!")
    with pytest.raises(ContextError, match="another store"):
        store.slice(foreign, 0, 1)


@pytest.mark.parametrize(
    "name", ["", "two words", "1st", "a-b", "class", "a.b", "x" * 65, "ﬁle", "READ('a')"]
)
def test_a_name_that_cannot_be_a_variable_is_refused(store: ContextStore, name: str) -> None:
    with pytest.raises(InputError):
        store.put_text(name, "x")
    with pytest.raises(InputError):
        store.put(name, "mp", b"x")
    assert store.names() == ()


def test_text_that_cannot_be_utf8_is_refused(store: ContextStore) -> None:
    with pytest.raises(InputError, match="character 2"):
        store.put_text("a", "ok\ud800")
    with pytest.raises(InputError, match="byte 2"):
        store.put("a", "str", b"ok\xff")


def test_writers_of_one_name_at_once_get_versions_of_their_own(store: ContextStore) -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            refs: list[Ref] = list(pool.map(lambda i: store.put_text("a", str(i)), range(4000)))
    finally:
        sys.setswitchinterval(interval)
    assert {ref.version for ref in refs} == set(range(1, 4001))
    assert all(store.get("a", ref.version).ref == ref for ref in refs)


def test_tokens_of_a_short_text_are_exact_and_counted_once() -> None:
    counted: list[str] = []

    def count(text: str) -> int:
        counted.append(text)
        return len(text)

    store = ContextStore(count)
    one = store.put_text("one", "abc")
    two = store.put_text("two", "abc")
    assert store.tokens(one) == store.tokens(two) == (3, False)
    assert counted == ["abc"]


def test_tokens_of_a_long_text_are_estimated_from_a_sample() -> None:
    seen = 0

    def count(text: str) -> int:
        nonlocal seen
        seen += len(text)
        return len(text.split())

    store = ContextStore(count)
    ref = store.put_text("long", "word " * 200_000)
    tokens = store.tokens(ref)
    assert tokens.is_estimated
    assert tokens.tokens == pytest.approx(200_000, rel=0.01)
    assert seen <= 64 * 1024


def test_tokens_of_values_that_are_no_text_are_estimates(store: ContextStore) -> None:
    assert store.tokens(store.put_bytes("a", b"two words\xff\xfe")).is_estimated
    assert store.tokens(store.put_text("b", "")) == (0, False)

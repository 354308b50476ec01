"""Values go in as Python objects, and come out whole or in part."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlm_runtime.errors import BadPath, ContextError, InputError
from rlm_runtime.store import ContextStore, codec, follow, parse_path
from rlm_runtime.store.codec import Buffer
from rlm_runtime.types import Ref, ValueKind

ANALYSIS = {"summary": "Änderung der Pläne", "rows": [{"title": "one"}, {"title": "two"}], 7: b"x"}

scalars = st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False) | st.text()
values = st.recursive(
    scalars | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@pytest.fixture
def store() -> ContextStore:
    return ContextStore(len)


def part(store: ContextStore, text: str) -> object:
    path = parse_path(text)
    return store.load(store.get(path.name).ref, path.steps)


@given(st.lists(values, max_size=4), st.integers(-3, 3), st.integers(-3, 3))
@settings(max_examples=50)
def test_spilled_values_are_those_in_memory(puts: list[object], start: int, stop: int) -> None:
    with TemporaryDirectory() as folder:
        spilling = ContextStore(len, spill_bytes=0, spill_directory=Path(folder))
        plain = ContextStore(len)
        for number, value in enumerate(puts):
            ref = spilling.put_value(f"v{number}", value)
            assert ref == plain.put_value(f"v{number}", value)
            assert spilling.load(ref) == plain.load(ref) == value
            assert spilling.slice(ref, 0, ref.size_bytes) == plain.slice(ref, 0, ref.size_bytes)
            if isinstance(value, str | bytes | list):
                cut = (slice(start, stop),)
                assert spilling.load(ref, cut) == plain.load(ref, cut) == value[start:stop]
        assert spilling.total_bytes == plain.total_bytes


@pytest.mark.parametrize("spill_bytes", [None, 0])
@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("analysis", ANALYSIS),
        ("analysis.summary[0:8]", "Änderung"),
        ("analysis['rows'][-1].title", "two"),
        ("analysis[7]", b"x"),
        ("text[1:3]", "né"),
        ("text[-1]", "😀"),
        ("text[0][0]", "一"),
        ("raw[1:3]", b"\x01\x02"),
        ("raw[-1]", 3),
        ("raw", b"\x00\x01\x02\x03"),
    ],
)
def test_a_path_reads_a_part(
    tmp_path: Path, spill_bytes: int | None, path: str, expected: object
) -> None:
    store = ContextStore(len, spill_bytes=spill_bytes, spill_directory=tmp_path)
    store.put_value("analysis", ANALYSIS)
    store.put_value("text", "一né😀")
    store.put_value("raw", bytes(range(4)))
    assert part(store, path) == expected


@pytest.mark.parametrize("spill_bytes", [None, 0])
def test_arrays_are_sliced_as_arrays(tmp_path: Path, spill_bytes: int | None) -> None:
    store = ContextStore(len, spill_bytes=spill_bytes, spill_directory=tmp_path)
    array = np.arange(12.0).reshape(4, 3)
    ref = store.put_value("a", array)
    array[0, 0] = 99
    rows = store.load(ref, (slice(1, 3), 0))
    assert isinstance(rows, np.ndarray)
    assert rows.tolist() == [3, 4, 5]
    assert not rows.flags.writeable
    assert part(store, "a[0][0]") == 0.0
    assert type(part(store, "a[0][0]")) is float
    with pytest.raises(BadPath, match="no index 4"):
        part(store, "a[4]")


@pytest.mark.parametrize(
    ("path", "facts"),
    [
        ("analysis.summry", ["analysis['summry']", "Nearest: 'summary'"]),
        ("text[9]", ["no index 9", "0 to 3"]),
        ("text.length", ["a text can't have keys"]),
        ("raw[4]", ["no index 4"]),
        ("raw.x", ["bytes can't have keys"]),
        ("number[0]", ["a number can't have parts"]),
    ],
)
@pytest.mark.parametrize("spill_bytes", [None, 0])
def test_a_path_to_nothing_names_what_is_near(
    tmp_path: Path, spill_bytes: int | None, path: str, facts: list[str]
) -> None:
    store = ContextStore(len, spill_bytes=spill_bytes, spill_directory=tmp_path)
    for name, value in {"analysis": ANALYSIS, "text": "abcd", "raw": b"abcd", "number": 7}.items():
        store.put_value(name, value)
    with pytest.raises(BadPath) as caught:
        part(store, path)
    assert [fact for fact in facts if fact not in str(caught.value)] == []


def test_a_value_that_was_read_can_be_changed_without_changing_what_is_stored(
    store: ContextStore,
) -> None:
    given = {"rows": [{"title": "one"}]}
    ref = store.put_value("a", given)
    given["rows"].clear()
    for steps in ((), ("rows",), ("rows", 0), ("rows", slice(0, 1))):
        read = store.load(ref, steps)
        assert isinstance(read, list | dict)
        read.clear()
    assert store.load(ref) == {"rows": [{"title": "one"}]}
    assert store.load(ref, ("rows", 0, "title")) == "one"


def test_versions_are_values_of_their_own(store: ContextStore) -> None:
    refs: list[Ref] = [store.put_value("a", value) for value in ("text", [1], {"k": 2})]
    assert [ref.version for ref in refs] == [1, 2, 3]
    assert [store.load(ref) for ref in refs] == ["text", [1], {"k": 2}]


@pytest.mark.parametrize(
    ("value", "fact"),
    [({"a": [0, object()]}, "value['a'][1]"), ("half \ud800", "character 5"), (1j, "complex")],
)
def test_what_cannot_be_stored_changes_nothing(
    store: ContextStore, value: object, fact: str
) -> None:
    store.put_value("a", "before")
    with pytest.raises(InputError) as caught:
        store.put_value("a", value)
    assert fact in str(caught.value)
    assert [store.load(ref) for ref in store.versions("a")] == ["before"]
    assert store.total_bytes == len("before")


def test_a_structure_is_decoded_once_for_many_reads_of_its_parts() -> None:
    decoded: list[ValueKind] = []

    def counting(kind: ValueKind, data: Buffer) -> object:
        decoded.append(kind)
        return codec.decode(kind, data)

    store = ContextStore(len, decode=counting)
    one = store.put_value("one", ANALYSIS)
    two = store.put_value("two", ANALYSIS)
    for ref in (one, two, one):
        assert store.load(ref, ("rows", 1, "title")) == "two"
    assert decoded == ["mp"]


def test_hostile_bytes_are_an_error_when_they_are_read(store: ContextStore) -> None:
    for kind in ("mp", "npy"):
        ref = store.put("a", kind, b"\xdd\xff\xff\xff\xff")
        for steps in ((), (0,)):
            with pytest.raises(ContextError, match="can't be decoded"):
                store.load(ref, steps)


def test_a_dict_with_a_key_twice_has_its_last_value(store: ContextStore) -> None:
    data = b"\x82" + 2 * msgspec.msgpack.encode("k") + msgspec.msgpack.encode("k") + b"\x01"
    assert store.load(store.put("a", "mp", data), ("k",)) == 1


def test_a_view_is_of_a_text_whole_or_inside_a_structure(store: ContextStore) -> None:
    text = store.put_value("text", "né\nxy\n")
    analysis = store.put_value("analysis", ANALYSIS)
    assert list(store.view(text).lines()) == ["né", "xy"]
    assert store.view(text, (slice(1, None),))[:] == "é\nxy\n"
    assert store.view(analysis, ("summary",))[-5:] == "Pläne"
    assert store.view(text) is store.view(text)
    for steps in ((), ("rows",)):
        with pytest.raises(ContextError, match="is no text"):
            store.view(analysis, steps)


def test_a_reference_of_another_store_is_refused(store: ContextStore) -> None:
    foreign = ContextStore(len).put_value("a", [1])
    store.put_value("a", [2])
    for read in (store.load, store.view):
        with pytest.raises(ContextError, match="another store"):
            read(foreign)


def test_a_file_that_is_read_in_place_is_viewed_in_place(tmp_path: Path) -> None:
    store = ContextStore(len)
    file = tmp_path / "file.txt"
    file.write_text("Zeile für Zeile.\n" * 20_000)
    ref = store.put_file("a", file)
    assert store.load(ref, (slice(6, 15),)) == "für Zeile"
    assert follow(store.view(ref), parse_path("a[-3:]")) == "e.\n"
    assert store.total_bytes == 0
    file.write_text("something else")
    for steps in ((), (slice(6, 15),)):
        with pytest.raises(InputError, match="was changed while it was in use"):
            store.load(ref, steps)

from __future__ import annotations

import enum
import io
from collections import OrderedDict
from typing import Any, get_args

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rlm_runtime.errors import ContextError, InputError
from rlm_runtime.store import decode, encode
from rlm_runtime.store.codec import MAX_DEPTH
from rlm_runtime.types import ValueKind

DTYPES = [
    "?",
    "i1",
    "i2",
    "<i4",
    ">i4",
    "i8",
    "u1",
    "u2",
    "u4",
    "u8",
    "f2",
    "f4",
    ">f8",
    "c8",
    "c16",
]


class Level(enum.IntEnum):
    LOW = 1


class Word(enum.StrEnum):
    YES = "yes"


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
)
plain = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.text() | st.integers(-(2**63), 2**64 - 1), inner, max_size=5)
    ),
    max_leaves=30,
)


def arrays() -> st.SearchStrategy[npt.NDArray[Any]]:
    @st.composite
    def draw(drawn: st.DrawFn) -> npt.NDArray[Any]:
        dtype = np.dtype(drawn(st.sampled_from(DTYPES)))
        shape = tuple(drawn(st.lists(st.integers(0, 4), max_size=4)))
        size = int(np.prod(shape)) * dtype.itemsize
        data = drawn(st.binary(min_size=size, max_size=size))
        if dtype.kind == "b":
            data = bytes(byte & 1 for byte in data)
        array: npt.NDArray[Any] = np.frombuffer(bytearray(data), dtype).reshape(shape)
        return np.asarray(array, order=drawn(st.sampled_from(("C", "F"))))

    return draw()


def same(one: object, other: object) -> bool:
    """Equal, and of the same types all the way down: 1, 1.0 and True are three values."""
    if type(one) is not type(other):
        return False
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return same(list(one), list(other)) and same(list(one.values()), list(other.values()))
    return one == other


def nested(depth: int) -> object:
    value: object = 1
    for level in range(depth):
        value = [value] if level % 2 else {"a": value}
    return value


def refusal(value: object) -> str:
    with pytest.raises(InputError) as caught:
        encode(value)
    return str(caught.value)


@given(plain)
@example(-(2**63))
@example(2**64 - 1)
@example({"b": 1, "a": 2, 3: [b"", "", -0.5]})
def test_what_is_stored_comes_back(value: object) -> None:
    assert same(decode(*encode(value)), value)
    assert encode(value) == encode(value)


@given(arrays())
@settings(max_examples=200)
def test_arrays_come_back_with_their_type_and_shape_and_cannot_be_written(
    array: npt.NDArray[Any],
) -> None:
    kind, data = encode(array)
    back = decode(kind, data)
    assert isinstance(back, np.ndarray)
    assert (kind, back.dtype, back.shape) == ("npy", array.dtype, array.shape)
    assert back.tobytes() == array.tobytes()
    assert not back.flags.writeable
    assert np.load(io.BytesIO(data), allow_pickle=False).tobytes() == array.tobytes()
    assert encode(np.asarray(array, order="C")) == encode(np.asarray(array, order="F"))


@given(arrays())
def test_arrays_that_numpy_wrote_can_be_read(array: npt.NDArray[Any]) -> None:
    file = io.BytesIO()
    np.save(file, array)
    back = decode("npy", file.getvalue())
    assert isinstance(back, np.ndarray)
    assert (back.dtype, back.shape, back.tobytes()) == (array.dtype, array.shape, array.tobytes())


@pytest.mark.parametrize(
    ("value", "kind", "back"),
    [
        ("né", "str", "né"),
        (b"\xff", "bytes", b"\xff"),
        ((1, (2,)), "mp", [1, [2]]),
        ({"a": {3, 1, 2}}, "mp", {"a": [1, 2, 3]}),
        ({"x", "yy", 1}, "mp", [1, "x", "yy"]),
        (OrderedDict(z=1, a=2), "mp", {"z": 1, "a": 2}),
        (Level.LOW, "mp", 1),
        (Word.YES, "str", "yes"),
        ([np.float32(0.5), np.int8(-3), np.bool_(True), np.str_("s")], "mp", [0.5, -3, True, "s"]),
    ],
)
def test_likes_of_plain_values_become_plain(value: object, kind: str, back: object) -> None:
    encoded = encode(value)
    assert encoded.kind == kind
    assert same(decode(*encoded), back)


@pytest.mark.parametrize(
    ("value", "facts"),
    [
        (object(), ["value is of type object", "numbers, None, lists"]),
        ({"a": [0, 1, 2, 1j]}, ["value['a'][3] is of type complex"]),
        ({"rows": [{"when": np.datetime64("2020-01-01")}]}, ["value['rows'][0]['when']"]),
        ([{"x": np.zeros(2)}], ["value[0]['x'] is of type ndarray", ".tolist()"]),
        ({"a": {1.5: 2}}, ["value['a'] has a key that is a float"]),
        ({True: 2}, ["has a key that is a bool"]),
        ({"a": [2**64]}, ["value['a'][0] is an int outside"]),
        ([{"k": -(2**63) - 1}], ["value[0]['k'] is an int outside"]),
        ({"a": ["ok", "no\ud800"]}, ["value['a'][1] has half a surrogate pair at character 2"]),
        ({"a": {"b\udc00": 1}}, ["value['a'] has half a surrogate pair at character 1"]),
        ("\ud800", ["value has half a surrogate pair at character 0"]),
        ({"s": {2**70}}, ["set value['s']"]),
        (np.array(["text"]), ["an array of <U4"]),
        (np.array([object()]), ["an array of object"]),
        (np.zeros(1, "M8[s]"), ["an array of datetime64"]),
        (np.zeros(1, [("a", "i4")]), ["an array of"]),
        (np.ma.masked_equal([1], 1), ["a masked array"]),  # type: ignore[no-untyped-call]  # numpy
        (np.zeros(1, np.longdouble), ["an array of float128"]),
        (bytearray(b"x"), ["is of type bytearray"]),
    ],
)
def test_what_cannot_be_stored_is_refused_with_its_place(value: object, facts: list[str]) -> None:
    message = refusal(value)
    assert [fact for fact in facts if fact not in message] == []


def test_a_value_that_contains_itself_is_refused() -> None:
    rows: list[object] = [1]
    rows.append({"again": rows})
    assert "value[1]['again'] contains itself" in refusal(rows)
    shared = [1]
    assert decode(*encode([shared, shared])) == [[1], [1]]


def test_depth_is_bounded_on_both_ways() -> None:
    assert same(decode(*encode(nested(MAX_DEPTH))), nested(MAX_DEPTH))
    assert f"more than {MAX_DEPTH} levels" in refusal(nested(MAX_DEPTH + 1))
    too_deep = msgspec.msgpack.encode(nested(MAX_DEPTH + 1))
    with pytest.raises(ContextError, match=f"more than {MAX_DEPTH} levels"):
        decode("mp", too_deep)


def test_a_set_has_one_form_in_whatever_order_it_is_gone_through() -> None:
    # 0, 8, 16... share a slot of a small set, so that the order of insertion shows.
    assert encode({0, 8, 16, 24}) == encode({24, 16, 8, 0})


HOSTILE = [
    b"",
    b"\xc1",
    b"\x01\x01",  # two values
    b"\xa1\xff",  # text that is no UTF-8
    b"\xd4\x05\x01",  # an extension
    b"\xd6\xff\x00\x00\x00\x01",  # a time
    b"\x91\xd6\xff\x00\x00\x00\x01",
    b"\x81\xa1a\xd4\x05\x01",
    b"\x81\xc0\x01",  # keys that are no str or int
    b"\x81\x91\x01\x01",
    b"\x81\x80\x01",
    b"\x81\xcb" + b"\x7f\xf8" + b"\0" * 6 + b"\x01",
    b"\x81\xc3\x01",
    b"\xdd\xff\xff\xff\xff",  # four billion items, none of which is there
    b"\xdd\x05\xff\xff\xff" * 50,
    b"\xdf\xff\xff\xff\xff",
    b"\xdb\xff\xff\xff\xff",
    b"\x91" * 100_000,
    b"\x81\xa1a" * 100_000,
    b"\x81" * 100_000,
]


@pytest.mark.parametrize("data", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_messagepack_is_an_error_and_no_crash(data: bytes) -> None:
    with pytest.raises(ContextError, match="kind mp can't be decoded"):
        decode("mp", data)


@pytest.mark.parametrize("data", [b"\xd4\x05\x01", b"\x91\xd6\xff\x00\x00\x00\x01"])
def test_what_messagepack_has_beyond_plain_values_is_named(data: bytes) -> None:
    with pytest.raises(ContextError, match="can't be decoded: an extension type"):
        decode("mp", data)


def npy(header: str, data: bytes = b"", magic: bytes = b"\x93NUMPY\x01\x00") -> bytes:
    return magic + len(header).to_bytes(2, "little") + header.encode() + data


def npy_of(descr: str, shape: str, data: bytes, order: str = "False") -> bytes:
    return npy(f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n", data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x93NUMPY",
        npy_of("'|O'", "(1,)", b"\x80\x04N."),
        npy_of("'<U1'", "(1,)", b"abcd"),
        npy_of("[('a', '<i4')]", "(1,)", b"abcd"),
        npy_of("'<f16'", "(1,)", b"x" * 16),
        npy_of("'<i4'", "(2,)", b"abcd"),
        npy_of("'<i4'", "(99999999999,)", b""),
        npy_of("'<i4'", "(1,)", b"abcde"),
        npy_of("'<i4'", "(-1,)", b"abcd"),
        npy_of("'<i4'", "(99999999999999999999,)", b"abcd"),
        npy_of("'<i4'", "(0, 99999999999999999999)", b""),
        npy_of("'<i4'", "(" + "1, " * 99 + ")", b"abcd"),
        npy_of("'<i4'", "(,)", b"abcd").replace(b"(,)", b"1  "),
        npy("(" * 9000),
        npy("-" * 9000),
        npy("__import__('os').abort()\n"),
        npy_of("'<i4'", "(1,)", b"abcd").replace(b"NUMPY\x01", b"NUMPY\x03"),
    ],
)
def test_hostile_arrays_are_an_error_and_no_crash(data: bytes) -> None:
    with pytest.raises(ContextError, match="kind npy can't be decoded"):
        decode("npy", data)


@given(st.sampled_from(["str", "bytes", "mp", "npy"]), st.binary(max_size=200))
def test_any_bytes_give_a_value_or_an_error(kind: ValueKind, data: bytes) -> None:
    try:
        value = decode(kind, data)
    except ContextError:
        return
    assert encode(value).kind in get_args(ValueKind)  # it can be stored


@given(plain | arrays(), st.integers(0), st.integers(0, 255))
@settings(max_examples=300)
def test_damaged_bytes_give_a_value_or_an_error(value: object, place: int, byte: int) -> None:
    kind, data = encode(value)
    damaged = bytearray(data)
    if damaged:
        damaged[place % len(damaged)] = byte
    for hostile in (bytes(damaged), data[: place % (len(data) + 1)]):
        try:
            decoded = decode(kind, hostile)
        except ContextError:
            continue
        assert encode(decoded).kind in get_args(ValueKind)


def test_text_that_is_no_utf8_is_an_error() -> None:
    with pytest.raises(ContextError, match="kind str can't be decoded"):
        decode("str", b"\xff")

"""Python values as bytes and back: `(kind, bytes)` is what the store holds.

What is decoded may have been made by anyone, so nothing is run or allocated on its word:
MessagePack gives plain values only, a `.npy` header is matched rather than evaluated.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Callable, Collection, Iterator
from math import prod
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from rlm_runtime.errors import ContextError, InputError
from rlm_runtime.types import ValueKind

MAX_DEPTH = 64
"""Lists and dicts inside one another; it also bounds the stack that hostile bytes can take."""

Buffer = bytes | mmap.mmap
"""Stored bytes, in memory or in a file."""

Array = npt.NDArray[Any]  # of any of the types that are stored

Decode = Callable[[ValueKind, Buffer], object]
"""Makes a value of stored bytes, as `decode` does."""

_SCALARS = frozenset({type(None), bool, int, float, str, bytes})
_REMEDY = (
    "Store text, bytes, numbers, None, lists, dicts with str or int keys, or NumPy arrays; "
    "make those of other objects first (dataclasses.asdict, model_dump, .tolist())."
)
_MAGIC = b"\x93NUMPY\x01\x00"
_ALIGNMENT = 64
_DTYPE = re.compile(rb"[<>|](?:b1|[iu][1248]|f[248]|c8|c16)")
"""Booleans, integers, floats and complex numbers; no `long double`, which differs by machine."""

_HEADER = re.compile(
    rb"\{'descr': '(%b)', 'fortran_order': (True|False), 'shape': \(([\d, ]*)\), \} *\n"
    % _DTYPE.pattern
)


class Encoded(NamedTuple):
    """A value in its stored form."""

    kind: ValueKind
    data: bytes


def encode(value: object) -> Encoded:
    """The stored form of a value: the same bytes whenever it is encoded.

    Text is UTF-8, an array numpy's own `.npy` format in C order, all else MessagePack. Tuples and
    sets become lists (a set's items sorted by their bytes), NumPy's own numbers Python's. Costs a
    copy of the value.

    Args:
        value: Text, bytes, None, bool, int (-2**63 to 2**64-1), float, lists, tuples, sets, dicts
            with str or int keys, at most `MAX_DEPTH` deep; or a NumPy array of numbers or booleans,
            not inside anything.

    Raises:
        InputError: It is or holds something else; the place is named, as `value['a'][3]`.
    """
    if isinstance(value, np.ndarray):
        return Encoded("npy", _encode_array(value))
    plain = _plain(value, (), frozenset())
    try:
        if type(plain) is str:
            return Encoded("str", plain.encode("utf-8"))
        if type(plain) is bytes:
            return Encoded("bytes", plain)
        return Encoded("mp", msgspec.msgpack.encode(plain))
    except (OverflowError, UnicodeEncodeError, ValueError) as err:
        raise _refusal_of_leaf(plain, err) from err


def decode(kind: ValueKind, data: Buffer) -> object:
    """The value of stored bytes, whoever made them.

    An array is a read-only view of `data`; all else is a value of its own. MessagePack of many
    small values takes up to eighty times its bytes in memory.

    Raises:
        ContextError: The bytes are not what the kind says.
    """
    try:
        match kind:
            case "str":
                return str(data, "utf-8")
            case "bytes":
                return bytes(data)
            case "mp":
                return _decode_plain(data)
            case "npy":
                return _decode_array(data)
    except (msgspec.DecodeError, ValueError, TypeError, RecursionError) as err:
        raise ContextError(
            f"Stored bytes of kind {kind} can't be decoded: {err}.", "Write the value again."
        ) from err


def _plain(value: object, place: tuple[object, ...], above: frozenset[int]) -> object:
    """`value` itself where it can be encoded as it stands, else its like of plain types."""
    if type(value) in _SCALARS:
        return value
    if isinstance(value, np.generic) and value.dtype.kind in "biuf":
        value = value.item()
    # Subclasses, as of an enum: their own methods are not asked.
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int.__index__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, bytes):
        return bytes.__getitem__(value, slice(None))
    if isinstance(value, list | tuple | set | frozenset | dict):
        if id(value) in above:
            raise InputError(f"{_shown(place)} contains itself.", "Store a value that does not.")
        if len(above) >= MAX_DEPTH:
            raise InputError(
                f"{_shown(place)} is more than {MAX_DEPTH} levels deep.",
                "Store its parts under names of their own.",
            )
        above |= {id(value)}
        if isinstance(value, dict):
            return _plain_dict(value, place, above)
        if isinstance(value, set | frozenset):
            items = [_plain(item, (*place, i), above) for i, item in enumerate(value)]
            return sorted(items, key=lambda item: _leaf_bytes(item, place))
        return _plain_list(value, place, above)
    what = type(value).__name__
    raise InputError(f"{_shown(place)} is of type {what}, which can't be stored.", _REMEDY)


def _plain_list(
    value: list[object] | tuple[object, ...], place: tuple[object, ...], above: frozenset[int]
) -> object:
    # Most large lists hold plain scalars only: they are looked at without a loop of our own.
    if set(map(type, value)) <= _SCALARS:
        return value
    return [
        item if type(item) in _SCALARS else _plain(item, (*place, index), above)
        for index, item in enumerate(value)
    ]


def _plain_dict(
    value: dict[object, object], place: tuple[object, ...], above: frozenset[int]
) -> dict[object, object]:
    if set(map(type, value)) <= {str, int} and set(map(type, value.values())) <= _SCALARS:
        return value
    plain: dict[object, object] = {}
    for key, item in value.items():
        if isinstance(key, bool) or not isinstance(key, str | int):
            raise InputError(
                f"{_shown(place)} has a key that is a {type(key).__name__}, which can't be stored.",
                "Use str or int keys.",
            )
        plain[_plain(key, place, above)] = _plain(item, (*place, key), above)
    return plain


def _leaf_bytes(item: object, place: tuple[object, ...]) -> bytes:
    try:
        return msgspec.msgpack.encode(item)
    except (OverflowError, UnicodeEncodeError, ValueError) as err:
        raise InputError(f"An item of the set {_shown(place)} can't be stored: {err}.") from err


def _refusal_of_leaf(plain: object, err: Exception) -> InputError:
    """Says which leaf the encoder stumbled over."""
    for place, leaf in _leaves(plain, ()):
        if isinstance(leaf, str):
            try:
                leaf.encode("utf-8")
            except UnicodeEncodeError as half:
                return InputError(
                    f"{_shown(place)} has half a surrogate pair at character {half.start:,}.",
                    "Decode it from its source without `surrogateescape`.",
                )
        if isinstance(leaf, int) and not -(2**63) <= leaf < 2**64:
            return InputError(
                f"{_shown(place)} is an int outside -2**63 to 2**64-1.",
                "Store it as text, or as a float.",
            )
    return InputError(f"The value can't be stored: {err}.", _REMEDY)


def _leaves(
    value: object, place: tuple[object, ...]
) -> Iterator[tuple[tuple[object, ...], object]]:
    if isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _leaves(item, (*place, index))
    elif isinstance(value, dict):
        for key, item in value.items():
            yield place, key
            yield from _leaves(item, (*place, key))
    else:
        yield place, value


def _shown(place: tuple[object, ...]) -> str:
    return "value" + "".join(f"[{step!r}]" for step in place)


def _encode_array(array: Array) -> bytes:
    is_masked = isinstance(array, np.ma.MaskedArray)
    if is_masked or not _DTYPE.fullmatch(array.dtype.str.encode()):
        raise InputError(
            f"The value is {'a masked array' if is_masked else f'an array of {array.dtype}'}, "
            "which can't be stored.",
            "Store an array of numbers or booleans of up to 64 bits; others as .tolist().",
        )
    array = np.asarray(array, order="C")
    fields = f"{{'descr': '{array.dtype.str}', 'fortran_order': False, 'shape': {array.shape}, }}"
    size = len(_MAGIC) + 2 + len(fields) + 1
    size += -size % _ALIGNMENT
    length = (size - len(_MAGIC) - 2).to_bytes(2, "little")
    header = (_MAGIC + length + fields.encode()).ljust(size - 1) + b"\n"
    return header + array.reshape(-1).view(np.uint8).data


def _decode_plain(data: Buffer) -> object:
    root = msgspec.msgpack.decode(data)
    level = [root]
    for _ in range(MAX_DEPTH):
        below: list[object] = []
        for value in level:
            items: Collection[object] = (value,)
            if isinstance(value, dict):
                if not set(map(type, value)) <= {str, int}:
                    raise ValueError("a key is neither str nor int")
                items = value.values()
            elif isinstance(value, list):
                items = value
            elif type(value) not in _SCALARS:
                raise ValueError("an extension type")
            if not set(map(type, items)) <= _SCALARS:
                below += [item for item in items if type(item) not in _SCALARS]
        if not below:
            return root
        level = below
    raise ValueError(f"more than {MAX_DEPTH} levels deep")


def _decode_array(data: Buffer) -> Array:
    # Not by numpy's own reader: it evaluates the header, and allocates what the header claims.
    start = len(_MAGIC) + 2
    length = int.from_bytes(data[start - 2 : start], "little")
    header = _HEADER.fullmatch(data[start : start + length])
    if data[: len(_MAGIC)] != _MAGIC or header is None:
        raise ValueError("no .npy header of an array of numbers")
    dtype, shape = np.dtype(header[1].decode()), tuple(map(int, re.findall(rb"\d+", header[3])))
    size_bytes = len(data) - start - len(header[0])
    if prod(shape) * dtype.itemsize != size_bytes:
        raise ValueError(f"the shape {shape} does not fit {size_bytes:,} bytes")
    if size_bytes == 0:
        array = np.zeros(shape, dtype)
        array.flags.writeable = False
        return array
    flat = np.frombuffer(data, dtype, offset=len(data) - size_bytes)
    return flat.reshape(shape, order="F" if header[2] == b"True" else "C")

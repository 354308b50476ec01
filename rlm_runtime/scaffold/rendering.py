"""Values as the text that a prompt shows of them, written no further than it is wanted.

A text is shown as it is. A structure is compact JSON, with two differences that keep it readable
as paths: number keys stand without quotes (`{3:"a"}` is read with `[3]`), and bytes are strings
that begin with `base64:`. An array is its dtype, its shape and its numbers.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence, Set
from itertools import islice
from json.encoder import encode_basestring

import numpy as np

from rlm_runtime.errors import InputError

_BYTES_MARK = "base64:"
_PIECE_ITEMS = 256  # of an array, turned into text together
_SAMPLE_ITEMS = 16
_UNSEEN_CHARACTERS = 16  # what a list or dict counts that lies too deep to look into


def render(value: object, max_characters: int | None = None) -> str:
    """A value as text.

    Args:
        value: What a store gives: text, bytes, a number, list or dict, a NumPy array or one of
            its numbers.
        max_characters: Where to stop. A text that is longer than this is cut, one character
            behind it; work and memory are bounded by it, however large the value is.

    Raises:
        InputError: It is nothing that a store holds.
    """
    if isinstance(value, str):
        return value if max_characters is None else value[: max_characters + 1]
    if isinstance(value, bytes | bytearray | memoryview):
        return _cut(_base64(value, max_characters), max_characters)
    parts: list[str] = []
    characters = 0
    for part in _parts(value, max_characters):
        parts.append(part)
        characters += len(part)
        if max_characters is not None and characters > max_characters:
            break
    return _cut("".join(parts), max_characters)


def estimate_characters(value: object, depth: int = 3) -> int:
    """About how long `render(value)` is, from a few of its items; costs the same for any size.

    Args:
        value: As of `render`.
        depth: Levels of nesting that are looked into.
    """
    if isinstance(value, str):
        return len(value) + 2
    if isinstance(value, bytes | bytearray | memoryview):
        return len(value) * 4 // 3
    if isinstance(value, np.ndarray):
        spread = np.linspace(0, value.size - 1, _SAMPLE_ITEMS if value.size else 0)
        shown = list(map(str, value.flat[spread.astype(np.intp)]))
        return round(value.size * (1 + sum(map(len, shown)) / max(1, len(shown))))
    if depth and isinstance(value, Mapping):
        keys = estimate_characters(list(islice(value, _SAMPLE_ITEMS)), depth) * len(value)
        items = list(islice(value.values(), _SAMPLE_ITEMS))
        return (keys + estimate_characters(items, depth) * len(value)) // max(1, len(items))
    if depth and isinstance(value, Sequence):
        sample = value[:: max(1, len(value) // _SAMPLE_ITEMS)][:_SAMPLE_ITEMS]
        sizes = sum(1 + estimate_characters(item, depth - 1) for item in sample)
        return 2 + round(len(value) * sizes / max(1, len(sample)))
    return len(repr(value)) if isinstance(value, int | float | None) else _UNSEEN_CHARACTERS


def _parts(value: object, most: int | None) -> Iterator[str]:
    if isinstance(value, np.ndarray):
        yield f"{value.dtype.name} {value.shape}\n"
        yield from _numbers(value)
    else:
        yield from _json(value, most)


def _json(value: object, most: int | None) -> Iterator[str]:
    if isinstance(value, str):
        yield encode_basestring(value if most is None else value[: most + 1])
    elif value is None or isinstance(value, bool | int | float):
        yield json.dumps(value)
    elif isinstance(value, bytes | bytearray | memoryview):
        yield f'"{_base64(value, most)}"'
    elif isinstance(value, np.generic):
        yield _number(value)
    elif isinstance(value, Mapping):
        opening = "{"
        for key, item in value.items():
            yield opening
            yield from _json(key, most)
            yield ":"
            yield from _json(item, most)
            opening = ","
        yield "{}" if opening == "{" else "}"
    elif isinstance(value, Sequence | Set):
        opening = "["
        for item in value:
            yield opening
            yield from _json(item, most)
            opening = ","
        yield "[]" if opening == "[" else "]"
    else:
        raise InputError(
            f"A value of type {type(value).__name__} can't be shown.",
            "Store text, bytes, numbers, lists, dicts or NumPy arrays of numbers.",
        )


def _numbers(array: np.ndarray) -> Iterator[str]:
    if array.ndim == 0:
        yield _number(array[()])
    elif array.size == 0:
        yield "[]"  # whatever the shape: a billion empty rows say no more
    else:
        yield "["
        for start in range(0, len(array), _PIECE_ITEMS):
            yield "," if start else ""
            piece = array[start : start + _PIECE_ITEMS]
            if array.ndim == 1:
                yield ",".join(map(_number, piece))
                continue
            for at, row in enumerate(piece):
                yield "," if at else ""
                yield from _numbers(row)
        yield "]"


def _number(item: object) -> str:
    # As NumPy writes it: the shortest digits that give the number in its own precision.
    return str(item).lower() if isinstance(item, np.bool_) else str(item)


def _base64(data: bytes | bytearray | memoryview, most: int | None) -> str:
    used = len(data) if most is None else most + 1
    return f"{_BYTES_MARK}{b64encode(bytes(memoryview(data)[:used])).decode()}"


def _cut(text: str, max_characters: int | None) -> str:
    return text if max_characters is None else text[: max_characters + 1]

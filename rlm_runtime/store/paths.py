"""Paths: a value's name, and the way to a part of it, as `report[0:2000]` or `rows[3]['title']`.

Scanned by hand rather than by Python's parser, so that no path warns, recurses or runs, and every
refusal says where it stands. `str(path)` is canonical: it parses to an equal path.
"""

from __future__ import annotations

import mmap
import re
import sys
import unicodedata
from dataclasses import dataclass
from itertools import islice

import numpy as np

from rlm_runtime.errors import BadPath
from rlm_runtime.store.names import closest
from rlm_runtime.store.text_view import TextView

MAX_PATH_CHARACTERS = 2_000
"""Bounds the work for a path that is none."""

Step = str | int | slice
"""A key, an index, or a slice whose ends are int or None and which has no step."""

_NEAR_KEYS = 10_000
"""So many keys of a dict are compared with one that it does not have."""

_WRITE = "Write it as report, report[0:2000], analysis['summary'] or rows[3]['title']."
_KINDS = {
    type(None): "None",
    bool: "a boolean",
    str: "a text",
    bytes: "bytes",
    list: "a list",
    np.ndarray: "an array",
    TextView: "a text",
    mmap.mmap: "bytes",
}
_SPACES = re.compile(r"\s*")
_IDENTIFIER = re.compile(r"[^\W\d]\w*")
_NUMBER = re.compile(r"-?[0-9]+")
_TEXT = re.compile(r"'(?:[^'\\\n]|\\.)*'|\"(?:[^\"\\\n]|\\.)*\"")
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)", re.DOTALL)
_ESCAPED = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", "'": "'", '"': '"'}


@dataclass(frozen=True, slots=True)
class ValuePath:
    """Where a value or a part of it is.

    Attributes:
        name: The stored value's.
        steps: From its root inward; none is the whole value.
    """

    name: str
    steps: tuple[Step, ...] = ()

    def __str__(self) -> str:
        return self.name + "".join(f"[{_step_text(step)}]" for step in self.steps)


def parse_path(text: str) -> ValuePath:
    """Read a path as people write it.

    `context.` in front of the name is left out; `analysis.summary` is `analysis['summary']`;
    `context['analysis']` is `analysis`. Indices and slices are constants and may be negative.

    Raises:
        BadPath: It is none; the message says what is wrong and where.
    """
    return _Scanner(text).path()


def follow(value: object, path: ValuePath, done: int = 0) -> object:
    """The part of a value that a path leads to. Slices are as Python's; an index must exist.

    Args:
        value: What the first `done` steps led to.
        path: The whole way, which messages name as far as it was followed.
        done: Steps that are behind.

    Raises:
        BadPath: There is no such part; the nearest keys or the length are named.
    """
    for taken, step in enumerate(path.steps[done:], done + 1):
        value = _part(value, step, ValuePath(path.name, path.steps[:taken]))
    return value


class _Scanner:
    """One pass over a path's characters."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def path(self) -> ValuePath:
        if len(self._text) > MAX_PATH_CHARACTERS:
            raise self._bad(f"a path of {len(self._text):,} characters is too long.")
        steps: list[Step] = []
        name = self._identifier("the name of a value")
        while self._next():
            if self._found("."):
                steps.append(self._identifier("a name behind the dot"))
            elif self._found("["):
                steps.append(self._step())
            else:
                raise self._bad(f"{self._next()!r} at character {self._at} can't stand there.")
        if name == "context":
            if not steps or not isinstance(steps[0], str):
                raise self._bad("'context' holds all values; the name of one is missing.")
            name = steps.pop(0)  # type: ignore[assignment]  # is a str by the line above
        path = ValuePath(name, tuple(steps))
        if len(str(path)) > MAX_PATH_CHARACTERS:  # what it is written out with must parse again
            raise self._bad("its keys are too long.")
        return path

    def _step(self) -> Step:
        step: Step | None
        quote = self._next()
        if quote in ("'", '"'):
            quoted = self._take(_TEXT)
            if quoted is None:
                raise self._bad(f"the {quote} at character {self._at} has no end.")
            step = _ESCAPE.sub(self._unescaped, quoted[0][1:-1])
        else:
            step = self._integer()
            if self._found(":"):
                step = slice(step, self._integer())
                if self._next() == ":":
                    raise self._bad("a slice has a start and an end, no step.")
        if step is None:
            raise self._bad(
                f"a quoted key, an index or a slice is missing at character {self._at}."
            )
        if not self._found("]"):
            raise self._bad(f"']' is missing at character {self._at}.")
        return step

    def _identifier(self, what: str) -> str:
        self._next()
        found = self._take(_IDENTIFIER)
        word = unicodedata.normalize("NFKC", found[0]) if found else ""
        if not word.isidentifier():
            raise self._bad(f"{what} is missing at character {self._at}.")
        return word

    def _integer(self) -> int | None:
        self._next()
        found = self._take(_NUMBER)
        return None if found is None else int(found[0])

    def _unescaped(self, escape: re.Match[str]) -> str:
        if escape[1] in _ESCAPED:
            return _ESCAPED[escape[1]]
        code = int(escape[1][1:], 16) if len(escape[1]) > 1 else -1
        if not 0 <= code <= sys.maxunicode:
            raise self._bad(f"{escape[0]!r} is no escape that a key can have.")
        return chr(code)

    def _next(self) -> str:
        """The next character that is no space; empty at the end."""
        self._take(_SPACES)
        return self._text[self._at : self._at + 1]

    def _found(self, character: str) -> bool:
        is_next = self._next() == character
        self._at += is_next
        return is_next

    def _take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        match = pattern.match(self._text, self._at)
        if match is not None:
            self._at = match.end()
        return match

    def _bad(self, why: str) -> BadPath:
        return BadPath(self._text, why, _WRITE)


def _step_text(step: Step) -> str:
    if not isinstance(step, slice):
        return repr(step)
    start, stop = ("" if end is None else end for end in (step.start, step.stop))
    return f"{start}:{stop}"


def _part(value: object, step: Step, path: ValuePath) -> object:
    if isinstance(value, dict):
        return _item(value, step, path)
    is_scalar = isinstance(value, np.ndarray) and value.ndim == 0
    if is_scalar or not isinstance(value, str | bytes | list | np.ndarray | TextView | mmap.mmap):
        raise BadPath(str(path), f"{_kind(value)} can't have parts.", "Read the whole of it.")
    if isinstance(step, str):
        raise BadPath(
            str(path),
            f"{_kind(value)} can't have keys.",
            f"Use an index or a slice; {_ends(len(value))}.",
        )
    if isinstance(step, int) and not -len(value) <= step < len(value):
        raise BadPath(
            str(path), f"there is no index {step:,}.", f"{_ends(len(value)).capitalize()}."
        )
    part = value[step]
    return part.item() if isinstance(part, np.generic) else part


def _item(value: dict[object, object], step: Step, path: ValuePath) -> object:
    if isinstance(step, slice):
        raise BadPath(str(path), "a dict has no slices.", f"Use a key, as {_some_keys(value)}.")
    if step in value:
        return value[step]
    if not value:
        raise BadPath(str(path), "the dict is empty.", "Read the whole of it.")
    near: tuple[str, ...] = ()
    if isinstance(step, str):
        keys = (key for key in islice(value, _NEAR_KEYS) if isinstance(key, str))
        near = tuple(map(repr, closest(step, keys)))
    raise BadPath(
        str(path),
        f"there is no key {step!r}.",
        f"Nearest: {', '.join(near)}." if near else f"Use a key, as {_some_keys(value)}.",
    )


def _some_keys(value: dict[object, object]) -> str:
    return ", ".join(_cut(repr(key)) for key in islice(value, 3)) or "of a dict that has some"


def _ends(length: int) -> str:
    return f"it has 0 to {length - 1:,}" if length else "it is empty"


def _kind(value: object) -> str:
    return _KINDS.get(type(value), "a number")


def _cut(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:37]}..."

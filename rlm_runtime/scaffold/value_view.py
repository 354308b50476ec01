"""Paths as Python writes them: `context.analysis['summary'][0:2000]`."""

from __future__ import annotations

from operator import index
from typing import SupportsIndex

from rlm_runtime.errors import BadPath
from rlm_runtime.store import Step, ValuePath


class ValueView:
    """A part of a value that nobody has loaded yet: `context.analysis['summary'][0:2000]`.

    Items and attributes lead further in; `AgentContext.read` and the others take it as a path.
    """

    __slots__ = ("_path",)
    __iter__ = None  # or `for` would ask for item after item without end
    __contains__ = None

    def __init__(self, path: ValuePath) -> None:
        self._path = path

    def __getitem__(self, step: Step) -> ValueView:
        return ValueView(
            ValuePath(self._path.name, (*self._path.steps, _checked(self._path, step)))
        )

    def __getattr__(self, key: str) -> ValueView:
        if key.startswith("_"):
            raise AttributeError(f"{key!r} is no part of a value; write [{key!r}].")
        return self[key]

    def __str__(self) -> str:
        return str(self._path)

    def __repr__(self) -> str:
        return f"<{self._path}, not loaded>"


def path_of(view: ValueView) -> ValuePath:
    """Where a view leads."""
    return view._path


def _checked(path: ValuePath, step: object) -> Step:
    if isinstance(step, str):
        return step
    if isinstance(step, slice) and step.step is None and all(map(_is_end, (step.start, step.stop))):
        return step
    if isinstance(step, SupportsIndex) and not isinstance(step, bool):
        return index(step)
    raise BadPath(
        f"{path}[{step!r}]",
        "there is no such step.",
        "A step is a key in quotes, an index, or a slice [start:stop] of numbers.",
    )


def _is_end(end: object) -> bool:
    return end is None or (isinstance(end, int) and not isinstance(end, bool))

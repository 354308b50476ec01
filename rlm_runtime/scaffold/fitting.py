"""How many tokens a value's text has, counted no further than a limit, and what of it would fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import islice
from typing import NamedTuple

import numpy as np

from rlm_runtime.scaffold.rendering import estimate_characters, render
from rlm_runtime.store import Step, TextView, ValuePath
from rlm_runtime.store.chunks import CountTokens

HEAD_CHARACTERS = 16
"""Characters that are encoded for each token of the limit, before the rest is looked at: most
texts have 2 to 5 a token, so one look tells what is far too large."""

_CERTAIN = 2  # times the limit: the last words of a beginning may be cut, and have more tokens so
_KEYS_TRIED = 8
_KEY_CHARACTERS = 100  # a longer key makes no path that anyone would write
_CHARACTERS_PER_TOKEN = 4
_MAX_STEPS = 8  # that a path to what fits is longer than the one it is for


class Count(NamedTuple):
    """Tokens of a text.

    Attributes:
        tokens: Exact, or estimated from the beginning and the length.
        is_estimated: Which of the two; an estimate is always over the limit.
        text: What was counted; `None` where it is over the limit.
    """

    tokens: int
    is_estimated: bool
    text: str | None


def count_up_to(
    limit: int | None,
    text: Callable[[int | None], str],
    characters: Callable[[], int],
    count_tokens: CountTokens,
) -> Count:
    """Count the tokens of a text; exactly, up to the limit and a little over it.

    Costs the encoding of the text, or of as much of it as settles that it is over the limit.

    Args:
        limit: Tokens; `None` counts all.
        text: Gives the beginning of so many characters and one more, or all of it.
        characters: Gives about how many it has, for the estimate.
        count_tokens: By the model's tokenizer.
    """
    if limit is None:
        whole = text(None)
        return Count(count_tokens(whole), False, whole)
    head = 1024 + HEAD_CHARACTERS * limit
    while True:
        beginning = text(head)
        tokens = count_tokens(beginning)
        if len(beginning) <= head:
            return Count(tokens, False, beginning if tokens <= limit else None)
        if tokens > _CERTAIN * limit:
            estimate = round(characters() * tokens / len(beginning))
            return Count(max(tokens, estimate), True, None)
        head *= 4


def path_that_fits(
    value: object,
    path: ValuePath,
    limit: int,
    count_tokens: CountTokens,
    within: slice | None = None,
) -> str:
    """A path to a part of a value that has at most so many tokens; empty when none is found.

    The beginning of what can be sliced; of a dict the first key that fits, else a part of its
    first; of a list whose first item is too large, a part of that. Never an empty text.

    Args:
        value: The value, or a view of a text.
        path: Leads to it.
        limit: Tokens.
        count_tokens: By the model's tokenizer.
        within: The part must lie in this slice of it.
    """
    if limit < 1:
        return ""
    for depth in range(_MAX_STEPS):
        if depth and 0 < _tokens(value, limit, count_tokens) <= limit:
            return str(path)
        if isinstance(value, Mapping):
            keys = [k for k in islice(value, _KEYS_TRIED) if len(str(k)) <= _KEY_CHARACTERS]
            for key in keys:
                if 0 < _tokens(value[key], limit, count_tokens) <= limit:
                    return _further(path, key)
            if not keys:
                return ""
            step: Step = keys[0]
            value = value[step]
        elif isinstance(value, str | bytes | list | TextView) or (
            isinstance(value, np.ndarray) and value.ndim
        ):
            start, size = _beginning(value, within or slice(None), limit, count_tokens)
            if size:
                return _further(path, slice(start, start + size))
            if not isinstance(value, list | np.ndarray) or start >= len(value):
                return ""
            step, value = start, value[start]
        else:
            return ""
        within = None
        path = ValuePath(path.name, (*path.steps, step))
    return ""


def _beginning(
    value: str | bytes | list[object] | TextView | np.ndarray,
    within: slice,
    limit: int,
    count_tokens: CountTokens,
) -> tuple[int, int]:
    """Where a slice begins, and how many of its items fit."""
    start = within.start or 0
    size = _CHARACTERS_PER_TOKEN * limit
    if start < 0 or within.stop is not None or not isinstance(value, TextView):
        start, stop, _ = within.indices(len(value))
        size = min(size, stop - start)
    while size > 0:
        tokens = _tokens(value[start : start + size], limit, count_tokens)
        if tokens <= limit:
            return start, size
        size = min(size // 2, size * limit // tokens)
    return start, 0


def _tokens(part: object, limit: int, count_tokens: CountTokens) -> int:
    return count_up_to(
        limit,
        lambda characters: render(part, characters),
        lambda: estimate_characters(part),
        count_tokens,
    ).tokens


def _further(path: ValuePath, step: Step) -> str:
    return str(ValuePath(path.name, (*path.steps, step)))

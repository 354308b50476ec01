"""Names of stored values: Python identifiers, so that a cell can use them as variables."""

from __future__ import annotations

import builtins
import difflib
import heapq
import keyword
import re
import unicodedata
from collections.abc import Container, Iterable
from pathlib import Path

from rlm_runtime.errors import InputError

MAX_NAME_CHARS = 64
"""Every prompt of a tree shows the names, so a long one is paid for again and again."""

FUNCTIONS = frozenset(
    ("READ", "WRITE", "LIST_CONTEXT", "FINAL", "QUERY", "BUDGET", "agent", "context")
).union(("llm_query", "llm_batch", "llm_map"))
"""What an agent calls, and `context`, which paths may begin with: a value of such a name would
hide it."""

_MADE_CHARS = 40
_COMPARED = 50
_PAIRED_CHARS = 200
_NO_WORD = re.compile(r"[\W_]+")


def check_name(name: str) -> None:
    """Make sure that `name` can be a variable.

    Raises:
        InputError: It is no identifier, a keyword, too long, or spelt with characters that Python
            would replace (it normalises identifiers, but not the text in `READ("...")`); or it
            is one of an agent's functions.
    """
    if len(name) > MAX_NAME_CHARS:
        raise InputError(
            f"A name of {len(name):,} characters is too long.", f"Use at most {MAX_NAME_CHARS}."
        )
    is_plain = unicodedata.normalize("NFKC", name) == name
    if not name.isidentifier() or keyword.iskeyword(name) or not is_plain:
        raise InputError(
            f"{name!r} can't be a name.",
            "Use letters, digits and underscores, no digit first, and no word of Python's own.",
        )
    if name in FUNCTIONS:
        raise InputError(
            f"{name!r} can't be a name: it means something else in what agents call.",
            "Use another.",
        )


def name_for(path: Path, taken: Container[str] = ()) -> str:
    """A name for a file's text, made of the file's own name.

    Args:
        path: Only its last part counts, without the suffix.
        taken: Names it must not be; `_2`, `_3`... is added until it is free.

    Returns:
        A valid name that hides no builtin and no function of an agent: `2024 Report.txt` →
        `file_2024_Report`, `input.txt` → `input_file`.
    """
    plain = unicodedata.normalize("NFKC", path.stem)
    stem = _NO_WORD.sub("_", plain).strip("_")[:_MADE_CHARS].rstrip("_")
    if not stem or not stem.isidentifier():
        stem = f"file_{stem}" if f"file_{stem}".isidentifier() else "file"
        stem = stem.rstrip("_")
    if keyword.iskeyword(stem) or hasattr(builtins, stem) or stem in FUNCTIONS:
        stem = f"{stem}_file"
    name, number = stem, 1
    while name in taken:
        number += 1
        name = f"{stem}_{number}"
    return name


def closest(wanted: str, names: Iterable[str], most: int = 3) -> tuple[str, ...]:
    """The names most like one that is not there, the likeliest first.

    By pairs of letters, which takes microseconds a name; only the best of those are compared in
    full. So a miss among 10,000 names takes milliseconds, not a second.
    """
    wanted = wanted[:_PAIRED_CHARS]
    pairs = _pairs(wanted)

    def likeness(name: str) -> float:
        theirs = _pairs(name[:_PAIRED_CHARS])
        return len(pairs & theirs) / (len(pairs) + len(theirs))

    likely = heapq.nlargest(_COMPARED, names, key=likeness)
    return tuple(difflib.get_close_matches(wanted, likely, n=most, cutoff=0.0))


def _pairs(name: str) -> set[str]:
    """Letters side by side, of either case, and the first and the last letter alone."""
    folded = f" {name.lower()} "
    return {folded[i : i + 2] for i in range(len(folded) - 1)}

"""Names of stored values: Python identifiers, so that a cell can use them as variables."""

from __future__ import annotations

import builtins
import keyword
import re
import unicodedata
from collections.abc import Container
from pathlib import Path

from rlm_runtime.errors import InputError

MAX_NAME_CHARS = 64
"""Every prompt of a tree shows the names, so a long one is paid for again and again."""

_MADE_CHARS = 40
_NO_WORD = re.compile(r"[\W_]+")


def check_name(name: str) -> None:
    """Make sure that `name` can be a variable.

    Raises:
        InputError: It is no identifier, a keyword, too long, or spelt with characters that Python
            would replace (it normalises identifiers, but not the text in `READ("...")`).
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


def name_for(path: Path, taken: Container[str] = ()) -> str:
    """A name for a file's text, made of the file's own name.

    Args:
        path: Only its last part counts, without the suffix.
        taken: Names it must not be; `_2`, `_3`... is added until it is free.

    Returns:
        A valid name that hides no builtin: `2024 Report.txt` → `file_2024_Report`,
        `input.txt` → `input_file`.
    """
    plain = unicodedata.normalize("NFKC", path.stem)
    stem = _NO_WORD.sub("_", plain).strip("_")[:_MADE_CHARS].rstrip("_")
    if not stem or not stem.isidentifier():
        stem = f"file_{stem}" if f"file_{stem}".isidentifier() else "file"
        stem = stem.rstrip("_")
    if keyword.iskeyword(stem) or hasattr(builtins, stem):
        stem = f"{stem}_file"
    name, number = stem, 1
    while name in taken:
        number += 1
        name = f"{stem}_{number}"
    return name

"""What is asked about: files and standard input, and the questions, checked before anything else.

A mistake in them shows at once, before a model is downloaded, a run directory made or an engine
booted.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from rlm_runtime.cli.terminal import shown_path
from rlm_runtime.errors import InputError
from rlm_runtime.store import ContextStore
from rlm_runtime.store.text_file import check_text
from rlm_runtime.types import Ref

STDIN = "-"
_STDIN_NAME = "stdin"


class Source(NamedTuple):
    """A text that was named on the command line.

    Attributes:
        shown: What it is called in answers.
        path: Its file; `None` for standard input.
        text: What standard input held; empty for a file.
        skipped_bytes: A byte-order mark in front, which is not part of the stored text.
        digest: Of the stored text.
    """

    shown: str
    path: Path | None
    text: str
    skipped_bytes: int
    digest: str

    @property
    def name(self) -> str | None:
        """What its variable must be called; `None` lets the store make a name of the file's."""
        return _STDIN_NAME if self.path is None else None


@dataclass(frozen=True, slots=True)
class Text:
    """A source that was stored."""

    ref: Ref
    source: Source

    def place(self, start_byte: int, end_byte: int) -> str:
        """Where bytes of the value stand in the file."""
        skipped = self.source.skipped_bytes
        return f"{self.source.shown}:bytes {start_byte + skipped}-{end_byte + skipped}"


def sources(files: Sequence[str]) -> list[Source]:
    """Read and check every text: costs a pass over each file, no memory but for standard input.

    Raises:
        InputError: One is missing, not permitted, empty, not text, or named twice.
    """
    found: list[Source] = []
    seen: set[Path | None] = set()
    for file in files:
        source = _stdin() if file == STDIN and None not in seen else _file(file)
        where = None if source.path is None else source.path.resolve()
        if where in seen:
            raise InputError(f"{source.shown} is named twice.", "Name each text once.")
        seen.add(where)
        found.append(source)
    return found


def from_file(path: Path, shown: str) -> Source:
    """A file as a source, read and checked.

    Raises:
        InputError: It is missing, not permitted, empty or not text.
    """
    # A store of its own, thrown away: it checks as the session's store will.
    ref = ContextStore(len).put_file("text", path)
    return Source(shown, path, "", path.stat().st_size - ref.size_bytes, ref.digest)


def from_text(text: str, skipped_bytes: int) -> Source:
    """What standard input had held, as a source."""
    return Source(STDIN, None, text, skipped_bytes, ContextStore(len).put_text("text", text).digest)


def check_question(question: str) -> None:
    """Refuse what can't be a question whatever the model is.

    Raises:
        InputError: It is empty or not UTF-8.
    """
    if not question.strip():
        raise InputError("A question is empty.", "Ask something.")
    try:
        question.encode()
    except UnicodeEncodeError as err:
        raise InputError("A question is not UTF-8.", "Type it in a UTF-8 terminal.") from err


def _file(file: str) -> Source:
    if file == STDIN:
        raise InputError("Standard input (-) is named twice.", "Name it once.")
    path = Path(file)
    return from_file(path, shown_path(path))


def _stdin() -> Source:
    data = sys.stdin.buffer.read()
    checked = check_text(data, "Standard input")
    start = checked.start_byte
    return Source(STDIN, None, data[start:].decode(), start, checked.digest)

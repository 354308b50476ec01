"""What a run was asked, as one file in its directory: `rlm resume` needs nothing else.

The configuration is not in it: it lies beside the log, under the digest that the log begins with.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes, urlsplit

import msgspec

from rlm_runtime.cli.inputs import Source, Text, from_file, from_text
from rlm_runtime.cli.terminal import shown_path
from rlm_runtime.errors import InputError, TraceError

if TYPE_CHECKING:
    from rlm_runtime.cli.asking import Wish

ASKED = "asked.json"
"""The file of a run directory that holds it."""

SCHEMA_VERSION = 1


class AskedText(msgspec.Struct, frozen=True, kw_only=True):
    """One text.

    Attributes:
        shown: What answers call it.
        digest: Of the stored value.
        file: URI of its file; `None` for standard input.
        text: What standard input held; `None` for a file.
        skipped_bytes: Of a byte-order mark in front of it.
    """

    shown: str
    digest: str
    file: str | None = None
    text: str | None = None
    skipped_bytes: int = 0

    def source(self) -> Source:
        """The text as it is now.

        Raises:
            InputError: Its file is missing, or no text any more.
        """
        if self.file is None:
            return from_text(self.text or "", self.skipped_bytes)
        return from_file(_path(self.file), self.shown)


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """All that was asked, in the words of the command line; see `Wish`."""

    schema_version: int
    texts: tuple[AskedText, ...]
    questions: tuple[str, ...]
    agent: str | None
    labels: str | None
    combine: str | None
    over: str | None
    is_exhaustive: bool
    output: str | None

    @property
    def output_path(self) -> Path | None:
        """Where the last result is written."""
        return None if self.output is None else _path(self.output)


def keep(directory: Path, wish: Wish, texts: Iterable[Text]) -> None:
    """Write down what a run is asked, when it starts.

    Raises:
        TraceError: It can't be written.
    """
    asked = Asked(
        schema_version=SCHEMA_VERSION,
        texts=tuple(_text(text) for text in texts),
        questions=tuple(wish.questions),
        agent=wish.agent,
        labels=wish.labels,
        combine=wish.combine,
        over=wish.over,
        is_exhaustive=wish.is_exhaustive,
        output=None if wish.output is None else wish.output.absolute().as_uri(),
    )
    # Not msgspec's encoder: arguments that are no UTF-8 would be too much for it.
    data = json.dumps(msgspec.to_builtins(asked), indent=1).encode()
    part = directory / f".{ASKED}.part"
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(data)
        part.rename(directory / ASKED)
    except OSError as err:
        raise TraceError(
            f"Can't write {ASKED} into {shown_path(directory)}: {err.strerror}.",
            "Free some space, or choose another place with --run-dir.",
        ) from err


def load(directory: Path) -> Asked:
    """What a run was asked.

    Raises:
        InputError: The run does not say so.
        TraceError: The file is damaged, or of another version.
    """
    try:
        asked = msgspec.convert(json.loads((directory / ASKED).read_bytes()), Asked)
    except FileNotFoundError as err:
        raise InputError(
            f"The run in {shown_path(directory)} does not say what it was asked (no {ASKED}).",
            "`rlm run` writes it when the engine starts. A program resumes its own runs: "
            "RLM(resume=RUN).",
        ) from err
    except OSError as err:
        raise TraceError(f"Can't read {ASKED}: {err.strerror}.") from err
    except (ValueError, msgspec.ValidationError) as err:
        raise TraceError(f"{ASKED} is damaged: {err}.", "Ask again with `rlm run`.") from err
    if asked.schema_version != SCHEMA_VERSION:
        raise TraceError(
            f"{ASKED} has schema version {asked.schema_version}; this program reads version "
            f"{SCHEMA_VERSION}.",
            "Resume it with the version of rlm-vllm that wrote it.",
        )
    return asked


def _text(text: Text) -> AskedText:
    source = text.source
    return AskedText(
        shown=source.shown,
        digest=text.ref.digest,
        file=None if source.path is None else source.path.absolute().as_uri(),
        text=source.text if source.path is None else None,
        skipped_bytes=source.skipped_bytes,
    )


def _path(uri: str) -> Path:
    # By bytes: a path need not be UTF-8.
    return Path(os.fsdecode(unquote_to_bytes(urlsplit(uri).path)))

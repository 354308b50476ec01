"""What a command and the person at its terminal tell each other.

Answers and data go to stdout, everything else to stderr; interrupts come the other way.
"""

from __future__ import annotations

import io
import json
import math
import os
import sys
import unicodedata
from collections.abc import Mapping

from rich.console import Console, RenderableType
from rich.text import Text

from rlm_runtime.cli.command import Document
from rlm_runtime.cli.interrupts import Interrupts
from rlm_runtime.errors import RLMError

_KEPT = frozenset("\n\t")
_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that turn the direction of writing: text could look like other text."""


_STRONG, _PLAIN = "\x1b[1;4m", "\x1b[0m"


class OutputClosed(Exception):
    """Whoever read the output has gone (`rlm ... | head -1`)."""


class Terminal:
    """The two streams of one command, and its interrupts.

    Args:
        is_quiet: Hints and progress are left out; errors and warnings are not.
        wants_json: Likewise, and stdout belongs to the document.

    Attributes:
        wants_json: As given.
        shows_hints: Hints and progress are shown.
        errors: The rich console on stderr.
        interrupts: What a signal does.
    """

    def __init__(self, *, is_quiet: bool = False, wants_json: bool = False) -> None:
        self.wants_json = wants_json
        self.shows_hints = not is_quiet and not wants_json
        self.interrupts = Interrupts()
        self.errors = Console(stderr=True, highlight=False, soft_wrap=True)
        if isinstance(sys.stdout, io.TextIOWrapper):
            # A terminal that can't show a quotation's characters gets their numbers, not a crash.
            sys.stdout.reconfigure(errors="backslashreplace")

    @property
    def is_live(self) -> bool:
        """Progress can be redrawn in place."""
        is_terminal = sys.stderr is not None and sys.stderr.isatty()
        return self.shows_hints and is_terminal and not self.errors.is_dumb_terminal

    @property
    def can_ask(self) -> bool:
        """There is somebody to type questions and read answers."""
        streams = (sys.stdin, sys.stdout)
        return all(stream is not None and stream.isatty() for stream in streams)

    def put(self, text: str) -> None:
        """Write a line, or lines, of the answer.

        Raises:
            OutputClosed: Nobody reads it.
        """
        encoding = "utf-8" if sys.stdout is None else sys.stdout.encoding
        self._write(f"{text}\n".encode(encoding, "backslashreplace"))

    def strong(self, text: str) -> str:
        """Words of the answer that stand out: bold and underlined, on a terminal that can do that.

        As they are in a file, in a pipe, and where NO_COLOR asks for plain text.
        """
        console = Console()
        if not console.is_terminal or console.is_dumb_terminal or console.no_color:
            return text
        return f"{_STRONG}{text}{_PLAIN}"

    def put_rich(self, renderable: RenderableType) -> None:
        """Write a table, as wide as the terminal, or coloured text, whose lines stay whole.

        Raises:
            OutputClosed: Nobody reads it.
        """
        width = None if sys.stdout.isatty() else 100
        console = Console(width=width, highlight=False)
        with console.capture() as capture:
            console.print(renderable, soft_wrap=isinstance(renderable, Text))
        self.put("\n".join(line.rstrip() for line in capture.get().rstrip().splitlines()))

    def put_document(self, document: Document) -> None:
        """Write the `--json` document: UTF-8 whatever the locale, no NaN.

        Raises:
            OutputClosed: Nobody reads it.
        """
        text = json.dumps(finite(document), ensure_ascii=False, indent=2, allow_nan=False)
        # JSON leaves some control characters as they are; a terminal would obey them.
        text = "".join(f"\\u{ord(c):04x}" if c != "\n" and clean(c) != c else c for c in text)
        self._write(f"{text}\n".encode("utf-8", "backslashreplace"))

    def hint(self, text: str) -> None:
        """Say something that is not needed."""
        if self.shows_hints:
            self.say(text)

    def say(self, text: str, style: str = "") -> None:
        """Say something for people, even when quiet."""
        try:
            self.errors.print(Text(clean(text), style=style))
        except OSError:
            # Nobody hears it: the work goes on, its answer may still be read.
            _forget(sys.stderr.fileno())

    def error(self, text: str) -> None:
        """Say what went wrong, in one line."""
        line = Text.assemble(("error:", "bold red"), " ", clean(" ".join(text.split())))
        try:
            self.errors.print(line)
        except OSError:
            _forget(sys.stderr.fileno())

    def _write(self, data: bytes) -> None:
        if sys.stdout is None:  # started with it closed
            raise OutputClosed
        try:
            sys.stdout.flush()
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        except BrokenPipeError as err:
            # Python flushes once more at its end, and would complain then.
            _forget(sys.stdout.fileno())
            raise OutputClosed from err
        except OSError as err:
            _forget(sys.stdout.fileno())
            raise RLMError(
                f"The answer can't be written to standard output: {err.strerror}.",
                "Free some space, or write it elsewhere.",
            ) from err


def clean(text: str) -> str:
    """Text of others for a terminal: without control characters, which could do anything to it.

    Newlines and tabs stay; marks that turn the writing's direction go.
    """
    return "".join(
        c
        for c in text
        if c in _KEPT or (unicodedata.category(c) not in ("Cc", "Cs") and c not in _BIDI)
    )


def one_line(text: str, width: int | None = None) -> str:
    """Cleaned text on one line, cut to `width` characters."""
    line = " ".join(clean(text).split())
    return line if width is None or len(line) <= width else line[: width - 1].rstrip() + "…"


def count(number: int, thing: str) -> str:
    """A number of things: "1 call", "2,345 calls"."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def percent(share: float) -> str:
    """A share of 0..1: "84 %"."""
    return f"{share * 100:.0f} %"


def seconds(value: float) -> str:
    """A time as people say it: "0.8 s", "12 s", "3 min 05 s"."""
    if value < 60:
        return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest:02} s"


def size(num_bytes: float) -> str:
    """Bytes as people count them: "812 bytes", "93 MB", "4.0 GB"."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= factor:
            value = num_bytes / factor
            return f"{value:.1f} {unit}" if value < 10 else f"{value:.0f} {unit}"
    return f"{num_bytes:.0f} bytes"


def shown_path(path: str | os.PathLike[str]) -> str:
    """A path that can be printed, whatever bytes it is made of."""
    return clean(os.fsencode(path).decode("utf-8", "replace"))


def finite(value: object) -> object:
    """JSON has no infinity and no NaN: such a figure can't be known, so it is null."""
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _forget(stream: int) -> None:
    """Let nothing more be written to a stream that nobody reads."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream)
    os.close(null)

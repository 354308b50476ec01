"""What a verb's options come to: work to be done, apart from reading the options.

A verb's function reads its options and returns a `Command`; `guard.py` runs it, so that signals,
errors and exit codes are the same for all verbs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    # Brings rich, which `--help` can do without.
    from rlm_runtime.cli.terminal import Terminal

SCHEMA_VERSION = 1
"""Of every `--json` document. Raised when a reader of the old form would misread the new one."""

DONE: Final = 0
FAILED: Final = 1
USAGE: Final = 2
ENVIRONMENT: Final = 3
PARTIAL: Final = 4
INTERRUPTED: Final = 130
OUTPUT_CLOSED: Final = 141

EXIT_CODES = """\b
Exit codes:
  0    done; "not found" is an answer too
  1    the work failed
  2    wrong usage or configuration
  3    the environment lacks something: model, engine, memory
  4    a limit ended it with a partial answer
  130  interrupted (Ctrl-C), after a clean end
  143  terminated (SIGTERM), likewise; 141: the reader of the output went away"""

Document = dict[str, object]
"""What `--json` prints. A verb fills it in as it goes: what stands in it when the work fails or is
interrupted is printed too."""


@dataclass(frozen=True, slots=True)
class Command:
    """Work that was asked for.

    Attributes:
        work: Does it and returns the exit code. Writes answers to the terminal, unless
            `wants_json`; fills in the document.
        wants_json: The document is printed at the end, whatever the end is.
        is_quiet: No progress and no hints.
    """

    work: Callable[[Terminal, Document], int]
    wants_json: bool = False
    is_quiet: bool = False

"""Runs a command to its end: errors, interrupts and exit codes, the same for every verb.

Whatever happens, the work unwinds in order (the engine's processes end, the run's log is closed),
stdout gets at most one document, and the exit code says which kind of end it was.
"""

from __future__ import annotations

import datetime
import os
import traceback
from collections.abc import Callable
from pathlib import Path

from rlm_runtime.cli.command import (
    DONE,
    FAILED,
    INTERRUPTED,
    OUTPUT_CLOSED,
    SCHEMA_VERSION,
    Command,
    Document,
)
from rlm_runtime.cli.interrupts import Terminated
from rlm_runtime.cli.terminal import OutputClosed, Terminal, shown_path
from rlm_runtime.config import state_home
from rlm_runtime.errors import Cancelled, RLMError


def run(command: Command) -> int:
    """Do the work and return the exit code. Raises nothing."""
    terminal = Terminal(is_quiet=command.is_quiet, wants_json=command.wants_json)
    document: Document = {"schema_version": SCHEMA_VERSION}
    with terminal.interrupts.handled():
        code = _attempt(lambda: command.work(terminal, document), terminal, document)
        if command.wants_json and code != OUTPUT_CLOSED:
            # An unwound interrupt is over: the document is still printed, unless a new one comes.
            terminal.interrupts.rearm()
            printing = _attempt(lambda: _print(terminal, document), terminal, {})
            code = printing or code
    return code


def error_facts(error: RLMError) -> dict[str, object]:
    """An error as it stands in a document."""
    return {
        "code": error.code,
        "message": str(error),
        "what": error.what,
        "remedy": error.remedy,
        "exit_code": error.exit_code,
    }


def _print(terminal: Terminal, document: Document) -> int:
    terminal.put_document(document)
    return DONE


def _attempt(work: Callable[[], int], terminal: Terminal, document: Document) -> int:
    try:
        return work()
    except OutputClosed:
        return OUTPUT_CLOSED
    except RLMError as err:
        terminal.error(str(err))
        document["error"] = error_facts(err)
        return err.exit_code
    except KeyboardInterrupt as err:
        code = err.exit_code if isinstance(err, Terminated) else INTERRUPTED
        what = "terminated" if isinstance(err, Terminated) else "interrupted"
        terminal.say(what)
        ended = Cancelled(f"The command was {what}.", "What had finished is kept.")
        document["error"] = error_facts(ended) | {"exit_code": code}
        return code
    except Exception as err:  # noqa: BLE001 - the boundary: it is recorded, and the command ends
        what, remedy = _record(err, terminal)
        terminal.error(f"{what} {remedy}")
        document["error"] = error_facts(RLMError(what, remedy))
        return FAILED


def _record(err: Exception, terminal: Terminal) -> tuple[str, str]:
    """Keep the traceback of an error nobody expected, and say where."""
    what = f"rlm failed in a way it was not made for ({type(err).__name__})."
    details = "".join(traceback.format_exception(err))
    now = datetime.datetime.now(datetime.UTC)
    try:
        path = _crash_file(f"{now:%Y%m%dT%H%M%S.%f}Z-{os.getpid()}.txt", details)
    except (OSError, RLMError):
        # Nowhere to keep it: rather too much on the screen than nothing to report.
        terminal.say(details)
        return what, "Please report it with the lines above."
    return what, f"Please report it with the file {shown_path(path)}"


def _crash_file(name: str, details: str) -> Path:
    folder = state_home() / "crashes"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / name
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(details)
    return path

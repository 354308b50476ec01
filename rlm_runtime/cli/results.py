"""How a benchmark's results are shown and written down, whatever it measured."""

from __future__ import annotations

import tempfile
from pathlib import Path

from rich import box
from rich.table import Table as RichTable
from rich.text import Text

from rlm_runtime.benchmark.results import Report, Table, write_json, write_markdown
from rlm_runtime.cli.terminal import Terminal, shown_path
from rlm_runtime.errors import InputError


def show(made: Report, terminal: Terminal) -> None:
    """The tables and notes, for people."""
    if terminal.wants_json:
        return
    terminal.put(f"{made.model} on {made.machine}; {made.versions['engine']}")
    for table in made.tables():
        terminal.put("")
        terminal.put_rich(_rich(table))
    for note in made.notes():
        terminal.say(note)


def _rich(table: Table) -> RichTable:
    shown = RichTable(title=table.title, title_justify="left", box=box.SIMPLE_HEAD)
    for position, name in enumerate(table.header):
        shown.add_column(name, justify="left" if position == 0 else "right")
    for row in table.rows:
        shown.add_row(*(Text(cell) for cell in row))
    return shown


def write(made: Report, folder: Path | None, terminal: Terminal) -> list[Path]:
    """Write `result.json` and `result.md`; a hint instead where nothing is kept."""
    if folder is None:
        terminal.hint("Nothing is kept of this run, and no --out was given: no files are written.")
        return []
    files = [folder / "result.json", folder / "result.md"]
    write_json(made, files[0])
    write_markdown(made, files[1])
    return files


def make(folder: Path) -> None:
    """Make sure before minutes of measuring that their results can be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as err:
        raise InputError(
            f"Results can't be written to {shown_path(folder)}: {err.strerror}.",
            "Name another directory with --out.",
        ) from err

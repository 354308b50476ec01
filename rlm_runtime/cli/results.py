"""How a benchmark's results are shown and written down, whatever it measured."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from rich import box
from rich.table import Table as RichTable
from rich.text import Text

from rlm_runtime.benchmark.results import LOUD, Report, Table, write_json, write_markdown
from rlm_runtime.cli.terminal import Terminal, clean, one_line, shown_path
from rlm_runtime.errors import InputError

_NUMBER = re.compile(r"[-+<>]? ?[\d.,]+( (%|ms|s|points))?|-|equal")
"""A cell that is read from its end."""


def show(made: Report, terminal: Terminal) -> None:
    """The tables and notes, for people."""
    if terminal.wants_json:
        return
    terminal.put(clean(f"{made.model} on {made.machine}; {made.versions['engine']}"))
    show_tables(made.tables(), made.notes(), terminal)


def show_tables(tables: Iterable[Table], notes: Iterable[str], terminal: Terminal) -> None:
    """Tables on stdout, notes on stderr; nothing where a document is printed instead."""
    if terminal.wants_json:
        return
    for table in tables:
        terminal.put("")
        terminal.put_rich(_rich(table))
    for note in notes:
        terminal.say(note, style="bold red" if note.startswith(LOUD) else "")


def _rich(table: Table) -> RichTable:
    shown = RichTable(
        title=Text(clean(table.title), style="table.title"),
        title_justify="left",
        box=box.SIMPLE_HEAD,
    )
    for position, name in enumerate(table.header):
        cells = [row[position] for row in table.rows if row[position]]
        has_numbers = 2 * sum(bool(_NUMBER.fullmatch(cell)) for cell in cells) > len(cells)
        justify: Literal["left", "right"] = "right" if position and has_numbers else "left"
        # Folded, not cut: the end of a name is what tells it from others.
        shown.add_column(name, justify=justify, overflow="fold")
    for row in table.rows:
        shown.add_row(*(Text(one_line(cell)) for cell in row))
    return shown


def write(
    made: Report, folder: Path | None, terminal: Terminal, stem: str = "result"
) -> list[Path]:
    """Write `result.json` and `result.md`; a hint instead where nothing is kept."""
    if folder is None:
        terminal.hint("Nothing is kept of this run, and no --out was given: no files are written.")
        return []
    files = [folder / f"{stem}.json", folder / f"{stem}.md"]
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

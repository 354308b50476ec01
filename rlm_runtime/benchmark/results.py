"""What a benchmark leaves behind: one document, as JSON, as Markdown, as tables for a terminal.

    {"schema_version": 1, "benchmark": "ttft", "figures": {name: number or null, ...},
     "detail": {measurement: {...}}, "machine": ..., "model": ..., "versions": {...}, ...}

`figures` is flat and has the names of `docs/measure.md`; `detail` holds every sample. Nothing here
prints.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec

from rlm_runtime.api import Internals
from rlm_runtime.errors import InputError
from rlm_runtime.profiler import Figures
from rlm_runtime.tracing import machine

SCHEMA_VERSION = 1
"""Raised when a reader of the old schema would misread a new document."""

LOUD = "MISMATCH:"
"""Begins a note that must not be overlooked: figures that contradict each other."""


class Table(NamedTuple):
    """A small table as people read it; cells are text.

    Attributes:
        title: What it shows.
        header: Column names with units.
        rows: Cells, as many as the header has.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


class Measurement(Protocol):
    """What one measurement gives to a document. Partial results are results."""

    @property
    def name(self) -> str:
        """Its key in `detail`."""
        ...

    def figures(self) -> Figures:
        """Flat figures; what can't be known is `None`."""
        ...

    def detail(self) -> dict[str, object]:
        """Every sample and its setting, as JSON can hold them."""
        ...

    def tables(self) -> tuple[Table, ...]:
        """The same for people."""
        ...

    def notes(self) -> tuple[str, ...]:
        """What a reader must know before believing the figures; whole sentences."""
        ...


@dataclass(frozen=True, slots=True)
class Report:
    """Measurements of one benchmark with the facts that must stand beside them.

    Attributes:
        benchmark: The command's name ("ttft").
        measurements: In the order in which they are shown; names differ.
        model: Name of the model.
        machine: In words.
        versions: Of this package, Python, numpy and the engine.
        config_digest: Of the configuration in force.
        run_id: Of the event log.
        made_at: RFC 3339, UTC.
    """

    benchmark: str
    measurements: tuple[Measurement, ...]
    model: str
    machine: str
    versions: dict[str, str]
    config_digest: str
    run_id: str
    made_at: str

    def figures(self) -> Figures:
        """The figures of all measurements; names do not overlap but for the set-up's."""
        figures: dict[str, float | int | None] = {}
        for measurement in self.measurements:
            figures.update(measurement.figures())
        return figures

    def document(self) -> dict[str, object]:
        """What `write_json` writes."""
        return {
            "schema_version": SCHEMA_VERSION,
            "benchmark": self.benchmark,
            "figures": self.figures(),
            "notes": self.notes(),
            "detail": {m.name: m.detail() for m in self.measurements},
            "model": self.model,
            "machine": self.machine,
            "versions": self.versions,
            "config_digest": self.config_digest,
            "run_id": self.run_id,
            "made_at": self.made_at,
        }

    def tables(self) -> tuple[Table, ...]:
        """The tables of all measurements, in order."""
        return tuple(table for m in self.measurements for table in m.tables())

    def notes(self) -> tuple[str, ...]:
        """The notes of all measurements, each once."""
        return tuple(dict.fromkeys(note for m in self.measurements for note in m.notes()))


def report(
    benchmark: str, measurements: Sequence[Measurement], parts: Internals, config_digest: str
) -> Report:
    """Put measurements and the facts of the session that made them together.

    Args:
        benchmark: The command's name.
        measurements: Finished or partial.
        parts: Of the session.
        config_digest: Of its configuration.
    """
    info = parts.engine.info
    return Report(
        benchmark=benchmark,
        measurements=tuple(measurements),
        model=info.model,
        machine=machine(),
        versions={
            "rlm-vllm": version("rlm-vllm"),
            "python": platform.python_version(),
            "numpy": version("numpy"),
            "engine": info.backend,
        },
        config_digest=config_digest,
        run_id=parts.recorder.run_id,
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def write_json(report: Report, path: Path) -> None:
    """Write the whole document, replacing a file that is there; it is never seen half-written.

    Raises:
        InputError: It can't be written there.
    """
    data = msgspec.json.encode(report.document())
    _write(path, msgspec.json.format(data, indent=2) + b"\n")


def write_markdown(report: Report, path: Path) -> None:
    """Write the tables, notes and set-up for people, as `write_json` writes.

    Raises:
        InputError: It can't be written there.
    """
    _write(path, markdown(report).encode())


def markdown(report: Report) -> str:
    """What `write_markdown` writes."""
    versions = ", ".join(f"{name} {value}" for name, value in report.versions.items())
    lines = [
        f"# {report.benchmark}",
        "",
        f"{report.model} on {report.machine}",
        "",
        f"{versions}; configuration {report.config_digest[:12]}; run {report.run_id}; "
        f"{report.made_at}",
    ]
    for table in report.tables():
        lines += ["", f"## {table.title}", "", _row(table.header)]
        lines.append(_row(["---"] + ["---:"] * (len(table.header) - 1)))
        lines += [_row(row) for row in table.rows]
    if report.notes():
        lines += ["", "## Notes", "", *(f"- {note}" for note in report.notes())]
    return "\n".join(lines) + "\n"


def printable(text: str) -> str:
    """On one line, without what a terminal would obey: for names that come from a log."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(map(_cell, cells)) + " |"


def _cell(text: str) -> str:
    return printable(text).replace("|", "\\|")


def _write(path: Path, data: bytes) -> None:
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(data)
        part.replace(path)
    except OSError as err:
        raise InputError(
            f"The results can't be written to {path}: {err.strerror}.", "Choose another file."
        ) from err

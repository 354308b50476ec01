"""Reads an event log back, line by line, as it was written by this or an earlier version.

A run that died is a run: a log may end anywhere, even inside a line.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import get_args

import msgspec

from rlm_runtime.errors import TraceError
from rlm_runtime.tracing.events import SCHEMA_VERSION, AnyEvent, RunStarted
from rlm_runtime.tracing.recorder import EVENTS

_KNOWN = frozenset(event.__struct_config__.tag for event in get_args(AnyEvent))


class _Damaged(TraceError):
    """A line is no event."""


class _Head(msgspec.Struct):
    """What can be read of an event of any version."""

    event: str
    schema_version: int | None = None


def read_events(path: Path, *, passes_damage: bool = False) -> EventReader:
    """Iterate over the events of a run, in the order in which they were written.

    Args:
        path: A run directory, or an event file itself. Opened at the first step, so that is when
            the errors below come.
        passes_damage: Pass over damaged lines behind the first one, and count them.

    Returns:
        An iterator of events; memory does not grow with the log.

    Raises:
        TraceError: There is no log, it is none, it has another schema version, or a line in it is
            damaged.
    """
    return EventReader(path, passes_damage=passes_damage)


class EventReader(Iterator[AnyEvent]):
    """The events of a log, in order, and what was noticed on the way.

    Attributes:
        unknown_events: Events passed over so far, of kinds this version does not know.
        is_torn: The last line was written half: the run died, or is being written.
        damaged_lines: Damaged lines passed over so far.
    """

    def __init__(self, path: Path, *, passes_damage: bool = False) -> None:
        self.unknown_events = 0
        self.is_torn = False
        self.damaged_lines = 0
        self._passes_damage = passes_damage
        self._path = path
        self._decoder: msgspec.json.Decoder[AnyEvent] = msgspec.json.Decoder(AnyEvent)
        self._head = msgspec.json.Decoder(_Head)
        self._events = self._read()

    def __next__(self) -> AnyEvent:
        return next(self._events)

    def close(self) -> None:
        """Close the file before the end was reached. Idempotent."""
        self._events.close()

    def _read(self) -> Generator[AnyEvent]:
        try:
            file = self._path / EVENTS if self._path.is_dir() else self._path
            with file.open("rb") as lines:
                for number, line in enumerate(lines, 1):
                    try:
                        event = self._event(number, line)
                    except _Damaged:
                        if number == 1 or not self._passes_damage:
                            raise
                        self.damaged_lines += 1
                        continue
                    if event is not None:
                        yield event
        except OSError as err:
            raise TraceError(
                f"Can't read the event log {self._path}: {err.strerror}.",
                "Name a run directory, or its events.jsonl.",
            ) from err

    def _event(self, number: int, line: bytes) -> AnyEvent | None:
        try:
            event = self._decoder.decode(line)
        except msgspec.ValidationError as err:
            self._pass_over(number, line, err)
            return None
        except (msgspec.DecodeError, UnicodeDecodeError) as err:
            if line.endswith(b"\n"):
                raise self._damaged(number, err) from err
            self.is_torn = True
            return None
        if isinstance(event, RunStarted):
            _check_schema(event.schema_version)
        elif number == 1:
            raise self._damaged(number, f"a log starts with run_started, not {_tag(event)}")
        return event

    def _pass_over(self, number: int, line: bytes, err: msgspec.ValidationError) -> None:
        """Count an event of an unknown kind; raise if the line is anything else."""
        try:
            head = self._head.decode(line)
        except msgspec.ValidationError:
            raise self._damaged(number, err) from err
        if head.event == "run_started" and head.schema_version is not None:
            _check_schema(head.schema_version)
        if head.event in _KNOWN or number == 1:
            raise self._damaged(number, err) from err
        self.unknown_events += 1

    def _damaged(self, number: int, why: object) -> _Damaged:
        return _Damaged(
            f"Line {number:,} of {self._path} is not an event: {why}.",
            "The file was changed after the run, or is no event log.",
        )


def _check_schema(version: int) -> None:
    if version != SCHEMA_VERSION:
        raise TraceError(
            f"The log has schema version {version}; this program reads version {SCHEMA_VERSION}.",
            "Read it with the version of rlm-vllm that wrote it (`package_version` in its first "
            "line).",
        )


def _tag(event: AnyEvent) -> str:
    return str(event.__struct_config__.tag)

"""One recorded run, loaded once, for everything that is reported about it afterwards.

A run that died is a run: what its log has is used, and what is missing is said (`RunLog.notes`).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property, lru_cache
from pathlib import Path
from typing import NamedTuple

from rlm_runtime.errors import TraceError
from rlm_runtime.profiler.causes import CallCauses, Cause, attribute
from rlm_runtime.profiler.ledger import Figures, Ledger
from rlm_runtime.tracing import (
    AnyEvent,
    Blobs,
    CallFinished,
    RunFinished,
    ids_from_blob,
    read_events,
)
from rlm_runtime.tracing.blobs import BLOBS

SEGMENTS_HELD = 512
"""Parts of prompts whose ids stay in memory: what calls share is read once."""


class Recorded(NamedTuple):
    """A run as its log has it.

    Attributes:
        directory: The run directory.
        events: All events that this version knows, in the log's order.
        notes: What is missing or odd, in whole sentences.
    """

    directory: Path
    events: tuple[AnyEvent, ...]
    notes: tuple[str, ...]


def read_run(path: Path) -> Recorded:
    """Read the log of a run, line by line.

    Args:
        path: The run directory, or its `events.jsonl`.

    Raises:
        TraceError: There is no log, it is none, it was written by a version that this one can't
            read, or a line in its middle is damaged.
    """
    reader = read_events(path)
    events = tuple(reader)
    notes = []
    if not events:
        notes.append("The log is empty: the run died at once.")
    elif not isinstance(events[-1], RunFinished):
        notes.append("The run did not end in order: the engine's own counters are not known.")
    if reader.is_torn:
        notes.append("The last line of the log was written half and is left out.")
    if (count := reader.unknown_events) == 1:
        notes.append("1 event is of a kind that this version does not know; it is left out.")
    elif count:
        notes.append(
            f"{count:,} events are of kinds that this version does not know; they are left out."
        )
    return Recorded(path if path.is_dir() else path.parent, events, tuple(notes))


class RunLog:
    """What a report needs of a run; make one with `load`.

    Attributes:
        directory: The run directory, whose blobs are read when they are asked for.
        events: All events that this version knows, in the log's order.
        has_blobs: The ids of all prompts were kept; false as well once one was found damaged.
    """

    def __init__(self, directory: Path, events: tuple[AnyEvent, ...], notes: Iterable[str]) -> None:
        self.directory = directory
        self.events = events
        self._notes = list(notes)
        self._blobs = Blobs(directory)
        self._is_damaged = False
        self._segment = lru_cache(SEGMENTS_HELD)(self._read_ids)
        self.has_blobs = self._look_for_blobs()

    @classmethod
    def load(cls, path: Path) -> RunLog:
        """Read the log of a run, line by line.

        Args:
            path: The run directory, or its `events.jsonl`.

        Raises:
            TraceError: There is no log, it is none, it was written by a version that this one
                can't read, or a line in its middle is damaged.
        """
        return cls(*read_run(path))

    @property
    def notes(self) -> tuple[str, ...]:
        """What is missing or odd about the run, in whole sentences; more after `causes`."""
        return tuple(self._notes)

    def prompt_ids(self, call: CallFinished) -> tuple[int, ...] | None:
        """The token ids of a call's prompt; `None` when they were not kept, or are damaged."""
        parts = [self._segment(segment.digest) for segment in call.segments]
        ids: list[int] = []
        for segment, part in zip(call.segments, parts, strict=True):
            if part is None or segment.start != len(ids) or segment.end != len(ids) + len(part):
                return None
            ids += part
        return tuple(ids) if ids else None

    def output_ids(self, call: CallFinished) -> tuple[int, ...] | None:
        """The token ids that a call generated; `None` when there are none, or as `prompt_ids`."""
        return self._segment(call.output_blob)

    @cached_property
    def causes(self) -> tuple[CallCauses, ...]:
        """The causes of the misses of each call that has facts; see `causes.attribute`.

        Computed once; of a log without all its blobs, from the block digests alone.
        """
        found = None
        if self.has_blobs:
            found = attribute(self.events, self.prompt_ids, self.output_ids)
            self.has_blobs = not self._is_damaged
        if found is None or not self.has_blobs:
            found = attribute(self.events)
        beyond = sum(one.ceiling_tokens < (one.call.cached_tokens or 0) for one in found)
        if beyond:
            calls = "1 call" if beyond == 1 else f"{beyond:,} calls"
            self._notes.append(
                f"{calls} took more from the cache than the calls in the log had computed: "
                "something else used the engine, and the ceiling is too low."
            )
        if unexplained := sum(one.tokens[Cause.UNEXPLAINED] for one in found):
            self._notes.append(f"{unexplained:,} computed tokens have no known cause.")
        return found

    @cached_property
    def ledger(self) -> Ledger:
        """The run's tallies, with the causes that its token ids tell."""
        ledger = Ledger(self.events)
        ledger.take_causes(self.causes, knows_ids=self.has_blobs)
        return ledger

    def figures(self) -> Figures:
        """Figures of the whole run; see `Ledger.figures`."""
        return self.ledger.figures()

    def agent_figures(self, agent_id: str) -> Figures:
        """Figures of one agent's calls; see `Ledger.agent_figures`."""
        return self.ledger.agent_figures(agent_id)

    def _look_for_blobs(self) -> bool:
        calls = [e for e in self.events if isinstance(e, CallFinished) and e.prompt_tokens]
        named = {segment.digest for call in calls for segment in call.segments}
        try:
            kept = {file.name for file in (self.directory / BLOBS).iterdir()}
        except OSError:
            kept = set()
        missing = len(named - kept)
        if missing:
            self._notes.append(
                f"{missing:,} of {len(named):,} parts of prompts were not kept: what the layout "
                "cost can't be told from first use."
            )
        return bool(calls) and not missing and all(call.segments for call in calls)

    def _read_ids(self, digest: str | None) -> tuple[int, ...] | None:
        if digest is None:
            return None
        try:
            return ids_from_blob(self._blobs.get(digest))
        except TraceError as err:
            self._is_damaged = True
            self._notes.append(str(err))
            return None

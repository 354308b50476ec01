"""Calls that an earlier run had finished: they are taken from its log, and not asked again.

A run is resumed by doing all of it once more. Python's steps are repeated; a call that asks what a
finished one asked (`Call.identity`) gets its result, and so the run comes to where the earlier one
ended without computing anything. Every finished call is taken at most once, as often as it was
asked: a limit of the tree counts it as if this run had sent it.

A log may end anywhere and lack anything. What is whole is used; a call whose result is not is run
again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

from rlm_runtime.engine.base import RequestFacts
from rlm_runtime.errors import InputError, TraceError
from rlm_runtime.scheduler.call import Call, CallResult
from rlm_runtime.tracing import (
    AnyEvent,
    Blobs,
    CallFinished,
    CallTaken,
    EngineStarted,
    RunStarted,
    ids_from_blob,
    is_open,
    read_events,
    scores_from_blob,
)
from rlm_runtime.types import AgentId, RequestId


@dataclass(frozen=True, slots=True)
class FinishedCall:
    """One call that can be taken.

    Attributes:
        run_id: The run that sent it.
        event: What that run's log says of it.
        ids: What it generated.
        logprobs: Of the positions that it scored; `None` when it scored none.
    """

    run_id: str
    event: CallFinished
    ids: tuple[int, ...]
    logprobs: tuple[float, ...] | None

    @property
    def facts(self) -> RequestFacts:
        """What the engine measured then."""
        named: dict[str, Any] = {f.name: getattr(self.event, f.name) for f in fields(RequestFacts)}
        return RequestFacts(**named)

    def result(self, call: Call, request_id: RequestId) -> CallResult:
        """What comes of a call with the same identity.

        Args:
            call: That call.
            request_id: What its run calls it.
        """
        place = self.event.choice
        choice = None if place is None else call.choices[place]
        return CallResult(self.ids, self.logprobs, self.facts, request_id, choice)


class FinishedCalls:
    """The finished calls of a run, and of those that it had resumed itself; make one with `load`.

    Attributes:
        directory: The run's.
        started: Its first event.
        engine: Its engine, and so that of all its calls; `None`: it died before it had one.
        notes: What could not be used, in whole sentences.
        taken: Calls that were taken so far.
        taken_tokens: Computed prompt tokens and generated tokens of these, when they were sent.
    """

    def __init__(self, directory: Path, started: RunStarted, engine: EngineStarted | None) -> None:
        self.directory = directory
        self.started = started
        self.engine = engine
        self.notes: list[str] = []
        self.taken = 0
        self.taken_tokens = 0
        # By identity, in the order in which they ended.
        self._calls: defaultdict[str, list[FinishedCall]] = defaultdict(list)
        self._shared: dict[str, tuple[CallResult, int]] = {}

    @classmethod
    def load(cls, path: Path) -> FinishedCalls:
        """Read the log of a run that has ended, with the results its calls had.

        Cost: two small files a call.

        Args:
            path: The run directory, or its `events.jsonl`.

        Raises:
            InputError: The run goes on still.
            TraceError: There is no log, or its beginning can't be read.
        """
        directory = path if path.is_dir() else path.parent
        if is_open(directory):
            raise InputError("The run goes on still.", "Wait for its end, or end it.")
        logs = [_Log.read(directory)]
        newest = logs[0]
        found = cls(directory, newest.started, newest.engine)
        seen = {directory.resolve()}
        while (earlier := _resumed(logs[0].started)) is not None and earlier.resolve() not in seen:
            seen.add(earlier.resolve())
            try:
                logs.insert(0, _Log.read(earlier))
            except TraceError as err:
                found.notes.append(f"What this run had resumed can't be used: {err.what}")
                break
        origins: set[tuple[str, str, float]] = set()
        for log in logs:
            found.notes += log.notes
            found._add(log, origins)
        return found

    def __len__(self) -> int:
        """Calls that are left to take."""
        return sum(map(len, self._calls.values()))

    def take(self, identity: str, agent_id: AgentId) -> FinishedCall | None:
        """A finished call, once: the asking agent's own, else the first.

        Args:
            identity: Of the call that is to be made.
            agent_id: Who makes it.
        """
        waiting = self._calls.get(identity)
        if not waiting:
            return None
        own = (i for i, call in enumerate(waiting) if call.event.agent_id == agent_id)
        call = waiting.pop(next(own, 0))
        self.taken += 1
        facts = call.facts
        self.taken_tokens += facts.computed_tokens + facts.generated_tokens
        return call

    def left_over(self, identity: str, call: FinishedCall, result: CallResult, used: int) -> None:
        """Keep the result of a call that was taken for as many more as it had answered then.

        Calls that ask the same at once share a request; when it is taken they may come one by one.

        Args:
            identity: Of the call.
            call: As it was taken.
            result: What came of it.
            used: Calls that it has answered now.
        """
        if call.event.shared_by > used:
            self._shared[identity] = (result, call.event.shared_by - used)

    def share(self, identity: str) -> CallResult | None:
        """The result of a taken call that answered more calls then than it has now."""
        if identity not in self._shared:
            return None
        result, times = self._shared.pop(identity)
        if times > 1:
            self._shared[identity] = (result, times - 1)
        return replace(result, was_shared=True)

    def _add(self, log: _Log, origins: set[tuple[str, str, float]]) -> None:
        """Take up what is whole in a log; a call that stands in an earlier one too counts once."""
        lost = unnamed = 0
        for run_id, event in log.calls:
            origin = (run_id, event.request_id, event.at_s)
            if origin in origins:
                continue
            if event.identity is None:
                unnamed += 1
                continue
            result = log.result(event)
            if result is None:
                lost += 1
                continue
            origins.add(origin)
            self._calls[event.identity].append(FinishedCall(run_id, event, *result))
        if lost:
            self.notes.append(f"The results of {lost:,} finished calls were not kept whole.")
        if unnamed:
            self.notes.append(
                f"{unnamed:,} finished calls were written by a version that did not say what they "
                "asked."
            )


class _Log:
    """One run's log: its first event, its engine, and its finished calls."""

    def __init__(self, directory: Path, started: RunStarted) -> None:
        self.started = started
        self.engine: EngineStarted | None = None
        self.calls: list[tuple[str, CallFinished]] = []
        self.notes: list[str] = []
        self._blobs = Blobs(directory)

    @classmethod
    def read(cls, directory: Path) -> _Log:
        """Read all lines that are whole.

        Raises:
            TraceError: There is no log, it is empty, or its beginning can't be read.
        """
        reader = read_events(directory, passes_damage=True)
        first = next(reader, None)
        if not isinstance(first, RunStarted):
            raise TraceError(f"The log of {directory} is empty: the run died at once.")
        log = cls(directory, first)
        for event in reader:
            if isinstance(event, EngineStarted):
                log.engine = event
            log.calls += _finished(event, first.run_id)
        if reader.damaged_lines:
            log.notes.append(
                f"Damaged lines in the log of {first.run_id}, not used: {reader.damaged_lines:,}."
            )
        return log

    def result(
        self, event: CallFinished
    ) -> tuple[tuple[int, ...], tuple[float, ...] | None] | None:
        """Ids and scores of a call; `None` when they, or its facts, are not whole."""
        if any(getattr(event, f.name) is None for f in fields(RequestFacts)):
            return None
        try:
            ids = ids_from_blob(self._blobs.get(event.output_blob or ""))
            if event.score is None:
                return ids, None
            scores = scores_from_blob(self._blobs.get(event.scores_blob or ""))
        except TraceError:
            return None  # counted by who asks
        start, end = event.score
        return (ids, scores) if len(scores) == end - start else None


def _finished(event: AnyEvent, run_id: str) -> Iterator[tuple[str, CallFinished]]:
    """The call that an event tells of, if it came to its end, with the run that sent it."""
    if isinstance(event, CallTaken):
        yield event.taken_from, event.call
    elif isinstance(event, CallFinished) and event.outcome == "ok":
        yield run_id, event


def _resumed(started: RunStarted) -> Path | None:
    """The directory of the run that a run had resumed."""
    if started.resumes is None:
        return None
    # Bytes: a path need not be UTF-8.
    raw = unquote_to_bytes(urlsplit(started.resumes).path)
    return Path(raw.decode("utf-8", "surrogateescape"))

"""Who read and who wrote which value: where a value comes from, and what would change with it.

A run's events are made into moments, which lead from one to the next (`provenance_flow.py`). What a
value depends on lies before it, what changes with it lies behind it: one is the other's mirror.

Two ways lead from one to the next. `read`: a reading that was recorded, or a fork, which begins
with all that its parent had seen. `told`: words that agents gave each other, the task of a
sub-agent and what its parent hears at its end. They may carry some of what their author knew.

Not seen are the beginnings of values that agents are shown beside the names, and whatever the user
knew: what the user stored depends on nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from rlm_runtime.errors import ContextError, UnknownName
from rlm_runtime.profiler.provenance_flow import Flow, Links, ValueId, Via, reach
from rlm_runtime.store import closest
from rlm_runtime.tracing import (
    AgentFinished,
    AgentStarted,
    AnyEvent,
    StateEntered,
    ValueRead,
    ValueStored,
)

USER = "user"
"""Who reads and writes outside all agents; not an agent."""

Span = tuple[int, int]
"""Bytes `start <= i < end` of a value."""

_NUMBER = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueNode:
    """A value. What a log that lacks its storing does not tell is `None`.

    Attributes:
        kind: `types.ValueKind`.
        size_bytes: Of the stored bytes.
        tokens: Of its text.
        is_estimated: `tokens` is, from a sample.
        digest: Equal for equal contents.
        writer: An agent, or `USER`.
    """

    kind: str | None = None
    size_bytes: int | None = None
    tokens: int | None = None
    is_estimated: bool = False
    digest: str | None = None
    writer: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentNode:
    """An agent. What a log that lacks its beginning or end does not tell is `None`.

    Attributes:
        kind: Who decided its steps (`types.AgentKind`).
        parent_id: Who started it; `None` is the user.
        depth: 0 for a root.
        start: `fresh`, or a `fork`.
        names: The values it was given; `None` is all.
        task_blob: Digest of its task.
        stop_reason: Why it ended; `None`: it did not.
        result: The value that is its result.
    """

    kind: str | None = None
    parent_id: str | None = None
    depth: int | None = None
    start: str | None = None
    names: tuple[str, ...] | None = None
    task_blob: str | None = None
    stop_reason: str | None = None
    result: ValueId | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """What one reader has read of one value.

    Attributes:
        reader: An agent, or `USER`.
        value: The value.
        reads: How often.
        tokens: That entered prompts; 0: it was only looked at in Python.
        spans: The parts that were read, in order, none touching the next.
    """

    reader: str
    value: ValueId
    reads: int
    tokens: int
    spans: tuple[Span, ...]

    @property
    def bytes_read(self) -> int:
        """Bytes of the value that were read at least once."""
        return sum(end - start for start, end in self.spans)


@dataclass(frozen=True, slots=True)
class Writing:
    """A value was stored; by an agent, or by `USER`."""

    writer: str
    value: ValueId


@dataclass(frozen=True, slots=True)
class Starting:
    """An agent started a sub-agent."""

    parent_id: str
    agent_id: str


@dataclass(frozen=True, slots=True)
class Entering:
    """A workflow entered a state: what it does from here on is done in it. `visit` is from 1."""

    agent_id: str
    state: str
    visit: int


Edge = Reading | Writing | Starting | Entering


class Reached(NamedTuple):
    """What bears on a value, or what it bears on; in the log's order.

    Attributes:
        values: Without the value itself.
        agents: Whoever did something on the way.
    """

    values: Mapping[ValueId, Via]
    agents: Mapping[str, Via]


class Provenance:
    """The graph of a run's agents and values. Memory grows with the log: some 500 bytes an event.

    Attributes:
        agents: By id, in the order in which they first did something.
        values: Likewise, by name and version.
    """

    def __init__(self, events: Iterable[AnyEvent]) -> None:
        self.agents: dict[str, AgentNode] = {}
        self.values: dict[ValueId, ValueNode] = {}
        self._edges: dict[_EdgeKey, list[ValueRead]] = {}
        self._versions: dict[str, set[int]] = {}
        self._flow = Flow()
        for event in events:
            self._add(event)

    @property
    def edges(self) -> tuple[Edge, ...]:
        """Who wrote, read, started and entered what, each once, in the order of the first time."""
        return tuple(
            _reading(*key, reads) if isinstance(key, tuple) else key
            for key, reads in self._edges.items()
        )

    def label(self, value: ValueId) -> str:
        """Its name; with `@` and the version where the name has several."""
        has_one = len(self._versions[value.name]) == 1
        return value.name if has_one else f"{value.name}@{value.version}"

    def find(self, text: str) -> ValueId:
        """The value that is meant by a name, the newest, or by `NAME@VERSION`.

        Raises:
            UnknownName: There is no such name; the nearest ones are named.
            ContextError: It has no such version.
        """
        if text in self._versions:
            return ValueId(text, max(self._versions[text]))
        name, _, number = text.rpartition("@")
        if name not in self._versions or not _NUMBER.fullmatch(number):
            raise UnknownName(text, closest(text, self._versions))
        value = ValueId(name, int(number))
        if value not in self.values:
            known = ", ".join(map(str, sorted(self._versions[name])))
            raise ContextError(f"{name!r} has no version {number}.", f"It has {known}.")
        return value

    def readers(self, value: ValueId) -> tuple[Reading, ...]:
        """Who read it, and what of it."""
        return tuple(
            edge for edge in self.edges if isinstance(edge, Reading) and edge.value == value
        )

    def sources(self, value: ValueId) -> tuple[Reading, ...]:
        """What its writer had read when it wrote it; of a fork, what its parents had before too."""
        flow = self._flow
        moments = flow.moments_before(flow.values[value])
        reads: dict[tuple[str, ValueId], list[ValueRead]] = {}
        for moment in sorted(moments & flow.reads.keys()):
            read = flow.reads[moment]
            reads.setdefault((read.reader, _id(read)), []).append(read)
        return tuple(_reading(*key, some) for key, some in reads.items())

    def depends_on(self, value: ValueId) -> Reached:
        """All that it may come from, over any number of agents and values."""
        return self._reached(value, self._flow.sources)

    def changes_with(self, value: ValueId) -> Reached:
        """All that may become another if it does: values, and agents with what they say."""
        return self._reached(value, self._flow.sinks)

    def _add(self, event: AnyEvent) -> None:
        match event:
            case AgentStarted():
                self._add_start(event)
            case AgentFinished():
                self._add_end(event)
            case ValueStored():
                self._add_stored(event)
            case ValueRead():
                self._add_read(event)
            case StateEntered():
                self._moment(event.agent_id)
                self._edges.setdefault(Entering(event.agent_id, event.state, event.visit), [])
            case _:
                return

    def _add_start(self, event: AgentStarted) -> None:
        begun = self._moment(event.agent_id)
        self.agents[event.agent_id] = replace(
            self.agents[event.agent_id],
            kind=event.kind,
            parent_id=event.parent_id,
            depth=event.depth,
            start=event.start,
            names=event.names,
            task_blob=event.task_blob,
        )
        if event.parent_id is not None:
            asked = self._moment(event.parent_id)
            self._edges.setdefault(Starting(event.parent_id, event.agent_id), [])
            self._flow.link(asked, begun, "read" if event.start == "fork" else "told")

    def _add_end(self, event: AgentFinished) -> None:
        ended = self._moment(event.agent_id)
        agent, result = self.agents[event.agent_id], None
        if event.result_name is not None:
            result = ValueId(event.result_name, event.result_version or 1)
            self._flow.link(self._value(result), ended, "read")
        self.agents[event.agent_id] = replace(agent, stop_reason=event.stop_reason, result=result)
        if agent.parent_id is not None:
            self._flow.link(ended, self._moment(agent.parent_id), "told")

    def _add_stored(self, event: ValueStored) -> None:
        value = _id(event)
        node = self._value(value)
        self.values[value] = ValueNode(
            kind=event.kind,
            size_bytes=event.size_bytes,
            tokens=event.tokens,
            is_estimated=event.is_estimated,
            digest=event.digest,
            writer=event.writer,
        )
        self._edges.setdefault(Writing(event.writer, value), [])
        if event.writer != USER:
            self._flow.link(self._moment(event.writer), node, "read")

    def _add_read(self, event: ValueRead) -> None:
        node = self._value(_id(event))
        self._edges.setdefault((event.reader, _id(event)), []).append(event)
        if event.reader != USER:
            moment = self._moment(event.reader)
            self._flow.link(node, moment, "read")
            self._flow.reads[moment] = event

    def _moment(self, agent_id: str) -> int:
        self.agents.setdefault(agent_id, AgentNode())
        return self._flow.moment(agent_id)

    def _value(self, value: ValueId) -> int:
        self.values.setdefault(value, ValueNode())
        self._versions.setdefault(value.name, set()).add(value.version)
        return self._flow.value(value)

    def _reached(self, value: ValueId, links: Links) -> Reached:
        start = self._flow.values[value]
        by_reading = reach(start, links, told=False)
        values: dict[ValueId, Via] = {}
        agents: dict[str, Via] = {}
        for node in sorted(reach(start, links, told=True)):
            via: Via = "read" if node in by_reading else "told"
            subject = self._flow.subjects[node]
            if isinstance(subject, ValueId):
                values[subject] = via
            elif via == "read" or subject not in agents:
                agents[subject] = via
        values.pop(value, None)
        return Reached(values, agents)


_EdgeKey = tuple[str, ValueId] | Writing | Starting | Entering


def _id(event: ValueRead | ValueStored) -> ValueId:
    return ValueId(event.name, event.version)


def _reading(reader: str, value: ValueId, reads: list[ValueRead]) -> Reading:
    return Reading(
        reader,
        value,
        len(reads),
        sum(read.tokens for read in reads),
        _merged((read.start_byte, read.end_byte) for read in reads),
    )


def _merged(spans: Iterable[Span]) -> tuple[Span, ...]:
    merged: list[Span] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return tuple(merged)

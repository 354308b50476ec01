"""Moments of agents, the values between them, and what leads from one to the next.

An agent's moments are a chain: it may use whatever it met before. A value stands between the moment
of its writing and those of its readings.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from rlm_runtime.tracing import ValueRead

Via = Literal["read", "told"]
"""How one thing came to bear on another: a recorded reading, or only words between agents."""

Links = list[list[tuple[int, Via]]]
"""Of each node, the nodes that are one step away."""


class ValueId(NamedTuple):
    """A name at a version, from 1: what never changes."""

    name: str
    version: int


@dataclass(slots=True)
class Flow:
    """Moments and values as numbers, in the order in which they came up, and what leads where.

    Attributes:
        subjects: Of each node: the value, or the agent whose moment it is.
        sources: What leads to each.
        sinks: What each leads to.
        values: The node of each value.
        reads: The moments that are readings.
    """

    subjects: list[ValueId | str] = field(default_factory=list)
    sources: Links = field(default_factory=list)
    sinks: Links = field(default_factory=list)
    values: dict[ValueId, int] = field(default_factory=dict)
    reads: dict[int, ValueRead] = field(default_factory=dict)
    _last: dict[str, int] = field(default_factory=dict)

    def moment(self, agent_id: str) -> int:
        """The agent's next one; it knows all that it knew before."""
        moment = self._new(agent_id)
        before = self._last.get(agent_id)
        if before is not None:
            self.link(before, moment, "read")
        self._last[agent_id] = moment
        return moment

    def value(self, value: ValueId) -> int:
        """The value's node, made when it first comes up."""
        if value not in self.values:
            self.values[value] = self._new(value)
        return self.values[value]

    def link(self, source: int, sink: int, via: Via) -> None:
        """Let one node bear on another."""
        self.sources[sink].append((source, via))
        self.sinks[source].append((sink, via))

    def moments_before(self, node: int) -> set[int]:
        """Those that lead to it through no other value, and by no words."""
        found: set[int] = set()
        waiting = [node]
        while waiting:
            for source, via in self.sources[waiting.pop()]:
                is_moment = isinstance(self.subjects[source], str)
                if is_moment and via == "read" and source not in found:
                    found.add(source)
                    waiting.append(source)
        return found

    def _new(self, subject: ValueId | str) -> int:
        self.subjects.append(subject)
        self.sources.append([])
        self.sinks.append([])
        return len(self.subjects) - 1


def reach(start: int, links: Links, *, told: bool) -> set[int]:
    """The nodes that links lead to from one; itself only where they go round.

    Args:
        start: The one.
        links: Backwards or forwards.
        told: Words between agents are followed too.
    """
    found: set[int] = set()
    waiting = [start]
    while waiting:
        for node, via in links[waiting.pop()]:
            if node not in found and (told or via == "read"):
                found.add(node)
                waiting.append(node)
    return found

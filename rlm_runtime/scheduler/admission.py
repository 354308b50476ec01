"""Which waiting call goes to the engine next.

Order: lower priority number first; within one, the calls of a group (one document chunk) stay
together, groups in the order in which they came. So all questions about a chunk run while its
blocks are resident, even when the whole text is larger than the KV cache: with least-recently-used
eviction the other order would compute every chunk once a question.

Room: at most `max_running` calls, and their KV together (the shared prefix once, a chunk once a
group) within the cache. The next call in order is never overtaken by a later one that would fit;
only a group that is fed without end could keep the others waiting. Pure bookkeeping in one event
loop: no task, no clock.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable
from dataclasses import dataclass, field

import anyio

from rlm_runtime.errors import QueueFull


@dataclass(eq=False, slots=True)
class Ticket:
    """A call's place in the queue, then its place in the engine.

    Attributes:
        group: What keeps calls together; `None` stands alone.
        document_tokens: KV of the group's document, paid by the first call of the group.
        own_tokens: KV of the rest of the prompt behind the shared prefix, and of the answer.
        priority: Lower first.
        admitted: Set when the call may start.
    """

    group: Hashable | None
    document_tokens: int
    own_tokens: int
    priority: int = 0
    admitted: anyio.Event = field(default_factory=anyio.Event)

    @property
    def key(self) -> Hashable:
        """The queue this ticket stands in."""
        return self if self.group is None else self.group


class Admission:
    """The queue in front of the engine.

    Args:
        max_running: Calls in the engine at once.
        kv_tokens: Tokens the KV cache holds, less the shared prefix.
        max_waiting: Calls that may wait.
    """

    def __init__(self, *, max_running: int, kv_tokens: int, max_waiting: int) -> None:
        self._max_running = max_running
        self._kv_tokens = kv_tokens
        self._max_waiting = max_waiting
        self._waiting: dict[int, OrderedDict[Hashable, deque[Ticket]]] = {}
        self._running: set[Ticket] = set()
        self._running_groups: dict[Hashable, int] = {}
        self._last_group: Hashable = None
        self._used_tokens = 0
        self.waiting = 0

    @property
    def running(self) -> int:
        """Calls in the engine."""
        return len(self._running)

    def enter(self, ticket: Ticket) -> None:
        """Queue a ticket; `ticket.admitted` is set now or when there is room.

        Raises:
            QueueFull: `max_waiting` calls are waiting.
        """
        if self.waiting >= self._max_waiting:
            raise QueueFull(self._max_waiting)
        groups = self._waiting.setdefault(ticket.priority, OrderedDict())
        groups.setdefault(ticket.key, deque()).append(ticket)
        self.waiting += 1
        self._admit()

    def leave(self, ticket: Ticket) -> None:
        """Give up a place, in the engine or in the queue; wakes who fits now."""
        if ticket in self._running:
            self._running.remove(ticket)
            self._running_groups[ticket.key] -= 1
            self._used_tokens -= ticket.own_tokens
            if not self._running_groups[ticket.key]:
                del self._running_groups[ticket.key]
                self._used_tokens -= ticket.document_tokens
        else:
            groups = self._waiting[ticket.priority]
            groups[ticket.key].remove(ticket)
            self._drop_if_empty(ticket)
            self.waiting -= 1
        self._admit()

    def _admit(self) -> None:
        while self.waiting and len(self._running) < self._max_running:
            groups = self._waiting[min(self._waiting)]
            ticket = groups[self._next_group(groups)][0]
            cost = self._cost(ticket)
            if self._running and self._used_tokens + cost > self._kv_tokens:
                return
            groups[ticket.key].popleft()
            self._drop_if_empty(ticket)
            self.waiting -= 1
            self._used_tokens += cost
            self._running.add(ticket)
            self._running_groups[ticket.key] = self._running_groups.get(ticket.key, 0) + 1
            self._last_group = ticket.key
            ticket.admitted.set()

    def _next_group(self, groups: OrderedDict[Hashable, deque[Ticket]]) -> Hashable:
        """The group whose document was used last, else one in use, else the one that came first."""
        for key in (self._last_group, *self._running_groups):
            if key in groups:
                return key
        return next(iter(groups))

    def _cost(self, ticket: Ticket) -> int:
        shares = ticket.key in self._running_groups
        return ticket.own_tokens + (0 if shares else ticket.document_tokens)

    def _drop_if_empty(self, ticket: Ticket) -> None:
        groups = self._waiting[ticket.priority]
        if not groups[ticket.key]:
            del groups[ticket.key]
        if not groups:
            del self._waiting[ticket.priority]

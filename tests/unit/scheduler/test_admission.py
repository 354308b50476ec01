"""The queue in front of the engine, as a state machine against its rules."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from rlm_runtime.errors import QueueFull
from rlm_runtime.scheduler.admission import Admission, Ticket

MAX_RUNNING = 4
KV_TOKENS = 100


class AdmissionMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.admission = Admission(max_running=MAX_RUNNING, kv_tokens=KV_TOKENS, max_waiting=50)
        self.tickets: list[Ticket] = []

    @rule(
        group=st.sampled_from(["a", "b", None]),
        own=st.integers(1, 60),
        priority=st.integers(0, 1),
    )
    @precondition(lambda self: self.admission.waiting < 50)
    def enter(self, group: str | None, own: int, priority: int) -> None:
        document = 0 if group is None else 40
        ticket = Ticket(group, document_tokens=document, own_tokens=own, priority=priority)
        self.tickets.append(ticket)
        self.admission.enter(ticket)

    @rule(data=st.data())
    @precondition(lambda self: self.tickets)
    def leave(self, data: st.DataObject) -> None:
        ticket = self.tickets.pop(data.draw(st.integers(0, len(self.tickets) - 1)))
        self.admission.leave(ticket)

    @property
    def running(self) -> list[Ticket]:
        return [t for t in self.tickets if t.admitted.is_set()]

    @invariant()
    def never_more_than_allowed(self) -> None:
        assert len(self.running) == self.admission.running <= MAX_RUNNING

    @invariant()
    def kv_fits_unless_one_runs_alone(self) -> None:
        groups = {t.group for t in self.running if t.group is not None}
        used = sum(t.own_tokens for t in self.running) + 40 * len(groups)
        assert used <= KV_TOKENS or len(self.running) == 1 or self.was_alone()

    def was_alone(self) -> bool:
        """A call that is too large for the cache is admitted alone; nothing joins it."""
        return any(t.own_tokens + t.document_tokens > KV_TOKENS for t in self.running)

    @invariant()
    def nobody_waits_without_a_reason(self) -> None:
        waiting = [t for t in self.tickets if not t.admitted.is_set()]
        assert len(waiting) == self.admission.waiting
        if waiting:
            assert self.running, "calls wait and the engine is idle"


TestAdmissionMachine = AdmissionMachine.TestCase


def test_calls_of_a_group_run_before_the_next_group() -> None:
    admission = Admission(max_running=1, kv_tokens=1000, max_waiting=100)
    tickets = [Ticket(g, document_tokens=10, own_tokens=1) for g in ("a", "b", "a", "b", "a")]
    for ticket in tickets:
        admission.enter(ticket)
    order = []
    for _ in tickets:
        (current,) = (t for t in tickets if t.admitted.is_set() and t not in order)
        order.append(current)
        admission.leave(current)
    assert [t.group for t in order] == ["a", "a", "a", "b", "b"]


def test_urgent_calls_go_first() -> None:
    admission = Admission(max_running=1, kv_tokens=1000, max_waiting=100)
    first, slow, urgent = (Ticket(None, 0, 1, priority=p) for p in (5, 5, 0))
    for ticket in (first, slow, urgent):
        admission.enter(ticket)
    admission.leave(first)
    assert urgent.admitted.is_set()
    assert not slow.admitted.is_set()


def test_a_call_that_waits_for_room_is_not_overtaken() -> None:
    admission = Admission(max_running=4, kv_tokens=100, max_waiting=100)
    running, large, small = Ticket(None, 0, 60), Ticket(None, 0, 60), Ticket(None, 0, 1)
    for ticket in (running, large, small):
        admission.enter(ticket)
    assert not large.admitted.is_set()
    assert not small.admitted.is_set()
    admission.leave(running)
    assert large.admitted.is_set()
    assert small.admitted.is_set()


def test_the_queue_is_bounded() -> None:
    admission = Admission(max_running=1, kv_tokens=100, max_waiting=2)
    for _ in range(3):
        admission.enter(Ticket(None, 0, 1))
    with pytest.raises(QueueFull) as caught:
        admission.enter(Ticket(None, 0, 1))
    assert caught.value.limit == 2

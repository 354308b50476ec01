"""What a run's events tell of its values: who wrote and read them, and what hangs on what."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_runtime.errors import ContextError, UnknownName
from rlm_runtime.profiler.provenance import (
    USER,
    AgentNode,
    Provenance,
    Reached,
    Reading,
    Starting,
    ValueNode,
    Writing,
)
from rlm_runtime.profiler.provenance_flow import ValueId
from rlm_runtime.tracing import AgentFinished, AgentStarted, AnyEvent, ValueRead, ValueStored


class Log:
    """Events as agents would emit them."""

    def __init__(self) -> None:
        self.events: list[AnyEvent] = []
        self._clock = count()
        self._versions: dict[str, int] = {}

    def start(self, agent: str, parent: str | None = None, start: Any = "fresh") -> None:
        self.events.append(
            AgentStarted(
                at_s=next(self._clock),
                agent_id=agent,
                parent_id=parent,
                depth=0 if parent is None else 1,
                kind="calls",
                task_blob=None,
                start=start,
            )
        )

    def store(self, writer: str, name: str, size_bytes: int = 100) -> ValueId:
        version = self._versions[name] = self._versions.get(name, 0) + 1
        self.events.append(
            ValueStored(
                at_s=next(self._clock),
                name=name,
                version=version,
                kind="str",
                size_bytes=size_bytes,
                digest="d" * 32,
                writer=writer,
                tokens=25,
                is_estimated=False,
            )
        )
        return ValueId(name, version)

    def read(self, reader: str, value: ValueId, span: tuple[int, int] = (0, 100)) -> None:
        self.events.append(
            ValueRead(
                at_s=next(self._clock),
                reader=reader,
                name=value.name,
                version=value.version,
                start_byte=span[0],
                end_byte=span[1],
                tokens=(span[1] - span[0]) // 4,
            )
        )

    def finish(self, agent: str, result: ValueId | None = None) -> None:
        self.events.append(
            AgentFinished(
                at_s=next(self._clock),
                agent_id=agent,
                stop_reason="final",
                found=None,
                result_blob=None,
                wall_s=1.0,
                result_name=None if result is None else result.name,
                result_version=None if result is None else result.version,
            )
        )

    def graph(self) -> Provenance:
        return Provenance(self.events)


@pytest.fixture
def log() -> Log:
    return Log()


def test_the_edges_of_50_interactions_of_10_agents_are_those_of_the_script(log: Log) -> None:
    text = log.store(USER, "text")
    agents = [f"a1.{number}" for number in range(1, 11)]
    log.start("a1")
    expected: list[object] = [Writing(USER, text)]
    for agent in agents:
        log.start(agent, "a1")
        expected.append(Starting("a1", agent))
    value = text
    for turn in range(50):
        agent = agents[turn * 7 % 10]
        log.read(agent, value)
        expected.append(Reading(agent, value, 1, 25, ((0, 100),)))
        value = log.store(agent, f"value_{turn}")
        expected.append(Writing(agent, value))
    graph = log.graph()
    assert list(graph.edges) == expected
    assert list(graph.agents) == ["a1", *agents]
    assert graph.depends_on(value).values == {v: "read" for v in graph.values if v != value}
    assert graph.changes_with(text).values == {v: "read" for v in graph.values if v != text}
    assert set(graph.changes_with(text).agents) == {"a1", *agents} - {"a1"}


def test_a_value_depends_on_what_was_read_before_it_was_written(log: Log) -> None:
    early, late = log.store(USER, "early"), log.store(USER, "late")
    log.start("a1")
    log.read("a1", early)
    value = log.store("a1", "value")
    log.read("a1", late)
    graph = log.graph()
    assert graph.depends_on(value) == Reached({early: "read"}, {"a1": "read"})
    assert [one.value for one in graph.sources(value)] == [early]
    assert graph.changes_with(late) == Reached({}, {"a1": "read"})


def test_an_older_version_does_not_change_with_the_newer(log: Log) -> None:
    old = log.store(USER, "notes")
    log.start("a1")
    log.read("a1", old)
    told = log.store("a1", "summary")
    new = log.store(USER, "notes")
    log.start("a2")
    log.read("a2", new)
    renewed = log.store("a2", "summary")
    graph = log.graph()
    assert graph.changes_with(new).values == {renewed: "read"}
    assert graph.changes_with(old).values == {told: "read"}
    assert [graph.label(value) for value in (old, new)] == ["notes@1", "notes@2"]


def test_a_fork_knows_what_its_parent_had_read_and_nothing_later(log: Log) -> None:
    before, after = log.store(USER, "before"), log.store(USER, "after")
    log.start("a1")
    log.read("a1", before)
    log.start("a1.1", "a1", "fork")
    log.read("a1", after)
    value = log.store("a1.1", "value")
    graph = log.graph()
    assert graph.depends_on(value).values == {before: "read"}
    assert [(one.reader, one.value) for one in graph.sources(value)] == [("a1", before)]


def test_a_task_and_a_result_may_carry_what_their_author_knew(log: Log) -> None:
    text, notes = log.store(USER, "text"), log.store(USER, "notes")
    log.start("a1")
    log.read("a1", text)
    log.start("a1.1", "a1")
    log.read("a1.1", notes)
    child = log.store("a1.1", "child")
    log.finish("a1.1", child)
    own = log.store("a1", "own")
    graph = log.graph()
    assert graph.depends_on(child).values == {text: "told", notes: "read"}
    assert graph.depends_on(own).values == {text: "read", notes: "told", child: "told"}
    assert graph.depends_on(own).agents == {"a1": "read", "a1.1": "told"}
    assert graph.sources(own) == (Reading("a1", text, 1, 25, ((0, 100),)),)


def test_the_sources_of_a_value_are_those_next_to_it(log: Log) -> None:
    text = log.store(USER, "text")
    log.read("a1", text)
    notes = log.store("a1", "notes")
    log.read("a2", notes)
    summary = log.store("a2", "summary")
    graph = log.graph()
    assert [one.value for one in graph.sources(summary)] == [notes]
    assert graph.depends_on(summary).values == {text: "read", notes: "read"}


def test_an_agent_that_bears_on_a_value_by_readings_is_not_counted_as_told(log: Log) -> None:
    log.start("a1")
    log.start("a1.1", "a1", "fork")
    log.start("a1.2", "a1")
    log.read("a1.1", log.store("a1.2", "notes"))
    value = log.store("a1.1", "value")
    assert log.graph().depends_on(value).agents == {"a1": "read", "a1.1": "read", "a1.2": "read"}


def test_an_agent_changes_with_the_value_it_returns_unread(log: Log) -> None:
    value = log.store(USER, "value")
    log.start("a1")
    log.finish("a1", value)
    graph = log.graph()
    assert graph.changes_with(value).agents == {"a1": "read"}
    assert graph.agents["a1"].result == value
    assert graph.readers(value) == ()


def test_readings_of_a_value_are_one_with_all_its_parts(log: Log) -> None:
    value = log.store(USER, "value")
    log.start("a1")
    for span in ((40, 60), (0, 20), (20, 28), (50, 52)):
        log.read("a1", value, span)
    log.read("a2", value, (0, 0))
    graph = log.graph()
    assert graph.readers(value) == (
        Reading("a1", value, 4, 12, ((0, 28), (40, 60))),
        Reading("a2", value, 1, 0, ((0, 0),)),
    )
    assert [one.bytes_read for one in graph.readers(value)] == [48, 0]


def test_what_the_user_stored_depends_on_nothing(log: Log) -> None:
    first = log.store(USER, "first")
    log.read(USER, first)
    second = log.store(USER, "second")
    graph = log.graph()
    assert graph.depends_on(second) == Reached({}, {})
    assert [one.reader for one in graph.readers(first)] == [USER]
    assert graph.agents == {}


def test_a_log_without_beginnings_has_a_graph(log: Log) -> None:
    lost = ValueId("lost", 1)
    log.read("a1.1", lost)
    value = log.store("a1.1", "value")
    graph = log.graph()
    assert graph.values[lost] == ValueNode()
    assert graph.agents["a1.1"] == AgentNode()
    assert graph.depends_on(value).values == {lost: "read"}


def test_a_value_that_was_read_before_it_was_stored_does_not_depend_on_itself(log: Log) -> None:
    value = ValueId("value", 1)
    log.read("a1", value)
    assert log.store("a1", "value") == value
    assert log.graph().depends_on(value) == Reached({}, {"a1": "read"})


def test_a_value_is_found_by_name_and_version(log: Log) -> None:
    first = log.store(USER, "notes")
    second = log.store(USER, "notes")
    odd = log.store(USER, "odd@1")
    graph = log.graph()
    assert [graph.find(text) for text in ("notes", "notes@1", "notes@2", "odd@1", "odd@1@1")] == [
        second,
        first,
        second,
        odd,
        odd,
    ]
    with pytest.raises(UnknownName, match=r"'note'.*Nearest: notes"):
        graph.find("note")
    with pytest.raises(UnknownName):
        graph.find("notes@x")
    with pytest.raises(ContextError, match=r"no version 3\. It has 1, 2\."):
        graph.find("notes@3")
    with pytest.raises(UnknownName, match="Nothing is stored"):
        Provenance([]).find("notes")


class Account:
    """What every agent knows and every value comes from, kept as sets while the run goes on."""

    def __init__(self) -> None:
        self.log = Log()
        self.values: list[ValueId] = []
        self.agents: list[str] = []  # that have not ended
        self.parents: dict[str, str] = {}
        self.known: dict[str, tuple[set[ValueId], set[ValueId]]] = {}
        self.comes_from: dict[ValueId, tuple[set[ValueId], set[ValueId]]] = {}

    def start(self, parent: str | None, start: str) -> None:
        agent = f"a{len(self.known)}"
        self.agents.append(agent)
        read, told = self.known.get(parent or "", (set(), set()))
        self.known[agent] = (set(read) if start == "fork" else set(), set(told))
        if parent is not None:
            self.parents[agent] = parent
        self.log.start(agent, parent, start)

    def store(self, agent: str, name: str) -> None:
        value = self.log.store(agent, name)
        read, told = self.known[agent]
        self.comes_from[value] = (set(read), set(told))
        self.values.append(value)

    def read(self, agent: str, value: ValueId) -> None:
        self.log.read(agent, value)
        for known, sources in zip(self.known[agent], self.comes_from[value], strict=True):
            known |= {value} | sources

    def finish(self, agent: str, result: ValueId | None) -> None:
        self.log.finish(agent, result)
        heard = set(self.known[agent][1])
        if result is not None:
            heard |= {result} | self.comes_from[result][1]
        self.agents.remove(agent)
        if agent in self.parents:
            self.known[self.parents[agent]][1].update(heard)


@given(st.data())
def test_dependence_is_what_an_account_of_sets_says_and_change_its_mirror(
    data: st.DataObject,
) -> None:
    account = Account()
    account.start(None, "fresh")
    kinds = st.sampled_from(("start", "store", "store", "read", "read", "read", "finish"))
    for step in data.draw(st.lists(kinds, min_size=8, max_size=40)):
        if not account.agents:
            break
        agent = data.draw(st.sampled_from(account.agents))
        if step == "start":
            account.start(agent, data.draw(st.sampled_from(("fresh", "fork"))))
        elif step == "store":
            account.store(agent, data.draw(st.sampled_from("xyz")))
        elif step == "read" and account.values:
            account.read(agent, data.draw(st.sampled_from(account.values)))
        elif step == "finish":
            account.finish(agent, data.draw(st.sampled_from([None, *account.values])))
    graph = account.log.graph()
    for value, (read, told) in account.comes_from.items():
        found = graph.depends_on(value).values
        assert {one for one, via in found.items() if via == "read"} == read
        assert {one for one, via in found.items() if via == "told"} == told - read
        mirrored = {
            one: graph.changes_with(one).values[value]
            for one in graph.values
            if value in graph.changes_with(one).values
        }
        assert mirrored == found
        assert read == _closure(graph, value)


def _closure(graph: Provenance, value: ValueId) -> set[ValueId]:
    found: set[ValueId] = set()
    waiting = [value]
    while waiting:
        sources = {one.value for one in graph.sources(waiting.pop())} - found
        found |= sources
        waiting += sources
    return found


AGENTS = st.sampled_from((USER, "a", "b"))
VALUES = st.builds(ValueId, st.sampled_from("xy"), st.integers(0, 2))


@given(st.data())
def test_any_events_have_a_graph(data: st.DataObject) -> None:
    log = Log()
    steps = st.sampled_from(("start", "store", "read", "finish"))
    for step in data.draw(st.lists(steps)):
        agent = data.draw(AGENTS)
        if step == "start":
            log.start(agent, data.draw(st.none() | AGENTS), "fork")
        elif step == "store":
            log._versions["x"] = data.draw(st.integers(-1, 2))
            log.store(agent, "x")
        elif step == "read":
            log.read(agent, data.draw(VALUES), (data.draw(st.integers(-5, 5)), 3))
        else:
            log.finish(agent, data.draw(st.none() | VALUES))
    graph = log.graph()
    for value in graph.values:
        assert value not in graph.depends_on(value).values
        assert value not in graph.changes_with(value).values
        assert graph.find(f"{value.name}@{value.version}") == value
        assert {one.value for one in graph.sources(value)} <= {
            value,
            *graph.depends_on(value).values,
        }

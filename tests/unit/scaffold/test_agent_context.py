from __future__ import annotations

import operator
import tracemalloc
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rlm_runtime.errors import (
    BadPath,
    ContextBudgetExceeded,
    ContextError,
    InputError,
    TraceError,
    UnknownName,
)
from rlm_runtime.prompt import Layout
from rlm_runtime.scaffold.agent_context import AgentContext
from rlm_runtime.scaffold.rendering import render
from rlm_runtime.store import ContextStore
from rlm_runtime.store.budget import ReadBudget
from rlm_runtime.tracing import AnyEvent, Recorder, ValueRead, ValueStored
from rlm_runtime.types import AgentId, Ref

REPORT = "The müll was built in 1811.\nIt burnt down twice. 🙂\n" * 30
ANALYSIS = {"summary": "It burnt. " * 20, "detail": list(range(500)), "meta": {"n": 3}}


@dataclass
class Desk:
    """A store, a log, and contexts on them."""

    count_tokens: Callable[[str], int]
    store: ContextStore = field(init=False)
    recorder: Recorder = field(default_factory=lambda: Recorder(None))
    events: list[AnyEvent] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.store = ContextStore(self.count_tokens)
        self.recorder.subscribe(self.events.append)

    def context(
        self,
        reader: str | None = None,
        budget: ReadBudget | None = None,
        visible: tuple[str, ...] | None = None,
    ) -> AgentContext:
        agent_id = None if reader is None else AgentId(reader)
        return AgentContext(
            self.store, self.recorder, reader=agent_id, budget=budget, visible=visible
        )

    @property
    def reads(self) -> list[ValueRead]:
        return [event for event in self.events if isinstance(event, ValueRead)]


@pytest.fixture
def desk(layout: Layout) -> Desk:
    """With three values on it."""
    desk = Desk(layout.tokenizer.count)
    user = desk.context()
    user.store("report", REPORT)
    user.store("analysis", ANALYSIS)
    user.store("matrix", np.arange(12.0).reshape(3, 4))
    return desk


def test_a_value_is_read_as_it_was_stored(desk: Desk) -> None:
    context = desk.context("a1")
    ref = context.store("found", {"rows": [1, 2]})
    assert context.read("found") == {"rows": [1, 2]}
    assert context.read("context.found['rows'][0:1]") == [1]
    assert context.written == (ref,)
    np.testing.assert_array_equal(context.read("matrix[1]"), np.arange(4.0, 8.0))


def test_a_write_is_one_event_with_its_writer(desk: Desk) -> None:
    desk.events.clear()
    ref = desk.context("a1").store("report", "short")
    (event,) = desk.events
    assert isinstance(event, ValueStored)
    assert (event.writer, event.name, event.version) == ("a1", "report", 2)
    assert (event.size_bytes, event.digest, event.kind) == (ref.size_bytes, ref.digest, "str")
    assert (event.tokens, event.is_estimated) == (desk.count_tokens("short"), False)


@pytest.mark.parametrize(
    "path",
    [
        "report",
        "report[28:70]",
        "report[-10:]",
        "report[5:][3:9]",
        "report[40]",
        "analysis",
        "analysis['summary'][0:30]",
        "analysis.detail[10:20]",
        "matrix",
        "matrix[1:]",
    ],
)
def test_what_is_shown_is_counted_exactly_and_charged(path: str, desk: Desk) -> None:
    budget = ReadBudget(max_tokens=10_000)
    shown = desk.context("a1", budget).show(path)
    assert shown.text == render(desk.context().read(path))
    assert shown.tokens == desk.count_tokens(shown.text) == budget.used
    assert desk.reads[0].tokens == shown.tokens
    assert desk.reads[0].reader == "a1"


def test_a_read_with_a_budget_costs_the_tokens_of_its_text(desk: Desk) -> None:
    budget = ReadBudget(max_tokens=10_000)
    value = desk.context("a1", budget).read("analysis")
    assert value == ANALYSIS
    assert budget.used == desk.reads[0].tokens == desk.count_tokens(render(ANALYSIS))


def test_a_read_without_a_budget_is_a_look_of_no_tokens(desk: Desk) -> None:
    desk.context("a1").read("report[0:5]")
    assert [event.tokens for event in desk.reads] == [0]
    shown = desk.context("a1").show("report[0:5]")
    assert [event.tokens for event in desk.reads] == [0, shown.tokens]


@given(st.integers(-2000, 2000) | st.none(), st.integers(-2000, 2000) | st.none())
def test_the_event_of_a_slice_of_text_names_its_bytes(start: int | None, stop: int | None) -> None:
    desk = Desk(len)
    context = desk.context()
    context.store("report", REPORT)
    path = f"report[{'' if start is None else start}:{'' if stop is None else stop}]"
    text = context.read(path)
    (event,) = desk.reads
    assert REPORT.encode()[event.start_byte : event.end_byte].decode() == text == REPORT[start:stop]


def test_the_event_of_a_part_of_a_structure_names_the_whole(desk: Desk) -> None:
    desk.context().read("analysis['summary']")
    assert (desk.reads[0].start_byte, desk.reads[0].end_byte) == (
        0,
        desk.store.get("analysis").ref.size_bytes,
    )


def test_raw_bytes_are_shown_marked_and_read_by_their_places(desk: Desk) -> None:
    context = desk.context()
    context.store("raw", b"\x00\x01\x02\x03")
    assert context.show("raw[1:3]").text == "base64:AQI="
    assert (desk.reads[0].start_byte, desk.reads[0].end_byte) == (1, 3)


def test_an_error_of_a_budget_names_value_size_limit_rest_and_what_to_read(desk: Desk) -> None:
    budget = ReadBudget(max_tokens_per_read=400, max_tokens=500)
    context = desk.context("a1", budget)
    context.show("report[0:600]")
    left = budget.left
    assert left is not None
    assert left < 400
    with pytest.raises(ContextBudgetExceeded) as caught:
        context.show("report")
    error = caught.value
    assert (error.name, error.limit_name, error.limit) == ("report", "max_tokens_per_read", 400)
    assert (error.size_tokens, error.is_estimated) == (desk.count_tokens(REPORT), False)
    assert error.smaller in str(error)
    assert 0 < context.show(error.smaller).tokens <= left
    assert len(desk.reads) == 2


def test_a_refused_read_loads_charges_and_records_nothing(desk: Desk) -> None:
    budget = ReadBudget(max_tokens_per_read=5)
    with pytest.raises(ContextBudgetExceeded):
        desk.context("a1", budget).read("analysis")
    assert (budget.used, desk.reads) == (0, [])


texts = st.lists(
    st.sampled_from(["plain words, ", "日本語。", "🙂", "\n\n", "0x7f"]), max_size=80
).map("".join)
values = st.recursive(
    texts | st.integers(0, 10**9) | st.binary(max_size=80),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=40,
)


@settings(max_examples=60)
@example(value=[""], read=1, agent=1, tree=1)
@given(value=values, read=st.integers(1, 80), agent=st.integers(1, 120), tree=st.integers(1, 200))
def test_the_advice_of_an_error_fits_all_budgets_when_it_is_followed(
    value: object, read: int, agent: int, tree: int, layout: Layout
) -> None:
    desk = Desk(layout.tokenizer.count)
    desk.context().store("value", value)
    budget = ReadBudget(
        max_tokens_per_read=read,
        max_tokens=agent,
        parent=ReadBudget(max_tokens=tree, owner="tree"),
    )
    context = desk.context("a1", budget)
    whole = desk.context().show("value")
    if whole.tokens <= min(read, agent, tree):
        assert context.show("value") == whole
        return
    with pytest.raises(ContextBudgetExceeded) as caught:
        context.show("value")
    assert caught.value.size_tokens > min(read, agent, tree)
    if caught.value.smaller:
        assert 0 < context.show(caught.value.smaller).tokens <= min(read, agent, tree)


def test_refusing_a_large_text_costs_what_the_limit_is_not_what_the_text_is() -> None:
    encoded: list[int] = []

    def count(text: str) -> int:
        encoded.append(len(text))
        return len(text) // 4

    costs = []
    for megabytes in (1, 30):
        desk = Desk(count)
        ref = desk.store.put_text("big", "word " * (megabytes * 200_000))
        desk.store.tokens(ref)
        encoded.clear()
        context = desk.context("a1", ReadBudget(max_tokens_per_read=100))
        tracemalloc.start()
        with pytest.raises(ContextBudgetExceeded) as caught:
            context.read("big")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 10**6  # the index of one block of it, mostly
        assert caught.value.is_estimated
        assert caught.value.size_tokens == pytest.approx(megabytes * 250_000, rel=0.01)
        costs.append(sum(encoded))
    assert costs[0] == costs[1] < 20_000


@pytest.mark.parametrize("failure", ["the log", "the value", "the tokenizer"])
def test_a_read_that_fails_costs_nothing(
    failure: str, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    budget = ReadBudget(max_tokens=1000, parent=ReadBudget(max_tokens=1000))
    context = desk.context("a1", budget)

    def fail(*_: object) -> None:
        raise OSError(failure)

    if failure == "the log":
        desk.recorder.subscribe(fail)
    elif failure == "the value":
        monkeypatch.setattr(desk.store, "load", fail)
    else:
        monkeypatch.setattr(desk.store, "count_tokens", fail)
    with pytest.raises(OSError, match=failure):
        context.read("report[0:50][0:20]")
    assert (budget.used, budget.left) == (0, 1000)


def test_a_read_gets_room_that_others_give_back_while_it_is_counted(desk: Desk) -> None:
    budget = ReadBudget(max_tokens=10_000)
    count_tokens = desk.store.count_tokens
    with ExitStack() as others:
        others.enter_context(budget.reserve(9_999, "by another")).tokens = 0

        def count(text: str) -> int:
            others.close()
            return count_tokens(text)

        desk.store.count_tokens = count
        shown = desk.context("a1", budget).show("analysis")
    assert shown.tokens == count_tokens(shown.text) == budget.used


def test_data_for_a_leaf_call_is_recorded_but_not_charged(desk: Desk) -> None:
    budget = ReadBudget(max_tokens_per_read=1, max_tokens=1)
    context = desk.context("a1", budget)
    shown = context.data("report", 2_000)
    assert shown.text == REPORT
    assert desk.reads[0].tokens == shown.tokens == desk.count_tokens(REPORT)
    assert budget.used == 0
    with pytest.raises(ContextBudgetExceeded, match="call max_tokens is 50") as caught:
        context.data("report", 50)
    assert context.data(caught.value.smaller, 50).tokens <= 50


def test_looking_through_a_text_costs_no_tokens_and_is_on_record(desk: Desk) -> None:
    budget = ReadBudget(max_tokens_per_read=1)
    context = desk.context("a1", budget)
    assert list(context.lines("report")) == REPORT.splitlines()
    assert "".join(context.chunks("report[3:]", 100)) == REPORT[3:]
    assert [m.text for m in context.find("analysis['summary']", "b.rnt")] == ["burnt"] * 20
    assert [(e.name, e.tokens) for e in desk.reads] == [
        ("report", 0),
        ("report", 0),
        ("analysis", 0),
    ]
    assert budget.used == 0
    with pytest.raises(ContextError, match="is no text"):
        context.lines("analysis['detail']")


def test_a_view_is_a_path_that_loads_nothing(desk: Desk) -> None:
    context = desk.context()
    views = [
        context.analysis["summary"][0:9],
        context.analysis.summary[0:9],
        context["analysis"]["summary"][0:9],
    ]
    assert {str(view) for view in views} == {"analysis['summary'][0:9]"}
    assert desk.reads == []
    assert context.read(views[0]) == "It burnt."
    with pytest.raises(TypeError, match="not iterable"):
        list(context.analysis)  # type: ignore[call-overload]  # what a user may try
    with pytest.raises(TypeError):
        operator.contains(context.analysis, "summary")  # type: ignore[arg-type]  # the same
    with pytest.raises(BadPath, match="Nearest: 'summary'"):
        context.read(context.analysis.sumary)


@pytest.mark.parametrize("step", [None, 1.5, True, (1, 2), slice(0, 4, 2), slice("a", "b")])
def test_a_step_that_is_none_is_refused_where_it_is_written(step: Any, desk: Desk) -> None:
    with pytest.raises(BadPath, match="no such step"):
        desk.context().analysis["detail"][step]


def test_a_number_of_numpys_is_an_index(desk: Desk) -> None:
    place: Any = np.int64(2)
    assert desk.context().read(desk.context().analysis["detail"][place]) == 2


def test_a_mistyped_method_or_name_is_an_attribute_error_that_offers_names(desk: Desk) -> None:
    context = desk.context()
    with pytest.raises(AttributeError, match="Nearest: report"):
        context.reprot  # noqa: B018  # the look-up is the test
    with pytest.raises(UnknownName):
        context["reprot"]
    assert not hasattr(context, "__len__")
    assert "report" in context
    assert "reprot" not in context


@pytest.mark.parametrize("path", ["reprot", "context.reprot[0:3]", "reprot['a']"])
def test_an_unknown_name_offers_the_nearest(path: str, desk: Desk) -> None:
    with pytest.raises(UnknownName) as caught:
        desk.context("a1", ReadBudget()).show(path)
    assert caught.value.nearest[0] == "report"


def test_names_are_listed_sorted_with_their_newest_values(desk: Desk) -> None:
    context = desk.context()
    newest = context.store("analysis", "again")
    listed = context.list_available()
    assert list(listed) == ["analysis", "matrix", "report"] == list(context)
    assert listed["analysis"] == newest


def test_a_child_sees_what_it_was_given_and_what_it_wrote_and_no_more(desk: Desk) -> None:
    child = desk.context("a1").child(AgentId("a1.1"), ["report"])
    assert child.visible == frozenset(["report"])
    child.store("notes", "mine")
    assert list(child.list_available()) == ["notes", "report"]
    assert child.read("notes") == "mine"
    with pytest.raises(UnknownName) as caught:
        child.show("analysis['summary']")
    assert "analysis" not in caught.value.nearest
    hidden = desk.store.get("analysis").ref
    with pytest.raises(UnknownName):
        child.read(hidden)
    with pytest.raises(UnknownName):
        child.child(AgentId("a1.1.1"), ["analysis"])


def test_a_child_with_no_names_sees_nothing_and_one_with_none_said_sees_all(desk: Desk) -> None:
    parent = desk.context("a1")
    assert list(parent.child(AgentId("a1.1"), [])) == []
    assert list(parent.child(AgentId("a1.2"))) == ["analysis", "matrix", "report"]
    narrow = parent.child(AgentId("a1.3"), ["report"])
    assert narrow.child(AgentId("a1.3.1")).visible == frozenset(["report"])


def test_of_two_writes_at_once_the_newer_version_stays(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = desk.context("a1", visible=("report",))
    first, second = parent.child(AgentId("a1.1")), parent.child(AgentId("a1.2"))
    put_value = desk.store.put_value

    def overtaken(name: str, value: object) -> Ref:
        monkeypatch.setattr(desk.store, "put_value", put_value)
        ref = put_value(name, value)
        second.store(name, "newer")  # another thread, before the first has shown what it wrote
        return ref

    monkeypatch.setattr(desk.store, "put_value", overtaken)
    first.store("note", "older")
    assert parent.read("note") == "newer"
    assert first.read("note") == "older"


def test_what_is_given_by_reference_is_that_version(desk: Desk) -> None:
    old = desk.context().store("note", "older")
    desk.context().store("note", "newer")
    context = AgentContext(desk.store, desk.recorder, visible=[old])
    assert context.read("note") == "older"
    assert context.child(AgentId("a1")).read("note") == "older"
    assert context.visible == frozenset(("note",))


def test_agents_side_by_side_do_not_see_each_other_but_their_parent_sees_all(desk: Desk) -> None:
    parent = desk.context("a1").child(AgentId("a1.1"), ["report"])
    one, other = (parent.child(AgentId(f"a1.1.{n}"), ["report"]) for n in (1, 2))
    first = one.store("answer", "of one")
    second = other.store("answer", "of the other")
    one.store("report", "overwritten")
    assert (one.read("answer"), other.read("answer")) == ("of one", "of the other")
    assert (one.read("report"), other.read("report")) == ("overwritten", REPORT)
    assert parent.read(first) == "of one"
    assert parent.read(second) == parent.read("answer") == "of the other"
    assert (parent.written, one.written[0], other.written) == ((), first, (second,))
    with pytest.raises(ContextError, match="Version 1 of 'answer' is not visible"):
        other.read(first)


def test_what_names_mean_to_a_child_is_settled_when_it_begins(desk: Desk) -> None:
    parent = desk.context("a1")
    child = parent.child(AgentId("a1.1"), ["report"])
    parent.store("report", "newer")
    assert child.read("report") == REPORT
    assert parent.read("report") == "newer"


@pytest.mark.parametrize(
    ("value", "preview"),
    [
        (REPORT, REPORT[:81]),
        (ANALYSIS, 'dict with 3 keys: ["summary","detail","meta"]'),
        ([1, 2], "[1,2]"),
        (np.zeros(10**6), render(np.zeros(10**6), 80)),
        (b"\x00" * 10**6, render(b"\x00" * 80)),
        ({"k": "x" * 2**23}, ""),
    ],
    ids=["text", "dict", "list", "array", "bytes", "too large"],
)
def test_a_peek_is_short_and_no_read(value: object, preview: str, desk: Desk) -> None:
    context = desk.context()
    context.store("value", value)
    assert context.peek("value") == preview
    assert len(preview) < 200
    assert desk.reads == []


def test_nothing_is_lost_when_a_write_can_not_be_recorded(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "run")
    store = ContextStore(len)
    context = AgentContext(store, recorder)
    recorder.close()
    with pytest.raises(TraceError):
        context.store("kept", "all of it")
    assert store.load(store.get("kept").ref) == "all of it"


def test_what_can_not_be_stored_is_refused_before_anything_is_recorded(desk: Desk) -> None:
    desk.events.clear()
    context = desk.context()
    with pytest.raises(InputError, match=r"value\['a'\]\[1\]"):
        context.store("bad", {"a": [1, object()]})
    with pytest.raises(InputError, match="FINAL"):
        context.store("FINAL", "x")
    assert (desk.events, context.written) == ([], ())

"""Many agents in threads and tasks, in one store, under one budget and on one log."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import anyio.lowlevel
import anyio.to_thread
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlm_runtime.errors import ContextBudgetExceeded
from rlm_runtime.prompt import Layout
from rlm_runtime.scaffold.agent_context import AgentContext
from rlm_runtime.store import ContextStore
from rlm_runtime.store.budget import ReadBudget
from rlm_runtime.tracing import AnyEvent, Recorder, ValueRead, ValueStored
from rlm_runtime.types import AgentId

# One line of what an agent does: (what, name, a number).
Step = tuple[str, int, int]
steps = st.tuples(
    st.sampled_from(["show", "read", "store", "list", "lines", "data"]),
    st.integers(0, 3),
    st.integers(0, 30),
)


@dataclass
class Did:
    """What an agent's script did, as its events should say it."""

    tokens: int = 0
    events: list[tuple[object, ...]] = field(default_factory=list)


def perform(
    context: AgentContext, reader: str, count: Callable[[str], int], step: Step, did: Did
) -> None:
    what, which, number = step
    name = f"value_{which}"
    size = 3 * number
    if what == "store":
        ref = context.store(name, f"{reader} wrote {number}. " * number)
        did.events.append(("stored", reader, name, ref.version))
    elif what == "list":
        assert list(context.list_available()) == sorted(context.list_available())
    elif what == "lines":
        list(context.lines(name))
        did.events.append(("read", reader, name, 0))
    elif what == "data":
        tokens = context.data(name, 10_000).tokens
        did.events.append(("read", reader, name, tokens))
    else:
        try:
            text = (
                context.show(f"{name}[0:{size}]").text
                if what == "show"
                else context.read(f"{name}[0:{size}]")
            )
        except ContextBudgetExceeded:
            return
        assert isinstance(text, str)
        tokens = count(text)
        did.tokens += tokens
        did.events.append(("read", reader, name, tokens))


def recorded(events: list[AnyEvent]) -> Counter[tuple[object, ...]]:
    found: Counter[tuple[object, ...]] = Counter()
    for event in events:
        if isinstance(event, ValueRead):
            found["read", event.reader, event.name, event.tokens] += 1
        elif isinstance(event, ValueStored):
            found["stored", event.writer, event.name, event.version] += 1
    return found


class Crowd:
    """Agents at work in the same store, under one budget that is watched at every event."""

    def __init__(self, count_tokens: Callable[[str], int], bound: int, directory: Path | None):
        self.count_tokens = count_tokens
        self.store = ContextStore(count_tokens)
        self.recorder = Recorder(directory)
        for which in range(4):
            self.store.put_text(f"value_{which}", f"Value {which}. " * 50)
        self.events: list[AnyEvent] = []
        self.bound = bound
        self.tree = ReadBudget(max_tokens=bound, owner="tree")
        self.over: list[int] = []
        self.recorder.subscribe(self.watch)

    def watch(self, event: AnyEvent) -> None:
        self.events.append(event)
        left = self.tree.left
        if left is None or left < 0 or self.tree.used > self.bound:
            self.over.append(self.tree.used)

    def agent(self, number: int) -> tuple[AgentContext, str]:
        reader = f"a1.{number}"
        budget = ReadBudget(max_tokens_per_read=25, max_tokens=300, parent=self.tree)
        context = AgentContext(self.store, self.recorder, reader=AgentId(reader), budget=budget)
        return context, reader

    def check(self, did: list[Did]) -> None:
        assert self.over == []
        assert self.tree.used == sum(one.tokens for one in did) <= self.bound
        assert self.tree.left == self.bound - self.tree.used
        assert recorded(self.events) == Counter(event for one in did for event in one.events)


def in_threads(crowd: Crowd, scripts: list[list[Step]]) -> list[Did]:
    def work(number: int) -> Did:
        context, reader = crowd.agent(number)
        did = Did()
        for step in scripts[number]:
            perform(context, reader, crowd.count_tokens, step, did)
        return did

    with ThreadPoolExecutor(len(scripts) or 1) as pool:
        return list(pool.map(work, range(len(scripts))))


def in_tasks(crowd: Crowd, scripts: list[list[Step]]) -> list[Did]:
    """Every other step in a worker thread, as agents do with long ones."""
    did = [Did() for _ in scripts]

    async def work(number: int) -> None:
        context, reader = crowd.agent(number)
        for at, step in enumerate(scripts[number]):
            args = (context, reader, crowd.count_tokens, step, did[number])
            if at % 2:
                await anyio.to_thread.run_sync(perform, *args)
            else:
                perform(*args)
                await anyio.lowlevel.checkpoint()

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for number in range(len(scripts)):
                group.start_soon(work, number)

    anyio.run(main)
    return did


@pytest.mark.parametrize("run", [in_threads, in_tasks])
def test_a_hundred_agents_at_once_stay_within_their_tree_and_on_record(
    run: Callable[[Crowd, list[list[Step]]], list[Did]], layout: Layout, tmp_path: Path
) -> None:
    chance = random.Random(7)  # noqa: S311  # the same scripts every time
    parts_read = ("show", "show", "read", "store", "list", "lines", "data")
    scripts = [
        [(chance.choice(parts_read), chance.randrange(4), chance.randrange(30)) for _ in range(25)]
        for _ in range(100)
    ]
    crowd = Crowd(layout.tokenizer.count, 4_000, tmp_path / "run")
    did = run(crowd, scripts)
    crowd.check(did)
    assert crowd.bound - crowd.tree.used < 25  # the bound was met, and held
    lines = (tmp_path / "run" / "events.jsonl").read_bytes().splitlines()
    written = [msgspec.json.decode(line, type=AnyEvent) for line in lines]
    assert recorded(written) == recorded(crowd.events)


@settings(max_examples=40, deadline=None)
@given(scripts=st.lists(st.lists(steps, max_size=12), max_size=12), bound=st.integers(0, 200))
def test_whatever_agents_do_at_once_they_stay_within_their_tree_and_on_record(
    scripts: list[list[Step]], bound: int
) -> None:
    for run in (in_threads, in_tasks):
        crowd = Crowd(lambda text: len(text.split()), bound, None)
        crowd.check(run(crowd, scripts))

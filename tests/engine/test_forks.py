"""Forks with the real engine: what their parent has seen is computed once, by the parent."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from pydoc_data.topics import topics

import pytest

from rlm_runtime.config import Config
from rlm_runtime.config.model import EngineConfig
from rlm_runtime.engine.vllm_engine import VLLMEngine
from rlm_runtime.profiler import Ledger
from rlm_runtime.prompt import ChatTemplate, Layout, Prompt, Tokenizer
from rlm_runtime.scaffold.agent import AgentResult, Outcome, Start, run_agent
from rlm_runtime.scaffold.agent_context import AgentContext
from rlm_runtime.scaffold.corpus import Corpus
from rlm_runtime.scaffold.likelihood import ScoreMemo
from rlm_runtime.scaffold.subagents import Children, SubTask
from rlm_runtime.scaffold.tree import Seat, Tree
from rlm_runtime.scheduler import Call, Job, Scheduler
from rlm_runtime.store import ContextStore
from rlm_runtime.store.budget import ReadBudget
from rlm_runtime.tracing import AnyEvent, CallFinished, Recorder
from rlm_runtime.types import AgentId, AgentKind, Limits, StopReason

pytestmark = [pytest.mark.engine, pytest.mark.anyio]

CHILDREN = 8
READ_TOKENS = 100  # of what a turn of the parent reads
ANSWER_TOKENS = 8
DONE = Outcome(stop_reason=StopReason.FINAL)


@pytest.fixture(scope="session")
def layout(model_dir: Path) -> Layout:
    tokenizer = Tokenizer.from_folder(model_dir)
    return Layout(tokenizer, ChatTemplate.from_folder(model_dir, tokenizer), 32)


@pytest.fixture
async def wide_engine(model_dir: Path) -> AsyncIterator[VLLMEngine]:
    """One with a window that such a parent fits."""
    engine = await VLLMEngine.start(
        EngineConfig(kv_cache_gib=1, window_tokens=4096, max_running=CHILDREN),
        model_dir,
        model_name="smol",
        tokenizer_digest="digest",
        encode=Tokenizer.from_folder(model_dir).encode,
    )
    yield engine
    await engine.close()


async def ask(seat: Seat, prompt: Prompt) -> tuple[int, ...]:
    tree = seat.tree
    call = Call(
        prompt=prompt,
        agent_id=seat.agent_id,
        depth=seat.depth,
        label="turn",
        max_tokens=ANSWER_TOKENS,
        ignore_eos=True,
    )
    return (await tree.scheduler.run(tree.job, call)).ids


@dataclass(frozen=True)
class Child:
    """Makes a call, and another one behind what it reads; a fork has a fresh child of its own.

    Attributes:
        reads: A fork has read it already; a fresh child of the same parent has to.
    """

    reads: str = ""
    kind: AgentKind = "calls"

    async def run(self, seat: Seat, task: str, context: AgentContext) -> Outcome:
        layout = seat.tree.layout
        prompt = seat.forked or layout.prompt(task=task)
        generated = await ask(seat, prompt)
        if self.reads:
            await ask(seat, layout.append_turn(prompt, generated, self.reads))
        if seat.forked is not None:
            async with Children(seat, context) as children:
                await children.start(Child(), f"Check this. {task}").result()
        return DONE


@dataclass(frozen=True)
class Parent:
    """Reads turn after turn until its prompt is long enough, then starts its children as a batch.

    Attributes:
        tokens: Of the prompt that is forked.
        start: How its children start.
    """

    tokens: int
    start: Start
    kind: AgentKind = "calls"

    async def run(self, seat: Seat, task: str, context: AgentContext) -> Outcome:
        layout = seat.tree.layout
        text = layout.tokenizer.encode(topics["try"] + topics["with"] + topics["class"])
        prompt = layout.prompt(task=task)
        generated = await ask(seat, prompt)
        read: list[str] = []
        while len(prompt.ids) < self.tokens:
            start = len(read) * READ_TOKENS
            read.append(layout.tokenizer.decode(text[start : start + READ_TOKENS]))
            prompt = layout.append_turn(prompt, generated, read[-1])
            generated = await ask(seat, prompt)
        async with Children(seat, context) as children:
            is_fork = self.start == "fork"
            results = await children.run_all(
                [
                    SubTask(
                        agent=Child("" if is_fork else "".join(read)),
                        task=f"Tell what was said about topic {i}.",
                        start=self.start,
                        prompt=prompt if is_fork else None,
                        generated_ids=generated if is_fork else (),
                    )
                    for i in range(CHILDREN)
                ]
            )
        assert all(isinstance(result, AgentResult) for result in results)
        return DONE


@dataclass
class Family:
    """What a parent and its children did, by the log."""

    ledger: Ledger
    calls: dict[str, list[CallFinished]]
    shared_tokens: int
    engine_computed: int

    def computed(self, agent_id: str) -> int:
        tokens = self.ledger.agent_figures(agent_id)["computed_tokens"]
        assert isinstance(tokens, int)
        return tokens

    def line(self, start: str) -> str:
        names = [f"a1.{i + 1}" for i in range(CHILDREN)]
        prompts = sum(call.prompt_tokens or 0 for name in names for call in self.calls[name])
        computed = sum(map(self.computed, names))
        parent = self.calls["a1"][-1].prompt_tokens
        return (
            f"{CHILDREN} children, {start}, of a parent of {parent:,} tokens: "
            f"{prompts:,} prompt tokens, {computed:,} computed"
        )


async def grow(engine: VLLMEngine, layout: Layout, tokens: int, start: Start) -> Family:
    recorder = Recorder(None)
    ledger = Ledger()
    events: list[AnyEvent] = []
    recorder.subscribe(ledger.add)
    recorder.subscribe(events.append)
    store = ContextStore(layout.tokenizer.count)
    shared = len(layout.shared_ids)
    tree = Tree(
        scheduler=Scheduler(engine, recorder, shared_tokens=shared, max_queued_calls=100),
        layout=layout,
        job=Job(Limits(max_depth=2)),
        recorder=recorder,
        corpus=Corpus(store, layout, 700),
        info=engine.info,
        config=Config(),
        memo=ScoreMemo(),
        reads=ReadBudget(owner="tree"),
    )
    seat = Seat(tree, AgentId("a1"))
    context = AgentContext(store, recorder, reader=seat.agent_id, budget=tree.agent_reads())
    await engine.reset_prefix_cache()
    before = engine.stats().computed_tokens
    await run_agent(Parent(tokens, start), seat, "Read about statements.", context)
    calls: dict[str, list[CallFinished]] = {}
    for event in events:
        if isinstance(event, CallFinished):
            calls.setdefault(event.agent_id, []).append(event)
    return Family(ledger, calls, shared, engine.stats().computed_tokens - before)


async def check_forks(engine: VLLMEngine, layout: Layout, tokens: int) -> list[str]:
    block = layout.block_size
    forks = await grow(engine, layout, tokens, "fork")
    parent = forks.calls["a1"][-1]
    assert parent.prompt_tokens is not None
    assert parent.generated_tokens == ANSWER_TOKENS
    seen = parent.prompt_tokens + ANSWER_TOKENS
    assert parent.prompt_tokens >= tokens

    names = [f"a1.{i + 1}" for i in range(CHILDREN)]
    tails = 0
    for name in names:
        (call,) = forks.calls[name]
        assert call.prompt_tokens is not None
        tail = call.prompt_tokens - seen
        assert 0 < tail < 80
        assert forks.computed(name) <= tail + block
        tails += tail
    assert sum(map(forks.computed, names)) <= tails + CHILDREN * block

    # The shared prefix is computed once, by the first call; every other one takes it whole.
    whole = forks.shared_tokens // block * block
    first, *others = [call for calls in forks.calls.values() for call in calls]
    assert first.cached_tokens == 0
    assert {call.depth for call in others} == {0, 1, 2}
    assert all((call.cached_tokens or 0) >= whole for call in others)

    # The ledger's count is the engine's own.
    assert forks.ledger.figures()["computed_tokens"] == forks.engine_computed

    fresh = await grow(engine, layout, tokens, "fresh")
    assert all((fresh.calls[name][0].cached_tokens or 0) >= whole for name in names)
    # Half, and more, of the parent's prompt is what it read; the rest are marks and answers.
    read_again = CHILDREN * (tokens - forks.shared_tokens) // 2
    assert sum(map(fresh.computed, names)) > read_again
    return [
        f"{forks.line('forked')}, of {tails:,} in their tails",
        fresh.line("fresh, that read the same again"),
    ]


async def test_forks_compute_their_tails_only(
    engine: VLLMEngine, layout: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = await check_forks(engine, layout, 1_500)
    with capsys.disabled():
        print("", *lines, sep="\n")


@pytest.mark.long
async def test_forks_of_a_long_parent_compute_their_tails_only(
    wide_engine: VLLMEngine, layout: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = await check_forks(wide_engine, layout, 3_000)
    with capsys.disabled():
        print("", *lines, sep="\n")

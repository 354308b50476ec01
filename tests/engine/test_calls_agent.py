"""Agents of calls on the real engine: given turns at the cache's ceiling, and the model's own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from pydoc_data.topics import topics

import anyio
import pytest

from rlm_runtime.api import Internals
from rlm_runtime.config import Config
from rlm_runtime.profiler import RunLog
from rlm_runtime.scaffold.agent import AgentResult, run_agent
from rlm_runtime.scaffold.agent_context import AgentContext
from rlm_runtime.scaffold.calls import CallsAgent
from rlm_runtime.scaffold.calls.actions import SIGNATURES
from rlm_runtime.scaffold.corpus import Corpus
from rlm_runtime.scaffold.likelihood import ScoreMemo
from rlm_runtime.scaffold.rendering import render
from rlm_runtime.scaffold.tree import Seat, Tree
from rlm_runtime.scheduler import Job, Scheduler
from rlm_runtime.store import ContextStore
from rlm_runtime.store.budget import ReadBudget
from rlm_runtime.tracing import (
    CacheReset,
    CallFinished,
    Compaction,
    EngineStarted,
    Recorder,
    TurnFinished,
    ValueRead,
    run_started,
)
from rlm_runtime.types import AgentId, Limits, StopReason

pytestmark = [pytest.mark.engine, pytest.mark.anyio]

TOPICS = ("try", "with", "raise", "while")
AGENTS = {
    "max_string_characters": 100,
    "answer_tokens": 24,
    "max_read_tokens": None,
    "max_errors_in_a_row": 99,
}

TASKS = (
    "What does the report say about the finally clause?",
    "Write a note on the report and return it.",
    "Which titles are there?",
    "Ask what the report is about.",
)
FREE_TURNS = 200

Given = Mapping[str, list[str]]


class Stage:
    """Runs trees on the engine that all tests share, each in a log of its own."""

    def __init__(self, parts: Internals, directory: Path) -> None:
        self.parts = parts
        self.layout = parts.layout
        self.directory = directory
        self.recorder = Recorder(directory)
        self.store = ContextStore(self.layout.tokenizer.count)
        info, shared = parts.engine.info, self.layout.shared_ids
        self.recorder.emit(run_started(self.recorder.run_id, "config"))
        self.recorder.emit(
            EngineStarted(
                at_s=self.recorder.now(),
                model=info.model,
                backend=info.backend,
                window=info.window,
                block_size=info.block_size,
                kv_blocks=info.kv_blocks,
                max_running=info.max_running,
                tokenizer_digest=info.tokenizer_digest,
                shared_prefix_digest=self.layout.shared_digest,
                shared_prefix_tokens=len(shared),
                boot_s=0.0,
            )
        )
        self.recorder.emit(CacheReset(at_s=self.recorder.now()))
        self.scheduler = Scheduler(
            parts.engine, self.recorder, shared_tokens=len(shared), max_queued_calls=100
        )

    def tree(self, given: Given, limits: Limits, temperature: float = 0.0) -> Tree:
        def script(agent_id: AgentId, turn: int) -> tuple[int, ...] | None:
            turns = given.get(agent_id, [])
            return self.layout.tokenizer.encode(turns[turn - 1]) if turn <= len(turns) else None

        return Tree(
            scheduler=self.scheduler,
            layout=self.layout,
            job=Job(limits),
            recorder=self.recorder,
            corpus=Corpus(self.store, self.layout, 300),
            info=self.parts.engine.info,
            config=Config.model_validate({"agents": AGENTS, "temperature": temperature}),
            memo=ScoreMemo(),
            reads=ReadBudget(owner="tree"),
            script=script,
        )

    async def run(self, tree: Tree, task: str, name: str = "a1") -> AgentResult:
        seat = Seat(tree, AgentId(name))
        context = AgentContext(
            self.store, self.recorder, reader=seat.agent_id, budget=tree.agent_reads()
        )
        return await run_agent(CallsAgent(), seat, task, context)

    def log(self) -> RunLog:
        return RunLog.load(self.directory)


@pytest.fixture
async def stage(parts: Internals, tmp_path: Path) -> Stage:
    await parts.engine.reset_prefix_cache()
    return Stage(parts, tmp_path / "run")


def turns_of(log: RunLog) -> dict[str, list[CallFinished]]:
    """The calls that were turns, by agent."""
    turns: dict[str, list[CallFinished]] = {}
    for event in log.events:
        if isinstance(event, CallFinished) and event.label == "turn":
            turns.setdefault(event.agent_id, []).append(event)
    return turns


async def test_fifty_interactions_of_several_agents_reach_the_ceiling_of_the_cache(
    stage: Stage,
) -> None:
    for name in TOPICS:
        stage.store.put_text(f"{name}_topic", topics[name])
    given: dict[str, list[str]] = {"a1": [], "final": ["FINAL(note_0)"]}
    for number, name in enumerate(TOPICS):
        start = ', start="fork"' if number % 2 else ""
        given["a1"] += [
            f"READ({name}_topic[0:60])",
            f'agent("Describe {name} in a few words.", context=[{name}_topic]{start})',
        ]
        given[f"a1.{number + 1}"] = [
            *(f"READ({name}_topic[{at}:{at + 60}])" for at in range(100, 700, 100)),
            f'QUERY({name}_topic[0:600], "What is it about?")',
            f'WRITE(note_{number}, "It is about {name}.")',
            "LIST_CONTEXT()",
            f"READ(note_{number})",
            f"FINAL(note_{number})",
        ]
    given["a1"] += ["READ(missing)", "READ(note_3)", "FINAL(note_2)"]
    result = await stage.run(stage.tree(given, Limits(max_turns=30)), "Describe all topics.")
    assert result.outcome.stop_reason is StopReason.FINAL
    assert result.outcome.result == stage.store.get("note_2").ref

    log = stage.log()
    ended = [event for event in log.events if isinstance(event, TurnFinished)]
    assert len(ended) >= 50
    assert {event.outcome for event in ended if event.function != "READ"} == {"ok"}
    turns, shared = turns_of(log), stage.layout.shared_ids
    assert all(call.is_forced for calls in turns.values() for call in calls)
    branches = {(e.agent_id, e.turn) for e in log.events if isinstance(e, Compaction)}
    for agent_id, calls in turns.items():
        assert all((log.prompt_ids(call) or ())[: len(shared)] == shared for call in calls)
        for turn, (before, after) in enumerate(pairwise(calls), 1):
            known = (*(log.prompt_ids(before) or ()), *(log.output_ids(before) or ()))
            is_prefix = (log.prompt_ids(after) or ())[: len(known)] == known
            assert is_prefix == ((agent_id, turn) not in branches)
    figures = log.figures()
    assert (figures["hit_rate_of_ceiling"] or 0) >= 0.98
    assert (figures["hit_rate"] or 0) > 0.9
    assert figures["miss_unexplained_tokens"] == 0
    reads = [event for event in log.events if isinstance(event, ValueRead)]
    # As the script says: 6 reads and a note each, a question each, and the root's own.
    assert len(reads) == 4 * (6 + 1 + 1) + 4 + 1


async def test_a_value_larger_than_any_window_is_the_result_by_its_name(stage: Stage) -> None:
    pages = sorted(topics)
    findings = [
        {"page": name, "copy": copy, "text": topics[name]} for copy in range(2) for name in pages
    ]
    value = {"summary": "All topics, twice.", "findings": findings, "metadata": {"copies": 2}}
    assert stage.layout.tokenizer.count(render(value)) >= 200_000
    ref = stage.store.put_value("analysis", value)
    given = {"a1": ["READ(context.analysis['summary'])", "FINAL(analysis)"]}
    result = await stage.run(stage.tree(given, Limits()), "Return the analysis.")

    outcome = result.outcome
    assert outcome.stop_reason is StopReason.FINAL
    assert outcome.result is not None
    assert outcome.result.digest == ref.digest
    assert stage.store.load(outcome.result) == value
    log = stage.log()
    read, final = turns_of(log)["a1"]
    assert (final.generated_tokens or 0) < 20
    assert (log.figures()["prompt_tokens_max"] or 0) < stage.parts.engine.info.window
    assert read.finish_reason == final.finish_reason == "stop"


async def test_whatever_the_model_chooses_is_a_call_it_can_make(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    stage.store.put_text("report", topics["try"])
    stage.store.put_value("rows", [{"title": "one"}, {"title": "two"}])
    stage.store.put_text("größe", "Tokens < 100 | x")
    ends: list[StopReason] = []

    async def one(task: str, name: str, temperature: float) -> None:
        tree = stage.tree({}, Limits(max_turns=10, max_depth=0), temperature)
        ends.append((await stage.run(tree, task, name)).outcome.stop_reason)

    def ended() -> list[TurnFinished]:
        return [event for event in stage.log().events if isinstance(event, TurnFinished)]

    while len(ended()) < FREE_TURNS:
        async with anyio.create_task_group() as group:
            for number, task in enumerate(TASKS * 2, len(ends)):
                group.start_soon(one, task, f"a{number}", number % 4 * 0.5)
    codes = Counter(event.error_code for event in ended())
    functions = Counter(event.function for event in ended())
    with capsys.disabled():
        print(f"\n{len(ended())} turns, {ends.count(StopReason.FINAL)} of {len(ends)} reach FINAL")
        print(f"{dict(functions)}, errors: {dict(codes)}")
    assert "bad_call" not in codes
    assert functions.keys() <= SIGNATURES.keys()

"""map_reduce and classify_each with the real model, engine and cache."""

from __future__ import annotations

from pydoc_data.topics import topics
from typing import NamedTuple

import pytest

from rlm_runtime.api import Internals
from rlm_runtime.config import Config
from rlm_runtime.config.model import AgentsConfig, SchedulerConfig
from rlm_runtime.profiler import Ledger
from rlm_runtime.scaffold.agent import AgentResult, run_agent
from rlm_runtime.scaffold.agent_context import AgentContext
from rlm_runtime.scaffold.corpus import Corpus
from rlm_runtime.scaffold.likelihood import ScoreMemo
from rlm_runtime.scaffold.recipes.classify_each import Classified, ClassifyEach
from rlm_runtime.scaffold.recipes.map_reduce import MapReduce, MapReduced
from rlm_runtime.scaffold.recipes.plan import Plan
from rlm_runtime.scaffold.tree import Seat, Tree
from rlm_runtime.scheduler import Job
from rlm_runtime.store.budget import ReadBudget
from rlm_runtime.tracing import AgentFinished, AnyEvent, CallFinished
from rlm_runtime.types import AgentId, StopReason, Usage

pytestmark = [pytest.mark.engine, pytest.mark.anyio]

CHUNK_TOKENS = 300
CONFIG = Config(
    agents=AgentsConfig(answer_tokens=48), scheduler=SchedulerConfig(max_queued_calls=100)
)
REWRITE = "Rewrite the text above in plain words, sentence by sentence."


class Done(NamedTuple):
    """A run, what it was expected to cost at most, and what it did cost."""

    result: AgentResult
    plan: Plan
    usage: Usage
    calls: list[CallFinished]


class Bench:
    """Runs recipes on the engine of the session."""

    def __init__(self, parts: Internals) -> None:
        self.parts = parts
        self.store = parts.corpus.store
        self.corpus = Corpus(self.store, parts.layout, CHUNK_TOKENS)
        self.events: list[AnyEvent] = []
        parts.recorder.subscribe(self.events.append)
        self.runs = 0

    async def run(self, agent: MapReduce | ClassifyEach, task: str, name: str) -> Done:
        parts = self.parts
        self.runs += 1
        tree = Tree(
            scheduler=parts.scheduler,
            layout=parts.layout,
            job=Job(),
            recorder=parts.recorder,
            corpus=self.corpus,
            info=parts.engine.info,
            config=CONFIG,
            memo=ScoreMemo(),
            reads=ReadBudget(owner="tree"),
        )
        seat = Seat(tree, AgentId(f"a{self.runs}"))
        context = AgentContext(self.store, parts.recorder, reader=seat.agent_id, visible=[name])
        plan = await agent.plan(seat, task, context)
        before = len(self.events)
        result = await run_agent(agent, seat, task, context)
        calls = [e for e in self.events[before:] if isinstance(e, CallFinished)]
        return Done(result, plan, tree.job.usage, calls)


@pytest.fixture
def bench(parts: Internals) -> Bench:
    return Bench(parts)


def spent(usage: Usage) -> int:
    return usage.computed_tokens + usage.generated_tokens


async def test_parts_are_asked_and_combined_within_the_plan(bench: Bench) -> None:
    bench.store.put_text("manual", topics["try"])
    await bench.parts.engine.reset_prefix_cache()
    ledger = Ledger()
    bench.parts.recorder.subscribe(ledger.add)
    done = await bench.run(MapReduce(), "What does the text above say?", "manual")
    detail = done.result.outcome.detail
    assert isinstance(detail, MapReduced)
    assert done.result.outcome.stop_reason is StopReason.FINAL
    assert len(detail.parts) == done.plan.parts > 3
    assert detail.levels[-1] == 1
    assert detail.is_combined
    assert done.usage.calls <= done.plan.calls
    assert spent(done.usage) <= done.plan.tokens
    shared = len(bench.parts.layout.shared_ids)
    assert all(call.segments[0].end == shared for call in done.calls)
    # The shared prefix is computed once, not once a part.
    assert done.usage.cached_tokens > (len(done.calls) - 8) * (shared - 32)
    # Asked again, each chunk is in the cache up to the question.
    again = await bench.run(MapReduce(combine="join", answer_tokens=4), "Who says so?", "manual")
    tail = len(bench.parts.layout.tail("\n\nWho says so?"))
    extracts = [call.computed_tokens for call in again.calls if call.label == "extract"]
    assert max(n for n in extracts if n is not None) <= tail + 32
    figures = ledger.figures()
    assert figures["generated_tokens"] == sum(d.usage.generated_tokens for d in (done, again))


async def test_each_row_gets_one_of_the_labels(bench: Bench) -> None:
    rows = [
        "The train from Oslo was forty minutes late.",
        "Two tickets to Bergen, please.",
        "I lost my umbrella on the train.",
        "The coffee on board was excellent!",
        "Why is the heating off again?",
        "Is there a train after midnight?",
    ]
    bench.store.put_value("letters", rows)
    task = "Classify each letter to the railway as complaint, praise or question."
    done = await bench.run(ClassifyEach(), task, "letters")
    outcome = done.result.outcome
    assert isinstance(outcome.detail, Classified)
    assert outcome.result is not None
    value = bench.store.load(outcome.result)
    assert isinstance(value, dict)
    labels = value["labels"]
    assert len(labels) == len(rows)
    assert set(labels) <= {"complaint", "praise", "question"}
    assert value["counts"] == {name: labels.count(name) for name in value["counts"]}
    assert value["is_constrained"]
    assert value["unlabelled"] == 0
    assert done.usage.calls == done.plan.calls == len(rows)
    assert spent(done.usage) <= done.plan.tokens


@pytest.mark.long
@pytest.mark.timeout(1800)
async def test_an_output_longer_than_the_window_is_returned_by_reference(bench: Bench) -> None:
    text = "\n\n".join(topics[name] for name in sorted(topics))[:80_000]
    bench.store.put_text("manual", text)
    done = await bench.run(MapReduce(combine="join"), REWRITE, "manual")
    outcome = done.result.outcome
    detail = outcome.detail
    assert isinstance(detail, MapReduced)
    assert outcome.stop_reason is StopReason.FINAL
    window = bench.parts.engine.info.window
    assert done.usage.generated_tokens >= 10_000 > window
    prompts = [call.prompt_tokens for call in done.calls if call.prompt_tokens is not None]
    assert max(prompts) < window
    assert len(prompts) == len(detail.parts) == done.plan.calls, "nothing is generated again"
    assert spent(done.usage) <= done.plan.tokens
    # The result is its parts, by reference: in the log by name, nowhere in a prompt.
    (finished,) = [e for e in bench.events if isinstance(e, AgentFinished)]
    ref = outcome.result
    assert ref is not None
    assert (finished.result_name, finished.result_version) == (ref.name, ref.version)
    assert finished.result_blob is None
    said = [part.result for part in detail.parts if part.result and not part.says_nothing]
    joined = "\n\n".join(bench.store.text(part, 0, part.size_bytes) for part in said)
    assert bench.store.text(ref, 0, ref.size_bytes) == joined
    print(
        f"{len(detail.parts)} parts, {done.usage.generated_tokens:,} tokens generated, "
        f"longest prompt {max(prompts):,} of {window:,}, result {ref.size_bytes:,} bytes"
    )

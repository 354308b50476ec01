"""What the real engine took from its cache, and what it did not, is explained to the token."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from pydoc_data.topics import topics

import anyio
import pytest

from rlm_runtime.api import Internals
from rlm_runtime.config import SearchConfig
from rlm_runtime.engine.base import Span
from rlm_runtime.profiler import Cause, RunLog
from rlm_runtime.profiler.cache_model import CacheHistory
from rlm_runtime.prompt import Prompt
from rlm_runtime.scaffold.corpus import Corpus
from rlm_runtime.scaffold.likelihood import Asker
from rlm_runtime.scaffold.recipes.search import Search
from rlm_runtime.scheduler import Call, CallResult, Job, Scheduler
from rlm_runtime.tracing import (
    CacheReset,
    CallFinished,
    EngineStarted,
    Recorder,
    Segment,
    run_started,
)
from rlm_runtime.types import AgentId

pytestmark = [pytest.mark.engine, pytest.mark.anyio]

CHUNK_TOKENS = 300
FIRST = "Does the finally clause still run when the try suite executes a return statement?"
SECOND = "What happens to the saved exception if the finally clause executes a return statement?"
POINTS = 0.001


class Bench:
    """The engine that all tests share, with a scheduler whose run is kept."""

    def __init__(self, parts: Internals, directory: Path) -> None:
        self.parts = parts
        self.engine = parts.engine
        self.directory = directory
        self.recorder = Recorder(directory)
        shared = parts.layout.shared_ids
        info = parts.engine.info
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
                shared_prefix_digest=parts.layout.shared_digest,
                shared_prefix_tokens=len(shared),
                boot_s=0.0,
            )
        )
        self.scheduler = Scheduler(
            parts.engine, self.recorder, shared_tokens=len(shared), max_queued_calls=100
        )
        self.job = Job()

    async def run(self, ids: tuple[int, ...], **fields: object) -> CallResult:
        prompt = Prompt(ids, (Segment("task", 0, len(ids)),))
        call = Call(prompt=prompt, agent_id=AgentId("a"), label="test", **fields)  # type: ignore[arg-type] # any field
        return await self.scheduler.run(self.job, call)

    async def reset(self) -> None:
        await self.engine.reset_prefix_cache()
        self.recorder.emit(CacheReset(at_s=self.recorder.now()))


@pytest.fixture
async def bench(parts: Internals, tmp_path: Path) -> Bench:
    await parts.engine.reset_prefix_cache()
    return Bench(parts, tmp_path / "run")


def explained(log: RunLog) -> dict[Cause, int]:
    """The run's computed tokens by cause; each call's add up, and nothing is left over."""
    totals = dict.fromkeys(Cause, 0)
    for one in log.causes:
        assert sum(one.tokens.values()) == one.call.computed_tokens, one
        assert min(one.tokens.values()) >= 0, one
        assert one.ceiling_tokens >= (one.call.cached_tokens or 0), one
        for cause, tokens in one.tokens.items():
            totals[cause] += tokens
    assert totals[Cause.UNEXPLAINED] == 0
    assert log.has_blobs
    return totals


async def test_a_search_reaches_its_ceiling_and_all_it_computed_is_explained(
    bench: Bench,
) -> None:
    corpus = Corpus(bench.parts.corpus.store, bench.parts.layout, CHUNK_TOKENS)
    ref = corpus.store.put_text("manual", topics["try"])
    search = Search(
        corpus,
        SearchConfig(chunk_tokens=CHUNK_TOKENS, passages=1),
        bench.recorder,
        bench.engine.info.kv_tokens,
    )
    before = bench.engine.stats()
    for name, question in (("first", FIRST), ("second", SECOND)):
        asker = Asker(bench.scheduler, bench.parts.layout, Job(), AgentId(name))
        await search.run(asker, [ref], question)
    counted = bench.engine.stats().computed_tokens - before.computed_tokens

    log = RunLog.load(bench.directory)
    causes, figures = explained(log), log.figures()
    assert sum(causes.values()) == figures["computed_tokens"] == counted
    assert causes[Cause.EVICTED] == causes[Cause.SALT] == 0
    # What a scored request skips in its second run is all that an infinite cache would add.
    ceiling = sum(one.ceiling_tokens for one in log.causes)
    assert figures["cached_tokens"] == ceiling - causes[Cause.SKIPPED]
    assert figures["prefill_redundancy"] == pytest.approx(1, abs=0.01)
    second = log.agent_figures("second")
    assert (second["miss_first_use_tokens"] or 0) < (second["prompt_tokens"] or 0) / 20

    blocks = pytest.importorskip("kvlint.sim.vllm_blocks", reason="kvlint is not installed")
    oracle = blocks.VLLMBlockSimulator(block_size=bench.engine.info.block_size)
    history = CacheHistory(holds_generated=False)
    for event in log.events:
        history.add(event)
    calls = [event for event in log.events if isinstance(event, CallFinished)]
    theirs = ours = total = 0
    for one in history.settle()[1]:
        ids = log.prompt_ids(calls[one.lookup.number])
        assert ids is not None
        theirs += oracle.feed_tokens("r", ids).cached_tokens
        ours += min(one.known_blocks, one.usable_blocks) * one.block_size
        total += len(ids)
    assert abs(ours - theirs) / total <= POINTS


async def test_every_kind_of_miss_is_told_from_the_others(
    bench: Bench, fresh: Callable[[int], tuple[int, ...]]
) -> None:
    before = bench.engine.stats()
    size = bench.engine.info.block_size
    text, tail = fresh(6 * size), fresh(10)
    first = await bench.run((*text, *tail), max_tokens=2 * size, ignore_eos=True)
    # A turn: prompt and answer come back with a few tokens more.
    await bench.run((*text, *tail, *first.ids, *fresh(5)))
    await bench.run(text)
    await bench.run((*text, *tail), read_cache=False)
    await bench.run((*text, *tail), cache_salt="other")
    await bench.run((*fresh(size + 3), *text))
    await bench.run(text, score=Span(2 * size, 2 * size + 4))
    # Calls of one step, new to the engine: the first computes what the others take.
    step = fresh(5 * size)
    async with anyio.create_task_group() as group:
        for number in range(4):
            group.start_soon(bench.run, (*step, number))
    await bench.reset()
    await bench.run((*text, *tail))
    counted = bench.engine.stats().computed_tokens - before.computed_tokens

    log = RunLog.load(bench.directory)
    causes = explained(log)
    assert sum(causes.values()) == counted
    assert causes[Cause.EVICTED] == 0
    by_call = [one.tokens for one in log.causes]
    assert by_call[1][Cause.FIRST_USE] == 0, "prompt and answer were cached"
    assert by_call[2][Cause.BLOCK_ROUNDING] == size, "the last token costs its block"
    assert by_call[3][Cause.SKIPPED] == 6 * size
    assert by_call[4][Cause.SALT] == 6 * size
    assert by_call[5][Cause.LAYOUT] >= 5 * size
    assert log.causes[6].call.runs == 2
    assert by_call[6][Cause.SKIPPED] == 5 * size
    assert [tokens[Cause.FIRST_USE] for tokens in by_call[7:11]] == [5 * size, 0, 0, 0]
    assert by_call[11][Cause.FIRST_USE] == 6 * size, "nothing was left after the reset"


async def test_what_a_small_cache_threw_away_is_evicted(tmp_path: Path, model_dir: Path) -> None:
    text, directory = tmp_path / "manual.txt", tmp_path / "run"
    text.write_text(topics["try"] + topics["with"])
    settings = {
        "engine.kv_cache_gib": 0.07,  # about 3,200 tokens: less than the text and the prefix
        "engine.window_tokens": 2048,
        "engine.max_running": 4,
        "search.chunk_tokens": CHUNK_TOKENS,
    }
    ended = await anyio.run_process(
        [
            *(sys.executable, "-m", "rlm_runtime", "run", text, "-q", FIRST, "-q", SECOND),
            *("--exhaustive", "--model", model_dir, "--json", "--run-dir", directory),
            *(word for key, value in settings.items() for word in ("--set", f"{key}={value}")),
        ],
        check=False,
        stderr=subprocess.PIPE,
    )
    assert ended.returncode == 0, ended.stderr.decode()
    live = json.loads(ended.stdout)["figures"]

    log = RunLog.load(directory)
    causes, figures = explained(log), log.figures()
    assert log.notes == ()
    assert causes[Cause.EVICTED] > 1000
    assert sum(causes.values()) == figures["computed_tokens"] == figures["engine_computed_tokens"]
    # Evictions and second runs are all that kept it from its ceiling.
    ceiling = sum(one.ceiling_tokens for one in log.causes)
    assert figures["cached_tokens"] == ceiling - causes[Cause.EVICTED] - causes[Cause.SKIPPED]
    assert (figures["prefill_redundancy"] or 0) > 1
    # The live session knew the same but for the layout, which it counts as first use.
    unknown = {"miss_layout_tokens", "miss_first_use_tokens", "miss_block_rounding_tokens"}
    assert live["miss_layout_tokens"] is None
    assert {k: v for k, v in figures.items() if k not in unknown} == {
        k: v for k, v in live.items() if k not in unknown
    }
    first_uses = [f"miss_{name}_tokens" for name in ("first_use", "layout", "block_rounding")]
    assert sum(figures[name] or 0 for name in first_uses) == sum(
        live[name] or 0 for name in first_uses
    )

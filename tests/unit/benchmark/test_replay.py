"""A recorded run made once more, on an engine whose cache is known beforehand."""

from __future__ import annotations

from dataclasses import replace as changed
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rlm_runtime.api import Internals
from rlm_runtime.benchmark.replay import plan, replay
from rlm_runtime.engine.base import GenerateRequest, Span
from rlm_runtime.errors import EngineDead, EngineError, InputError
from rlm_runtime.profiler.run_log import RunLog
from rlm_runtime.prompt import Prompt
from rlm_runtime.scheduler import Call, Job, Scheduler
from rlm_runtime.tracing import (
    CacheReset,
    Recorder,
    Segment,
    blob_digest,
    ids_to_blob,
    run_started,
)
from rlm_runtime.types import AgentId, RunId

if TYPE_CHECKING:
    from tests.unit.benchmark.conftest import CachingEngine, RecordedRun, Rig

pytestmark = pytest.mark.anyio

SHARED = 64
MakeEngine = type["CachingEngine"]


def call(*own: int, **more: object) -> Call:
    ids = (*range(1, SHARED + 1), *own)
    segments = (Segment("shared", 0, SHARED), Segment("task", SHARED, len(ids)))
    return Call(prompt=Prompt(ids, segments), agent_id=AgentId("a1"), label="test", **more)  # type: ignore[arg-type] # any field


def on(engine: CachingEngine, rig: Rig) -> Internals:
    """A session's parts around another engine, with a log of their own."""
    recorder = Recorder(None)
    scheduler = Scheduler(engine, recorder, shared_tokens=SHARED, max_queued_calls=100)
    return changed(rig.parts, engine=engine, scheduler=scheduler, recorder=recorder)


@pytest.fixture
async def log(make_engine: MakeEngine, tmp_path: Path) -> RunLog:
    """A run of a batch, a call behind it, a cold cache, and a call of several ids."""
    engine = make_engine()
    with Recorder(tmp_path / "recorded") as recorder:
        scheduler = Scheduler(engine, recorder, shared_tokens=SHARED, max_queued_calls=100)
        recorder.emit(run_started(RunId("r"), "c"))
        batch = [call(*[900 + n] * 40) for n in range(4)]
        await scheduler.run_all(Job(), batch)
        await scheduler.run(Job(), call(*[900] * 40, 5, max_tokens=3))
        await scheduler.run(Job(), call(*[901] * 40, 6, score=Span(SHARED + 40, SHARED + 41)))
        await scheduler.run(Job(), call(*[902] * 40, 6, cache_salt="own", read_cache=False))
        await engine.reset_prefix_cache()
        recorder.emit(CacheReset(at_s=recorder.now()))
        await scheduler.run(Job(), call(*[900] * 40, 5, max_tokens=3, temperature=0.5))
    return RunLog.load(tmp_path / "recorded")


async def test_the_same_engine_does_the_same(
    rig: Rig, log: RunLog, make_engine: MakeEngine
) -> None:
    engine = make_engine(can_force=True)
    done = await replay(on(engine, rig), plan(log))
    assert len(done) == 8
    assert [(one.differs, one.error) for one in done] == [(False, "")] * 8
    assert all(one.has_same_ids for one in done)
    assert engine.most_running == 4
    assert engine.resets == 2


async def test_what_was_asked_is_asked_again_with_its_ids(
    rig: Rig, log: RunLog, make_engine: MakeEngine
) -> None:
    engine = make_engine(can_force=True)
    await replay(on(engine, rig), plan(log))
    several, scored, salted, sampled = engine.seen[4:]
    assert (several.script, several.max_tokens, several.ignore_eos) == ((7, 7, 7), 3, False)
    assert (scored.score, scored.script, scored.max_tokens) == (
        Span(SHARED + 40, SHARED + 41), (), 1
    )  # fmt: skip
    assert salted.cache_salt
    assert not salted.read_cache
    assert sampled.temperature == 0.5


async def test_a_cache_that_keeps_less_shows_where(
    rig: Rig, log: RunLog, make_engine: MakeEngine
) -> None:
    engine = make_engine(can_force=True, block_size=48)
    done = await replay(on(engine, rig), plan(log))
    differing = {one.recorded.request_id: one.computed_more for one in done if one.differs}
    # Of 64 shared tokens one block of 48 is whole; longer prompts end at 96 with both.
    assert differing == {"r2": 16, "r3": 16, "r4": 16}


async def test_calls_run_beside_those_that_they_ran_beside(
    rig: Rig, recorded: RecordedRun, make_engine: MakeEngine
) -> None:
    # r1 runs from 1.0 to 4.0; r2 from 2.0 to 3.0; r3 begins when r2 has ended, r4 when all have.
    spans = {1: (1.0, 4.0), 2: (2.0, 3.0), 3: (3.5, 5.0), 4: (6.0, 7.0)}
    for number, (began, ended) in spans.items():
        recorded.call(
            number, [number] * 9, 0, admitted_at_s=began, submitted_at_s=began, at_s=ended,
            output_blob=blob(recorded, 7),
        )  # fmt: skip
    started: list[int] = []
    beside: dict[int, int] = {}
    engine = make_engine(can_force=True)

    def on_request(request: GenerateRequest) -> None:
        number = request.prompt_ids[-1]
        started.append(number)
        beside[number] = engine.running

    engine.on_request = on_request
    await replay(on(engine, rig), plan(recorded.log()))
    assert started == [1, 2, 3, 4]
    assert beside[2] == 2
    assert beside[4] == 1


def blob(recorded: RecordedRun, *ids: int) -> str:
    data = ids_to_blob(ids)
    (recorded.directory / "blobs" / blob_digest(data)).write_bytes(data)
    return blob_digest(data)


async def test_a_call_that_is_refused_is_said_and_the_others_are_made(
    rig: Rig, log: RunLog, make_engine: MakeEngine
) -> None:
    def refuse(request: GenerateRequest) -> None:
        if request.score is not None:
            raise EngineError("No scores today.")

    engine = make_engine(can_force=True, on_request=refuse)
    done = await replay(on(engine, rig), plan(log))
    assert [one.error for one in done if one.error] == ["No scores today."]
    assert len(done) == 8


async def test_an_engine_that_dies_ends_it_with_its_cause(
    rig: Rig, log: RunLog, make_engine: MakeEngine
) -> None:
    def die(request: GenerateRequest) -> None:
        raise EngineDead("killed.")

    with pytest.raises(EngineDead, match="killed"):
        await replay(on(make_engine(can_force=True, on_request=die), rig), plan(log))


async def test_an_engine_that_can_not_force_is_refused(rig: Rig, log: RunLog) -> None:
    with pytest.raises(InputError, match="forced_decode"):
        await replay(rig.parts, plan(log))


def test_calls_without_an_end_or_without_ids_are_left_out(recorded: RecordedRun) -> None:
    kept = recorded.call(1, [1] * 9, 0, output_blob=blob(recorded, 7))
    recorded.call(2, [2] * 9, 0, output_blob=None)
    recorded.call(3, [3] * 9, 0, outcome="cancelled", output_blob=kept.output_blob)
    lost = recorded.call(4, [4] * 9, 0, output_blob=kept.output_blob)
    (recorded.directory / "blobs" / str(lost.segments[1].digest)).unlink()
    found = plan(recorded.log())
    assert (found.calls, found.left_out) == (1, 3)
    assert "did not say what they scored" in found.notes[0]


def test_a_run_with_nothing_to_replay_is_refused(recorded: RecordedRun) -> None:
    recorded.call(1, [1] * 9, 0)
    with pytest.raises(InputError, match="no call that can be replayed"):
        plan(recorded.log())

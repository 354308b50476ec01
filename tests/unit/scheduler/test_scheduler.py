"""Calls through the scheduler, on an engine that obeys the test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest

from rlm_runtime.engine.base import Span
from rlm_runtime.errors import EngineDead, LimitExceeded
from rlm_runtime.prompt import Prompt
from rlm_runtime.scheduler import Call, CallResult, Job, Scheduler
from rlm_runtime.tracing import AnyEvent, CallFinished, Recorder, Segment
from rlm_runtime.types import AgentId, Limits, StopReason

if TYPE_CHECKING:
    from tests.unit.conftest import FakeEngine

pytestmark = pytest.mark.anyio

SHARED = 40


class Bench:
    """A scheduler with its events."""

    def __init__(self, engine: FakeEngine, max_queued: int = 100) -> None:
        self.engine = engine
        self.recorder = Recorder(None)
        self.calls: list[CallFinished] = []
        self.recorder.subscribe(self.hear)
        self.scheduler = Scheduler(
            engine, self.recorder, shared_tokens=SHARED, max_queued_calls=max_queued
        )

    def hear(self, event: AnyEvent) -> None:
        if isinstance(event, CallFinished):
            self.calls.append(event)


@pytest.fixture
def bench(fake_engine: FakeEngine) -> Bench:
    return Bench(fake_engine)


def call(own: int, *, group: str | None = None, **more: object) -> Call:
    """A prompt of the shared prefix, a 20-token document in a group, and a task made of `own`."""
    segments = [Segment("shared", 0, SHARED)]
    ids = (1,) * SHARED
    if group is not None:
        segments.append(Segment("document", len(ids), len(ids) + 20))
        ids += tuple(ord(c) for c in group) * 20
    segments.append(Segment("task", len(ids), len(ids) + 2))
    prompt = Prompt((*ids, 900, own), tuple(segments))
    return Call(prompt=prompt, agent_id=AgentId("a1"), label="test", group=group, **more)  # type: ignore[arg-type] # any field


async def run_together(
    bench: Bench, job: Job, calls: list[Call]
) -> list[CallResult | LimitExceeded]:
    """Run a batch on an engine that answers nothing before the whole batch has arrived."""
    bench.engine.gate = gate = anyio.Event()
    outcomes: list[CallResult | LimitExceeded] = []

    async def run() -> None:
        outcomes.extend(await bench.scheduler.run_all(job, calls))

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        await anyio.wait_all_tasks_blocked()
        gate.set()
    return outcomes


async def test_a_batch_comes_back_in_its_own_order(bench: Bench) -> None:
    calls = [call(i, group="ab"[i % 2]) for i in range(9)]
    outcomes = await run_together(bench, Job(), calls)
    assert all(isinstance(o, CallResult) for o in outcomes)
    assert len(bench.calls) == 9
    assert bench.engine.most_running == bench.engine.max_running


async def test_all_calls_about_a_chunk_go_before_the_next_chunk(fake_engine: FakeEngine) -> None:
    fake_engine.max_running = 1
    bench = Bench(fake_engine)
    calls = [call(q * 10 + d, group="abc"[d]) for q in range(3) for d in range(3)]
    await bench.scheduler.run_all(Job(), calls)
    assert "".join(c.group or "" for c in bench.calls) == "aaabbbccc"


async def test_identical_calls_in_flight_run_once(bench: Bench) -> None:
    outcomes = await run_together(bench, Job(), [call(1), call(1), call(2), call(1)])
    assert len(bench.engine.seen) == 2
    assert [o.was_shared for o in outcomes if isinstance(o, CallResult)].count(True) == 2
    assert sorted(c.shared_by for c in bench.calls) == [1, 3]


async def test_the_choice_comes_back_and_equal_calls_share_it(bench: Bench) -> None:
    bench.engine.choose = lambda request: request.choices[-1]
    calls = [call(1, choices=("a", "b")), call(1, choices=("a", "b")), call(1, choices=("b", "a"))]
    outcomes = await run_together(bench, Job(), [*calls, call(1)])
    assert [o.choice for o in outcomes if isinstance(o, CallResult)] == ["b", "b", "a", None]
    assert sorted(c.shared_by for c in bench.calls) == [1, 1, 2]
    assert {request.choices for request in bench.engine.seen} == {("a", "b"), ("b", "a"), ()}


async def test_scripts_reach_the_engine_and_their_calls_are_marked_as_forced(bench: Bench) -> None:
    end = 2
    scripts = ((), (5, 6), (5, 6, 8))
    calls = [call(1, max_tokens=3, script=script) for script in scripts]
    outcomes = await run_together(bench, Job(), calls)
    assert [(o.ids, o.facts.finish_reason) for o in outcomes if isinstance(o, CallResult)] == [
        ((7, 7, 7), "length"),
        ((5, 6, end), "stop"),
        ((5, 6, 8), "length"),
    ]
    assert sorted(event.is_forced for event in bench.calls) == [False, True, True]


@pytest.mark.parametrize(
    ("name", "one", "other"),
    [
        ("script", (5, 6), (5, 7)),
        ("grammar", 'root ::= "a"', 'root ::= "b"'),
        ("json_schema", '{"type": "null"}', "{}"),
    ],
)
async def test_calls_that_may_generate_different_texts_are_not_the_same(
    bench: Bench, name: str, one: object, other: object
) -> None:
    calls = [call(1, max_tokens=4, **{name: value}) for value in (one, one, other)]  # type: ignore[arg-type] # any field
    outcomes = await run_together(bench, Job(), [*calls, call(1, max_tokens=4)])
    shared = [o.was_shared for o in outcomes if isinstance(o, CallResult)]
    assert shared == [False, True, False, False]
    sent = [getattr(request, name) for request in bench.engine.seen]
    assert sorted(map(str, sent)) == sorted(map(str, [one, other, type(one)()]))


async def test_samples_stay_samples(bench: Bench) -> None:
    await bench.scheduler.run_all(Job(), [call(1, temperature=0.7) for _ in range(3)])
    assert len(bench.engine.seen) == 3


async def test_who_waits_for_an_equal_call_runs_itself_when_that_one_is_cancelled(
    bench: Bench,
) -> None:
    bench.engine.gate = anyio.Event()
    started, waiting = anyio.Event(), anyio.Event()
    bench.engine.on_request = lambda _: started.set()
    results: list[CallResult] = []

    async def second() -> None:
        waiting.set()
        results.append(await bench.scheduler.run(Job(), call(1)))

    async with anyio.create_task_group() as outer:
        first = anyio.CancelScope()

        async def run_first() -> None:
            with first:
                await bench.scheduler.run(Job(), call(1))

        outer.start_soon(run_first)
        await started.wait()
        outer.start_soon(second)
        await waiting.wait()
        await anyio.wait_all_tasks_blocked()
        first.cancel()
        bench.engine.gate.set()
    assert len(bench.engine.seen) == 2
    assert not results[0].was_shared
    assert [c.outcome for c in bench.calls] == ["cancelled", "ok"]


async def test_cancel_of_a_tree_aborts_its_running_and_waiting_calls(bench: Bench) -> None:
    bench.engine.gate = anyio.Event()
    job = Job()
    full = anyio.Event()
    bench.engine.on_request = lambda _: full.set() if len(bench.engine.seen) == 4 else None

    async def tree() -> None:
        with job.scope:
            await bench.scheduler.run_all(job, [call(i) for i in range(10)])

    async with anyio.create_task_group() as group:
        group.start_soon(tree)
        await full.wait()
        job.cancel()
    assert len(bench.engine.aborted) == 4
    assert bench.engine.running == 0
    assert {c.outcome for c in bench.calls} == {"cancelled"}
    progress = job.progress()
    assert (progress.running, progress.queued) == (0, 0)
    assert job.usage.calls == job.usage.calls_without_facts == 4


async def test_calls_beyond_max_calls_are_refused_and_the_rest_is_kept(bench: Bench) -> None:
    job = Job(Limits(max_calls=3))
    outcomes = await bench.scheduler.run_all(job, [call(i) for i in range(5)])
    refused = [o for o in outcomes if isinstance(o, LimitExceeded)]
    assert len(refused) == 2
    assert {r.stop_reason for r in refused} == {StopReason.BUDGET_CALLS}
    assert len(bench.engine.seen) == job.usage.calls == 3


@pytest.mark.parametrize("budget", [0, 42, 43, 90, 129, 500])
async def test_a_token_budget_is_never_exceeded_and_is_used_up(bench: Bench, budget: int) -> None:
    job = Job(Limits(max_tokens=budget))
    outcomes = await bench.scheduler.run_all(job, [call(i) for i in range(20)])
    done = [o for o in outcomes if isinstance(o, CallResult)]
    used = job.usage.computed_tokens + job.usage.generated_tokens
    assert used == len(done) * 43 <= budget
    assert len(done) == min(20, budget // 43)
    assert len(bench.engine.seen) == len(done)


async def test_a_reservation_that_may_be_given_back_is_waited_for(bench: Bench) -> None:
    """Scored calls reserve two runs; the second call fits only once the first has settled."""
    prompt = call(1).prompt
    need = 43
    job = Job(Limits(max_tokens=3 * need))
    scored = [call(i, score=Span(len(prompt.ids) - 1, len(prompt.ids))) for i in range(2)]
    outcomes = await bench.scheduler.run_all(job, scored)
    assert all(isinstance(o, CallResult) for o in outcomes)


async def test_time_up_ends_running_calls_with_a_typed_reason(bench: Bench) -> None:
    bench.engine.gate = anyio.Event()
    job = Job(Limits(max_seconds=0.01))
    (outcome,) = await bench.scheduler.run_all(job, [call(1)])
    assert isinstance(outcome, LimitExceeded)
    assert outcome.stop_reason is StopReason.BUDGET_SECONDS
    assert bench.engine.running == 0
    assert [c.outcome for c in bench.calls] == ["cancelled"]


async def test_a_dead_engine_ends_the_batch_with_its_cause(bench: Bench) -> None:
    def die(_: object) -> None:
        raise EngineDead("out of memory")

    bench.engine.on_request = die
    with pytest.raises(EngineDead, match="out of memory"):
        await bench.scheduler.run_all(Job(), [call(i) for i in range(10)])
    assert bench.engine.running == 0
    assert {c.error_code for c in bench.calls if c.outcome == "failed"} == {"engine_dead"}


async def test_a_batch_larger_than_the_queue_is_fed_and_finishes(fake_engine: FakeEngine) -> None:
    bench = Bench(fake_engine, max_queued=3)
    outcomes = await bench.scheduler.run_all(Job(), [call(i) for i in range(50)])
    assert len(outcomes) == len(bench.calls) == 50


async def test_the_event_holds_what_the_figures_need(bench: Bench) -> None:
    await bench.scheduler.run(Job(), call(1, group="a", max_tokens=5, cache_salt="tenant"))
    (event,) = bench.calls
    prompt_tokens = SHARED + 20 + 2
    assert event.prompt_tokens == event.computed_tokens == prompt_tokens
    assert event.generated_tokens == 5
    # Whole blocks of prompt + generated but the last id, 8 bytes of digest each, in hex.
    assert len(event.blocks) == (prompt_tokens + 4) // 32 * 16
    assert [(s.kind, s.start, s.end) for s in event.segments] == [
        ("shared", 0, 40),
        ("document", 40, 60),
        ("task", 60, 62),
    ]
    assert event.salt_digest is not None
    assert "tenant" not in event.salt_digest


async def test_a_watcher_sees_every_change(fake_engine: FakeEngine) -> None:
    bench = Bench(fake_engine)
    seen: list[tuple[int, int]] = []
    job = Job(on_progress=lambda p: seen.append((p.queued + p.running, p.done)))
    job.begin_stage("test", 6)
    await run_together(bench, job, [call(i) for i in range(6)])
    assert seen[0] == (0, 0)
    assert seen[-1] == (0, 6)
    assert max(alive for alive, _ in seen) == 6


async def test_a_batch_reaches_the_engine_before_it_answers_any(fake_engine: FakeEngine) -> None:
    """A step made for the first call alone would cost the batch a step."""
    fake_engine.max_running = 16
    bench = Bench(fake_engine)
    await bench.scheduler.run_all(Job(), [call(i) for i in range(16)])
    assert fake_engine.most_running == 16

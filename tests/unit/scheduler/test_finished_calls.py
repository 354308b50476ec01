"""A run that died, and the run that goes on where it ended."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlm_runtime.engine.base import GenerateRequest, Span
from rlm_runtime.errors import InputError, LimitExceeded, TraceError
from rlm_runtime.prompt import Prompt
from rlm_runtime.scheduler import Call, CallResult, FinishedCalls, Job, Scheduler
from rlm_runtime.tracing import (
    AnyEvent,
    CallFinished,
    CallTaken,
    Recorder,
    Segment,
    read_events,
    run_started,
)
from rlm_runtime.tracing.recorder import EVENTS
from rlm_runtime.types import AgentId, Limits

if TYPE_CHECKING:
    from tests.unit.conftest import FakeEngine

pytestmark = pytest.mark.anyio

SHARED = 40
KILLS = 100
ROOT = Path(__file__).parents[3]


def hashed(request: GenerateRequest, below: int = 997) -> int:
    """A number that depends on all of the prompt: what a wrong result changes goes on changing."""
    data = repr((request.prompt_ids, request.choices)).encode()
    return int.from_bytes(blake2b(data, digest_size=4).digest(), "big") % below


def call(*own: int, agent_id: str = "a1", **more: object) -> Call:
    ids = (*(1,) * SHARED, *own)
    segments = (Segment("shared", 0, SHARED), Segment("task", SHARED, len(ids)))
    return Call(prompt=Prompt(ids, segments), agent_id=AgentId(agent_id), label="test", **more)  # type: ignore[arg-type] # any field


@dataclass
class Run:
    """One run, on disk: what it sent, and what it told."""

    engine: FakeEngine
    directory: Path
    recorder: Recorder
    scheduler: Scheduler
    events: list[AnyEvent] = field(default_factory=list)

    @property
    def taken(self) -> list[CallTaken]:
        return [event for event in self.events if isinstance(event, CallTaken)]

    @property
    def asked(self) -> Counter[str]:
        """Finished requests, by what they asked."""
        ended = (e for e in self.events if isinstance(e, CallFinished) and e.outcome == "ok")
        return Counter(str(event.identity) for event in ended)


Begin = Callable[..., "Run"]


@pytest.fixture
def begin(fake_engine: FakeEngine, tmp_path: Path) -> Iterator[Begin]:
    """Begins runs, one after another or as one's continuation."""
    made: list[Run] = []
    set_up(fake_engine)

    def new(resumes: Path | None = None, directory: Path | None = None) -> Run:
        directory = directory or tmp_path / f"run{len(made)}"
        made.append(start(replace(fake_engine, seen=[]), directory, resumes))
        return made[-1]

    yield new
    for run in made:
        run.recorder.close()


def set_up(engine: FakeEngine) -> None:
    """What it makes of a request depends on all of that."""
    engine.answer = lambda request: tuple(hashed(request) + i for i in range(request.max_tokens))
    engine.score = lambda request: -hashed(request) / 7.0
    engine.choose = lambda request: request.choices[hashed(request, len(request.choices))]


def start(engine: FakeEngine, directory: Path, resumes: Path | None = None) -> Run:
    finished = None if resumes is None else FinishedCalls.load(resumes)
    recorder = Recorder(directory)
    scheduler = Scheduler(
        engine, recorder, shared_tokens=SHARED, max_queued_calls=100, finished=finished
    )
    run = Run(engine, directory, recorder, scheduler)
    recorder.subscribe(run.events.append)
    recorder.emit(run_started(recorder.run_id, "c0", resumes))
    return run


async def work(run: Run, job: Job) -> list[object]:
    """Three rounds of two agents; what each call asks depends on all that came before."""
    told: list[object] = [0]
    for turn in range(3):
        seed = (turn, hash_of(told))
        calls = [
            call(*seed, 5, agent_id="a1", group="g", score=Span(SHARED, SHARED + 2)),
            call(*seed, 6, agent_id="a2", choices=("yes", "no", "both"), max_tokens=3),
            call(*seed, 7, agent_id="a1", max_tokens=4),
            call(*seed, 7, agent_id="a2", max_tokens=4),  # the same, at the same time
            call(8, agent_id="a1", max_tokens=2),  # the same in each round
            call(9, agent_id="a1", temperature=1.0, max_tokens=2),
            call(9, agent_id="a2", temperature=1.0, max_tokens=2),
        ]
        for outcome in await run.scheduler.run_all(job, calls):
            assert isinstance(outcome, CallResult)
            told.append((outcome.ids, outcome.logprobs, outcome.choice))
        last = await run.scheduler.run(job, call(*seed, 10, max_tokens=1))
        told.append(last.ids)
    usage = job.usage
    return [*told, usage.calls, usage.prompt_tokens, usage.generated_tokens]


async def finish(run: Run) -> list[object]:
    return await work(run, Job())


def hash_of(told: list[object]) -> int:
    return int.from_bytes(blake2b(repr(told).encode(), digest_size=2).digest(), "big")


async def test_a_run_that_had_ended_asks_nothing_more(begin: Begin) -> None:
    first = begin()
    told = await work(first, Job())
    first.recorder.close()
    again = begin(first.directory)
    assert await work(again, Job()) == told
    assert again.engine.seen == []
    assert len(again.taken) == sum(first.asked.values())
    names = [event.request_id for event in again.taken]
    assert len(set(names)) == len(names)
    assert {event.taken_from for event in again.taken} == {first.recorder.run_id}


class Whole(NamedTuple):
    """A run that came to its end, and what it told."""

    directory: Path
    told: list[object]
    asked: Counter[str]


@contextmanager
def whole_run(engine: FakeEngine) -> Iterator[Whole]:
    folder = Path(tempfile.mkdtemp())
    run = start(replace(engine, seen=[]), folder / "whole")
    told = anyio.run(finish, run)
    run.recorder.close()
    try:
        yield Whole(run.directory, told, run.asked)
    finally:
        shutil.rmtree(folder)


def check_kills(whole: Whole, places: list[int], engine: FakeEngine) -> None:
    """Each run is killed at the next place, and the next one resumes it; the last one ends."""
    with tempfile.TemporaryDirectory() as name:
        directory = whole.directory
        done: Counter[str] = Counter()
        for number, place in enumerate(places):
            killed = Path(name, f"killed{number}")
            shutil.copytree(directory, killed)
            log = (directory / EVENTS).read_bytes()
            first_line = log.index(b"\n") + 1
            (killed / EVENTS).write_bytes(log[: max(first_line, min(place, len(log)))])
            done += finished_in(killed)
            run = start(replace(engine, seen=[]), Path(name, f"run{number}"), killed)
            try:
                assert anyio.run(finish, run) == whole.told
            finally:
                run.recorder.close()
            assert done + run.asked == whole.asked
            directory = run.directory


def test_a_log_cut_anywhere_goes_on_to_the_same_end(begin: Begin, fake_engine: FakeEngine) -> None:
    with whole_run(fake_engine) as whole:
        log = (whole.directory / EVENTS).read_bytes()
        start_byte = log.index(b"\n") + 1

        @settings(max_examples=KILLS)
        @given(st.lists(st.integers(start_byte, len(log)), min_size=1, max_size=3))
        def kill(places: list[int]) -> None:
            check_kills(whole, sorted(places), fake_engine)

        kill()


async def test_a_run_stopped_at_any_event_goes_on_to_the_same_end(begin: Begin) -> None:
    first = begin()
    told = await work(first, Job())
    first.recorder.close()
    for stop_after in range(1, len(first.events)):
        stopped = begin()
        with anyio.CancelScope() as scope:

            def count(event: AnyEvent, run: Run = stopped, stop: int = stop_after) -> None:
                if len(run.events) > stop:
                    scope.cancel()

            stopped.recorder.subscribe(count)
            await work(stopped, Job())
        stopped.recorder.close()
        resumed = begin(stopped.directory)
        assert await work(resumed, Job()) == told
        assert stopped.asked + resumed.asked == first.asked


def test_a_process_that_is_killed_leaves_a_run_that_can_be_resumed(tmp_path: Path) -> None:
    def run(name: str, resumed: str, kill_at: int) -> subprocess.CompletedProcess[str]:
        program = [sys.executable, "-m", "tests.unit.scheduler.killed_run"]
        arguments = [tmp_path / name, "-" if resumed == "-" else tmp_path / resumed, str(kill_at)]
        return subprocess.run(
            [*program, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
        )

    whole = run("whole", "-", 0)
    assert whole.returncode == 0
    killed = [run("first", "-", 6), run("second", "first", 6), run("third", "second", 6)]
    assert [one.returncode for one in killed] == [-signal.SIGKILL] * 3
    assert run("last", "third", 0).stdout == whole.stdout
    parts = [finished_in(tmp_path / name) for name in ("first", "second", "third", "last")]
    assert sum(parts, Counter()) == finished_in(tmp_path / "whole")
    assert all(parts)


def finished_in(directory: Path) -> Counter[str]:
    """What the finished calls of a log asked, of those that it sent itself."""
    ended = (e for e in read_events(directory) if isinstance(e, CallFinished))
    return Counter(str(event.identity) for event in ended if event.outcome == "ok")


async def test_equal_calls_are_taken_in_order_each_agent_its_own(begin: Begin) -> None:
    first = begin()
    first.engine.answer = lambda _: (100 + len(first.engine.seen),)
    sample = partial(call, 9, temperature=1.0)
    asked = [sample(agent_id=who) for who in ("a2", "a1", "a2", "a1")]
    told = [(await first.scheduler.run(Job(), one)).ids for one in asked]
    assert told == [(101,), (102,), (103,), (104,)]
    first.recorder.close()
    again = begin(first.directory)
    order = [sample(agent_id=who) for who in ("a1", "a2", "a1", "a2", "a3")]
    taken = [(await again.scheduler.run(Job(), one)).ids for one in order]
    assert taken[:4] == [(102,), (101,), (104,), (103,)]
    assert len(again.engine.seen) == 1


@pytest.mark.parametrize(
    "other",
    [
        {"max_tokens": 3},
        {"temperature": 0.5},
        {"temperature": 0.5, "seed": 3},
        {"stop_token_ids": (4,)},
        {"score": Span(SHARED, SHARED + 1)},
        {"score": Span(SHARED + 1, SHARED + 2)},
        {"cache_salt": "s"},
        {"read_cache": False},
        {"ignore_eos": True},
        {"stop_repetition": True},
        {"choices": ("a",)},
        {"choices": ("a", "b")},
        {"script": (5,)},
        {"grammar": "a"},
        {"json_schema": "a"},
    ],
    ids=str,
)
async def test_a_call_that_asks_something_else_is_sent(
    begin: Begin, other: dict[str, object]
) -> None:
    first = begin()
    asked: dict[str, Any] = {"max_tokens": 2, **other}
    await first.scheduler.run(Job(), call(3, 4, max_tokens=2))
    first.recorder.close()
    again = begin(first.directory)
    await again.scheduler.run(Job(), call(3, 4, **asked))
    await again.scheduler.run(Job(), call(3, 5, max_tokens=2))
    assert len(again.engine.seen) == 2
    same = call(3, 4, max_tokens=2, priority=3, group="g", depth=2, agent_id="other")
    await again.scheduler.run(Job(), same)
    assert len(again.engine.seen) == 2


def test_what_can_never_be_text_has_an_identity_too() -> None:
    assert call(1, grammar="\udcff").identity() != call(1, grammar="\udcfe").identity()


async def test_calls_that_failed_or_were_cancelled_are_sent_again(begin: Begin) -> None:
    first = begin()

    def fail(request: GenerateRequest) -> None:
        raise InputError("The grammar is refused.")

    first.engine.on_request = fail
    with pytest.raises(InputError):
        await first.scheduler.run(Job(), call(1))
    first.recorder.close()
    again = begin(first.directory)
    await again.scheduler.run(Job(), call(1))
    assert len(again.engine.seen) == 1


async def test_a_limit_counts_what_was_taken_as_if_it_had_been_sent(begin: Begin) -> None:
    first, job = begin(), Job(Limits(max_calls=2))
    for number in range(2):
        await first.scheduler.run(job, call(number))
    first.recorder.close()
    again, resumed = begin(first.directory), Job(Limits(max_calls=2))
    for number in range(2):
        await again.scheduler.run(resumed, call(number))
    assert resumed.usage == job.usage
    with pytest.raises(LimitExceeded):
        await again.scheduler.run(resumed, call(7))
    assert again.engine.seen == []


async def test_calls_that_shared_a_request_cost_nothing_more_when_they_come_one_by_one(
    begin: Begin,
) -> None:
    first, job = begin(), Job()
    await first.scheduler.run_all(job, [call(1), call(1), call(1)])
    assert job.usage.calls == 1
    first.recorder.close()
    again, resumed = begin(first.directory), Job()
    results = [await again.scheduler.run(resumed, call(1)) for _ in range(3)]
    assert [result.was_shared for result in results] == [False, True, True]
    assert (resumed.usage, again.engine.seen) == (job.usage, [])
    assert not (await again.scheduler.run(resumed, call(1))).was_shared
    assert len(again.engine.seen) == 1


async def test_a_run_that_goes_on_is_not_resumed(begin: Begin) -> None:
    run = begin()
    with pytest.raises(InputError, match="goes on still"):
        FinishedCalls.load(run.directory)
    run.recorder.close()
    FinishedCalls.load(run.directory)


@pytest.mark.parametrize("content", [b"", b'{"event": "run_st', b"no log\n", None])
def test_a_run_without_a_beginning_can_not_be_resumed(
    tmp_path: Path, content: bytes | None
) -> None:
    if content is not None:
        (tmp_path / EVENTS).write_bytes(content)
    with pytest.raises(TraceError):
        FinishedCalls.load(tmp_path)


async def test_of_a_damaged_run_what_is_whole_is_taken(begin: Begin) -> None:
    first = begin()
    for number in range(4):
        scored = call(number, 3, score=Span(SHARED, SHARED + 2))
        await first.scheduler.run(Job(), scored)
    first.recorder.close()
    events = [e for e in first.events if isinstance(e, CallFinished)]
    assert len({event.scores_blob for event in events}) == 4
    blobs = first.directory / "blobs"
    (blobs / str(events[0].output_blob)).write_bytes(b"other")
    (blobs / str(events[1].scores_blob)).unlink()
    log = first.directory / EVENTS
    lines = log.read_bytes().splitlines(keepends=True)
    lines[3] = lines[3][:40] + b"\n"  # the third call
    log.write_bytes(b"".join(lines) + b'{"event": "of another version"}\n{"half a l')
    finished = FinishedCalls.load(first.directory)
    assert len(finished) == 1
    assert sorted(finished.notes) == [
        f"Damaged lines in the log of {first.recorder.run_id}, not used: 1.",
        "The results of 2 finished calls were not kept whole.",
    ]


async def test_calls_of_a_version_that_did_not_say_what_they_ask_are_sent(begin: Begin) -> None:
    first = begin()
    await first.scheduler.run(Job(), call(1))
    first.recorder.close()
    log = first.directory / EVENTS
    identity = next(e.identity for e in first.events if isinstance(e, CallFinished))
    log.write_text(log.read_text().replace(f'"identity":"{identity}"', '"other":1'))
    finished = FinishedCalls.load(first.directory)
    assert len(finished) == 0
    assert "did not say what they asked" in finished.notes[0]


async def test_what_a_resumed_run_had_not_come_to_yet_is_found_in_the_run_before_it(
    begin: Begin, tmp_path: Path
) -> None:
    odd = tmp_path / "a b\udcff#?%"
    first = begin(directory=odd)
    for number in range(3):
        await first.scheduler.run(Job(), call(number))
    first.recorder.close()
    second = begin(odd)
    await second.scheduler.run(Job(), call(0))
    await second.scheduler.run(Job(), call(3))
    second.recorder.close()
    third = begin(second.directory)
    for number in range(4):
        await third.scheduler.run(Job(), call(number))
    assert third.engine.seen == []
    third.recorder.close()
    shutil.rmtree(odd)
    alone = FinishedCalls.load(second.directory)
    assert len(alone) == 2
    assert "had resumed can't be used" in alone.notes[0]
    # The third took all: it needs no other.
    assert len(FinishedCalls.load(third.directory)) == 4


async def test_runs_that_name_each_other_end_somewhere(begin: Begin, tmp_path: Path) -> None:
    for one, other in (("a", "b"), ("b", "a")):
        with Recorder(tmp_path / one) as recorder:
            recorder.emit(run_started(recorder.run_id, "c0", tmp_path / other))
    assert len(FinishedCalls.load(tmp_path / "a")) == 0

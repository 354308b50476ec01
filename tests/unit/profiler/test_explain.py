"""Findings of runs that were made by hand: what is one break, what it cost, and whose it is."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rlm_runtime.profiler import Cause, RunLog
from rlm_runtime.profiler.divergence import Kind, Vocabulary
from rlm_runtime.profiler.explain import CAUSES, KINDS, Explanation, explain
from rlm_runtime.tracing import Recorder, RunStarted, Segment, ids_to_blob

if TYPE_CHECKING:
    from tests.unit.profiler.conftest import Rig

START = RunStarted(
    at_s=0.0,
    schema_version=1,
    run_id="run",
    started_at="2026-01-01T00:00:00.000+00:00",
    package_version="0",
    python="3",
    machine="m",
    config_digest="c",
)
LETTERS = Vocabulary(lambda ids: "".join(map(chr, ids)), frozenset())
RULES = "".join(f"Rule {chr(97 + i)} is kept by all agents of the run. " for i in range(8))
BOOK = "".join(f"Then in {w} they walked on. " for w in ("fog", "snow", "rain", "hail", "wind"))
TALE = "He said that no one but the miller had ever seen the tower burn, and laughed at them all."

Say = Callable[..., str]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def say(rig: Rig, directory: Path) -> Say:
    """Records a call whose prompt has these parts; returns its request id."""
    recorder = Recorder(directory)
    recorder.emit(START)
    written = 0

    def call(*parts: tuple[str, str], generated: Sequence[int] = (0,), **fields: Any) -> str:
        nonlocal written
        ids: tuple[int, ...] = ()
        segments = []
        for kind, text in parts:
            more = tuple(map(ord, text))
            digest = recorder.blob(ids_to_blob(more))
            segments.append(Segment(kind, len(ids), len(ids) + len(more), digest))
            ids += more
        output = recorder.blob(ids_to_blob(generated))
        made = rig.call(ids, generated, segments=tuple(segments), output_blob=output, **fields)
        for event in rig.events[written:]:
            recorder.emit(event)
        written = len(rig.events)
        return made.request_id

    return call


def explained(directory: Path, vocabulary: Vocabulary | None = LETTERS) -> Explanation:
    log = RunLog.load(directory)
    found = explain(log, vocabulary)
    by_cause = {share.cause: share.tokens for share in found.causes}
    assert sum(by_cause.values()) == log.figures()["computed_tokens"]
    assert sum(f.tokens for f in found.findings) == by_cause.get(Cause.LAYOUT, 0)
    return found


def test_a_hundred_calls_with_a_value_on_top_are_one_finding(say: Say, directory: Path) -> None:
    for number in range(101):
        say(("shared", f"Call {number}. {RULES}"), ("task", "Go on."), agent=f"a{number % 3}")
    found = explained(directory)
    (finding,) = found.findings
    assert finding.kind is Kind.VARYING_VALUE
    # Where the first digits are alike, the next one differs.
    assert len(finding.calls) == 100
    assert (finding.first_position, finding.last_position) == (5, 6)
    assert finding.tokens == sum(call.tokens for call in finding.calls)
    assert finding.tokens > 100 * (len(RULES) - 32)
    assert finding.example.earlier_request_id == "r0"
    assert found.causes[0].cause is Cause.LAYOUT
    assert found.causes[0].share == pytest.approx(
        finding.tokens / sum(s.tokens for s in found.causes)
    )


def test_values_at_two_places_are_two_findings(say: Say, directory: Path) -> None:
    for number in (1, 2):
        say(("shared", f"Day {number}. {RULES}"))
    for number in (3, 4):
        say(("shared", f"{BOOK} Page {number}. {TALE}"))
    assert [(f.kind, f.first_position, f.last_position) for f in explained(directory).findings] == [
        (Kind.VARYING_VALUE, 4, 4),
        (Kind.VARYING_VALUE, len(BOOK) + 6, len(BOOK) + 6),
    ]


def test_the_example_is_the_pair_that_shares_the_most(say: Say, directory: Path) -> None:
    say(("shared", "Day 1. "), ("document", RULES + BOOK))
    say(("shared", "Day 2. "), ("document", BOOK))
    most = say(("shared", "Day 3. "), ("document", RULES))
    found = explained(directory)
    (value,) = [f for f in found.findings if f.kind is Kind.VARYING_VALUE]
    assert (value.example.request_id, value.example.earlier_request_id) == (most, "r0")
    assert value.example.divergence.position == 4
    assert value.example.here.texts(LETTERS)[:2] == ("Day ", "3")


def test_the_calls_of_a_cause_stand_biggest_first_with_their_documents(
    say: Say, directory: Path
) -> None:
    say(("document", RULES[:40]), label="short", group="g")
    say(("task", RULES + BOOK), label="long", group="g")
    (first_use,) = [s for s in explained(directory).causes if s.cause is Cause.FIRST_USE]
    assert [(call.label, call.request_id) for call in first_use.calls] == [
        ("long", "r1"),
        ("short", "r0"),
    ]
    log = RunLog.load(directory)
    assert first_use.calls[0].document == "g"
    assert first_use.calls[1].document == log.causes[0].call.segments[0].digest


def test_text_that_was_generated_before_counts_as_the_earlier_calls_answer(
    say: Say, directory: Path
) -> None:
    say(("task", "Tell me."), generated=(*map(ord, BOOK), 0))
    say(("task", "Here: "), ("answer", BOOK))
    (finding,) = explained(directory).findings
    divergence = finding.example.divergence
    assert (divergence.here.segment, divergence.earlier.segment) == ("task", "task")
    assert finding.example.earlier.texts(LETTERS)[2] == BOOK[:8]


def test_request_ids_that_repeat_under_a_new_engine_are_told_apart(
    rig: Rig, say: Say, directory: Path
) -> None:
    say(("shared", f"Old 7. {BOOK}"), request_id="r1")
    rig.engine()
    say(("shared", f"Day 1. {RULES}"), request_id="r1")
    say(("shared", f"Day 2. {RULES}"), request_id="r2")
    (finding,) = explained(directory).findings
    assert finding.example.divergence.position == 4
    assert len(finding.calls) == 1


def test_without_ids_nothing_is_said_about_the_layout(say: Say, directory: Path) -> None:
    for number in (1, 2):
        say(("shared", f"Day {number}. {RULES}"))
    shutil.rmtree(directory / "blobs")
    found = explained(directory)
    assert found.findings == ()
    assert Cause.LAYOUT not in {share.cause for share in found.causes}


def test_a_run_without_calls_has_no_causes(directory: Path) -> None:
    with Recorder(directory) as recorder:
        recorder.emit(START)
    assert explained(directory) == Explanation((), ())


def test_every_cause_and_every_kind_has_advice() -> None:
    assert set(CAUSES) == set(Cause)
    assert set(KINDS) == set(Kind)
    assert all(
        text.endswith(".") for advice in (*CAUSES.values(), *KINDS.values()) for text in advice
    )

"""A run is read back as it is: whole, cut short, or without its contents."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from rlm_runtime.errors import TraceError
from rlm_runtime.profiler import Cause, Ledger, RunLog
from rlm_runtime.tracing import Recorder, RunFinished, RunStarted, Segment, ids_to_blob
from rlm_runtime.tracing.recorder import EVENTS

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
END = RunFinished(
    at_s=9.0,
    outcome="ok",
    error_code=None,
    engine_prompt_tokens=180,
    engine_cached_tokens=0,
    engine_computed_tokens=180,
    engine_generated_tokens=2,
    engine_preemptions=0,
    wall_s=9.0,
)


@pytest.fixture
def run(rig: Rig, tmp_path: Path) -> Path:
    """A run whose second call has the text of the first behind another beginning."""
    recorder = Recorder(tmp_path / "run")
    recorder.emit(START)
    recorder.emit(rig.events[0])

    def call(*parts: Sequence[int]) -> None:
        segments, start = [], 0
        for part in parts:
            digest = recorder.blob(ids_to_blob(part))
            segments.append(Segment("document", start, start + len(part), digest))
            start += len(part)
        made = rig.call([i for part in parts for i in part], generated=(5, 6), cached=0)
        output = recorder.blob(ids_to_blob((5, 6)))
        recorder.emit(msgspec.structs.replace(made, segments=tuple(segments), output_blob=output))

    call(range(20), range(100, 160))
    call(range(1000, 1040), range(100, 160))
    recorder.emit(END)
    recorder.close()
    return tmp_path / "run"


def test_a_whole_run_has_all_its_figures(run: Path) -> None:
    log = RunLog.load(run)
    assert log.notes == ()
    assert log.has_blobs
    figures = log.figures()
    assert figures["miss_layout_tokens"] == 56, "60 tokens, four of them in no whole block"
    assert figures["miss_first_use_tokens"] == 80 + 40
    assert figures["computed_tokens"] == figures["engine_computed_tokens"] == 180
    assert log.agent_figures("a")["miss_layout_tokens"] == 56
    assert [one.tokens[Cause.LAYOUT] for one in log.causes] == [0, 56]
    assert RunLog.load(run / EVENTS).figures() == figures


def test_the_ids_of_a_call_are_those_of_its_parts(run: Path) -> None:
    log = RunLog.load(run)
    call = log.causes[1].call
    assert log.prompt_ids(call) == (*range(1000, 1040), *range(100, 160))
    assert log.output_ids(call) == (5, 6)


def test_without_blobs_the_layout_is_unknown_and_all_else_as_in_the_ledger(run: Path) -> None:
    shutil.rmtree(run / "blobs")
    log = RunLog.load(run)
    assert not log.has_blobs
    assert "3 of 3 parts of prompts were not kept" in log.notes[0], "two prompts share one"
    figures = log.figures()
    assert figures["miss_layout_tokens"] is None
    assert figures["miss_first_use_tokens"] == 80 + 96
    assert figures == Ledger(log.events).figures()
    assert log.prompt_ids(log.causes[0].call) is None


def test_a_damaged_blob_is_noted_and_the_layout_is_unknown(run: Path) -> None:
    log = RunLog.load(run)
    digest = log.causes[1].call.segments[0].digest
    assert digest is not None
    (run / "blobs" / digest).write_bytes(b"????")
    log = RunLog.load(run)
    assert log.figures() == Ledger(log.events).figures()
    assert not log.has_blobs
    assert any("damaged" in note for note in log.notes)


def test_a_log_may_end_anywhere(run: Path) -> None:
    whole = (run / EVENTS).read_bytes()
    ends = [at for at, byte in enumerate(whole) if byte == ord("\n")]
    for cut in range(ends[-3] + 1, len(whole)):
        (run / EVENTS).write_bytes(whole[:cut])
        log = RunLog.load(run)
        # A last line without its line break is whole all the same.
        assert len(log.events) == sum(end <= cut for end in ends)
        assert any("did not end in order" in note for note in log.notes) == (cut < ends[-1])
        is_torn = cut not in ends and cut - 1 not in ends
        assert any("written half" in note for note in log.notes) == is_torn


def test_a_run_that_died_has_no_counters_of_the_engine(run: Path) -> None:
    lines = (run / EVENTS).read_bytes().splitlines(keepends=True)
    (run / EVENTS).write_bytes(b"".join(lines[:-1]))
    log = RunLog.load(run)
    assert "did not end in order" in log.notes[0]
    figures = log.figures()
    assert figures["engine_computed_tokens"] is None
    assert figures["computed_tokens"] == 180
    assert figures["preempted_tokens"] == 0, "no call was preempted"


def test_an_empty_log_has_no_figures(run: Path) -> None:
    (run / EVENTS).write_bytes(b"")
    log = RunLog.load(run)
    assert log.notes == ("The log is empty: the run died at once.",)
    assert log.figures()["hit_rate_ceiling"] is None
    assert log.causes == ()


def test_a_later_schema_is_refused_with_what_to_do(run: Path) -> None:
    text = (run / EVENTS).read_text().replace('"schema_version":1', '"schema_version":2')
    (run / EVENTS).write_text(text)
    with pytest.raises(TraceError, match=r"schema version 2.*Read it with the version"):
        RunLog.load(run)


def test_events_of_a_later_minor_version_are_left_out_and_noted(run: Path) -> None:
    lines = (run / EVENTS).read_text().splitlines()
    lines.insert(2, '{"event":"dream_dreamt","at_s":1.0}')
    (run / EVENTS).write_text("\n".join(lines) + "\n")
    log = RunLog.load(run)
    assert len(log.events) == len(lines) - 1
    assert log.notes == ("1 event is of a kind that this version does not know; it is left out.",)


def test_a_directory_without_a_log_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="Name a run directory"):
        RunLog.load(tmp_path)


def test_hits_from_outside_the_log_and_misses_without_cause_are_noted(
    run: Path,
) -> None:
    lines = (run / EVENTS).read_text()
    changed = lines.replace(
        '"cached_tokens":0,"computed_tokens":100', '"cached_tokens":32,"computed_tokens":68'
    ).replace('"cached_tokens":0,"computed_tokens":80', '"cached_tokens":0,"computed_tokens":79')
    (run / EVENTS).write_text(changed)
    log = RunLog.load(run)
    assert log.figures()["miss_unexplained_tokens"] == 79
    assert any("1 call took more from the cache" in note for note in log.notes)
    assert any("79 computed tokens have no known cause" in note for note in log.notes)

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from rlm_runtime.errors import TraceError
from rlm_runtime.tracing import (
    SCHEMA_VERSION,
    AgentFinished,
    AnyEvent,
    CacheReset,
    CallFinished,
    Recorder,
    RunFinished,
    Segment,
    ValueStored,
    read_events,
    run_started,
)
from rlm_runtime.types import RunId

START = run_started(RunId("r"), "c0")
CALL = CallFinished(
    at_s=2.0,
    request_id="r1",
    agent_id="a",
    label="rank",
    depth=0,
    group=None,
    outcome="cancelled",
    error_code=None,
    submitted_at_s=1.0,
    admitted_at_s=1.0,
    segments=(Segment("shared", 0, 3, "d1"), Segment("turn", 3, 5)),
    blocks="ab" * 16,
    output_blob=None,
    reads_cache=True,
    salt_digest=None,
    max_tokens=1,
    temperature=0.0,
    shared_by=1,
    prompt_tokens=None,
    cached_tokens=None,
    computed_tokens=None,
    generated_tokens=None,
    runs=None,
    ttft_s=None,
    queue_s=None,
    prefill_s=None,
    decode_s=None,
    preemptions=None,
    scheduled_at_s=None,
    finished_at_s=None,
    finish_reason=None,
)
EVENTS: list[AnyEvent] = [
    START,
    ValueStored(
        at_s=1.0,
        name="отчёт",
        version=1,
        kind="str",
        size_bytes=9,
        digest="d",
        writer="user",
        tokens=3,
        is_estimated=False,
    ),
    CALL,
    AgentFinished(
        at_s=3.0, agent_id="a", stop_reason="final", found=False, result_blob=None, wall_s=3.0
    ),
]
FINISHED = RunFinished(
    at_s=4.0,
    outcome="ok",
    error_code=None,
    engine_prompt_tokens=None,
    engine_cached_tokens=None,
    engine_computed_tokens=None,
    engine_generated_tokens=None,
    engine_preemptions=None,
    wall_s=4.0,
)


def line(event: AnyEvent) -> bytes:
    return msgspec.json.encode(event) + b"\n"


LOG = b"".join(line(event) for event in EVENTS)


def log(folder: Path, data: bytes) -> Path:
    file = folder / "events.jsonl"
    file.write_bytes(data)
    return file


def refusal(path: Path) -> str:
    with pytest.raises(TraceError) as caught:
        list(read_events(path))
    return str(caught.value)


def test_events_come_back_as_they_were_emitted(tmp_path: Path) -> None:
    with Recorder(tmp_path / "run") as recorder:
        for event in [*EVENTS, FINISHED]:
            recorder.emit(event)
    assert list(read_events(tmp_path / "run")) == [*EVENTS, FINISHED]
    assert list(read_events(tmp_path / "run" / "events.jsonl")) == [*EVENTS, FINISHED]


@given(st.integers(0, len(LOG)))
@example(0)
@example(len(LOG))
@example(len(LOG) - 1)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_log_that_ends_anywhere_gives_the_whole_events_before(tmp_path: Path, end: int) -> None:
    file = log(tmp_path, LOG[:end])
    # A last line that lacks only its newline is whole.
    whole = LOG[: end + 1].count(b"\n")
    reader = read_events(file)
    assert list(reader) == EVENTS[:whole]
    assert reader.is_torn == (end not in _ends_of_lines())


def _ends_of_lines() -> set[int]:
    newlines = {index for index, byte in enumerate(LOG) if byte == 0x0A}
    return {0} | newlines | {index + 1 for index in newlines}


def test_a_line_torn_inside_a_character_is_torn(tmp_path: Path) -> None:
    inside = LOG.index("о".encode()) + 1
    reader = read_events(log(tmp_path, LOG[:inside]))
    assert list(reader) == [START]
    assert reader.is_torn


def test_unknown_events_are_passed_over_and_counted(tmp_path: Path) -> None:
    new = b'{"event":"moon_landed","at_s":1,"where":[1,2]}\n'
    reader = read_events(log(tmp_path, line(START) + new + line(CALL) + new))
    assert list(reader) == [START, CALL]
    assert reader.unknown_events == 2


def test_unknown_fields_of_known_events_are_passed_over(tmp_path: Path) -> None:
    extra = b'{"event":"cache_reset","at_s":1.0,"why":"asked"}\n'
    assert list(read_events(log(tmp_path, line(START) + extra)))[1:] == [CacheReset(at_s=1.0)]


@pytest.mark.parametrize("version", [SCHEMA_VERSION + 1, 0])
def test_another_schema_is_refused_with_both_versions(tmp_path: Path, version: int) -> None:
    other = msgspec.structs.replace(START, schema_version=version)
    message = refusal(log(tmp_path, line(other)))
    assert f"version {version};" in message
    assert f"reads version {SCHEMA_VERSION}" in message


def test_another_schema_is_recognised_though_its_fields_differ(tmp_path: Path) -> None:
    message = refusal(log(tmp_path, b'{"event":"run_started","schema_version":7}\n'))
    assert "version 7;" in message


@pytest.mark.parametrize(
    "bad",
    [
        b'{"event":"cache_reset"}\n',
        b'{"event":"cache_reset","at_s":"noon"}\n',
        b'{"at_s":1}\n',
        b"[]\n",
        b"{\n",
        b"\xff\n",
        b'{"event":"cache\xffreset","at_s":1.0}\n',
        b"\n",
    ],
)
def test_a_damaged_line_is_refused_with_its_number(tmp_path: Path, bad: bytes) -> None:
    message = refusal(log(tmp_path, line(START) + bad + line(CALL)))
    assert "Line 2 of" in message


@pytest.mark.parametrize("data", [line(CALL), b'{"event":"other","at_s":1}\n', b'{"a":1}\n'])
def test_a_file_that_is_no_log_is_refused_at_its_first_line(tmp_path: Path, data: bytes) -> None:
    assert "Line 1 of" in refusal(log(tmp_path, data))


def test_a_missing_log_is_refused_by_name(tmp_path: Path) -> None:
    assert str(tmp_path / "none") in refusal(tmp_path / "none")
    assert "No such file" in refusal(tmp_path)


def test_a_reader_can_stop_early(tmp_path: Path) -> None:
    reader = read_events(log(tmp_path, LOG))
    assert next(reader) == START
    reader.close()
    reader.close()
    assert list(reader) == []

"""`rlm replay` of runs that were made here, on an engine that computes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rlm_runtime.errors import EngineDead, EngineError
from rlm_runtime.tracing import CallFinished, read_events
from rlm_runtime.tracing.recorder import EVENTS

if TYPE_CHECKING:
    from rlm_runtime.engine.base import GenerateRequest
    from tests.unit.cli.conftest import Boots, Rlm

QUESTION = "Who signed the treaty of the northern harbour?"


@pytest.fixture
def recorded(rlm: Rlm, boots: Boots, text: Path, model_dir: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    asked = ("run", text, "-q", QUESTION, "--model", model_dir, "--run-dir", folder)
    assert rlm(*asked).code == 0
    return folder


def change_calls(directory: Path, change: Callable[[dict[str, object]], object]) -> None:
    log = directory / EVENTS
    events = [json.loads(line) for line in log.read_text().splitlines()]
    for event in events:
        if event["event"] == "call_finished":
            change(event)
    log.write_text("".join(json.dumps(event) + "\n" for event in events))


def test_a_replay_makes_every_call_once_more_and_is_a_run_itself(
    rlm: Rlm, boots: Boots, recorded: Path, tmp_path: Path
) -> None:
    ended = rlm("replay", recorded, "--json", "--run-dir", tmp_path / "replay")
    figures = ended.document["figures"]
    assert (ended.code, ended.err) == (0, "")
    assert figures["calls"] == boots.engines[0].requests == boots.engines[1].requests
    assert figures["calls_differing"] == figures["calls_failed"] == figures["calls_left_out"] == 0
    assert figures["prompt_tokens"] == figures["recorded_prompt_tokens"]
    assert figures["computed_tokens"] == boots.engines[1].computed
    made = [e for e in read_events(tmp_path / "replay") if isinstance(e, CallFinished)]
    was = [e for e in read_events(recorded) if isinstance(e, CallFinished)]
    assert sorted(e.blocks for e in made) == sorted(e.blocks for e in was)


def test_calls_that_differ_are_named_those_that_differ_most_first(
    rlm: Rlm, boots: Boots, recorded: Path
) -> None:
    def less(event: dict[str, object]) -> None:
        number = int(str(event["request_id"])[1:])
        if number in (2, 3):
            moved = 32 * number
            event["computed_tokens"] = int(str(event["computed_tokens"])) - moved
            event["cached_tokens"] = int(str(event["cached_tokens"])) + moved

    change_calls(recorded, less)
    ended = rlm("replay", recorded, "--top", "1")
    lines = ended.out.splitlines()
    assert ended.code == 0
    assert "2 with other cached or computed tokens" in lines[0]
    assert "(+160)" in next(line for line in lines if "computed_tokens" in line)
    assert lines[-2].strip().startswith("r3 a1, ")
    assert "1 more" in lines[-1]


def test_a_call_that_fails_is_named_and_the_code_says_so(
    rlm: Rlm, boots: Boots, recorded: Path
) -> None:
    def refuse(request: GenerateRequest) -> None:
        if request.request_id == "r4":
            raise EngineError("Refused\x1b[31m.")

    boots.on_request = refuse
    ended = rlm("replay", recorded)
    assert ended.code == 1
    assert "1 failed" in ended.out
    assert "Refused" in ended.out
    assert "\x1b" not in ended.out


def test_what_was_made_before_the_engine_died_is_in_the_document(
    rlm: Rlm, boots: Boots, recorded: Path
) -> None:
    def die(request: GenerateRequest) -> None:
        if request.request_id == "r4":
            raise EngineDead("killed.")

    boots.on_request = die
    ended = rlm("replay", recorded, "--json")
    assert ended.code == 1
    assert ended.document["error"]["code"] == "engine_dead"
    assert ended.document["figures"]["calls"] >= 1


def test_ids_of_another_tokenizer_are_refused_before_anything_boots(
    rlm: Rlm, boots: Boots, recorded: Path
) -> None:
    log = recorded / EVENTS
    lines = log.read_text().splitlines(keepends=True)
    at = next(i for i, line in enumerate(lines) if '"engine_started"' in line)
    event = json.loads(lines[at])
    lines[at] = json.dumps(event | {"tokenizer_digest": "other"}) + "\n"
    log.write_text("".join(lines))
    ended = rlm("replay", recorded)
    assert (ended.code, len(boots.engines)) == (2, 1)
    assert "tokenizer" in ended.err


def test_a_cache_of_another_size_is_said(rlm: Rlm, boots: Boots, recorded: Path) -> None:
    log = recorded / EVENTS
    log.write_text(log.read_text().replace('"kv_blocks":10000', '"kv_blocks":313'))
    assert "10,000 blocks; the run's held 313" in rlm("replay", recorded).err


def test_a_run_without_contents_has_nothing_to_replay(
    rlm: Rlm, boots: Boots, recorded: Path
) -> None:
    for blob in (recorded / "blobs").iterdir():
        blob.unlink()
    ended = rlm("replay", recorded)
    assert (ended.code, len(boots.engines)) == (2, 1)
    assert "no call that can be replayed" in ended.err

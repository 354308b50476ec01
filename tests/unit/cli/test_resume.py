"""`rlm resume`: runs that died at some point, on an engine that computes nothing."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rlm_runtime.cli.asked import ASKED
from rlm_runtime.tracing import CallFinished, CallTaken, RunStarted, is_open, read_events
from rlm_runtime.tracing.recorder import EVENTS, Recorder

if TYPE_CHECKING:
    from rlm_runtime.engine.base import GenerateRequest
    from tests.unit.cli.conftest import Boots, Ended, Rlm

QUESTION = "Who signed the treaty of the northern harbour?"
SECOND = "Who watched?"

Run = Callable[..., Path]


@pytest.fixture
def run(rlm: Rlm, boots: Boots, text: Path, model_dir: Path, tmp_path: Path) -> Run:
    """Runs `rlm run` about the text; returns the run directory."""

    def ask(*more: str | Path, ends_with: int = 0, files: tuple[str | Path, ...] = (text,)) -> Path:
        directory = tmp_path / f"run{len(boots.engines)}"
        questions = ("-q", QUESTION, "-q", SECOND)
        ended = rlm("run", *files, *questions, "--model", model_dir, "--run-dir", directory, *more)
        assert ended.code == ends_with
        return directory

    return ask


def cut(directory: Path, lines: int, rest: bytes = b"") -> None:
    """Let the log end as if its writer had been killed there."""
    log = directory / EVENTS
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:lines]) + rest)


def finished(directory: Path) -> Counter[str | None]:
    ended = (event for event in read_events(directory) if isinstance(event, CallFinished))
    return Counter(event.identity for event in ended if event.outcome == "ok")


def told(ended: Ended) -> list[dict[str, Any]]:
    """The questions of a document without what depends on the clock."""
    return [
        {name: value for name, value in question.items() if name != "figures"}
        for question in ended.document["questions"]
    ]


def test_a_run_cut_anywhere_gives_the_same_answers_and_repeats_no_finished_call(
    rlm: Rlm, boots: Boots, run: Run, text: Path, model_dir: Path, tmp_path: Path
) -> None:
    whole = run()
    asked = ("run", text, "-q", QUESTION, "-q", SECOND, "--model", model_dir, "--json")
    expected = told(rlm(*asked))
    all_calls = finished(whole)
    lines = len((whole / EVENTS).read_bytes().splitlines())
    for kept in range(1, lines + 1, 3):
        died = tmp_path / f"died{kept}"
        shutil.copytree(whole, died)
        cut(died, kept, b'{"event":"call_fin')
        resumed = tmp_path / f"resumed{kept}"
        ended = rlm("resume", died, "--json", "--run-dir", resumed)
        assert ended.code == 0
        assert told(ended) == expected
        assert finished(died) + finished(resumed) == all_calls
        facts = ended.document["resumed"]
        assert facts["calls_taken"] == finished(died).total()
        assert facts["calls_sent"] == boots.engines[-1].requests == finished(resumed).total()
        assert facts["calls_left"] == 0


def test_scores_and_choices_come_back_as_they_were(
    rlm: Rlm, boots: Boots, run: Run, tmp_path: Path
) -> None:
    directory = run()
    calls = [event for event in read_events(directory) if isinstance(event, CallFinished)]
    assert any(event.scores_blob for event in calls)
    assert any(event.choice for event in calls)
    ended = rlm("resume", directory, "--json", "--run-dir", tmp_path / "resumed")
    assert ended.document["questions"][0]["answers"][0]["short"]["text"] == "Anna Meier"
    assert boots.engines[-1].requests == 0
    taken = [event for event in read_events(tmp_path / "resumed") if isinstance(event, CallTaken)]
    assert {event.taken_from for event in taken} == {first_event(directory).run_id}
    assert [event.call.identity for event in taken] == [event.identity for event in calls]


def first_event(directory: Path) -> RunStarted:
    first = next(read_events(directory))
    assert isinstance(first, RunStarted)
    return first


def test_an_interrupted_run_says_what_it_took_and_what_it_made(
    rlm: Rlm, boots: Boots, run: Run
) -> None:
    seen: list[str] = []

    def interrupt(request: GenerateRequest) -> None:
        seen.append(request.request_id)
        if len(seen) == 5:
            os.kill(os.getpid(), signal.SIGINT)

    boots.on_request = interrupt
    directory = run(ends_with=130)
    boots.on_request = None
    ended = rlm("resume", directory)
    done = finished(directory).total()
    assert done
    assert ended.code == 0
    assert "signed by Anna Meier" in ended.out
    assert f"{done} calls taken from the log" in ended.err
    assert f"{boots.engines[-1].requests} made now" in ended.err


def test_a_resumed_run_can_be_resumed(rlm: Rlm, boots: Boots, run: Run, tmp_path: Path) -> None:
    whole = run()
    calls = finished(whole)
    cut(whole, 12)
    second = tmp_path / "second"
    assert rlm("resume", whole, "--run-dir", second).code == 0
    cut(second, 8)
    ended = rlm("resume", second, "--run-dir", tmp_path / "third", "--json")
    assert ended.code == 0
    assert finished(whole) + finished(second) + finished(tmp_path / "third") == calls


def test_settings_and_options_of_the_run_hold(
    rlm: Rlm, boots: Boots, run: Run, text: Path, tmp_path: Path
) -> None:
    output = tmp_path / "result.json"
    directory = run(
        "--labels", "praise,complaint", "--set", "search.chunk_tokens=99", "--output", output
    )  # fmt: skip
    first = output.read_text()
    output.unlink()
    ended = rlm("resume", directory, "--json", "--run-dir", tmp_path / "resumed")
    assert [question["agent"] for question in ended.document["questions"]] == ["classify_each"] * 2
    assert output.read_text() == first
    assert boots.engines[-1].requests == 0
    assert first_event(tmp_path / "resumed").config_digest == first_event(directory).config_digest


def test_standard_input_is_kept(
    rlm: Rlm, boots: Boots, run: Run, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = io.BytesIO(b"\xef\xbb\xbf" + text.read_bytes())
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(data))
    directory = run(files=("-",))
    ended = rlm("resume", directory, "--json")
    assert ended.code == 0
    assert ended.document["resumed"]["calls_sent"] == 0
    assert (directory / ASKED).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("name", ["A B#?%.txt", "\udcff.txt"])
def test_files_of_any_name_are_found_again_from_anywhere(
    rlm: Rlm,
    boots: Boots,
    run: Run,
    text: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    shutil.copy(text, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    directory = run(files=(name,))
    monkeypatch.chdir("/")
    ended = rlm("resume", directory, "--json")
    assert ended.document["resumed"]["calls_sent"] == 0


def test_questions_from_the_terminal_are_asked_again(
    rlm: Rlm, boots: Boots, run: Run, tmp_path: Path
) -> None:
    directory = run()
    asked = json.loads((directory / ASKED).read_text())
    (directory / ASKED).write_text(json.dumps(asked | {"questions": []}))
    ended = rlm("resume", directory, "--json")
    assert [q["question"] for q in ended.document["questions"]] == [QUESTION, SECOND]
    cut(directory, 1)
    ended = rlm("resume", directory)
    assert ended.code == 2
    assert "before it was asked anything" in ended.err


def test_a_text_that_has_changed_is_named_and_taken_only_when_that_is_asked_for(
    rlm: Rlm, boots: Boots, run: Run, text: Path
) -> None:
    directory = run()
    started = len(boots.engines)
    text.write_text(text.read_text() + "One line more.\n")
    ended = rlm("resume", directory)
    assert ended.code == 2
    assert "REPORT.txt has changed" in ended.err
    assert "--anyway" in ended.err
    assert len(boots.engines) == started
    went_on = rlm("resume", directory, "--anyway", "--json").document
    assert went_on["resumed"]["calls_sent"] > 0
    assert went_on["resumed"]["calls_taken"] > 0  # what asks without the text
    assert any("REPORT.txt has changed" in note for note in went_on["resumed"]["notes"])
    text.unlink()
    assert "No such file" in rlm("resume", directory, "--anyway").err


def change_event(directory: Path, tag: str, **fields: str) -> None:
    log = directory / EVENTS
    events = [json.loads(line) for line in log.read_text().splitlines()]
    changed = [event | fields if event["event"] == tag else event for event in events]
    log.write_text("".join(json.dumps(event) + "\n" for event in changed))


@pytest.mark.parametrize(
    ("tag", "name", "words"),
    [
        ("run_started", "package_version", "rlm-vllm was other, is"),
        ("engine_started", "model", "the model was other, is"),
        ("engine_started", "model_digest", "the files of the model"),
        ("engine_started", "tokenizer_digest", "the tokenizer is another"),
        ("engine_started", "shared_prefix_digest", "the shared system text is another"),
    ],
)
def test_a_model_or_version_that_has_changed_is_named(
    rlm: Rlm, boots: Boots, run: Run, home: Path, tag: str, name: str, words: str
) -> None:
    directory = run()
    assert rlm("resume", directory).code == 0
    started = len(boots.engines)
    change_event(directory, tag, **{name: "other"})
    ended = rlm("resume", directory)
    assert (ended.code, len(boots.engines)) == (2, started)
    assert words in ended.err
    assert rlm("resume", directory, "--anyway").code == 0


def test_a_run_that_goes_on_still_is_refused(rlm: Rlm, boots: Boots, run: Run, home: Path) -> None:
    directory = run()
    assert not is_open(directory)
    shutil.move(directory / EVENTS, directory / "old")
    with Recorder(directory):
        ended = rlm("resume", directory)
        assert is_open(directory)
    assert ended.code == 2
    assert "goes on still" in ended.err


@pytest.mark.parametrize(
    ("damage", "code", "words"),
    [
        (lambda run: (run / ASKED).unlink(), 2, "does not say what it was asked"),
        (lambda run: (run / ASKED).write_text("{"), 1, "damaged"),
        (lambda run: (run / ASKED).write_text('{"schema_version": 1}'), 1, "damaged"),
        (lambda run: (run / EVENTS).unlink(), 1, "event log"),
        (lambda run: (run / EVENTS).write_text(""), 1, "not kept whole"),
        (lambda run: (run / EVENTS).write_text("no log\n"), 1, "not an event"),
        (lambda run: shutil.rmtree(run / "blobs"), 1, "settings"),
    ],
)
def test_a_run_that_cannot_be_resumed_is_an_error_that_starts_nothing(
    rlm: Rlm, boots: Boots, run: Run, damage: Callable[[Path], object], code: int, words: str
) -> None:
    directory = run()
    started = len(boots.engines)
    damage(directory)
    ended = rlm("resume", directory)
    assert (ended.code, len(boots.engines)) == (code, started)
    assert words in ended.err


def test_of_a_damaged_log_what_is_whole_is_used_and_the_rest_is_said(
    rlm: Rlm, boots: Boots, run: Run
) -> None:
    directory = run()
    log = directory / EVENTS
    lines = log.read_bytes().splitlines(keepends=True)
    at = next(i for i, line in enumerate(lines) if b'"call_finished"' in line)
    lines[at] = b"\x00\xff" + lines[at][5:]
    log.write_bytes(b"".join(lines))
    ended = rlm("resume", directory)
    assert ended.code == 0
    assert "1 made now" in ended.err
    assert "Damaged lines" in ended.err


def test_a_run_that_kept_nothing_keeps_not_what_it_was_asked(
    rlm: Rlm, boots: Boots, text: Path, model_dir: Path, home: Path
) -> None:
    assert rlm("run", text, "-q", QUESTION, "--model", model_dir, "--no-keep").code == 0
    assert not list(home.rglob(ASKED))


def test_no_run_is_an_error_that_names_the_newest(rlm: Rlm, boots: Boots, run: Run) -> None:
    assert "No run is named" in rlm("resume").err
    assert "There is no run" in rlm("resume", "nothing").err

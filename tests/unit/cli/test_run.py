"""`rlm run` from its arguments to its exit code, on an engine that computes nothing."""

from __future__ import annotations

import io
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rlm_runtime.errors import EngineDead, EngineError
from rlm_runtime.tracing import read_events

if TYPE_CHECKING:
    from rlm_runtime.engine.base import GenerateRequest
    from tests.unit.cli.conftest import Boots, Rlm

QUESTION = "Who signed the treaty of the northern harbour?"
SENTENCE = "The treaty of the northern harbour was signed by Anna Meier."


def test_the_answer_is_on_stdout_and_what_it_cost_on_stderr(
    rlm: Rlm, boots: Boots, text: Path, model_dir: Path
) -> None:
    ended = rlm("run", text, "-q", QUESTION, "--model", model_dir)
    start = text.read_bytes().index(SENTENCE.encode())
    lines = ended.out.splitlines()
    assert ended.code == 0
    assert lines[0].endswith(SENTENCE)
    assert lines[1].strip().startswith(f"{text}:bytes {start}-{start + len(SENTENCE)}")
    assert all("also" in line for line in lines[2:])
    assert "from cache" in ended.err
    assert "run: " in ended.err


def test_the_document_holds_every_question_with_exact_places(
    rlm: Rlm, boots: Boots, text: Path, model_dir: Path
) -> None:
    ended = rlm("run", text, "-q", QUESTION, "-q", "qqq zzz?", "--model", model_dir, "--json")
    document = ended.document
    data = text.read_bytes()
    assert (ended.code, ended.err) == (0, "")
    assert document["schema_version"] == 1
    assert [q["question"] for q in document["questions"]] == [QUESTION, "qqq zzz?"]
    assert [q["found"] for q in document["questions"]] == [True, False]
    assert [q["answer"] for q in document["questions"]] == [SENTENCE, None]
    for question in document["questions"]:
        assert question["passages"]
        for passage in question["passages"]:
            assert data[passage["start_byte"] : passage["end_byte"]].decode() == passage["text"]
    assert document["figures"]["calls"] == boots.engines[0].requests
    assert document["figures"]["engine_computed_tokens"] == boots.engines[0].computed
    assert Path(document["run_directory"], "events.jsonl").exists()


def test_the_words_that_matter_are_in_the_document_with_their_place(
    rlm: Rlm, boots: Boots, text: Path, model_dir: Path
) -> None:
    text.write_bytes(b"\xef\xbb\xbf" + text.read_bytes())
    asked = ("run", text, "-q", QUESTION, "-q", "qqq zzz?", "--model", model_dir, "--json")
    found, missing = rlm(*asked).document["questions"]
    (answer,) = found["answers"]
    short = answer["short"]
    assert short["text"] == "Anna Meier"
    assert text.read_bytes()[short["start_byte"] : short["end_byte"]] == b"Anna Meier"
    assert missing["answers"] == []
    plain, _missing = rlm(*asked, "--set", "search.short_form=false").document["questions"]
    assert plain["answers"] == [answer | {"short": None}]
    assert plain["answer"] == found["answer"]
    assert found["figures"]["calls"] == plain["figures"]["calls"] + 1


def test_a_limit_that_the_answer_just_fits_leaves_only_the_short_form_out(
    rlm: Rlm, boots: Boots, text: Path, model_dir: Path
) -> None:
    asked = ("run", text, "-q", QUESTION, "--model", model_dir, "--json")
    (whole,) = rlm(*asked).document["questions"]
    ended = rlm(*asked, "--max-calls", str(whole["figures"]["calls"] - 1))
    (limited,) = ended.document["questions"]
    assert (ended.code, limited["stop_reason"]) == (0, "final")
    (kept,), (answer,) = limited["answers"], whole["answers"]
    assert kept == answer | {"short": None}
    assert answer["short"] is not None


def test_a_highlight_that_fails_costs_no_answer(
    rlm: Rlm, boots: Boots, text: Path, model_dir: Path
) -> None:
    def on_request(request: GenerateRequest) -> None:
        if request.choices:
            raise EngineError("The grammar is refused.", "Report this.")

    boots.on_request = on_request
    ended = rlm("run", text, "-q", QUESTION, "--model", model_dir, "--json")
    (question,) = ended.document["questions"]
    assert (ended.code, question["answer"]) == (0, SENTENCE)
    assert question["answers"][0]["short"] is None


def test_questions_share_one_engine_that_is_closed_at_the_end(
    rlm: Rlm, boots: Boots, text: Path, model_dir: Path
) -> None:
    rlm("run", text, "-q", QUESTION, "-q", "Who watched?", "--model", model_dir)
    assert [engine.is_closed for engine in boots.engines] == [True]


def test_places_count_from_the_file_even_behind_a_byte_order_mark(
    rlm: Rlm, boots: Boots, text: Path, model_dir: Path
) -> None:
    text.write_bytes(b"\xef\xbb\xbf" + text.read_bytes())
    ended = rlm("run", text, "-q", QUESTION, "--model", model_dir, "--json")
    best = ended.document["questions"][0]["passages"][0]
    assert text.read_bytes()[best["start_byte"] : best["end_byte"]].decode() == SENTENCE


def test_standard_input_is_a_text(
    rlm: Rlm, boots: Boots, text: Path, model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.read_bytes())))
    ended = rlm("run", "-", "-q", QUESTION, "--model", model_dir)
    assert ended.code == 0
    assert "-:bytes" in ended.out


def test_quiet_leaves_only_the_answer(rlm: Rlm, boots: Boots, text: Path, model_dir: Path) -> None:
    ended = rlm("run", text, "-q", QUESTION, "--model", model_dir, "--quiet")
    assert SENTENCE in ended.out
    assert ended.err == ""


def test_control_characters_of_a_text_do_not_reach_the_terminal(
    rlm: Rlm, boots: Boots, text: Path, model_dir: Path
) -> None:
    text.write_text(text.read_text().replace("Anna", "\x1b[31mAnna\x07\u202e"))
    ended = rlm("run", text, "-q", QUESTION, "--model", model_dir)
    assert "[31mAnna" in ended.out
    assert not {"\x1b", "\x07", "\u202e"} & set(ended.out)


def test_a_limit_ends_with_a_partial_answer_and_code_4(
    rlm: Rlm, boots: Boots, text: Path, model_dir: Path
) -> None:
    ended = rlm("run", text, "-q", QUESTION, "--model", model_dir, "--max-calls", "5")
    assert ended.code == 4
    assert "max_calls was reached" in ended.err
    assert ended.out


def test_chunks_that_only_words_chose_are_admitted(
    rlm: Rlm, boots: Boots, text: Path, model_dir: Path
) -> None:
    text.write_text(text.read_text() + "Rain fell on the far hills again and again.\n\n" * 400)
    arguments = ("run", text, "-q", QUESTION, "--model", model_dir)
    short = ("--set", "search.max_ranked_tokens=700")
    assert "--exhaustive ranks all" in rlm(*arguments, *short).err
    assert "--exhaustive ranks all" not in rlm(*arguments, *short, "--exhaustive").err


def test_nothing_is_written_with_no_keep(
    rlm: Rlm, boots: Boots, text: Path, model_dir: Path, home: Path
) -> None:
    ended = rlm("run", text, "-q", QUESTION, "--model", model_dir, "--no-keep")
    assert ended.code == 0
    assert not (home / "state").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["missing.txt", "-q", "x"], "No such file"),
        (["REPORT.txt", "-q", " "], "empty"),
        (["REPORT.txt", "-q", "x" * 40_000], "tokens"),
        (["REPORT.txt", "-q", "\udcff"], "not UTF-8"),
        (["REPORT.txt"], "no terminal"),
        (["REPORT.txt", "--json"], "-q"),
        (["REPORT.txt", "REPORT.txt", "-q", "x"], "twice"),
        (["REPORT.txt", "-q", "x", "--set", "engine.windw=1"], "engine.window_tokens"),
        (["REPORT.txt", "-q", "x", "--set", "engine"], "KEY=VALUE"),
        (["REPORT.txt", "-q", "x", "--config", "nope"], "cpu-smollm2"),
        (["REPORT.txt", "-q", "x", "--max-calls", "0"], "greater than or equal to 1"),
        (["REPORT.txt", "-q", "x", "--set", "engine.window_tokens=1300"], "window"),
        ([".", "-q", "x"], "directory"),
    ],
)
def test_wrong_input_is_code_2_and_starts_nothing(
    rlm: Rlm,
    boots: Boots,
    text: Path,
    model_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(text.parent)
    ended = rlm("run", *arguments, "--model", model_dir)
    assert ended.code == 2
    assert words in ended.err + ended.out
    assert ended.err.count("error:") == 1
    assert boots.engines == []


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "empty"), (b"a\0b", "byte 1 is zero"), (b"caf\xe9 x", "byte 3"), (b"%PDF-1.7", "PDF")],
)
def test_what_is_no_text_is_code_2_and_leaves_no_run(
    rlm: Rlm, boots: Boots, text: Path, model_dir: Path, home: Path, content: bytes, words: str
) -> None:
    text.write_bytes(content)
    ended = rlm("run", text, "-q", "x", "--model", model_dir)
    assert ended.code == 2
    assert words in ended.err
    assert not (home / "state").exists()


def test_an_unknown_model_is_code_3(rlm: Rlm, boots: Boots, text: Path) -> None:
    ended = rlm("run", text, "-q", "x", "--model", "smollm2")
    assert ended.code == 3
    assert "smollm2-135m-instruct" in ended.err


def test_a_kv_cache_larger_than_the_memory_is_code_3_before_any_boot(
    rlm: Rlm, boots: Boots, text: Path, model_dir: Path
) -> None:
    more = ("--set", "engine.kv_cache_gib=100000")
    ended = rlm("run", text, "-q", "x", "--model", model_dir, *more)
    assert ended.code == 3
    assert "engine.kv_cache_gib" in ended.err
    assert boots.engines == []


def test_an_error_is_in_the_document_too(rlm: Rlm, boots: Boots) -> None:
    ended = rlm("run", "missing.txt", "-q", "x", "--json")
    error = ended.document["error"]
    assert (ended.code, error["code"], error["exit_code"]) == (2, "bad_input", 2)
    assert error["remedy"]


def test_an_engine_that_does_not_start_is_code_3(
    rlm: Rlm, boots: Boots, text: Path, model_dir: Path
) -> None:
    def refuse(_: int) -> None:
        raise EngineError("The engine could not start: no.", "Try again.")

    boots.on_start = refuse
    ended = rlm("run", text, "-q", QUESTION, "--model", model_dir)
    assert ended.code == 3
    assert "error: The engine could not start: no. Try again." in ended.err


def test_when_the_engine_dies_finished_answers_are_kept(
    rlm: Rlm, boots: Boots, text: Path, model_dir: Path
) -> None:
    _after_the_first_question(boots, EngineDead("killed."))
    ended = rlm("run", text, "-q", QUESTION, "-q", "Who watched?", "--model", model_dir, "--json")
    document = ended.document
    assert ended.code == 1
    assert [q["answer"] for q in document["questions"]] == [SENTENCE]
    assert document["error"]["code"] == "engine_dead"


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_ends_in_order_and_keeps_what_is_finished(
    rlm: Rlm, boots: Boots, text: Path, model_dir: Path, number: int, code: int
) -> None:
    _after_the_first_question(boots, number)
    ended = rlm("run", text, "-q", QUESTION, "-q", "Who watched?", "--model", model_dir, "--json")
    document = ended.document
    assert (ended.code, document["error"]["exit_code"]) == (code, code)
    assert [q["answer"] for q in document["questions"]] == [SENTENCE]
    assert boots.engines[0].is_closed
    events = list(read_events(Path(document["run_directory"], "events.jsonl")))
    assert events[-1].outcome == "cancelled"  # type: ignore[union-attr] # RunFinished


def _after_the_first_question(boots: Boots, what: Exception | int) -> None:
    """Raise, or send a signal, when the second question is scored for the first time."""
    scored: set[tuple[int, ...]] = set()

    def on_request(request: GenerateRequest) -> None:
        if request.score is None:
            return
        before = len(scored)
        scored.add(request.prompt_ids[request.score.start : request.score.end])
        if (before, len(scored)) == (1, 2):
            if isinstance(what, Exception):
                raise what
            os.kill(os.getpid(), what)

    boots.on_request = on_request

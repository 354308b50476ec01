"""`rlm-bench run qa` and `needle`, on an engine that computes nothing."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rlm_runtime.cli import apps, results
from rlm_runtime.errors import EngineDead, InputError, TraceError
from rlm_runtime.profiler import RunLog

if TYPE_CHECKING:
    from rlm_runtime.engine.base import GenerateRequest
    from tests.unit.cli.conftest import Boots, Ended, Rlm

Bench = Callable[..., "Ended"]
SMALL = ("--tokens", "3000", "--cases", "1")


@pytest.fixture
def bench(
    home: Path, boots: Boots, model_dir: Path, capsys: pytest.CaptureFixture[str], rlm: Rlm
) -> Bench:
    """Runs a workload in this process."""
    ended_type = type(rlm("--version"))

    def run(*arguments: str | Path) -> Ended:
        capsys.readouterr()
        given = ["run", *map(str, arguments), "--model", str(model_dir)]
        return ended_type(apps.rlm_bench(given), *capsys.readouterr())

    return run


def test_needle_shows_its_tables_and_writes_them(bench: Bench, tmp_path: Path) -> None:
    ended = bench("needle", *SMALL, "--out", tmp_path)
    assert ended.code == 0
    assert "3000 shared" in ended.out
    assert "needle-1, seed 0" in ended.err
    figures = json.loads((tmp_path / "result.json").read_text())["figures"]
    assert figures["cases"] == 5
    assert figures["accuracy_shared_bm25"] == 1
    assert "| 3000 shared |" in (tmp_path / "result.md").read_text()


def test_the_needle_document_is_the_result(bench: Bench, tmp_path: Path) -> None:
    document = bench("needle", *SMALL, "--arms", "both,bm25", "--json", "--out", tmp_path).document
    assert document["figures"] == json.loads((tmp_path / "result.json").read_text())["figures"]
    detail = document["detail"]["needle"]
    assert (detail["sizes"], detail["arms"]) == (["3000"], ["both", "bm25"])
    assert {case["arm"] for case in detail["cases"]} == {"both", "bm25"}


def test_answers_that_were_had_before_an_interrupt_are_kept(
    bench: Bench, boots: Boots, tmp_path: Path
) -> None:
    def on_request(request: GenerateRequest) -> None:
        if request.max_tokens > 1:  # the first answer that is generated comes after three others
            os.kill(os.getpid(), signal.SIGINT)

    boots.on_request = on_request
    ended = bench("needle", *SMALL, "--out", tmp_path)
    assert ended.code == 130
    assert "Ended early" in ended.err
    document = json.loads((tmp_path / "result.json").read_text())
    arms = [case["arm"] for case in document["detail"]["needle"]["cases"]]
    assert arms[:3] == ["both", "ranking", "bm25"]
    assert len(arms) < 20
    assert boots.engines[0].is_closed


@pytest.mark.parametrize(
    "wrong",
    [
        ("needle", "--tokens", "16q"),
        ("needle", "--tokens", "2k", "--cases", "5"),
        ("needle", "--cases", "13"),
        ("needle", "--arms", "best"),
        ("needle", "--arms", "ranking", "--tokens", "1M"),
        ("qa", "--arms", "best"),
        ("rows", "--rows", "0"),
        ("rows", "--rows", "10001"),
        ("calls", "--turns", "0"),
        ("qa", "--shared-prefix", "no such file"),
    ],
)
def test_what_cannot_be_measured_is_found_before_anything_starts(
    wrong: tuple[str, ...], bench: Bench, boots: Boots
) -> None:
    ended = bench(*wrong)
    assert ended.code == 2
    assert ended.err.startswith("error: ")
    assert boots.engines == []


def test_full_is_all_sizes_unless_they_are_named(bench: Bench, tmp_path: Path) -> None:
    wished = ("--full", "--tokens", "14k", "--arms", "bm25", "--json", "--out", tmp_path)
    detail = bench("needle", *wished).document["detail"]["needle"]
    assert (detail["sizes"], detail["cases_per_kind"]) == (["14k"], 10)


def test_qa_answers_each_question_by_the_arms_that_were_named(bench: Bench, tmp_path: Path) -> None:
    wished = ("--cases", "3", "--arms", "bm25", "--json", "--out", tmp_path)
    document = bench("qa", *wished).document
    assert document["figures"]["cases"] == 3
    assert document["figures"]["computed_tokens_per_question_bm25"] == 0
    assert document["figures"]["accuracy"] is None  # the default arm's
    assert {case["arm"] for case in document["detail"]["qa"]["cases"]} == {"bm25"}


def test_rows_shows_labels_counts_and_costs_of_every_arm(bench: Bench, tmp_path: Path) -> None:
    ended = bench("rows", "--rows", "12", "--out", tmp_path)
    assert ended.code == 0
    for title in ("Right labels", "How many of each", "What it cost"):
        assert title in ended.out
    assert "rows-1, seed 0" in ended.err
    figures = json.loads((tmp_path / "result.json").read_text())["figures"]
    assert (figures["cases"], figures["calls_classify_each"]) == (12, 12)
    # The scripted engine takes the first label.
    assert figures["count_fire_classify_each"] == 12
    assert figures["accuracy"] == figures["count_fire"] / 12


def test_calls_says_how_many_agents_did_not_come_to_an_end(bench: Bench, tmp_path: Path) -> None:
    wished = ("--turns", "7", "--seed", "3", "--json", "--out", tmp_path)
    document = bench("calls", *wished).document
    figures = document["figures"]
    assert (figures["turns"], figures["legal_turns"], figures["finals"]) == (9, 0, 0)
    assert figures["stop_errors_in_a_row"] == figures["agents"] == 3
    assert 0 < figures["hit_rate_of_ceiling"] <= 1
    assert "| agents that ended with FINAL | 0 of 3 " in (tmp_path / "result.md").read_text()


def test_turns_that_were_made_before_an_interrupt_are_kept(
    bench: Bench, boots: Boots, tmp_path: Path
) -> None:
    def on_request(_: GenerateRequest) -> None:
        if boots.engines[0].requests == 6:
            os.kill(os.getpid(), signal.SIGINT)

    boots.on_request = on_request
    ended = bench("calls", "--turns", "400", "--out", tmp_path)
    assert ended.code == 130
    detail = json.loads((tmp_path / "result.json").read_text())["detail"]["calls"]
    assert 0 < len(detail["turns"]) < 400
    assert f"Ended early: {len(detail['turns'])} of 400 turns" in ended.err
    assert not detail["is_complete"]


def test_a_workload_has_to_be_named(bench: Bench) -> None:
    assert apps.rlm_bench(["run"]) == 2
    assert apps.rlm_bench(["run", "nothing"]) == 2


def test_what_was_measured_stays_when_the_log_can_t_be_read(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(path: Path) -> RunLog:
        raise TraceError(f"{path.name} is gone.", "Nothing can be done.")

    monkeypatch.setattr(RunLog, "load", load)
    ended = bench("many-questions", "--tokens", "2k", "--questions", "2", "--out", tmp_path)
    assert ended.code == 1
    assert "is gone" in ended.err
    detail = json.loads((tmp_path / "result.json").read_text())["detail"]["many-questions"]
    assert len(detail["passes"]) == 1


def test_the_first_error_counts_when_the_results_can_t_be_written(
    bench: Bench, boots: Boots, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def on_request(request: GenerateRequest) -> None:
        if request.max_tokens > 1:
            raise EngineDead("The engine was killed.", "Start again.")

    def write_json(*_: object) -> None:
        raise InputError("The disk is full.", "Make room.")

    boots.on_request = on_request
    monkeypatch.setattr(results, "write_json", write_json)
    ended = bench("needle", *SMALL, "--out", tmp_path)
    assert ended.code == 1
    assert "The disk is full." in ended.err
    assert "The engine was killed." in ended.err
    assert "3000 shared" in ended.out, "what was measured is shown all the same"

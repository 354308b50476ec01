"""`rlm-bench report` of runs that were made here, on an engine that computes nothing."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rlm_runtime.cli import apps

if TYPE_CHECKING:
    from tests.unit.cli.conftest import Boots, Ended, Rlm

Bench = Callable[..., "Ended"]
PLOTS = {"tokens.png", "timeline.png", "prefill.png"}


@pytest.fixture
def bench(capsys: pytest.CaptureFixture[str], rlm: Rlm) -> Bench:
    """Runs `rlm-bench` in this process."""
    ended_type = type(rlm("--version"))

    def run(*arguments: str | Path) -> Ended:
        capsys.readouterr()
        return ended_type(apps.rlm_bench([str(a) for a in arguments]), *capsys.readouterr())

    return run


@pytest.fixture
def recorded(rlm: Rlm, boots: Boots, text: Path, model_dir: Path, tmp_path: Path) -> Path:
    """The directory of a run with two questions."""
    folder = tmp_path / "run"
    ended = rlm(
        "run", text, "-q", "Who watched?", "-q", "Who signed?", "--model", model_dir,
        "--run-dir", folder, "--ttft-pairs", "2",
    )  # fmt: skip
    assert ended.code == 0
    return folder


def test_a_report_leads_with_tokens_a_task_and_writes_its_files(
    bench: Bench, recorded: Path
) -> None:
    before = {path.name for path in recorded.iterdir()}
    ended = bench("report", recorded)
    assert ended.code == 0
    assert ended.out.index("computed tokens per task") < ended.out.index("hit rate")
    assert "equal" in ended.out
    made = {path.name for path in recorded.iterdir()} - before
    assert made == {"report.json", "report.md", "ttft.png"} | PLOTS
    assert str(recorded / "timeline.png") in ended.err


def test_the_document_has_the_figures_of_the_run(
    bench: Bench, recorded: Path, tmp_path: Path
) -> None:
    document = bench(
        "report", recorded / "events.jsonl", "--json", "--out", tmp_path / "o"
    ).document
    figures = document["figures"]
    assert figures["tasks"] == 2
    assert figures["prompt_tokens"] == figures["cached_tokens"] + figures["computed_tokens"]
    causes = [v for name, v in figures.items() if name.startswith("miss_")]
    assert sum(causes) == figures["computed_tokens"]
    assert figures["ledger_gap_tokens"] == 0
    assert figures["ttft_warm_over_cold"] == pytest.approx(32 / 1248)
    assert document["files"][0] == str(tmp_path / "o" / "report.json")
    assert json.loads((tmp_path / "o" / "report.json").read_text())["figures"] == figures
    assert not (recorded / "report.json").exists()


def test_a_mismatch_is_said_even_when_quiet(bench: Bench, recorded: Path) -> None:
    log = recorded / "events.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    dropped = next(line for line in lines if '"call_finished"' in line)
    log.write_text("".join(line for line in lines if line != dropped))
    ended = bench("report", recorded, "--quiet")
    assert ended.code == 0
    assert "MISMATCH: the engine counted" in ended.err


def test_a_log_that_is_not_there_is_one_line(bench: Bench, tmp_path: Path) -> None:
    ended = bench("report", tmp_path / "nothing")
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.startswith("error: Can't read the event log")
    assert ended.err.count("\n") == 1


def test_a_place_that_cannot_be_written_is_wrong_usage(
    bench: Bench, recorded: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    ended = bench("report", recorded, "--out", tmp_path / "file" / "below")
    assert ended.code == 2
    assert "--out" in ended.err
    assert ended.out == ""


def test_without_matplotlib_there_is_a_report_without_plots(
    bench: Bench, recorded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    ended = bench("report", recorded)
    assert ended.code == 0
    assert "rlm-vllm[plots]" in ended.err
    assert not PLOTS & {path.name for path in recorded.iterdir()}
    assert (recorded / "report.md").exists()


def test_reports_can_be_compared(bench: Bench, recorded: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        bench("report", recorded, "--out", tmp_path / name)
    ended = bench("compare", tmp_path / "a", tmp_path / "b")
    assert ended.code == 0
    row = next(line for line in ended.out.splitlines() if "computed_tokens_per_task" in line)
    assert row.split()[-2:] == ["1.000", "same"]


def test_unequal_results_are_refused_with_what_differs(
    bench: Bench, recorded: Path, tmp_path: Path
) -> None:
    bench("report", recorded, "--out", tmp_path / "a")
    document = json.loads((tmp_path / "a" / "report.json").read_text())
    document["machine"] = "another"
    (tmp_path / "b.json").write_text(json.dumps(document))
    refused = bench("compare", tmp_path / "a", tmp_path / "b.json", "--json")
    assert refused.code == 2
    assert "machine: " in refused.document["error"]["what"]
    forced = bench("compare", tmp_path / "a", tmp_path / "b.json", "--json", "--force").document
    assert forced["settings_are_equal"] is False
    assert [one["setting"] for one in forced["differing"]] == ["machine"]
    assert forced["figures"]["computed_tokens_ratio"] == 1


def test_ids_of_a_log_cannot_command_the_terminal(bench: Bench, recorded: Path) -> None:
    log = recorded / "events.jsonl"
    log.write_text(log.read_text().replace('"a1"', '"a1\\u001b]0;x\\u0007\\n|$y^$"'))
    ended = bench("report", recorded)
    assert ended.code == 0
    written = (recorded / "report.md").read_text()
    assert not {"\x1b", "\x07"} & set(ended.out + ended.err + written)
    assert "a1]0;x |$y^$" in ended.out
    assert "a1 ]0;x \\|$y^$" in written

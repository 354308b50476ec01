"""`rlm-bench ttft` and `rlm run --ttft-pairs`, on an engine whose times are its tokens."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rlm_runtime.benchmark import plots
from rlm_runtime.cli import apps
from rlm_runtime.errors import ConfigError

if TYPE_CHECKING:
    from rlm_runtime.engine.base import GenerateRequest
    from tests.unit.cli.conftest import Boots, Ended, Rlm

Bench = Callable[..., "Ended"]


@pytest.fixture
def bench(
    home: Path, boots: Boots, model_dir: Path, capsys: pytest.CaptureFixture[str], rlm: Rlm
) -> Bench:
    """Runs `rlm-bench ttft` in this process."""
    ended_type = type(rlm("--version"))

    def run(*arguments: str | Path) -> Ended:
        capsys.readouterr()
        given = ["ttft", *map(str, arguments), "--model", str(model_dir)]
        return ended_type(apps.rlm_bench(given), *capsys.readouterr())

    return run


def test_the_ratio_is_shown_and_all_files_are_written(bench: Bench, tmp_path: Path) -> None:
    out = tmp_path / "new" / "results"
    ended = bench("--samples", "5", "--batch-repeats", "1", "--out", out)
    assert ended.code == 0
    assert "warm / cold" in ended.out
    assert {path.name for path in out.iterdir()} >= {"result.json", "result.md", "ttft.png"}
    assert str(out / "result.json") in ended.err
    figures = json.loads((out / "result.json").read_text())["figures"]
    # 1,216 shared tokens, 38 blocks of 32, are cached when warm; the 32 own ones are computed.
    assert figures["ttft_warm_over_cold"] == pytest.approx(32 / 1248)
    assert figures["ttft_cold_n"] == 5


def test_the_document_is_the_result(bench: Bench, tmp_path: Path) -> None:
    ended = bench("--samples", "2", "--batch-repeats", "0", "--json", "--out", tmp_path)
    document = ended.document
    written = json.loads((tmp_path / "result.json").read_text())
    assert written["figures"] == document["figures"]
    assert "batch_speedup" not in document["figures"]
    assert document["files"][0] == str(tmp_path / "result.json")


def test_results_go_to_the_run_directory_by_default(bench: Bench) -> None:
    document = bench("--samples", "1", "--batch-repeats", "0", "--json").document
    assert Path(document["run_directory"], "result.json").exists()


def test_what_was_measured_before_an_interrupt_is_kept(
    bench: Bench, boots: Boots, tmp_path: Path
) -> None:
    requests: list[str] = []

    def on_request(request: GenerateRequest) -> None:
        requests.append(request.request_id)
        if len(requests) == 9:  # five of warm-up, three of the first round, one more
            os.kill(os.getpid(), signal.SIGINT)

    boots.on_request = on_request
    ended = bench("--samples", "4", "--out", tmp_path)
    assert ended.code == 130
    assert "Ended early" in ended.err
    document = json.loads((tmp_path / "result.json").read_text())
    assert (
        3
        <= len(document["detail"]["ttft"]["samples"])
        < document["detail"]["ttft"]["planned_samples"]
    )
    assert boots.engines[0].is_closed


def test_a_place_that_cannot_be_written_is_found_before_anything_starts(
    bench: Bench, boots: Boots, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    ended = bench("--out", tmp_path / "file" / "below")
    assert ended.code == 2
    assert "--out" in ended.err
    assert boots.engines == []


def test_without_matplotlib_there_are_results_without_plots(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object) -> None:
        raise ConfigError("Plots need matplotlib.", "Install it.")

    monkeypatch.setattr(plots, "plot_ttft", missing)
    ended = bench("--samples", "1", "--batch-repeats", "0", "--out", tmp_path)
    assert ended.code == 0
    assert {path.name for path in tmp_path.iterdir()} >= {"result.json", "result.md"}
    assert "Plots need matplotlib" in ended.err


def test_a_run_measures_pairs_at_its_end(
    rlm: Rlm, boots: Boots, text: Path, model_dir: Path
) -> None:
    arguments = ("run", text, "-q", "Who watched?", "--model", model_dir, "--ttft-pairs", "2")
    assert "2 pairs run alone: warm / cold 0.026; 32 ms instead of 1,248 ms" in rlm(*arguments).err
    document = rlm(*arguments, "--json").document
    assert document["figures"]["ttft_warm_over_cold"] == pytest.approx(32 / 1248)
    assert len(document["ttft"]["samples"]) == 4

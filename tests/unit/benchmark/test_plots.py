"""The plots, drawn from made-up samples."""

from __future__ import annotations

import struct
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rlm_runtime.benchmark.batching_result import Arm, ArmRun, BatchingResult
from rlm_runtime.benchmark.plots import plot_batching, plot_ttft
from rlm_runtime.benchmark.results import Report
from rlm_runtime.benchmark.ttft_result import Sample, Series, TtftResult
from rlm_runtime.errors import ConfigError, InputError

MEDIANS_S = {
    Series.COLD: 2.39,
    Series.WARM: 0.091,
    Series.VARIABLE: 2.44,
    Series.COLD_TAIL128: 2.6,
    Series.WARM_TAIL128: 0.31,
}
WALLS_S = {
    Arm.SCHEDULER_IN_TURN: 25.2,
    Arm.SCHEDULER_BATCHED: 3.9,
    Arm.ENGINE_IN_TURN: 24.9,
    Arm.ENGINE_BATCHED: 3.7,
}


@pytest.fixture
def report() -> Report:
    return Report(
        benchmark="ttft",
        measurements=(),
        model="SmolLM2-135M-Instruct",
        machine="INTEL(R) XEON(R) PLATINUM 8581C CPU @ 2.10GHz, 2 cores, 24 GiB, Linux 6.1",
        versions={"engine": "vllm 0.32.0 cpu"},
        config_digest="0",
        run_id="0",
        made_at="2026-01-01T00:00:00+00:00",
    )


@pytest.fixture
def ttft() -> TtftResult:
    rng = np.random.default_rng(0)
    samples = [
        Sample(series, number, median_s * factor, median_s * factor, 0.0, 1239, 0, 0)
        for series, median_s in MEDIANS_S.items()
        for number, factor in enumerate(rng.lognormal(0, 0.05, 20))
    ]
    return TtftResult(tuple(samples), len(samples), 0, 1207, 32, 131_072)


@pytest.fixture
def batching() -> BatchingResult:
    rng = np.random.default_rng(0)
    runs = [
        ArmRun(arm, number, 16, wall_s * factor, 19_824, 18_944, 18_944, 512)
        for arm, wall_s in WALLS_S.items()
        for number, factor in enumerate(rng.lognormal(0, 0.04, 5))
    ]
    return BatchingResult(tuple(runs), len(runs), 0, 16, 16)


def width_of(png: Path) -> int:
    """From the header chunk: signature (8 bytes), length, type, width."""
    data = png.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    (width,) = struct.unpack(">I", data[16:20])
    return int(width)


def test_the_ttft_plot_is_a_png_1200_pixels_wide(
    report: Report, ttft: TtftResult, tmp_path: Path
) -> None:
    plot_ttft(report, ttft, tmp_path / "plots" / "ttft.png")
    assert width_of(tmp_path / "plots" / "ttft.png") == 1200
    assert [p.name for p in (tmp_path / "plots").iterdir()] == ["ttft.png"]


def test_the_batching_plot_is_a_png_1200_pixels_wide(
    report: Report, batching: BatchingResult, tmp_path: Path
) -> None:
    plot_batching(report, batching, tmp_path / "batching.png")
    assert width_of(tmp_path / "batching.png") == 1200


def test_partial_results_can_be_drawn(
    report: Report, ttft: TtftResult, batching: BatchingResult, tmp_path: Path
) -> None:
    plot_ttft(report, replace(ttft, samples=ttft.samples[:1]), tmp_path / "one.png")
    one_of_each = tuple(run for run in batching.runs if run.repeat == 0)
    plot_batching(report, replace(batching, runs=one_of_each), tmp_path / "two.png")
    assert {width_of(tmp_path / name) for name in ("one.png", "two.png")} == {1200}


def test_nothing_measured_is_an_input_error(
    report: Report, ttft: TtftResult, batching: BatchingResult, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="no sample"):
        plot_ttft(report, replace(ttft, samples=()), tmp_path / "no.png")
    with pytest.raises(InputError, match="no runs"):
        plot_batching(report, replace(batching, runs=()), tmp_path / "no.png")
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib_the_extra_is_named(
    report: Report, ttft: TtftResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ConfigError, match=r"rlm-vllm\[plots\]"):
        plot_ttft(report, ttft, tmp_path / "no.png")


def test_a_place_that_can_not_be_written_is_an_input_error(
    report: Report, ttft: TtftResult, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="can't be written"):
        plot_ttft(report, ttft, tmp_path / "file" / "ttft.png")

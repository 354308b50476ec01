"""The document that a benchmark leaves behind."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rlm_runtime.benchmark import batching, ttft
from rlm_runtime.benchmark.results import Report, markdown, report, write_json, write_markdown
from rlm_runtime.errors import InputError

if TYPE_CHECKING:
    from tests.unit.benchmark.conftest import Rig

pytestmark = pytest.mark.anyio


async def measured(rig: Rig) -> Report:
    times = await ttft.measure(rig.parts, samples=5, seed=0)
    batch = await batching.measure(rig.parts, repeats=1, seed=0, calls=2)
    return report("ttft", [times, batch], rig.parts, config_digest="abc123")


async def test_the_json_document_has_flat_figures_and_its_set_up(rig: Rig, tmp_path: Path) -> None:
    made = await measured(rig)
    write_json(made, tmp_path / "new" / "ttft.json")
    document = json.loads((tmp_path / "new" / "ttft.json").read_text())
    assert document["schema_version"] == 1
    assert document["benchmark"] == "ttft"
    figures = document["figures"]
    assert all(isinstance(value, int | float | None) for value in figures.values())
    assert figures["batch_speedup"] == pytest.approx(2)
    assert figures["ttft_warm_n"] == 5
    assert figures["batch_speedup_low"] is None
    assert document["model"] == "pretended"
    assert document["config_digest"] == "abc123"
    assert document["run_id"] == rig.parts.recorder.run_id
    assert document["versions"]["engine"] == "pretended 1 cpu"
    assert document["machine"]
    assert len(document["detail"]["ttft"]["samples"]) == 5 * 3 + 3 * 2
    assert len(document["detail"]["batching"]["runs"]) == 4
    assert document["notes"]


async def test_markdown_has_a_row_a_series_and_says_what_to_beware_of(
    rig: Rig, tmp_path: Path
) -> None:
    made = await measured(rig)
    write_markdown(made, tmp_path / "ttft.md")
    text = (tmp_path / "ttft.md").read_text()
    assert text == markdown(made)
    for series in ("cold", "warm", "variable", "cold_tail128", "warm_tail128"):
        assert f"| {series} | " in text
    assert "| warm / cold | " in text
    assert "| through the scheduler | 2.00 | too few values |" in text
    assert f"pretended on {made.machine}" in text
    assert "- Fewer than 20 samples" in text


async def test_tables_are_rectangular(rig: Rig) -> None:
    for table in (await measured(rig)).tables():
        assert table.rows
        assert {len(row) for row in table.rows} == {len(table.header)}


async def test_a_measurement_that_was_ended_at_once_has_no_empty_tables(rig: Rig) -> None:
    times = await ttft.measure(rig.parts, samples=1, seed=0)
    ended = report("ttft", [replace(times, samples=())], rig.parts, config_digest="abc123")
    assert ended.tables() == ()
    assert "Ended early, after 0 of 5 samples." in markdown(ended)


async def test_a_result_is_replaced_whole(rig: Rig, tmp_path: Path) -> None:
    made = await measured(rig)
    path = tmp_path / "ttft.json"
    assert replaced(made, path) == "ttft"
    assert names(tmp_path) == ["ttft.json"]


def replaced(made: Report, path: Path) -> object:
    path.write_text("an older and much longer text" * 10_000)
    write_json(made, path)
    return json.loads(path.read_text())["benchmark"]


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def test_a_place_that_can_not_be_written_is_an_input_error(rig: Rig, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="can't be written"):
        write_json(await measured(rig), tmp_path / "file" / "ttft.json")

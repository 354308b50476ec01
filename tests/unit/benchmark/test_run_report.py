"""The report of a recorded run, against sums made by hand."""

from __future__ import annotations

import json
import shutil
import struct
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rlm_runtime.benchmark import plots_run, plots_timeline
from rlm_runtime.benchmark.results import LOUD, markdown, write_json
from rlm_runtime.benchmark.run_calls import Warmth, alone, tasks
from rlm_runtime.benchmark.run_report import RunMeasurement, run_measurement, run_report
from rlm_runtime.benchmark.run_tables import MEANING, SHOWN, reads
from rlm_runtime.errors import ConfigError, InputError, TraceError
from rlm_runtime.profiler.causes import Cause
from rlm_runtime.profiler.run_log import RunLog
from rlm_runtime.tracing import ValueRead, ValueStored

if TYPE_CHECKING:
    from tests.unit.benchmark.conftest import RecordedRun

TEXT = tuple(range(1000, 1064))
OTHER = tuple(range(2000, 2040))


@pytest.fixture
def three(recorded: RecordedRun) -> RecordedRun:
    """A cold call, a warm one with a new text, and the same text behind other ids."""
    recorded.call(1, TEXT, 0)
    recorded.call(2, OTHER, 64, group="9f" * 16, label="read chunk")
    recorded.call(3, (7, *TEXT), 64, agent_id="a2")
    recorded.agent("a2", "a1")
    recorded.end(engine_computed_tokens=128 + 40 + 65)
    return recorded


def cells(measured: RunMeasurement, title: str) -> dict[str, tuple[str, ...]]:
    """Rows of a table by their first cell."""
    table = next(table for table in measured.tables() if table.title.startswith(title))
    assert {len(row) for row in table.rows} == {len(table.header)}
    return {row[0]: row[1:] for row in table.rows}


def test_computed_tokens_a_task_lead_and_sub_agents_are_no_tasks(three: RecordedRun) -> None:
    measured = run_measurement(three.log())
    figures = measured.figures()
    assert figures["tasks"] == 1
    assert figures["agents"] == 2
    assert figures["computed_tokens_per_task"] == figures["computed_tokens"] == 128 + 40 + 65
    first = measured.tables()[0].rows[0]
    assert first == ("computed tokens per task", "233", "1 task")


def test_the_causes_shown_add_up_to_what_was_computed(three: RecordedRun) -> None:
    measured = run_measurement(three.log())
    rows = cells(measured, "Why tokens were computed")
    assert int(rows.pop("computed")[0]) == sum(int(row[0]) for row in rows.values()) == 233
    assert int(rows["layout"][0]) == 63  # TEXT, one id later; the last one fills no block
    assert MEANING.keys() == set(Cause)


def test_equal_counters_are_told_as_equal(three: RecordedRun) -> None:
    measured = run_measurement(three.log())
    assert cells(measured, "The engine's own")["computed tokens"] == ("233", "233", "equal")
    assert measured.figures()["ledger_gap_tokens"] == 0
    assert not [note for note in measured.notes() if note.startswith(LOUD)]


@pytest.mark.parametrize(("counted", "said"), [(333, "100 computed tokens more"), (133, "fewer")])
def test_a_mismatch_with_the_engine_is_a_loud_note(
    recorded: RecordedRun, counted: int, said: str
) -> None:
    recorded.call(1, TEXT, 0)
    recorded.call(2, (*TEXT, *range(41)), 64)
    recorded.end(engine_computed_tokens=counted)
    measured = run_measurement(recorded.log())
    (note,) = (note for note in measured.notes() if note.startswith(LOUD))
    assert said in note
    assert measured.figures()["ledger_gap_tokens"] == counted - 233
    row = cells(measured, "The engine's own")["computed tokens"]
    assert row == (f"{counted}", "233", f"{counted - 233:+}")


def test_cold_calls_found_no_block_of_the_prefix_and_warm_ones_all(recorded: RecordedRun) -> None:
    recorded.call(1, TEXT, 0)
    recorded.call(2, OTHER, 64)
    recorded.call(3, (5, *OTHER), 32)
    recorded.call(4, (6, *OTHER), 0, runs=2)
    measured = run_measurement(recorded.log())
    found = {one: [c.request_id for c in calls] for one, calls in measured.by_warmth.items()}
    assert found == {Warmth.COLD: ["r1"], Warmth.WARM: ["r2"], Warmth.OTHER: ["r3"]}
    figures = measured.figures()
    assert figures["prefill_cold_ms_p50"] == pytest.approx(128)
    assert figures["prefill_warm_ms_p50"] == pytest.approx(40)
    assert figures["ttft_alone_warm_ms_p50"] == pytest.approx(41)


def test_a_request_is_alone_when_none_overlaps_it(recorded: RecordedRun) -> None:
    recorded.call(1, TEXT, 0)
    recorded.call(3, OTHER, 64, at_s=9.0)
    recorded.call(5, OTHER, 96)  # within the one before
    recorded.call(9, OTHER, 96)
    recorded.call(10, OTHER, 96, admitted_at_s=None)
    recorded.call(1, OTHER, 96, admitted_at_s=20.0, at_s=21.0)  # of another engine
    recorded.call(2, OTHER, 96, admitted_at_s=20.5, at_s=21.5)
    assert {request_id for request_id, _ in alone(recorded.events)} == {"r1", "r9"}
    assert ("r1", 21.0) not in alone(recorded.events)


def test_answers_in_several_ways_are_no_tasks(recorded: RecordedRun) -> None:
    recorded.agent("q1", kind="quality-both")
    recorded.agent("q2", kind="quality-bm25")
    assert set(tasks(recorded.events)) == {"a1"}


def test_only_what_the_log_has_is_reported(three: RecordedRun) -> None:
    shutil.rmtree(three.directory / "blobs")
    (three.directory / "blobs").mkdir()
    measured = run_measurement(three.log())
    assert measured.figures()["miss_layout_tokens"] is None
    assert cells(measured, "Why")["layout"][:2] == ("-", "-")
    assert any("not kept" in note for note in measured.notes())


def test_a_run_that_died_in_mid_line_is_reported_and_says_so(three: RecordedRun) -> None:
    three.log()
    path = three.directory / "events.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.index(b'"r3"')])
    measured = run_measurement(RunLog.load(path))
    assert measured.figures()["computed_tokens"] == 128 + 40
    assert measured.figures()["ledger_gap_tokens"] is None
    notes = " ".join(measured.notes())
    assert "did not end in order" in notes
    assert "written half" in notes
    assert "1 agent did not end" in notes


def test_a_run_without_calls_says_so(recorded: RecordedRun) -> None:
    made = run_report(recorded.log())
    assert "No call came to its end" in markdown(made)
    assert made.figures()["computed_tokens_per_task"] == 0
    assert made.figures()["prefill_cold_ms_p50"] is None


def test_an_empty_log_holds_no_report(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_bytes(b"")
    with pytest.raises(TraceError, match="nothing to report"):
        run_report(RunLog.load(tmp_path))


def test_a_run_that_only_measured_has_no_tasks(recorded: RecordedRun) -> None:
    recorded.events.pop()
    recorded.agent("t1", kind="ttft")
    for number in range(1, 7):
        series, cached = ("cold", 0) if number % 2 else ("warm", 64)
        recorded.call(number, OTHER, cached, agent_id="t1", label=f"ttft {series}")
    made = run_report(recorded.log())
    assert made.figures()["computed_tokens_per_task"] is None
    assert "only measured" in " ".join(made.notes())
    assert made.figures()["ttft_cold_ms_p50"] == pytest.approx(105)
    assert made.figures()["ttft_warm_over_cold"] == pytest.approx(41 / 105)
    assert [m.name for m in made.measurements] == ["run", "ttft"]


def test_the_same_log_gives_the_same_report(three: RecordedRun, tmp_path: Path) -> None:
    for name in ("a.json", "b.json"):
        write_json(run_report(three.log()), tmp_path / name)
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    document = json.loads((tmp_path / "a.json").read_text())
    assert document["made_at"] == "2026-01-01T00:00:00+00:00"
    assert document["detail"]["run"]["by_agent"][0]["computed_tokens"] == 168
    assert document["detail"]["run"]["largest_calls"][0]["request_id"] == "r1"
    assert document["detail"]["run"]["largest_calls"][1]["causes"]["layout"] == 63


def test_tables_are_bounded_and_the_rest_is_counted(recorded: RecordedRun) -> None:
    for number in range(1, SHOWN + 6):
        recorded.call(number, (number, *TEXT), 64, group=f"{number:02x}" * 16)
    measured = run_measurement(recorded.log())
    rows = cells(measured, f"By document ({SHOWN + 5})")
    assert len(rows) == SHOWN + 1
    assert rows["(5 more)"][0] == "5"
    assert rows["(5 more)"][3] == f"{5 * 65}"


def test_reads_tell_the_share_and_what_was_seen_twice(recorded: RecordedRun) -> None:
    recorded.events.append(
        ValueStored(
            at_s=1.0,
            name="report",
            version=1,
            kind="str",
            size_bytes=1000,
            digest="d",
            writer="user",
            tokens=200,
            is_estimated=False,
        )
    )
    for start, end, tokens in ((0, 300, 60), (200, 500, 60), (0, 1000, 0)):
        recorded.events.append(
            ValueRead(
                at_s=2.0,
                reader="a1",
                name="report",
                version=1,
                start_byte=start,
                end_byte=end,
                tokens=tokens,
            )
        )
    (read,) = reads(recorded.events)
    assert (read.reads, read.tokens, read.share, read.covered) == (2, 120, 0.6, 0.5)


def size_of(png: Path) -> tuple[int, int]:
    """Width and height, from the header chunk."""
    data = png.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", data[16:24])
    return int(width), int(height)


PLOTS = (plots_run.plot_tokens, plots_run.plot_prefill, plots_timeline.plot_timeline)


@pytest.mark.parametrize("plot", PLOTS)
def test_a_run_of_few_calls_is_drawn(three: RecordedRun, plot: object, tmp_path: Path) -> None:
    made = run_report(three.log())
    assert callable(plot)
    plot(made, made.measurements[0], tmp_path / "plots" / "run.png")
    width, height = size_of(tmp_path / "plots" / "run.png")
    assert width == 1200
    assert 300 < height < 1200
    assert [p.name for p in (tmp_path / "plots").iterdir()] == ["run.png"]


def test_names_are_no_formulas(recorded: RecordedRun, tmp_path: Path) -> None:
    recorded.agent("b1", kind="pay $\\frac$ back")
    recorded.call(1, TEXT, 0, agent_id="b1")
    recorded.call(2, TEXT, 96)
    made = run_report(recorded.log())
    run = made.measurements[0]
    assert isinstance(run, RunMeasurement)
    plots_timeline.plot_timeline(made, run, tmp_path / "timeline.png")
    assert size_of(tmp_path / "timeline.png")[0] == 1200


def test_a_timeline_of_many_calls_and_agents_stays_a_page(
    recorded: RecordedRun, tmp_path: Path
) -> None:
    for number in range(1, 1001):
        agent_id = f"b{number % 40}"
        own = (number, *OTHER)
        recorded.call(number, own, 64, agent_id=agent_id, finished_at_s=104.0 + number)
    made = run_report(recorded.log())
    run = made.measurements[0]
    assert isinstance(run, RunMeasurement)
    plots_timeline.plot_timeline(made, run, tmp_path / "timeline.png")
    width, height = size_of(tmp_path / "timeline.png")
    assert (width, height < 1300) == (1200, True)


@pytest.mark.parametrize("plot", PLOTS)
def test_nothing_to_draw_is_an_input_error(
    recorded: RecordedRun, plot: object, tmp_path: Path
) -> None:
    made = run_report(recorded.log())
    assert callable(plot)
    with pytest.raises(InputError, match="no"):
        plot(made, made.measurements[0], tmp_path / "no.png")
    assert not (tmp_path / "no.png").exists()


def test_without_matplotlib_the_extra_is_named(
    three: RecordedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = run_report(three.log())
    run = made.measurements[0]
    assert isinstance(run, RunMeasurement)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ConfigError, match=r"rlm-vllm\[plots\]"):
        plots_run.plot_tokens(made, run, tmp_path / "no.png")


def test_calls_without_facts_are_counted_and_told(recorded: RecordedRun) -> None:
    recorded.call(1, TEXT, 0)
    facts = ("prompt_tokens", "cached_tokens", "computed_tokens", "generated_tokens", "runs")
    times = ("ttft_s", "queue_s", "prefill_s", "decode_s", "scheduled_at_s", "finished_at_s")
    recorded.call(2, OTHER, 0, outcome="cancelled", **dict.fromkeys((*facts, *times)))
    measured = run_measurement(recorded.log())
    assert measured.figures()["calls_without_facts"] == 1
    assert len(measured.calls) == 1
    assert any("1 call was aborted" in note for note in measured.notes())

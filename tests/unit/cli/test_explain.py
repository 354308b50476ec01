"""`rlm-bench explain` of runs with a date on top of their prompts, and of runs that lack things."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from rlm_runtime.cli import apps
from rlm_runtime.config.model import EngineConfig
from rlm_runtime.prompt import Prompt, Tokenizer
from rlm_runtime.scheduler import Call, Job, Scheduler
from rlm_runtime.tracing import EngineStarted, Recorder, Segment, run_started
from rlm_runtime.tracing.recorder import EVENTS
from rlm_runtime.types import AgentId

if TYPE_CHECKING:
    from tests.unit.cli.conftest import Boots, Ended, Rlm

Bench = Callable[..., "Ended"]

RULES = "Answer from the text alone, in one sentence, and say what is missing in it.\n" * 3
PLACE = 15
"""Three tokens open the turn, and twelve are the same in all dates."""

IDS = ("20260101T120000.000000Z-1a2b3c", "20260102T120000.000000Z-4d5e6f")


@pytest.fixture
def bench(capsys: pytest.CaptureFixture[str], rlm: Rlm) -> Bench:
    """Runs `rlm-bench explain` in this process."""
    ended_type = type(rlm("--version"))

    def run(*arguments: str | Path) -> Ended:
        capsys.readouterr()
        code = apps.rlm_bench(["explain", *map(str, arguments)])
        return ended_type(code, *capsys.readouterr())

    return run


@pytest.fixture
def recorded(boots: Boots, model_dir: Path, home: Path) -> Path:
    """The newer of two runs in the state directory: five calls, each with another date on top."""
    tokenizer = Tokenizer.from_folder(model_dir)
    older, newer = (home / "state" / "runs" / run_id for run_id in IDS)
    older.mkdir(parents=True)
    (older / EVENTS).touch()

    def prompt(day: int) -> Prompt:
        ids = tokenizer.encode_template("<|im_start|>system\n")
        ids += tokenizer.encode(f"Now: 2026-11-{day}.\n{RULES}")
        task = tokenizer.encode("Why?")
        end = len(ids)
        segments = Segment("shared", 0, end), Segment("task", end, end + len(task))
        return Prompt(ids + task, segments)

    async def record() -> None:
        engine = await boots.start(EngineConfig(block_size=16), model_dir, on_stage=None)
        info = engine.info
        with Recorder(newer) as recorder:
            recorder.emit(run_started(recorder.run_id, "c"))
            recorder.emit(
                EngineStarted(
                    at_s=0.0,
                    model="a-model",
                    backend=info.backend,
                    window=info.window,
                    block_size=info.block_size,
                    kv_blocks=info.kv_blocks,
                    max_running=info.max_running,
                    tokenizer_digest=tokenizer.digest,
                    shared_prefix_digest="s",
                    shared_prefix_tokens=0,
                    boot_s=0.0,
                )
            )
            scheduler = Scheduler(engine, recorder, shared_tokens=0, max_queued_calls=9)
            for day in range(11, 16):
                call = Call(prompt=prompt(day), agent_id=AgentId("a1"), label="dated")
                await scheduler.run(Job(), call)

    anyio.run(record)
    return newer


def the_break(document: Any) -> Any:
    (found,) = document["breaks"]
    return found


def test_people_see_causes_calls_and_the_text_around_the_break(
    bench: Bench, recorded: Path, model_dir: Path
) -> None:
    ended = bench(recorded, "--model", model_dir)
    assert ended.code == 0
    lines = ended.out.splitlines()
    assert any(line.split()[:1] == ["layout"] for line in lines)
    assert "layout: varying_value, " in ended.out
    assert "r2 differs from r1 from token 15 on, in `shared`; " in ended.out
    assert "Now: 2026-11-1[[2]].\\nAnswer from the text" in ended.out
    assert "Now: 2026-11-1[[1]].\\nAnswer from the text" in ended.out
    assert "(a1, dated)" in ended.out
    assert "and 1 more" in ended.out, "three of four calls are shown"
    assert "did not end in order" in ended.err


def test_the_document_has_flat_facts_of_each_cause_and_break(
    bench: Bench, recorded: Path, model_dir: Path
) -> None:
    ended = bench(recorded, "--model", model_dir, "--json", "--top", "2")
    assert (ended.code, ended.err) == (0, "")
    document = ended.document
    figures, causes = document["figures"], document["causes"]
    assert sum(cause["tokens"] for cause in causes) == figures["computed_tokens"]
    assert sum(cause["share"] for cause in causes) == pytest.approx(1)
    for cause in causes:
        assert cause["tokens"] == figures[f"miss_{cause['cause']}_tokens"]
        assert len(cause["biggest_calls"]) == min(2, cause["calls"])
    found = the_break(document)
    assert (found["kind"], found["calls"], found["position"]) == ("varying_value", 4, PLACE)
    assert found["tokens"] == figures["miss_layout_tokens"]
    assert (found["differing_text"], found["earlier_differing_text"]) == ("2", "1")
    assert found["before_text"].endswith("Now: 2026-11-1")
    assert [call["request_id"] for call in found["biggest_calls"]] == ["r2", "r3"]


def test_texts_can_be_left_out(bench: Bench, recorded: Path, model_dir: Path) -> None:
    shown = bench(recorded, "--model", model_dir, "--no-text")
    assert "from token 15 on" in shown.out
    assert "2026" not in shown.out
    found = the_break(bench(recorded, "--model", model_dir, "--no-text", "--json").document)
    assert found["position"] == PLACE
    assert [name for name in found if name.endswith(("_text", "_ids"))] == []


def test_without_the_model_there_are_ids_and_no_guess(
    bench: Bench, recorded: Path, model_dir: Path
) -> None:
    ended = bench(recorded)
    assert ended.code == 0
    assert "a-model, is not on this machine" in " ".join(ended.err.split())
    two = Tokenizer.from_folder(model_dir).encode("2")[0]
    assert f"[[{two}]]" in ended.out
    found = the_break(bench(recorded, "--json").document)
    assert (found["kind"], found["position"]) == ("other", PLACE)
    assert (found["differing_text"], found["differing_ids"]) == (None, [two])


def test_another_models_tokenizer_is_not_used(
    bench: Bench, recorded: Path, model_dir: Path
) -> None:
    log = recorded / EVENTS
    digest = Tokenizer.from_folder(model_dir).digest
    log.write_text(log.read_text().replace(digest, "0" * 64))
    named = bench(recorded, "--model", model_dir)
    assert named.code == 2
    assert "not the one that the run was made with" in named.err
    log.write_text(log.read_text().replace('"a-model"', f'"{model_dir}"'))
    found = bench(recorded)
    assert found.code == 0
    assert "has another tokenizer" in " ".join(found.err.split())


@pytest.mark.parametrize("name", ["last", IDS[1], None])
def test_a_run_is_named_by_last_by_its_id_or_by_its_log(
    bench: Bench, recorded: Path, name: str | None
) -> None:
    ended = bench(name or recorded / EVENTS, "--json")
    assert ended.code == 0
    assert ended.document["run_directory"] == str(recorded)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ((), f"No run is named.*The newest in .*: {IDS[1]}, {IDS[0]}"),
        (("4d5e6f",), f"Nearest: {IDS[1]}"),
        ((IDS[0][:-1] + "d",), f"Nearest: {IDS[0]}"),
        (("nowhere",), f"There is no run 'nowhere'.*The newest in .*: {IDS[1]}"),
    ],
)
def test_a_run_that_is_not_there_is_wrong_usage_and_names_those_that_are(
    bench: Bench, recorded: Path, typed: tuple[str, ...], said: str
) -> None:
    ended = bench(*typed)
    assert ended.code == 2
    assert re.search(said, " ".join(ended.err.split()))


def test_without_any_run_it_says_where_it_looked(bench: Bench, home: Path) -> None:
    ended = bench("last")
    assert ended.code == 2
    assert f"No runs are kept in {home}" in " ".join(ended.err.split())


def test_without_blobs_nothing_is_said_about_the_layout_and_why(
    bench: Bench, recorded: Path
) -> None:
    shutil.rmtree(recorded / "blobs")
    document = bench(recorded, "--json").document
    assert document["breaks"] is None
    assert document["figures"]["miss_layout_tokens"] is None
    assert any("breaks of the layout can't be looked for" in note for note in document["notes"])
    shown = bench(recorded)
    assert shown.code == 0
    assert "can't be looked for" in " ".join(shown.err.split())


def test_a_log_that_ends_inside_a_line_is_explained_as_far_as_it_goes(
    bench: Bench, recorded: Path
) -> None:
    log = recorded / EVENTS
    log.write_bytes(log.read_bytes()[:-100])
    document = bench(recorded, "--json").document
    assert the_break(document)["calls"] == 3
    assert any("written half" in note for note in document["notes"])


def test_a_run_without_calls_is_no_error(bench: Bench, recorded: Path) -> None:
    log = recorded / EVENTS
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:2]))
    ended = bench(recorded)
    assert ended.code == 0
    assert "nothing was computed" in ended.out
    assert bench(recorded, "--json").document["causes"] == []


def test_a_later_schema_fails_with_what_to_do(bench: Bench, recorded: Path) -> None:
    log = recorded / EVENTS
    log.write_text(log.read_text().replace('"schema_version":1', '"schema_version":2'))
    ended = bench(recorded, "--json")
    assert ended.code == 1
    assert ended.document["error"]["code"] == "trace"


def test_no_calls_are_shown_when_none_are_wanted(bench: Bench, recorded: Path) -> None:
    ended = bench(recorded, "--top", "0")
    assert "The calls behind it" not in ended.out
    assert "dated" not in ended.out


def test_ids_of_a_log_cannot_command_the_terminal(
    bench: Bench, recorded: Path, model_dir: Path
) -> None:
    log = recorded / EVENTS
    text = log.read_text()
    for name in ("r1", "r2", "a1"):
        text = text.replace(f'"{name}"', f'"{name}\\u001b]0;x\\u0007\\ny"')
    log.write_text(text)
    ended = bench(recorded, "--model", model_dir)
    assert ended.code == 0
    assert not {"\x1b", "\x07"} & set(ended.out + ended.err)
    assert "r2]0;x y differs from r1]0;x y from token 15 on" in ended.out
    assert "(a1]0;x y, dated)" in ended.out

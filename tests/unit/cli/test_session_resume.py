"""A program that goes on: `RLM(resume=RUN)`, on an engine that computes nothing."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rlm_runtime import RLM, Config
from rlm_runtime.engine.model_identity import model_digest
from rlm_runtime.errors import EngineDead, InputError, RunChanged
from rlm_runtime.tracing import EngineStarted, read_events

if TYPE_CHECKING:
    from rlm_runtime.engine.base import GenerateRequest
    from tests.unit.cli.conftest import Boots

CHUNKS = ["The wall is old.", "Rain fell.", "Bob Kern watched."]
QUESTIONS = ["What is it about?", "Who is named?"]


@pytest.fixture
def config(model_dir: Path, home: Path) -> Config:
    return Config.model_validate({"model": str(model_dir), "temperature": 0.7, "seed": None})


def in_run(config: Config, directory: Path) -> Config:
    return Config.model_validate(config.model_dump() | {"run": {"directory": directory}})


def program(rlm: RLM, text: Path) -> list[object]:
    """Samples, choices, a search, and a summary of summaries."""
    mapped = rlm.llm_map(CHUNKS, QUESTIONS, max_tokens=4)
    chosen = rlm.llm_map(CHUNKS, QUESTIONS[:1], choices=["yes", "no"])
    found = rlm.run("Who signed the treaty?", text)
    summary = rlm.run("Summarise this in one sentence.", text, agent="map_reduce")
    return [
        [[answer.ids for answer in row] for row in mapped],
        [[answer.value for answer in row] for row in chosen],
        found.answer,
        summary.answer,
        found.usage,
        summary.usage,
    ]


def test_a_program_whose_engine_died_goes_on_where_it_was(
    boots: Boots, config: Config, text: Path, tmp_path: Path
) -> None:
    with RLM(in_run(config, tmp_path / "whole")) as rlm:
        expected = program(rlm, text)
    requests = boots.engines[-1].requests
    for kill_at in range(1, requests + 1, 4):
        directory = tmp_path / f"run{kill_at}"

        def die(_: GenerateRequest, kill_at: int = kill_at) -> None:
            if boots.engines[-1].requests == kill_at:
                raise EngineDead("killed.")

        boots.on_request = die
        # A death while a highlight is chosen costs no answer, and is no end.
        with suppress(EngineDead), RLM(in_run(config, directory)) as rlm:
            program(rlm, text)
        boots.on_request = None
        with RLM(in_run(config, tmp_path / f"again{kill_at}"), resume=directory) as rlm:
            told = program(rlm, text)
            assert rlm.resumed is not None
            taken = rlm.resumed.taken
        assert told[:4] == expected[:4]
        assert taken + boots.engines[-1].requests == requests
        assert len(rlm.resumed) == 0


def test_nothing_of_a_resumed_run_is_in_the_figures_of_the_new_one(
    boots: Boots, config: Config, text: Path, tmp_path: Path
) -> None:
    with RLM(in_run(config, tmp_path / "first")) as rlm:
        expected = program(rlm, text)
    with RLM(in_run(config, tmp_path / "again"), resume=tmp_path / "first") as rlm:
        assert program(rlm, text) == expected  # the tasks' own usage counts what was taken
        figures = rlm.ledger.figures()
    assert boots.engines[-1].requests == 0
    assert (figures["calls"], figures["computed_tokens"]) == (0, 0)


def test_changed_settings_are_named_and_make_no_run(
    boots: Boots, config: Config, tmp_path: Path, home: Path
) -> None:
    with RLM(in_run(config, tmp_path / "first")):
        pass
    changed: dict[str, Any] = config.model_dump() | {"search": {"chunk_tokens": 99}}
    other = in_run(Config.model_validate(changed), tmp_path / "again")
    with pytest.raises(RunChanged, match=r"search\.chunk_tokens was 700, is 99") as err:
        RLM(other, resume=tmp_path / "first")
    assert len(err.value.changes) == 1
    assert not (tmp_path / "again").exists()
    with RLM(other, resume=tmp_path / "first", anyway=True) as rlm:
        assert rlm.resumed is not None
        assert any("chunk_tokens" in note for note in rlm.resumed.notes)


def test_settings_that_were_not_kept_are_said_to_be_others(
    boots: Boots, config: Config, tmp_path: Path
) -> None:
    with RLM(in_run(config, tmp_path / "first")):
        pass
    for blob in (tmp_path / "first" / "blobs").iterdir():
        blob.unlink()
    other = Config.model_validate(config.model_dump() | {"seed": 3})
    with pytest.raises(RunChanged, match="was not kept"):
        RLM(in_run(other, tmp_path / "again"), resume=tmp_path / "first")
    # The digest tells that these are the same; their contents are not needed.
    RLM(in_run(config, tmp_path / "again"), resume=tmp_path / "first").close()


def test_a_session_that_goes_on_is_not_resumed(
    boots: Boots, config: Config, tmp_path: Path
) -> None:
    with (
        RLM(in_run(config, tmp_path / "first")),
        pytest.raises(InputError, match="goes on still"),
    ):
        RLM(in_run(config, tmp_path / "again"), resume=tmp_path / "first")


def test_the_log_says_which_model_it_was(
    boots: Boots, config: Config, text: Path, tmp_path: Path, model_dir: Path
) -> None:
    with RLM(in_run(config, tmp_path / "first")) as rlm:
        rlm.start()
    started = [e for e in read_events(tmp_path / "first") if isinstance(e, EngineStarted)]
    assert [event.model_digest for event in started] == [model_digest(model_dir)]


def test_other_weights_are_another_model_and_a_copy_is_the_same(tmp_path: Path) -> None:
    def model(name: str, weights: bytes, settings: bytes = b"{}") -> str:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_bytes(settings)
        (folder / "model.safetensors").write_bytes(weights)
        return model_digest(folder)

    weights = bytes(range(256)) * 4096
    tuned = bytearray(weights)
    tuned[len(weights) // 2] += 1
    assert model("one", weights) == model("copy", weights)
    others = [
        model("two", bytes(tuned)),
        model("three", weights + b"1"),
        model("four", weights, b"1"),
    ]
    assert len({model("five", weights), *others}) == 4

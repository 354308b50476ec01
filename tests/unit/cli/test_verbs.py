"""`rlm config`, `rlm model` and what several verbs share."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rlm_runtime.cli import first_use, options
from rlm_runtime.cli.terminal import Terminal
from rlm_runtime.config import Config
from rlm_runtime.config.load import explain
from rlm_runtime.engine import model_files
from rlm_runtime.engine.model_files import ModelFolder, Plan
from rlm_runtime.engine.model_steps import Bytes, OnProgress, Progress
from rlm_runtime.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from tests.unit.cli.conftest import Rlm


def test_flags_read_settings_and_options_of_their_own_win() -> None:
    named = {"limits.max_calls": 3, "model": None}
    assert options.flags(["a.b=1", "a.b=2=3", "limits.max_calls=9"], named) == {
        "a.b": "2=3",
        "limits.max_calls": 3,
    }


@pytest.mark.parametrize("wrong", ["engine", "=1", " =1"])
def test_a_setting_without_key_or_value_is_an_error(wrong: str) -> None:
    with pytest.raises(ConfigError, match="KEY=VALUE"):
        options.flags([wrong])


def test_config_shows_every_value_with_its_origin(
    rlm: Rlm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.yaml").write_text("search:\n  passages: 4\n")
    monkeypatch.setenv("RLM_ENGINE__MAX_RUNNING", "7")
    ended = rlm("config", "--config", tmp_path / "mine.yaml", "--set", "search.chunk_tokens=99")
    rows = {row.split()[0]: row.split()[1:] for row in ended.out.splitlines()}
    assert rows.keys() == {key.key for key in explain()}
    assert rows["search.passages"] == ["4", "mine.yaml"]
    assert rows["search.chunk_tokens"] == ["99", "flag"]
    assert rows["engine.max_running"] == ["7", "RLM_ENGINE__MAX_RUNNING"]
    assert rows["engine.block_size"] == ["32", "default"]


def test_config_explains_every_key(rlm: Rlm) -> None:
    ended = rlm("config", "--explain")
    text = " ".join(ended.out.split())
    for key in explain():
        assert f"{key.key} = " in text
        assert key.description in text
        assert f"{key.allowed}; default {key.default}" in text


def test_config_is_a_document_too(rlm: Rlm) -> None:
    plain, explained = (rlm("config", "--json", *more).document for more in ((), ("--explain",)))
    assert plain["settings"]["run.keep"] == {"value": True, "origin": "cpu-smollm2.yaml"}
    assert explained["settings"]["engine.max_running"]["default"] == 16
    assert plain["source"] == "cpu-smollm2.yaml"


def test_models_are_listed_added_and_found(rlm: Rlm, tmp_path: Path, model_dir: Path) -> None:
    nothing = rlm("model", "list")
    assert (nothing.out, "rlm model add" in nothing.err) == ("", True)
    folder = tmp_path / "mine"
    shutil.copytree(model_dir, folder)
    assert rlm("model", "add", folder).out == f"{folder}\n"
    assert rlm("model", "path", "mine").out == f"{folder}\n"
    (listed,) = rlm("model", "list", "--json").document["models"]
    assert (listed["name"], listed["problem"]) == ("mine", None)
    (folder / "config.json").unlink()
    assert "problem: " in rlm("model", "list").out
    assert rlm("model", "path", "mine").code == 3


def test_a_model_that_is_not_here_is_code_3(rlm: Rlm) -> None:
    ended = rlm("model", "path")
    assert ended.code == 3
    assert "rlm model add" in ended.err


@pytest.fixture
def bringing(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Notes what is brought, without bringing it."""
    brought: list[str] = []

    def add(model: str, *, on_progress: OnProgress, force: bool) -> ModelFolder:
        on_progress(Progress("downloading", 1.0, Bytes(1_000_000, 92_871_040)))
        brought.append(model)
        return ModelFolder(model, Path("folder"))

    monkeypatch.setattr(model_files, "add", add)
    return brought


def test_the_first_use_says_what_how_much_and_where_to_before_it_downloads(
    home: Path, bringing: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ModelError, match="not prepared"):  # `add` above brings nothing
        first_use.get_ready(Config(), Terminal(is_quiet=True))
    err = capsys.readouterr().err
    assert bringing == [model_files.DEFAULT]
    assert "SmolLM2-135M-Instruct" in err
    assert "93 MB" in err
    assert str(home / "models" / model_files.DEFAULT) in err


def test_a_damaged_default_model_is_not_prepared_again_unasked(
    home: Path, bringing: list[str]
) -> None:
    (home / "models" / model_files.DEFAULT).mkdir(parents=True)
    with pytest.raises(ModelError, match="--force"):
        first_use.get_ready(Config(), Terminal())
    assert bringing == []


def test_another_model_is_never_downloaded_unasked(home: Path, bringing: list[str]) -> None:
    with pytest.raises(ModelError, match="rlm model add owner/name"):
        first_use.get_ready(Config(model="owner/name"), Terminal())
    assert bringing == []


def test_without_a_plan_it_is_tried_all_the_same(
    home: Path, bringing: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(_: str) -> Plan:
        raise ModelError("The hub is out of reach.")

    monkeypatch.setattr(model_files, "plan", unreachable)
    assert first_use.bring("owner/name", Terminal()).name == "owner/name"
    assert bringing == ["owner/name"]

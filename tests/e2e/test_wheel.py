"""The package as a wheel, installed somewhere else: nothing of the clone is needed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from rlm_runtime.engine.model_files import default_model_dir

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]


def run(*argv: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a program far from the clone, with none of this process's Python settings."""
    kept = {n: v for n, v in os.environ.items() if not n.startswith(("RLM_", "PYTHON", "VIRTUAL"))}
    if "RLM_HOME" in os.environ:
        kept["RLM_MODEL"] = str(default_model_dir())
    environment = kept | {"XDG_STATE_HOME": str(cwd / "state"), "RLM_ENGINE__KV_CACHE_GIB": "1"}
    return subprocess.run(
        [str(word) for word in argv],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=280,
        check=False,
    )


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an environment's programs: the wheel, and beside it this Python's packages.

    Those are added as a plain path: their own path files are not read, so the clone that this
    Python has installed in place can't be found there.
    """
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation"]
    built = run(*build, "--outdir", folder, ROOT, cwd=folder)
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,) = folder.glob("rlm_vllm-*.whl")
    venv.create(folder / "venv")
    programs = folder / "venv" / "bin"
    (packages,) = (folder / "venv").glob("lib/python*/site-packages")
    (packages / "beside.pth").write_text(f"{sysconfig.get_paths()['purelib']}\n")
    pip = [sys.executable, "-m", "pip", "--python", str(programs / "python"), "install"]
    done = run(*pip, "--no-deps", "--no-index", wheel, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return programs


def test_the_package_is_found_in_the_wheel_and_not_in_the_clone(
    installed: Path, tmp_path: Path
) -> None:
    shown = run(
        installed / "python", "-c", "import rlm_runtime as r; print(r.__file__)", cwd=tmp_path
    )
    assert Path(shown.stdout.strip()).is_relative_to(installed.parent)


def test_configurations_ship_in_the_wheel(installed: Path, tmp_path: Path) -> None:
    for name in (path.stem for path in (ROOT / "configs").glob("*.yaml")):
        shown = run(installed / "rlm", "config", "--json", "--config", name, cwd=tmp_path)
        assert shown.returncode == 0, shown.stderr
        assert json.loads(shown.stdout)["source"] == f"{name}.yaml"


def test_the_doctor_finds_no_problem(installed: Path, tmp_path: Path, model_dir: Path) -> None:
    ended = run(installed / "rlm", "doctor", "--json", cwd=tmp_path)
    problems = [f for f in json.loads(ended.stdout)["findings"] if f["level"] == "problem"]
    assert (ended.returncode, problems) == (0, [])


def test_a_question_is_answered(installed: Path, tmp_path: Path, model_dir: Path) -> None:
    sentence = "The treaty of the northern harbour was signed by Anna Meier."
    (tmp_path / "REPORT.txt").write_text(
        f"The garden has an old wall.\n\n{sentence}\n\nIt rained.\n"
    )
    question = "Who signed the treaty of the northern harbour?"
    ended = run(installed / "rlm", "run", "REPORT.txt", "-q", question, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[0].endswith(sentence)
    assert ended.stdout.splitlines()[1].strip() == "REPORT.txt:bytes 29-89"

"""A process of the engine: tied to its parent, quiet on the terminal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rlm_runtime.engine.child_guard import FRONT, LOG, tie

if sys.platform != "linux":
    pytest.skip("the parent-death signal is Linux's", allow_module_level=True)

PROGRAM = """
import ctypes, logging, os, sys
from rlm_runtime.engine import child_guard
child_guard.tie()
child_guard.tie()
death_signal = ctypes.c_int()
ctypes.CDLL(None).prctl(2, ctypes.byref(death_signal))  # PR_GET_PDEATHSIG
print("signal", death_signal.value)
print("problem", file=sys.stderr)
logging.getLogger("vllm.x").info("record")
"""

PARENT_OF_A_CHILD = f"""
import subprocess, sys
from rlm_runtime.engine import child_guard
child_guard.tie()
sys.exit(subprocess.run([sys.executable, "-c", {PROGRAM!r}]).returncode)
"""


def run(program: str, log: Path, front: int | None) -> subprocess.CompletedProcess[str]:
    tied = {} if front is None else {FRONT: str(front), LOG: str(log)}
    return subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | tied,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_child_dies_with_its_parent_and_writes_to_the_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    done = run(PROGRAM, log, os.getpid())
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    written = log.read_text()
    assert f"signal {signal.SIGKILL.value}\n" in written
    assert "problem\n" in written
    assert written.count("record") == 1


def test_a_child_of_a_child_is_tied_to_its_own_parent(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert run(PARENT_OF_A_CHILD, log, os.getpid()).returncode == 0
    assert f"signal {signal.SIGKILL.value}\n" in log.read_text()


def test_a_child_whose_parent_is_gone_ends_at_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    # Its parent is this process, not the one that is said to have started it.
    done = run(PROGRAM, log, os.getpid() + 1)
    assert (done.returncode, done.stdout) == (1, "")
    assert not log.exists()


def test_a_process_that_we_did_not_start_is_left_alone(tmp_path: Path) -> None:
    done = run(PROGRAM, tmp_path / "log", None)
    assert done.stdout == "signal 0\n"


def test_the_front_end_itself_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(FRONT, str(os.getpid()))
    monkeypatch.setenv(LOG, str(tmp_path / "log"))
    tie()
    print("still here")
    assert capfd.readouterr().out == "still here\n"
    assert not (tmp_path / "log").exists()

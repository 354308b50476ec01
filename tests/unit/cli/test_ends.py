"""Ends that only a process of its own can show: closed pipes, impatience, help without weight."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

RLM = [sys.executable, "-m", "rlm_runtime"]

IMPATIENT = """
import os, signal, sys
from rlm_runtime.cli import guard
from rlm_runtime.cli.command import Command

def work(terminal, document):
    try:
        os.kill(os.getpid(), signal.SIGINT)
    finally:
        # Ending in order takes a while, and somebody does not like to wait.
        for _ in range(int(sys.argv[1])):
            os.kill(os.getpid(), signal.SIGINT)
        print("unwound", flush=True)

sys.exit(guard.run(Command(work)))
"""


def impatient(more: int) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-c", IMPATIENT, str(more)]
    return subprocess.run(program, capture_output=True, text=True, check=False)


def test_a_second_ctrl_c_lets_the_end_go_on_in_order() -> None:
    ended = impatient(1)
    assert (ended.returncode, ended.stdout) == (130, "unwound\n")
    assert "once more ends at once" in ended.stderr


def test_a_third_ctrl_c_ends_on_the_spot() -> None:
    ended = impatient(2)
    assert (ended.returncode, ended.stdout) == (130, "")


def test_a_reader_that_goes_away_is_no_error(home: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    ended = subprocess.run(
        [*RLM, "config", "--explain"], stdout=write, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(write)
    assert (ended.returncode, ended.stderr) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("arguments", [["config"], ["config", "--json"]])
def test_an_answer_that_finds_no_room_is_an_error(home: Path, arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [*RLM, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert ended.returncode == 1
    assert ended.stderr.startswith(
        "error: The answer can't be written to standard output: No space"
    )
    assert ended.stderr.count("\n") == 1


def test_closed_streams_are_no_crash(home: Path) -> None:
    ended = subprocess.run(
        ["sh", "-c", 'exec "$0" -m rlm_runtime config >&- 2>&-', sys.executable], check=False
    )
    assert ended.returncode == 141


HEAVY = """
import sys
from rlm_runtime.cli import apps
for program, verbs in ((apps.rlm, "run doctor config model"), (apps.rlm_bench, "ttft explain")):
    for verb in verbs.split():
        assert program([verb, "--help"]) == 0
heavy = "vllm torch transformers tokenizers numpy rich anyio jinja2 bm25s psutil".split()
sys.stderr.write(" ".join(name for name in heavy if name in sys.modules))
"""


def test_help_loads_nothing_heavy() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", HEAVY], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")


DOCTOR = """
import sys
from rlm_runtime.cli import apps
apps.rlm(["doctor", "--json"])
sys.stderr.write(" ".join({"vllm", "torch", "transformers"} & set(sys.modules)))
"""


def test_the_doctor_does_not_load_the_gpu_stack() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", DOCTOR], capture_output=True, text=True, check=False
    )
    assert ended.stderr == ""
    assert '"findings"' in ended.stdout

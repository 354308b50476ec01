"""Engines in programs that are killed, interrupted, or lose their engine: nothing is left behind.

The programs have no `__main__` guard and never close their engine, as a hurried user's.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import psutil
import pytest

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(sys.platform != "linux", reason="the parent-death signal is Linux's"),
]

GONE_WITHIN_S = 10
MARK = "RLM_TEST_MARK"
SCHEDULERS = Path(__file__).parents[1] / "engine"

BEGINNING = """
import asyncio, json, signal, sys
from contextlib import aclosing
from pathlib import Path
from rlm_runtime.config.model import EngineConfig
from rlm_runtime.engine.base import GenerateRequest
from rlm_runtime.engine.vllm_engine import VLLMEngine

print("script runs", flush=True)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it

def say(word):
    print(word, flush=True)

def start(**vllm_args):
    config = EngineConfig(kv_cache_gib=0.5, window_tokens=2048, vllm_args=vllm_args)
    return VLLMEngine.start(
        config, Path(sys.argv[1]), model_name="smol", tokenizer_digest="", on_stage=say
    )

async def generate(engine, **fields):
    ids = tuple(range(5, 50))
    request = GenerateRequest("a", ids, max_tokens=1900, ignore_eos=True, **fields)
    async with aclosing(engine.generate(request)) as items:
        async for _item in items:
            yield
"""

ENDLESS = (
    BEGINNING
    + """
async def main():
    engine = await start()
    async for _token in generate(engine):
        say("token")

asyncio.run(main())
"""
)

DYING = (
    BEGINNING
    + """
import multiprocessing
sys.path.append(sys.argv[2])

async def death(kill=None, scheduler="BreakingScheduler", **fields):
    engine = await start(scheduler_cls=f"counting_scheduler.{scheduler}")
    told = []
    try:
        async for _token in generate(engine, **fields):
            if kill is not None:
                kill()
                kill = None
    except Exception as err:
        told.append([type(err).__name__, str(err)])
    try:
        async for _token in generate(engine):
            pass
    except Exception as err:
        told.append([type(err).__name__, str(err)])
    await engine.close()
    await engine.close()
    return told, [process.name for process in multiprocessing.active_children()]

def kill():
    [process] = multiprocessing.active_children()
    process.kill()

async def main():
    ending = await death(scheduler="EndingScheduler", priority=13)
    say(json.dumps([await death(priority=13), await death(kill), ending]))

asyncio.run(main())
"""
)


@dataclass
class Program:
    """A running program and everything it started, found by a mark in the environment."""

    process: subprocess.Popen[str]
    mark: str
    lines: list[str] = field(default_factory=list)
    family: set[psutil.Process] = field(default_factory=set)

    @property
    def stdout(self) -> IO[str]:
        assert self.process.stdout is not None
        return self.process.stdout

    def read_until(self, word: str) -> None:
        for line in self.stdout:
            self.lines.append(line.strip())
            if self.lines[-1] == word:
                return
        pytest.fail(f"{word!r} never came, only {self.lines}")

    def look(self) -> list[psutil.Process]:
        """Remember what the program has started so far, and return all that lives of it.

        By descent, since vLLM's processes write their titles over their environment; and by the
        mark there, since those that lost their parent descend from nobody.
        """
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == self.mark:
                    self.family.update((process, *process.children(recursive=True)))
            except psutil.Error:
                continue  # it ended meanwhile, or is another user's
        return [process for process in self.family if process.is_running()]

    def has_engine_core(self) -> bool:
        """Whether vLLM has spawned its process, be it a moment ago."""
        return any(
            "spawn_main" in title or "EngineCore" in title
            for process in self.look()
            if process.pid != self.process.pid and (title := " ".join(process.cmdline()))
        )

    def end(self) -> str:
        """Wait until all is gone; return what was written to stderr."""
        _out, errors = self.process.communicate(timeout=GONE_WITHIN_S)
        psutil.wait_procs(self.look(), timeout=GONE_WITHIN_S)
        assert [process.cmdline() for process in self.look()] == []
        return errors


Run = Callable[..., Program]


@pytest.fixture
def run(model_dir: Path) -> Iterator[Run]:
    started: list[Program] = []
    temporary = tempfile.mkdtemp()

    def start(*command: str | Path) -> Program:
        mark = uuid.uuid4().hex
        process = subprocess.Popen(
            [sys.executable, *command, model_dir, SCHEDULERS],
            env=os.environ | {MARK: mark, "TMPDIR": temporary},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(Program(process, mark))
        return started[-1]

    yield start
    for program in started:
        for process in program.look():
            process.kill()
        program.process.communicate()
    shutil.rmtree(temporary)


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "program.py"
        path.write_text(text)
        return path

    return write


def until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline


def kill_front_end(program: Program) -> None:
    program.process.kill()


def terminate_all(program: Program) -> None:
    os.killpg(program.process.pid, signal.SIGTERM)


def interrupt_all(program: Program) -> None:
    os.killpg(program.process.pid, signal.SIGINT)


ENDS = [
    (kill_front_end, -signal.SIGKILL),
    (terminate_all, -signal.SIGTERM),
    (interrupt_all, -signal.SIGINT),
]


@pytest.mark.parametrize(("end", "code"), ENDS)
def test_a_program_that_ends_while_it_boots_leaves_nothing(
    run: Run, script: Callable[[str], Path], end: Callable[[Program], None], code: int
) -> None:
    program = run(script(ENDLESS))
    program.read_until("starting engine")
    until(program.has_engine_core)
    end(program)
    errors = program.end()
    assert program.process.returncode == code
    assert "EngineCore" not in errors
    assert "resource_tracker" not in errors


@pytest.mark.parametrize(("end", "code"), ENDS)
def test_a_program_that_ends_while_it_generates_leaves_nothing(
    run: Run, end: Callable[[Program], None], code: int
) -> None:
    program = run("-c", ENDLESS)
    program.read_until("token")
    assert program.lines[:4] == [
        "script runs",
        "importing vllm",
        "starting engine",
        "warming up",
    ]
    assert program.has_engine_core()
    end(program)
    errors = program.end()
    assert program.process.returncode == code
    assert "EngineCore" not in errors
    assert "resource_tracker" not in errors
    assert ("KeyboardInterrupt" in errors) == (end is interrupt_all)


def test_an_engine_that_dies_tells_why_and_another_can_be_started(
    run: Run, script: Callable[[str], Path]
) -> None:
    program = run(script(DYING))
    out, errors = program.process.communicate()
    *words, told = out.splitlines()
    # The script ran once: nothing that vLLM spawned ran it again.
    assert words == ["script runs", *["importing vllm", "starting engine", "warming up"] * 3]
    broken, killed, ended = json.loads(told)
    for (during, after), left in (broken, killed, ended):
        assert during == after
        assert left == []
    (name, message), _after = broken[0]
    assert name == "EngineDead"
    assert "RuntimeError: the scheduler broke on purpose" in message
    (name, message), _after = killed[0]
    assert name == "EngineDead"
    assert "killed by SIGKILL" in message
    (name, message), _after = ended[0]
    assert name == "EngineDead"
    assert "asked to end" in message
    assert errors == ""
    assert program.end() == ""

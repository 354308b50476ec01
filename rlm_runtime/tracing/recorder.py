"""Writes the events of a run, one unbuffered line each, and the contents they name.

    DIRECTORY/            mode 0700 when made here
        events.jsonl      one JSON object a line, mode 0600
        blobs/DIGEST      written whole, then renamed into place, before the event that names it

What a call returned from has been handed to the operating system: it survives the death of this
process by any signal, though not the machine's loss of power (nothing is synced). The log is locked
while it is open: `is_open` tells a run that goes on from one that died.

Any thread may use a recorder: events are written, and listeners called, one after another. A
process that is forked while it is open must leave it alone; programs that are started do not
inherit its files.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import os
import re
import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from rlm_runtime.errors import TraceError
from rlm_runtime.tracing.blobs import BLOBS, blob_digest
from rlm_runtime.tracing.events import AnyEvent
from rlm_runtime.types import RunId

EVENTS = "events.jsonl"
"""The file of a run directory that holds its events."""

LEAST_FREE_BYTES = 32 * 2**20
"""A run does not start with less free space: about a thousand calls with their prompts."""

Listener = Callable[[AnyEvent], None]

_RUN_ID = re.compile(r"\d{8}T\d{6}\.\d{6}Z-[0-9a-f]{6}")
_ELSEWHERE = "Free some space, or choose another place with --run-dir."


def new_run_id() -> RunId:
    """A name for a run: sorts by the time of the call (UTC, microseconds), unique by chance."""
    now = datetime.datetime.now(datetime.UTC)
    return RunId(f"{now:%Y%m%dT%H%M%S.%f}Z-{secrets.token_hex(3)}")


def new_run_directory(base: Path) -> Path:
    """Make an empty directory (mode 0700) under `base`, named by a new run id.

    Raises:
        TraceError: It can't be made.
    """
    directory = base / new_run_id()
    _make_directory(directory)
    return directory


def is_open(directory: Path) -> bool:
    """Whether a run is being written at this moment, by any process of this machine.

    Raises:
        TraceError: There is no log.
    """
    try:
        log = os.open(directory / EVENTS, os.O_RDONLY)
    except OSError as err:
        raise TraceError(
            f"Can't read the event log of {directory}: {err.strerror}.", "Name a run directory."
        ) from err
    try:
        fcntl.flock(log, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False  # a file system without locks: nobody can know
    finally:
        os.close(log)
    return False


class Recorder:
    """One run's log.

    Args:
        directory: Where the run is written; made if it does not exist, and refused when it holds
            a run already. `None` writes nothing: listeners still hear every event.

    Attributes:
        run_id: The directory's name if `new_run_directory` made it, else a new one.
        directory: As given.

    Raises:
        TraceError: The directory can't be made or written, holds a run, or the disk is full.
    """

    def __init__(self, directory: Path | None) -> None:
        self.directory = directory
        named = directory is not None and _RUN_ID.fullmatch(directory.name)
        self.run_id = RunId(directory.name) if directory is not None and named else new_run_id()
        self._start = time.monotonic()
        self._lock = threading.Lock()
        self._listeners: list[Listener] = []
        self._encoder = msgspec.json.Encoder()
        self._known_blobs: set[str] = set()
        self._failure: TraceError | None = None
        self._files = _Files(directory) if directory is not None else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def now(self) -> float:
        """Seconds since the run's start, on a clock that never goes back: an event's `at_s`."""
        return time.monotonic() - self._start

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Have `listener` called with every event from now on, after it was written.

        It runs inside `emit`, in the thread that emits, so it must be quick, must not emit, and
        must not raise: what it raises comes out of `emit`.

        Returns:
            A function that ends it; calling it twice does nothing more.
        """
        self._listeners.append(listener)

        def unsubscribe() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return unsubscribe

    def emit(self, event: AnyEvent) -> None:
        """Write one event as a line, then tell the listeners.

        Raises:
            TraceError: It can't be written. The log keeps what it has and gets nothing more; every
                later call raises too.
        """
        files = self._files
        with self._lock:
            if files is not None:
                line = self._encoder.encode(event) + b"\n"
                self._attempt(lambda: files.append(line))
            for listener in tuple(self._listeners):
                listener(event)

    def blob(self, data: bytes) -> str | None:
        """Keep contents beside the log. Equal contents are written once.

        Costs a hash of the data; the first time, a file as well.

        Returns:
            The digest that events name it by; `None` without a directory.

        Raises:
            TraceError: As `emit`.
        """
        files = self._files
        if files is None:
            return None
        digest = blob_digest(data)
        with self._lock:
            if digest not in self._known_blobs:
                self._attempt(lambda: files.write_blob(digest, data))
                self._known_blobs.add(digest)
        return digest

    def close(self) -> None:
        """Close the files; a recorder with a directory takes nothing more. Idempotent."""
        if self._files is not None:
            self._files.close()
            self._failure = self._failure or TraceError("The run's log is closed already.")

    def _attempt(self, write: Callable[[], None]) -> None:
        # After a failed write the log may end in half a line. Nothing may follow it: a torn last
        # line is readable, a torn line in the middle is not.
        if self._failure is not None:
            raise TraceError(self._failure.what, self._failure.remedy)
        try:
            write()
        except OSError as err:
            self._failure = TraceError(
                f"The run's log can't be written any more: {err.strerror}.",
                f"What was written stays readable. {_ELSEWHERE}",
            )
            raise self._failure from err


class _Files:
    """The open files of a run directory. Raises OSError as it comes, but for opening."""

    def __init__(self, directory: Path) -> None:
        _make_directory(directory, exist_ok=True)
        try:
            self._events = os.open(
                directory / EVENTS,
                os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND,
                0o600,
            )
        except FileExistsError as err:
            raise TraceError(
                f"{directory} holds a run already ({EVENTS}).",
                "Choose another directory with --run-dir, or remove it.",
            ) from err
        except OSError as err:
            raise _cannot_write(directory, err) from err
        try:
            free = os.fstatvfs(self._events)
            free_bytes = free.f_bavail * free.f_frsize
            if free_bytes < LEAST_FREE_BYTES:
                raise TraceError(
                    f"Only {free_bytes / 2**20:.0f} MiB are free for {directory}; a run needs at "
                    f"least {LEAST_FREE_BYTES // 2**20} MiB.",
                    _ELSEWHERE,
                )
            with contextlib.suppress(OSError):  # a file system without locks: the run goes on
                fcntl.flock(self._events, fcntl.LOCK_EX | fcntl.LOCK_NB)
            (directory / BLOBS).mkdir(mode=0o700, exist_ok=True)
            # Blobs are made relative to this descriptor: a run whose directory is renamed goes on.
            self._blobs = os.open(directory / BLOBS, os.O_RDONLY | os.O_DIRECTORY)
        except TraceError:
            self._give_up(directory)
            raise
        except OSError as err:
            self._give_up(directory)
            raise _cannot_write(directory, err) from err
        self._is_open = True

    def append(self, line: bytes) -> None:
        if os.fstat(self._events).st_nlink == 0:
            # Writing would succeed, into a file that nobody can open any more.
            raise FileNotFoundError(2, "the run directory was removed")
        _write_all(self._events, line)

    def write_blob(self, digest: str, data: bytes) -> None:
        part = f".{digest}.part"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        file = os.open(part, flags, 0o600, dir_fd=self._blobs)
        try:
            _write_all(file, data)
        finally:
            os.close(file)
        os.rename(part, digest, src_dir_fd=self._blobs, dst_dir_fd=self._blobs)

    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            os.close(self._events)
            os.close(self._blobs)

    def _give_up(self, directory: Path) -> None:
        os.close(self._events)
        (directory / EVENTS).unlink(missing_ok=True)  # so that the directory can be used later


def _write_all(file: int, data: bytes) -> None:
    written = os.write(file, data)
    while written < len(data):  # a nearly full disk, or more than 2 GiB
        written += os.write(file, memoryview(data)[written:])


def _make_directory(directory: Path, *, exist_ok: bool = False) -> None:
    try:
        directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.mkdir(mode=0o700, exist_ok=exist_ok)
    except OSError as err:
        raise _cannot_write(directory, err) from err


def _cannot_write(directory: Path, err: OSError) -> TraceError:
    return TraceError(f"Can't write a run in {directory}: {err.strerror}.", _ELSEWHERE)

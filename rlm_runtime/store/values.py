"""What is stored: immutable bytes with a kind, in memory or in a file that is read in place.

A file is read by `pread` on an open descriptor rather than mapped. Both cost no memory of our own
and both see the file's pages, but a mapped file that gets shorter ends the process with SIGBUS at
the next look, which no check beforehand can rule out; a read only comes back short.
"""

from __future__ import annotations

import os
import stat
import weakref
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Protocol

from rlm_runtime.errors import ContextError, InputError
from rlm_runtime.types import Ref, ValueKind

DIGEST_BYTES = 16

_CHANGED_REMEDY = "Ask again with the file as it is now, and leave it alone while a question runs."


class Sliceable(Protocol):
    """Bytes that can be had in pieces: `bytes`, `mmap`, `memoryview`, a stored value's content."""

    def __len__(self) -> int: ...

    def __getitem__(self, where: slice, /) -> bytes | bytearray | memoryview: ...


@dataclass(frozen=True, slots=True)
class Value:
    """A stored value. Reading it costs what is read.

    Attributes:
        ref: Its name, version, kind, size and digest.
        content: The bytes; `len` and slices, as of `bytes`.
    """

    ref: Ref
    content: Sliceable

    def read(self, start_byte: int, end_byte: int) -> bytes:
        """The bytes `start_byte <= i < end_byte`.

        Raises:
            ContextError: The range is not inside the value.
            InputError: The file behind the value has changed.
        """
        if not 0 <= start_byte <= end_byte <= self.ref.size_bytes:
            raise ContextError(
                f"{self.ref.name!r} has no bytes {start_byte:,} to {end_byte:,}: "
                f"it has {self.ref.size_bytes:,}.",
                "Ask for a range inside it.",
            )
        return bytes(self.content[start_byte:end_byte])

    def text(self, start_byte: int, end_byte: int) -> str:
        """The same as text.

        Raises:
            ContextError: As `read`; or the value is no text; or an end lies inside a character.
            InputError: The file behind the value has changed.
        """
        if self.ref.kind != "str":
            raise ContextError(
                f"{self.ref.name!r} is {self.ref.kind}, not text.", "Read its bytes instead."
            )
        try:
            return self.read(start_byte, end_byte).decode("utf-8")
        except UnicodeDecodeError as err:
            raise ContextError(
                f"Bytes {start_byte:,} to {end_byte:,} of {self.ref.name!r} begin or end inside a "
                "character.",
                "Use offsets that a cut gave.",
            ) from err


class FileContent:
    """Bytes of a regular file, as long as the file stays as it was when it was opened.

    Args:
        descriptor: Open for reading; taken over, and closed when the last value that uses it is
            gone.
        shown: What messages call the file.
    """

    __slots__ = ("__weakref__", "_descriptor", "_shown", "_start", "_state")

    def __init__(self, descriptor: int, shown: str) -> None:
        weakref.finalize(self, os.close, descriptor)
        self._descriptor = descriptor
        self._shown = shown
        self._start = 0
        self._state = _state(os.fstat(descriptor))

    def skip(self, size_bytes: int) -> None:
        """Leave out the first bytes of the file; for its opener, before anyone else has it."""
        self._start = size_bytes

    def __len__(self) -> int:
        return self._state[0] - self._start

    def __getitem__(self, where: slice, /) -> bytes:
        """A copy of a piece; slices as of `bytes`, but with no step.

        Raises:
            InputError: The file has changed since it was opened (size or time of change), or
                can't be read any more.
        """
        start, end, _ = where.indices(len(self))
        wanted = max(0, end - start)
        try:
            data = self._read(self._start + start, wanted)
            state = _state(os.fstat(self._descriptor))  # after reading, so that no change slips by
        except OSError as err:
            raise InputError(
                f"Can't read {self._shown} any more: {err.strerror}.", _CHANGED_REMEDY
            ) from err
        if state != self._state or len(data) != wanted:
            raise InputError(
                f"{self._shown} was changed while it was in use: it had {self._state[0]:,} bytes, "
                f"now {state[0]:,}.",
                _CHANGED_REMEDY,
            )
        return data

    def _read(self, offset: int, wanted: int) -> bytes:
        data = os.pread(self._descriptor, wanted, offset)
        if len(data) == wanted or not data:
            return data
        parts = [data]  # one read gives at most 2 GiB
        while data and (left := wanted - sum(map(len, parts))):
            data = os.pread(self._descriptor, left, offset + wanted - left)
            parts.append(data)
        return b"".join(parts)


class Digest:
    """The digest of a value's kind and bytes, fed piece by piece."""

    def __init__(self, kind: ValueKind) -> None:
        self._hash = blake2b(digest_size=DIGEST_BYTES, person=kind.encode())

    def update(self, data: bytes) -> None:
        """Add the next bytes."""
        self._hash.update(data)

    def hex(self) -> str:
        """The digest of all bytes so far."""
        return self._hash.hexdigest()


def open_regular(path: Path) -> int:
    """Open a file that holds bytes, and nothing that waits, has no end, or does things when read.

    Returns:
        A descriptor for reading, which belongs to the caller.

    Raises:
        InputError: It is missing, not permitted, or no regular file.
    """
    try:
        _require_regular(path, path.stat().st_mode)
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as err:
        raise InputError(f"Can't read {path}: {err.strerror}.", _advice(err)) from err
    except ValueError as err:  # a zero byte in the name
        raise InputError(f"{str(path)!r} can't be the name of a file: {err}.") from err
    try:
        _require_regular(path, os.fstat(descriptor).st_mode)  # it may be another file by now
    except InputError:
        os.close(descriptor)
        raise
    return descriptor


def _state(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns


def _require_regular(path: Path, mode: int) -> None:
    if stat.S_ISREG(mode):
        return
    if stat.S_ISDIR(mode):
        raise InputError(f"{path} is a directory.", "Name the files in it one by one.")
    if stat.S_ISFIFO(mode):
        raise InputError(f"{path} is a pipe.", "Save it to a file, or give the text as `-`.")
    raise InputError(f"{path} is a device or a socket.", "Name a file of text.")


def _advice(err: OSError) -> str:
    if isinstance(err, PermissionError):
        return "Run as a user who may read it, or change its permissions."
    if isinstance(err, FileNotFoundError):
        return "Check the path; relative ones start at the current directory."
    return "Check the path."

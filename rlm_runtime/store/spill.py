"""Values too large for memory: all of a store's in one file that has no name.

The file only grows, and nobody else can open it, so what lies in it never changes: it may be mapped
without fear that it gets shorter. One file rather than one a value, so that any number of values
takes one descriptor. It is gone with the last value, also after a crash.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import tempfile
import threading
import weakref
from collections.abc import Iterable
from pathlib import Path

from rlm_runtime.errors import ConfigError, ContextError, QuotaExceeded

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_UNNAMED = (errno.EOPNOTSUPP, errno.EISDIR)
"""What file systems and kernels say that know no files without a name."""


class SpilledContent:
    """The bytes of one value in a `SpillFile`; `len` and slices, as of `bytes`."""

    __slots__ = ("_descriptor", "_file", "_size", "_start")

    def __init__(self, file: SpillFile, descriptor: int, start: int, size: int) -> None:
        self._file = file  # which closes the descriptor when nobody holds it any more
        self._descriptor = descriptor
        self._start = start
        self._size = size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, where: slice, /) -> bytes:
        """A copy of a piece, read from the file; with no step.

        Raises:
            ContextError: The disk can't be read.
        """
        start, stop, _ = where.indices(self._size)
        parts: list[bytes] = []
        while start < stop:
            try:
                part = os.pread(self._descriptor, stop - start, self._start + start)
            except OSError as err:
                raise _lost(err.strerror) from err
            if not part:
                raise _lost("its file ends too soon")
            parts.append(part)
            start += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def map(self) -> mmap.mmap:
        """The bytes without a copy; not for an empty value. Takes a descriptor while it lives.

        Raises:
            ContextError: There are too many descriptors or mappings.
        """
        try:
            return mmap.mmap(self._descriptor, self._size, prot=mmap.PROT_READ, offset=self._start)
        except OSError as err:
            raise _lost(err.strerror) from err


class SpillFile:
    """Where large values are. Any thread may use it; they write one after another.

    Args:
        directory: Where the file is made, at the first value, as is the directory.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._descriptor: int | None = None
        self._end = 0

    def write(self, pieces: Iterable[bytes]) -> SpilledContent:
        """Keep a value. After an error, what was kept before is as it was.

        Raises:
            QuotaExceeded: The disk is full.
            ConfigError: The directory can't be used.
        """
        with self._lock:
            # A mapping has to begin at a multiple of this.
            start = end = -(-self._end // mmap.ALLOCATIONGRANULARITY) * mmap.ALLOCATIONGRANULARITY
            try:
                if self._descriptor is None:
                    self._descriptor = _unnamed_file(self._directory)
                    weakref.finalize(self, os.close, self._descriptor)
                for piece in pieces:
                    rest = memoryview(piece)
                    while rest:
                        written = os.pwrite(self._descriptor, rest, end)
                        rest, end = rest[written:], end + written
                content = SpilledContent(self, self._descriptor, start, end - start)
                self._end = end
            except OSError as err:
                raise self._refusal(err) from err
            finally:
                self._give_back_the_rest()
            return content

    def _give_back_the_rest(self) -> None:
        """Cut off what a failed write left; a full disk needs the room."""
        # Where even that fails, the next value is written over it.
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self._end)

    def _refusal(self, err: OSError) -> QuotaExceeded | ConfigError:
        if err.errno in _FULL:
            return QuotaExceeded(
                f"The disk under {self._directory} has no room for the value: {err.strerror}.",
                "Free some, or set store.spill_directory to a folder on a larger disk.",
            )
        return ConfigError(
            f"Large values can't be kept in {self._directory}: {err.strerror}.",
            "Set store.spill_directory to a folder that can be written.",
        )


def _unnamed_file(directory: Path) -> int:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        return os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_EXCL, 0o600)
    except OSError as err:
        if err.errno not in _NO_UNNAMED:
            raise
    descriptor, name = tempfile.mkstemp(dir=directory)
    Path(name).unlink()
    return descriptor


def _lost(why: str | None) -> ContextError:
    return ContextError(f"Can't read a stored value back: {why}.", "Read less, or store it again.")

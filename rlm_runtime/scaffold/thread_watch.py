"""Python's own work on a long text, in a thread: shown and stopped by the tree it belongs to."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self

import anyio.from_thread

from rlm_runtime.errors import Cancelled
from rlm_runtime.scheduler import Job

EVERY_BYTES = 1 << 20
"""Between two looks: a fraction of a second of work. Going to the event loop costs a tenth of a
millisecond."""


class ThreadWatch:
    """Called from a worker thread as the work goes on; entered by the task that waits for it.

    A cancelled task does not wait for its thread. However it was cancelled (a scope of anyio's, or
    `Task.cancel`, which anyio tells no thread), it leaves the watch, and the next look ends the
    work.

    Args:
        job: The tree.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._seen = 0
        self._is_left = threading.Event()

    def __enter__(self) -> Self:
        """Nothing is done."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End what still works."""
        self._is_left.set()

    def indexing(self, done: int, to_do: int) -> None:
        """So many bytes of the texts are indexed.

        Raises:
            LimitExceeded: The tree's `max_seconds` are over.
            Cancelled: Nobody waits any more.
        """
        self._look("indexing words, MiB", done, to_do)

    def encoding(self, done: int, to_do: int) -> None:
        """So many bytes of the chunks that will be ranked are encoded.

        Raises:
            LimitExceeded, Cancelled: As `indexing`.
        """
        self._look("encoding chunks, MiB", done, to_do)

    def _look(self, stage: str, done: int, to_do: int) -> None:
        if done < self._seen:
            self._seen = 0  # other work began
        if done - self._seen < EVERY_BYTES:
            return
        self._seen = done
        if self._is_left.is_set():
            raise Cancelled("The search was cancelled.", "Ask again: what is indexed is kept.")
        anyio.from_thread.run_sync(self._job.note_step, stage, done >> 20, to_do >> 20)

"""Python's own work on a long text, in a thread: shown and stopped by the tree it belongs to."""

from __future__ import annotations

import anyio.from_thread

from rlm_runtime.scheduler import Job

EVERY_BYTES = 1 << 20
"""Between two looks: a fraction of a second of work. Going to the event loop costs a tenth of a
millisecond."""


class ThreadWatch:
    """Called from a worker thread as the work goes on.

    Args:
        job: The tree.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._seen = 0

    def indexing(self, done: int, to_do: int) -> None:
        """So many bytes of the texts are indexed.

        Raises:
            LimitExceeded: The tree's `max_seconds` are over.
        """
        self._look("indexing words, MB", done, to_do)

    def encoding(self, done: int, to_do: int) -> None:
        """So many bytes of the chunks that will be ranked are encoded.

        Raises:
            LimitExceeded: As `indexing`.
        """
        self._look("encoding chunks, MB", done, to_do)

    def _look(self, stage: str, done: int, to_do: int) -> None:
        if done < self._seen:
            self._seen = 0  # other work began
        if done - self._seen < EVERY_BYTES:
            return
        self._seen = done
        # A cancelled caller does not wait for the thread, so the thread has to end by itself.
        anyio.from_thread.check_cancelled()
        anyio.from_thread.run_sync(self._job.note_step, stage, done >> 20, to_do >> 20)

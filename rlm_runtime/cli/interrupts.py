"""Signals as exceptions of the main thread, one at a time."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SHOW_CURSOR = b"\x1b[?25h"


class Terminated(KeyboardInterrupt):
    """Another process, or the end of the terminal, asked for the end.

    A KeyboardInterrupt, so that whatever is unwound for one is unwound for this too.

    Attributes:
        exit_code: 128 + the signal's number.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


class Interrupts:
    """What to do when a signal comes.

    The first one is raised: the work unwinds. While it does (an engine's end takes seconds), a
    second one is only answered, and a third ends the process on the spot; the engine's processes
    are tied to it and go with it.
    """

    def __init__(self) -> None:
        self._heard = 0

    def rearm(self) -> None:
        """What was interrupted has unwound, and the command goes on."""
        self._heard = 0

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Handle signals in here. Those this process was started to ignore stay ignored."""
        before = {number: signal.getsignal(number) for number in _SIGNALS}
        taken = [n for n, handler in before.items() if handler is not signal.SIG_IGN]
        for number in taken:
            signal.signal(number, self._hear)
        try:
            yield
        finally:
            for number in taken:
                signal.signal(number, before[number])

    def _hear(self, number: int, _frame: FrameType | None) -> None:
        self._heard += 1
        if self._heard == 1:
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            raise Terminated(number)
        # Not through rich or sys.stderr: the code that is interrupted may hold their locks.
        if self._heard == 2:
            os.write(2, b"\nending in order; once more ends at once\n")
        else:
            if sys.stderr.isatty():
                os.write(2, _SHOW_CURSOR)
            os._exit(128 + number)

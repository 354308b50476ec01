"""Runs in vLLM's processes before anything else there: ties them to the process that started them.

A killed front end would leave vLLM's processes behind with all their memory. Here each asks the
kernel to be killed when its parent ends, and dies at once if the parent has ended already.

`boot.py` runs this file as the main module of every process it spawns, before vLLM is imported
there. vLLM calls `tie` once more as a plugin (group `vllm.general_plugins`), for processes that
were started another way. It does nothing in processes that this package did not start.
"""

from __future__ import annotations

import ctypes
import faulthandler
import logging
import os
import signal
import sys
from multiprocessing import resource_tracker

FRONT = "_RLM_ENGINE_FRONT"
"""Id of the process that started the engine. No setting, hence the underscore."""

LOG = "_RLM_ENGINE_LOG"
"""Path of the engine's log."""

LOG_FORMAT = "%(asctime)s %(levelname)s %(processName)s %(name)s: %(message)s"

FRONT_END_SIGNALS = frozenset((signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT))
"""A terminal sends them to the whole process group; only the front end acts on them."""

_PARENT = "_RLM_ENGINE_PARENT"
"""Id of the last process that was tied: the only one that may be the parent of the next."""

_PR_SET_PDEATHSIG = 1


def tie() -> None:
    """Tie this process to its parent and send what it writes to the engine's log. Idempotent."""
    me = str(os.getpid())
    front = os.environ.get(FRONT)
    if not front or front == me or os.environ.get(_PARENT) == me:
        return
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # After the call above, not before: between the two the parent may end unseen.
    if os.environ.get(_PARENT, front) != str(os.getppid()):
        os._exit(1)
    os.environ[_PARENT] = me
    _write_to(os.environ[LOG])
    # A tracker of its own removes this process's semaphores and shared memory when it is killed;
    # the front end's would do so at the front end's exit, with a warning on the user's terminal.
    resource_tracker._resource_tracker._fd = None  # type: ignore[attr-defined] # no public way
    # Started here and now: starting one unblocks what the boot thread blocked for us.
    resource_tracker.ensure_running()
    signal.pthread_sigmask(signal.SIG_BLOCK, FRONT_END_SIGNALS)


def _write_to(path: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    os.close(descriptor)
    faulthandler.enable(file=2)
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter(LOG_FORMAT))
    logger = logging.getLogger("vllm")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False


if __name__ == "__mp_main__":
    tie()

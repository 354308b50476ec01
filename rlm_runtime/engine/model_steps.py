"""Slow steps of preparing a model: each runs in a process of its own and is reported every second.

A process of its own keeps torch and transformers out of the caller's memory, and lets an interrupt
end the step at once.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

TICK_S = 1.0
"""How often a running step is reported."""

LOG_TAIL_BYTES = 8192
"""How much of a failed step's output is looked at for its last error."""


class Bytes(NamedTuple):
    """How far a download is: bytes here, bytes in all."""

    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Progress:
    """What is going on now.

    Attributes:
        step: A phrase for people: "converting the weights".
        elapsed_s: Seconds since this step began.
        bytes: How far a download is; `None` where nobody counts.
    """

    step: str
    elapsed_s: float
    bytes: Bytes | None = None


OnProgress = Callable[[Progress], None]
"""Called in the caller's thread when a step begins and then about once a second."""


def run_step(
    argv: Sequence[str],
    *,
    step: str,
    log: Path,
    on_progress: OnProgress,
    env: dict[str, str] | None = None,
    measure: Callable[[], Bytes | None] = lambda: None,
) -> int:
    """Run a program to its end and report while it runs.

    Args:
        argv: The program and its arguments; no shell.
        step: The phrase to report.
        log: Receives the program's output and error output together.
        on_progress: Told at the start and once a second.
        env: The program's whole environment; `None` is the caller's.
        measure: Looks at how far a download is.

    Returns:
        The program's exit code. An exception in the caller's thread (an interrupt, or one that
        `on_progress` raises) kills the program and passes on.
    """
    started = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - argv is built by this package, no shell
            argv, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=env
        )
    try:
        while True:
            on_progress(Progress(step, time.monotonic() - started, measure()))
            try:
                return process.wait(timeout=TICK_S)
            except subprocess.TimeoutExpired:
                continue
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def tail(log: Path) -> str:
    """The end of a step's output, as text; empty when there is none."""
    if not log.exists():
        return ""
    with log.open("rb") as output:
        output.seek(max(0, log.stat().st_size - LOG_TAIL_BYTES))
        return output.read().decode(errors="replace")


def last_error(log: Path) -> str:
    """The line of a failed step's output that says most: its last error line, else its last."""
    lines = [line.strip() for line in tail(log).splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    return (errors or lines or ["it printed nothing"])[-1][:300]

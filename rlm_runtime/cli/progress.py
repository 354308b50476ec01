"""Progress on stderr: redrawn in place on a terminal, now and then a line elsewhere, or nothing.

Facts come from other threads (the session's event loop) as small frozen values; showing them must
be quick and never raise there.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from rlm_runtime.cli.terminal import Terminal, count, percent, seconds, size
from rlm_runtime.engine.model_steps import Progress as Step
from rlm_runtime.scheduler import Progress

LINE_EVERY_S = 5.0
"""Least time between two lines of one stage, where progress can't be redrawn."""

STAGE_EVERY_S = 1.0
"""Least time in front of a line that begins a stage: there are few of them."""

_REDRAWN_PER_S = 8


@dataclass(frozen=True, slots=True)
class State:
    """What is going on.

    Attributes:
        what: A phrase: "ranking chunks".
        done: Of `total`, in the same unit.
        total: 0 when there is nothing to count.
        detail: More, for a second line; may be empty.
        counted: `done` and `total` in words, when they are no plain numbers.
    """

    what: str
    done: int = 0
    total: int = 0
    detail: str = ""
    counted: str = ""

    @property
    def line(self) -> str:
        """All of it but the detail."""
        if not self.total:
            return self.what
        return f"{self.what} {self.counted or f'{self.done:,}/{self.total:,}'}"


class Show(Protocol):
    """Where states go; from any thread."""

    def __call__(self, state: State, /) -> None:
        """Show what is going on now."""


@contextmanager
def shown(terminal: Terminal, first: str = "starting") -> Iterator[Show]:
    """Show progress while the body runs.

    Args:
        terminal: Where, and whether.
        first: What goes on until the first state comes.

    Yields:
        The function that takes each state.
    """
    if terminal.is_live:
        with _Redrawn(terminal, State(first)).running() as redrawn:
            yield redrawn.show
    elif terminal.shows_hints:
        yield Lines(terminal.say).show
    else:
        yield lambda _state: None


class Boot:
    """Shows the stages of an engine's boot wherever progress is shown at the moment.

    A session is told of it once, when it is made; boots happen later, and again.

    Attributes:
        show: Where stages go; `None` is nowhere.
    """

    def __init__(self) -> None:
        self.show: Show | None = None

    def tell(self, stage: str) -> None:
        """Called by the session, in its thread."""
        if self.show is not None:
            self.show(State(f"booting: {stage}"))


def of_step(step: Step) -> State:
    """A step of preparing a model."""
    if step.bytes is None:
        return State(step.step)
    done, total = step.bytes
    return State(step.step, done, total, counted=f"{size(done)} of {size(total)}")


def of_job(progress: Progress) -> State:
    """A question's tree of calls."""
    usage = progress.usage
    share = "" if usage.hit_rate is None else f" ({percent(usage.hit_rate)})"
    details = [
        f"running {progress.running}, queued {progress.queued}",
        f"depth {progress.depth}",
        f"{usage.computed_tokens:,} tokens computed, {usage.cached_tokens:,} from cache{share}",
    ]
    if left := budget_left(progress):
        details.append(f"left: {left}")
    return State(progress.stage, progress.done, progress.total, " · ".join(details))


def budget_left(progress: Progress) -> str:
    """What the limits still allow, in words; empty without limits."""
    limits, usage = progress.limits, progress.usage
    left = []
    if limits.max_tokens is not None:
        spent = usage.computed_tokens + usage.generated_tokens
        left.append(count(max(0, limits.max_tokens - spent), "token"))
    if limits.max_calls is not None:
        left.append(count(max(0, limits.max_calls - usage.calls), "call"))
    if limits.max_seconds is not None:
        left.append(seconds(max(0.0, limits.max_seconds - progress.elapsed_s)))
    return ", ".join(left)


class _Redrawn:
    """Two lines that are redrawn in place, with the seconds counting on between states."""

    def __init__(self, terminal: Terminal, first: State) -> None:
        self._state = first
        self._began_s = time.monotonic()
        self._spinner = Spinner("dots")
        self._live = Live(
            console=terminal.errors,
            get_renderable=self._render,
            refresh_per_second=_REDRAWN_PER_S,
            transient=True,
            redirect_stdout=False,  # answers are written between two displays, never during one
        )

    @contextmanager
    def running(self) -> Iterator[_Redrawn]:
        with self._live:
            yield self

    def show(self, state: State) -> None:
        # One assignment: drawn by the display's own thread, so nothing here can wait or fail.
        self._state = state

    def _render(self) -> RenderableType:
        state = self._state
        first = Table.grid(padding=(0, 1))
        first.add_column(no_wrap=True)
        first.add_column(no_wrap=True, overflow="ellipsis")
        elapsed = Text(seconds(time.monotonic() - self._began_s), style="dim")
        if state.total:
            bar = ProgressBar(total=state.total, completed=state.done, width=20)
            first.add_row(self._spinner, state.line, bar, elapsed)
        else:
            first.add_row(self._spinner, state.line, elapsed)
        if not state.detail:
            return first
        return Group(
            first, Text(f"  {state.detail}", style="dim", no_wrap=True, overflow="ellipsis")
        )


class Lines:
    """A line when enough time has gone since the last one, at once for the first.

    Args:
        say: Prints one.
        clock: Seconds.
    """

    def __init__(
        self, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._say = say
        self._clock = clock
        self._last_s = float("-inf")
        self._last = State("")
        self._lock = threading.Lock()

    def show(self, state: State) -> None:
        """Say it, if it is time for a line and it is news."""
        with self._lock:
            now = self._clock()
            wait_s = STAGE_EVERY_S if state.what != self._last.what else LINE_EVERY_S
            if now < self._last_s + wait_s or state == self._last:
                return
            self._last_s, self._last = now, state
        self._say(" · ".join(part for part in (state.line, state.detail) if part))

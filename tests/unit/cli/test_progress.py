"""What people see while they wait."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rlm_runtime.cli import progress
from rlm_runtime.cli.progress import LINE_EVERY_S, STAGE_EVERY_S, State
from rlm_runtime.cli.terminal import Terminal
from rlm_runtime.engine.model_steps import Bytes
from rlm_runtime.engine.model_steps import Progress as Step
from rlm_runtime.scheduler import Progress
from rlm_runtime.types import Limits, Usage


def job(limits: Limits | None = None, usage: Usage | None = None) -> Progress:
    return Progress(
        stage="ranking chunks",
        done=12,
        total=34,
        running=16,
        queued=3,
        depth=1,
        usage=usage or Usage(calls=5, prompt_tokens=100, cached_tokens=25, computed_tokens=75),
        limits=limits or Limits(),
        elapsed_s=2.5,
    )


def test_a_question_shows_its_calls_its_tokens_and_its_depth() -> None:
    state = progress.of_job(job())
    assert state.line == "ranking chunks 12/34"
    assert state.detail == (
        "running 16, queued 3 · depth 1 · 75 tokens computed, 25 from cache (25 %)"
    )


def test_what_the_limits_leave_is_shown_and_never_negative() -> None:
    usage = Usage(calls=5, computed_tokens=75, generated_tokens=5)
    assert progress.budget_left(job(Limits(100, 7, 60.0), usage)) == "20 tokens, 2 calls, 58 s"
    assert progress.budget_left(job(Limits(10, 1, 1.0), usage)) == "0 tokens, 0 calls, 0.0 s"
    assert progress.budget_left(job()) == ""


def test_a_download_shows_its_bytes() -> None:
    state = progress.of_step(Step("downloading", 1.0, Bytes(46_000_000, 92_871_040)))
    assert state.line == "downloading 46 MB of 93 MB"
    assert progress.of_step(Step("converting", 1.0)).line == "converting"


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_lines_come_at_most_every_few_seconds_and_only_with_news() -> None:
    said: list[str] = []
    clock = Clock()
    lines = progress.Lines(said.append, clock)
    lines.show(State("ranking", 1, 9))
    clock.now_s += LINE_EVERY_S - 0.1
    lines.show(State("ranking", 2, 9))
    clock.now_s += 0.2
    lines.show(State("ranking", 3, 9, "more"))
    clock.now_s += LINE_EVERY_S
    lines.show(State("ranking", 3, 9, "more"))
    assert said == ["ranking 1/9", "ranking 3/9 · more"]


def test_a_stage_has_its_line_sooner_but_not_at_once() -> None:
    said: list[str] = []
    clock = Clock()
    lines = progress.Lines(said.append, clock)
    lines.show(State("importing"))
    lines.show(State("blinking"))
    clock.now_s += STAGE_EVERY_S
    lines.show(State("starting"))
    assert said == ["importing", "starting"]


@pytest.mark.parametrize("terminal", [Terminal(is_quiet=True), Terminal(wants_json=True)])
def test_there_is_no_progress_when_quiet_or_with_json(
    terminal: Terminal, capsys: pytest.CaptureFixture[str]
) -> None:
    with progress.shown(terminal) as show:
        show(State("booting"))
    assert capsys.readouterr() == ("", "")


def test_without_a_terminal_nothing_is_redrawn(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.shown(Terminal()) as show:
        show(State("booting"))
    assert capsys.readouterr().err == "booting\n"


def test_a_boot_is_shown_where_progress_is_shown_now() -> None:
    boot = progress.Boot()
    shown: list[State] = []
    boot.tell("nobody looks")
    show: Callable[[State], None] = shown.append
    boot.show = show
    boot.tell("loading the model")
    assert [state.line for state in shown] == ["booting: loading the model"]

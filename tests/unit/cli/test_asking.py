"""`rlm run` without a question: it keeps asking on the terminal."""

from __future__ import annotations

import builtins
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rlm_runtime.cli.terminal import Terminal
from rlm_runtime.errors import EngineDead, TraceError

if TYPE_CHECKING:
    from rlm_runtime.engine.base import GenerateRequest
    from tests.unit.cli.conftest import Boots, Ended, Rlm

QUESTION = "Who signed the treaty of the northern harbour?"
INTERRUPT = "<Ctrl-C>"
TERMINATE = "<SIGTERM>"

Ask = Callable[..., "Ended"]


@pytest.fixture
def ask(
    rlm: Rlm, boots: Boots, text: Path, model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> Ask:
    """Runs `rlm run` with somebody who types these lines, then Ctrl-D."""

    def run(*lines: str) -> Ended:
        typed: Iterator[str] = iter(lines)

        def read_line(prompt: str) -> str:
            line = next(typed, None)
            if line is None:
                raise EOFError
            if line in (INTERRUPT, TERMINATE):
                os.kill(os.getpid(), signal.SIGINT if line == INTERRUPT else signal.SIGTERM)
            return line

        monkeypatch.setattr(builtins, "input", read_line)
        monkeypatch.setattr(Terminal, "can_ask", True)
        return rlm("run", text, "--model", model_dir)

    return run


def at_request(boots: Boots, number: int, do: Callable[[], None]) -> None:
    """Do something at the n-th scored request, once."""
    seen: list[str] = []

    def on_request(request: GenerateRequest) -> None:
        if request.score is not None:
            seen.append(request.request_id)
            if len(seen) == number:
                do()

    boots.on_request = on_request


def test_each_line_is_a_question_to_the_same_engine_until_the_end_of_input(
    ask: Ask, boots: Boots
) -> None:
    ended = ask(QUESTION, "Who watched?")
    assert ended.code == 0
    assert ended.out.count("REPORT.txt:bytes") >= 2
    assert len(boots.engines) == 1
    assert boots.engines[0].is_closed


def test_an_empty_line_ends(ask: Ask, boots: Boots) -> None:
    ended = ask("", QUESTION)
    assert ended.code == 0
    assert "bytes" not in ended.out
    assert boots.engines[0].requests == 0


def test_ctrl_c_ends_the_question_under_way_and_the_next_one_is_answered(
    ask: Ask, boots: Boots
) -> None:
    at_request(boots, 2, lambda: os.kill(os.getpid(), signal.SIGINT))
    ended = ask(QUESTION, "Who watched?")
    assert ended.code == 0
    assert "Ctrl-C once more" in ended.err
    assert "bytes" in ended.out
    assert len(boots.engines) == 1


def test_a_second_ctrl_c_at_the_prompt_ends(ask: Ask, boots: Boots) -> None:
    at_request(boots, 2, lambda: os.kill(os.getpid(), signal.SIGINT))
    ended = ask(QUESTION, INTERRUPT, "Who watched?")
    assert ended.code == 130
    assert "bytes" not in ended.out
    assert boots.engines[0].is_closed


def test_one_ctrl_c_at_the_prompt_does_not_end(ask: Ask) -> None:
    assert ask(INTERRUPT, QUESTION).code == 0
    assert ask(INTERRUPT, INTERRUPT).code == 130
    assert ask(INTERRUPT, QUESTION, INTERRUPT, QUESTION).code == 0


def test_termination_ends_at_once(ask: Ask, boots: Boots) -> None:
    ended = ask(TERMINATE, QUESTION)
    assert ended.code == 143
    assert boots.engines[0].is_closed


def test_after_the_engine_died_the_next_question_starts_another(ask: Ask, boots: Boots) -> None:
    def die() -> None:
        raise EngineDead("killed.")

    at_request(boots, 2, die)
    ended = ask(QUESTION, QUESTION)
    assert ended.code == 0
    assert "error: The engine died: killed." in ended.err
    assert "starts a new engine" in ended.err
    assert [engine.is_closed for engine in boots.engines] == [True, True]
    assert "Anna Meier" in ended.out


def test_a_question_that_cannot_be_asked_does_not_end_the_session(ask: Ask) -> None:
    ended = ask("x" * 40_000, QUESTION)
    assert ended.code == 0
    assert "shorten the question" in ended.err
    assert "Anna Meier" in ended.out


def test_a_log_that_cannot_be_written_ends_the_session(ask: Ask, boots: Boots) -> None:
    def fill_the_disk() -> None:
        raise TraceError("The run's log can't be written any more: No space left.")

    at_request(boots, 2, fill_the_disk)
    ended = ask(QUESTION, QUESTION)
    assert ended.code == 1
    assert "No space left" in ended.err

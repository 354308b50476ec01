"""How commands end: every kind of end has its exit code, and nothing ends in a traceback."""

from __future__ import annotations

import json
import os
import signal
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from rlm_runtime import errors
from rlm_runtime.cli import apps, bench_main, guard, main
from rlm_runtime.cli.command import Command, Document
from rlm_runtime.cli.terminal import Terminal
from rlm_runtime.errors import RLMError
from rlm_runtime.types import StopReason


def running(raise_it: Callable[[], None], *, wants_json: bool = False) -> int:
    def work(terminal: Terminal, document: Document) -> int:
        document["so_far"] = 1
        raise_it()
        return 0

    return guard.run(Command(work, wants_json=wants_json))


def raising(error: BaseException) -> Callable[[], None]:
    def raise_it() -> None:
        raise error

    return raise_it


EXPECTED = [
    (errors.InputError("Bad.", "Do."), 2),
    (errors.ConfigError("Bad.", "Do."), 2),
    (errors.PromptTooLong(9, 8, "Do."), 2),
    (errors.ModelError("Bad.", "Do."), 3),
    (errors.EngineError("Bad.", "Do."), 3),
    (errors.EngineDead("killed.", "Do."), 1),
    (errors.QueueFull(3), 1),
    (errors.TraceError("Bad.", "Do."), 1),
    (errors.LimitExceeded(StopReason.BUDGET_CALLS, "max_calls", 1, 2), 4),
    (errors.Cancelled("Bad.", "Do."), 130),
]


@pytest.mark.parametrize(("error", "code"), EXPECTED, ids=lambda value: type(value).__name__)
def test_an_error_is_one_line_with_its_remedy(
    error: RLMError, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert running(raising(error)) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"error: {error}\n"


def test_with_json_the_document_keeps_what_was_done_and_names_the_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert running(raising(errors.ModelError("Bad.", "Do.")), wants_json=True) == 3
    out, err = capsys.readouterr()
    assert json.loads(out) == {
        "schema_version": 1,
        "so_far": 1,
        "error": {
            "code": "model",
            "message": "Bad. Do.",
            "what": "Bad.",
            "remedy": "Do.",
            "exit_code": 3,
        },
    }
    assert err == "error: Bad. Do.\n"


def test_what_nobody_expected_goes_to_a_file_that_is_named(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert running(raising(ZeroDivisionError("secret"))) == 1
    err = capsys.readouterr().err
    (crash,) = (home / "state" / "crashes").iterdir()
    assert err.count("\n") == 1
    assert str(crash) in err
    assert "Traceback" not in err
    assert "ZeroDivisionError: secret" in crash.read_text()
    assert stat.S_IMODE(crash.stat().st_mode) == 0o600


def test_what_nobody_expected_is_shown_when_no_file_can_be_written(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home.write_text("in the way")
    assert running(raising(ZeroDivisionError("secret"))) == 1
    err = capsys.readouterr().err
    assert "ZeroDivisionError: secret" in err
    assert err.splitlines()[-1].startswith("error: rlm failed")


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_is_an_end_of_its_own(
    number: int, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert running(lambda: os.kill(os.getpid(), number), wants_json=True) == code
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert (document["so_far"], document["error"]["code"]) == (1, "cancelled")
    assert err.strip() == ("interrupted" if number == signal.SIGINT else "terminated")


def test_a_signal_that_the_starter_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert running(lambda: os.kill(os.getpid(), signal.SIGHUP)) == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_ctrl_c_while_the_command_is_still_being_loaded_is_no_traceback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted() -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(apps, "rlm", interrupted)
    monkeypatch.setattr(apps, "rlm_bench", interrupted)
    assert (main(), bench_main()) == (130, 130)


def test_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    running(lambda: None)
    assert signal.getsignal(signal.SIGTERM) is before

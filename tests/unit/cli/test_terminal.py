"""What reaches the two streams, and in which form."""

from __future__ import annotations

import json
import math
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_runtime.cli.terminal import (
    Terminal,
    clean,
    count,
    one_line,
    percent,
    seconds,
    shown_path,
    size,
)


@given(st.text())
def test_cleaned_text_can_neither_move_the_cursor_nor_turn_the_writing(text: str) -> None:
    left = clean(text)
    assert not [c for c in left if unicodedata.category(c) == "Cc" and c not in "\n\t"]
    assert not [c for c in left if unicodedata.bidirectional(c) in ("LRO", "RLO", "RLE", "RLI")]
    assert [c for c in text if c.isalnum()] == [c for c in left if c.isalnum()]


@given(st.text(), st.integers(1, 50))
def test_one_line_is_one_line_of_at_most_its_width(text: str, width: int) -> None:
    line = one_line(text, width)
    assert len(line) <= width
    assert line.splitlines() in ([], [line])


def test_a_document_is_utf_8_and_has_no_nan(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    Terminal(wants_json=True).put_document(
        {"text": "Größe \x1b", "figures": {"a": math.nan, "b": [math.inf, 1.5]}, "lone": "\udcff"}
    )
    out = capsysbinary.readouterr().out
    assert "Größe".encode() in out
    assert json.loads(out) == {
        "text": "Größe \x1b",
        "figures": {"a": None, "b": [None, 1.5]},
        "lone": "\udcff",
    }


def test_a_document_holds_no_control_character_as_it_is(
    capsysbinary: pytest.CaptureFixture[bytes],
) -> None:
    hostile = "\x9b31m \x7f \u202e \x1b[2J"
    Terminal(wants_json=True).put_document({"text": hostile})
    out = capsysbinary.readouterr().out.decode()
    assert not [c for c in out if unicodedata.category(c) == "Cc" and c != "\n"]
    assert "\u202e" not in out
    assert json.loads(out) == {"text": hostile}


def test_an_error_is_one_line_without_colours_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Terminal().error("One.\nTwo [red]three[/red] \x1b[0m.")
    assert capsys.readouterr().err == "error: One. Two [red]three[/red] [0m.\n"


def test_hints_are_left_out_when_quiet_and_with_json(capsys: pytest.CaptureFixture[str]) -> None:
    for terminal in (Terminal(is_quiet=True), Terminal(wants_json=True)):
        terminal.hint("hint")
        assert capsys.readouterr().err == ""
        terminal.say("warning")
        assert capsys.readouterr().err == "warning\n"
    Terminal().hint("hint")
    assert capsys.readouterr().err == "hint\n"


def test_numbers_are_said_as_people_say_them() -> None:
    assert [count(1, "call"), count(2345, "call")] == ["1 call", "2,345 calls"]
    assert [seconds(0.84), seconds(12.4), seconds(185)] == ["0.8 s", "12 s", "3 min 05 s"]
    assert [size(812), size(92_871_040), size(4 * 2**30)] == ["812 bytes", "93 MB", "4.3 GB"]
    assert percent(0.837) == "84 %"


def test_a_path_of_any_bytes_can_be_shown() -> None:
    assert shown_path("a\udcffb\x1b.txt") == "a\ufffdb.txt"


@pytest.mark.parametrize(
    ("variables", "stands_out"),
    [
        ({"FORCE_COLOR": "1", "TERM": "xterm"}, True),
        ({"FORCE_COLOR": "1", "TERM": "dumb"}, False),
        ({"FORCE_COLOR": "1", "TERM": "xterm", "NO_COLOR": "1"}, False),
        ({"TERM": "xterm"}, False),
    ],
)
def test_words_stand_out_only_where_that_is_wanted_and_possible(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], stands_out: bool
) -> None:
    for name in ("FORCE_COLOR", "NO_COLOR", "TERM", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    said = Terminal().strong("Anna")
    assert said == ("\x1b[1;4mAnna\x1b[0m" if stands_out else "Anna")

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from rlm_runtime.errors import InputError
from rlm_runtime.store import TextMatch, TextView, text_view
from rlm_runtime.store.spill import SpillFile
from rlm_runtime.store.values import FileContent, open_regular

View = Callable[[str], TextView]

# Characters of one to four bytes, every end of a line, and what combines.
texts = st.text("aB é\u0301汉😀\n\r\t\v\x1c\u2028\0", max_size=60) | st.text()
ends = st.none() | st.integers(-80, 80)
PATTERNS = [
    r"a",
    r"a*",
    r"(?<=a)B|\b",
    r"^.?",
    r"(?m)^.?$",
    r"\Aa|a\Z",
    r"[^\n]$",
    r"(a)|(B)",
    r"\w+?(?= )",
    r"(?s)a.{1,3}a",
    r"汉|😀\s?",
    r"(?i)b",
    r"$",
    "",
]


@pytest.fixture(params=[3, 7, 64])
def small(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks and pieces of a few bytes, so that a short text has many."""
    monkeypatch.setattr(text_view, "BLOCK_BYTES", request.param)
    monkeypatch.setattr(text_view, "PIECE_BYTES", request.param + 1)
    monkeypatch.setattr(text_view, "MAX_MATCH_CHARACTERS", 64)


@pytest.fixture(params=["memory", "file", "spilled"])
def view(request: pytest.FixtureRequest) -> Iterator[View]:
    with TemporaryDirectory() as folder:
        spill = SpillFile(Path(folder))

        def in_file(text: str) -> TextView:
            path = Path(folder, "text")
            path.write_bytes(text.encode())
            return TextView(FileContent(open_regular(path), "text"))

        yield {
            "memory": lambda text: TextView(text.encode()),
            "file": in_file,
            "spilled": lambda text: TextView(spill.write((text.encode(),))),
        }[request.param]


@pytest.mark.usefixtures("small")
@given(texts, ends, ends)
@example("", None, None)
@example("a😀" * 20, -1, None)
@example("a汉" * 20, 5, 2)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_slices_are_those_of_the_text(
    view: View, text: str, start: int | None, stop: int | None
) -> None:
    viewed = view(text)
    assert viewed[start:stop] == text[start:stop]
    assert viewed[:1] == text[:1]
    assert len(viewed) == len(text)
    assert [viewed[i] for i in range(len(text))] == list(text)
    starts = [viewed.byte(i) for i in range(len(text) + 2)]
    assert starts == [len(text[:i].encode()) for i in range(len(text) + 2)]


@pytest.mark.usefixtures("small")
@given(texts)
@example("a\r\nb\rc\n\r\n")
@example("ab\r\n" * 9)
@example("a" * 50 + "\r")
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_lines_are_those_of_the_text(view: View, text: str) -> None:
    assert list(view(text).lines()) == text.splitlines()


@pytest.mark.usefixtures("small")
@given(texts, st.integers(1, 90))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_chunks_are_the_text_in_equal_parts(view: View, text: str, size: int) -> None:
    assert list(view(text).chunks(size)) == [text[i : i + size] for i in range(0, len(text), size)]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("pattern", PATTERNS)
@given(texts | st.text("aB \n", max_size=400))
@example("aB a\n" * 60)
@settings(max_examples=30)
def test_matches_are_those_of_the_text(pattern: str, text: str) -> None:
    expected = [
        TextMatch(match.start(), match.end(), match[0], match.groups())
        for match in re.finditer(pattern, text)
    ]
    assert list(TextView(text.encode()).find(pattern)) == expected
    assert list(TextView(text.encode()).find(re.compile(pattern))) == expected


def test_a_match_that_is_too_long_is_an_error_and_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_view, "PIECE_BYTES", 10)
    monkeypatch.setattr(text_view, "MAX_MATCH_CHARACTERS", 20)
    viewed = TextView(b"x" * 20 + b"\n" + b"y" * 21)
    assert [match.end - match.start for match in viewed.find("x+")] == [20]
    with pytest.raises(InputError, match="at character 21 is longer than 20 characters"):
        list(viewed.find("y+"))


@pytest.mark.parametrize("pattern", ["(", "a{99999999999}", "(?<=a*)b"])
def test_a_pattern_that_cannot_be_read_is_refused_at_once(pattern: str) -> None:
    with pytest.raises(InputError, match="The pattern can't be read"):
        TextView(b"text").find(pattern)


def test_what_cannot_be_cut_is_refused_at_once() -> None:
    with pytest.raises(InputError, match="Give at least 1"):
        TextView(b"text").chunks(0)
    with pytest.raises(InputError, match="no step"):
        TextView(b"text")[::2]
    with pytest.raises(IndexError):
        TextView(b"text")[4]


class Counted:
    """Bytes that count how many of them were read."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.read = 0

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, where: slice) -> bytes:
        piece = self.data[where]
        self.read += len(piece)
        return piece


def test_the_head_of_a_long_text_is_read_alone() -> None:
    content = Counted("汉字 ".encode() * 1_000_000)
    viewed = TextView(content)
    assert viewed[10:16] == "字 汉字 汉"
    assert next(viewed.find("字")).start == 1
    assert content.read <= 2 * text_view.PIECE_BYTES


def test_a_slice_reads_a_block_or_two_once_the_text_was_gone_through() -> None:
    content = Counted("汉字 ".encode() * 1_000_000)
    viewed = TextView(content)
    assert len(viewed) == 3_000_000
    assert content.read == len(content)
    assert viewed[2_000_000:2_000_004] == " 汉字 "
    assert viewed[-2:] == "字 "
    assert content.read <= len(content) + 5 * text_view.BLOCK_BYTES


def test_a_line_across_many_pieces_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_view, "PIECE_BYTES", 16)
    assert list(TextView(b"x" * 1_000_000).lines()) == ["x" * 1_000_000]

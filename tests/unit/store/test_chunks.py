from __future__ import annotations

import mmap
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rlm_runtime.errors import InputError
from rlm_runtime.store import Chunk, bytes_per_token, cut, cut_tokens, fit, target_bytes
from rlm_runtime.store.values import FileContent, open_regular

WORDS = ["a", "word", "Satz.", "end!", "\n", "\n\n", "\r\n", "\r\n\r\n", " ", "\t", "x" * 30]
SCRIPTS = [
    "汉字。",
    "漢",
    "שלום",
    "؟ ",
    "🙂",
    "👩‍👩‍👧",
    "é",
    '{"a":1},',
    "a,b,c\n",
    "\u3000",
    "”",
    "e\u0301",
]
texts = st.one_of(
    st.lists(st.sampled_from(WORDS + SCRIPTS), max_size=80).map("".join),
    st.text(max_size=120),
)
targets = st.integers(1, 60)


def starts(data: bytes) -> set[int]:
    """Offsets between characters."""
    return {0, len(data)} | {i for i, byte in enumerate(data) if byte & 0xC0 != 0x80}


@given(texts, targets)
@example("🙂", 1)
@example("🙂🙂", 3)
@example("", 1)
def test_chunks_cover_the_text_once_and_in_order(text: str, target: int) -> None:
    data = text.encode()
    chunks = cut(data, target)
    assert b"".join(data[chunk.start : chunk.end] for chunk in chunks) == data
    assert all(chunk.start < chunk.end for chunk in chunks)
    assert all(one.end == two.start for one, two in pairwise(chunks))


@given(texts, targets)
def test_chunks_end_between_characters(text: str, target: int) -> None:
    data = text.encode()
    assert {chunk.end for chunk in cut(data, target)} <= starts(data)


@given(texts, targets)
def test_chunks_are_near_the_target(text: str, target: int) -> None:
    data = text.encode()
    sizes = [chunk.end - chunk.start for chunk in cut(data, target)]
    if len(sizes) > 1:
        assert min(sizes) >= target * 3 / 8 - 3
    assert all(size <= target * 5 / 4 + 3 for size in sizes)


@given(texts, targets, st.data())
def test_what_follows_a_boundary_is_cut_as_if_the_text_began_there(
    text: str, target: int, draw: st.DataObject
) -> None:
    data = text.encode()
    chunks = cut(data, target)
    skipped = draw.draw(st.integers(0, len(chunks)))
    offset = chunks[skipped].start if skipped < len(chunks) else len(data)
    rest = [Chunk(c.start + offset, c.end + offset) for c in cut(data[offset:], target)]
    assert rest == list(chunks[skipped:])


@given(texts, texts, st.integers(16, 60))
def test_text_added_at_the_end_moves_no_boundary_but_the_last_two(
    text: str, added: str, target: int
) -> None:
    before = cut(text.encode(), target)
    after = cut((text + added).encode(), target)
    assert after[: max(0, len(before) - 2)] == before[:-2]


@given(texts, targets)
def test_a_line_is_never_torn_where_one_ends_nearby(text: str, target: int) -> None:
    data = text.encode()
    for chunk in cut(data, target)[:-1]:
        left = len(data) - chunk.start
        aim = chunk.start + (target if left >= 2 * target else left // 2)
        window = data[max(chunk.start, aim - target // 4) : aim + target // 4]
        if b"\n" in window:
            assert data[: chunk.end].rstrip(b" \t\r\f\v").endswith(b"\n")


PARAGRAPHS = ["\n\n", "\r\n\r\n", "\n \t\n\n"]
LINES = ["\n", "\r\n"]
SENTENCES = [
    ". ",
    "! ",
    "? ",
    ".) ",
    "?” ",
    ".  ",
    "。",
    "！",
    "？」",
    "。\u3000",
    "؟ ",
    "… ",
    "। ",
]
WORDS_ENDS = [" ", "\t", "  ", "\u3000"]
NO_PAUSE = ["x", ".x", "汉", "é"]
KINDS = [PARAGRAPHS, LINES, SENTENCES, WORDS_ENDS, NO_PAUSE]


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        (better, worse)
        for rank, kind in enumerate(KINDS)
        for better in kind
        for worse in [pause for below in KINDS[rank + 1 :] for pause in below]
    ],
)
def test_a_better_pause_is_worth_a_way(better: str, worse: str) -> None:
    target, way = 80, 15
    before = b"x" * (target - way - len(better.encode())) + better.encode()
    between = b"x" * (way - len(worse.encode())) + worse.encode()
    data = before + between + b"x" * 2 * target
    assert cut(data, target)[0] == Chunk(0, target - way)


@pytest.mark.parametrize("pause", [pause for kind in KINDS[:-1] for pause in kind])
@pytest.mark.parametrize(("below", "above"), [(10, 5), (5, 10)])
def test_of_equal_pauses_the_nearest_is_taken(pause: str, below: int, above: int) -> None:
    target, size = 80, len(pause.encode())
    data = b"x" * (target - below - size) + pause.encode()
    data += b"x" * (below + above - size) + pause.encode() + b"x" * 2 * target
    assert cut(data, target)[0].end == target + (-below if below < above else above)


@pytest.mark.parametrize("pause", [pause for kind in KINDS[:-1] for pause in kind])
def test_a_pause_that_is_too_far_is_not_taken(pause: str) -> None:
    target = 80
    data = b"x" * (target * 3 // 4 - 1 - len(pause.encode())) + pause.encode() + b"x" * 200
    assert cut(data, target)[0] == Chunk(0, target)


def test_a_text_without_any_pause_is_cut_at_the_target() -> None:
    assert cut(b"x" * 100, 20) == tuple(Chunk(i, i + 20) for i in range(0, 100, 20))


def test_a_text_that_fits_is_one_chunk() -> None:
    assert cut(b"a\n\nb", 100) == (Chunk(0, 4),)


def test_every_kind_of_buffer_is_cut_alike(tmp_path: Path) -> None:
    data = ("Zeile für Zeile.\n" * 50).encode()
    file = tmp_path / "text"
    file.write_bytes(data)
    expected = cut(data, 70)
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        assert cut(mapped, 70) == expected
    assert cut(memoryview(data), 70) == expected
    assert cut(bytearray(data), 70) == expected
    assert cut(FileContent(open_regular(file), "text"), 70) == expected


class Counting:
    """A text that counts how much of it was looked at."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.read = 0

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, where: slice, /) -> bytes:
        piece = self.data[where]
        self.read += len(piece)
        return piece


@pytest.mark.parametrize("unit", [b"x", b" ", b"\n", b".", b'.")', b"word ", "汉".encode()])
def test_each_byte_is_looked_at_at_most_once(unit: bytes) -> None:
    text = Counting(unit * (200_000 // len(unit)))
    cut(text, 2800)
    assert text.read <= len(text.data)


@pytest.mark.parametrize("target", [0, -1])
def test_a_target_below_one_is_refused(target: int) -> None:
    with pytest.raises(InputError, match="at least 1"):
        cut(b"text", target)


@given(texts, st.integers(1, 20), st.integers(0, 10))
def test_no_chunk_has_more_tokens_than_the_bound(text: str, target: int, more: int) -> None:
    data = text.encode()
    bound = target + more
    chunks = cut_tokens(data, target, bound, len)
    parts = [data[chunk.start : chunk.end].decode() for chunk in chunks]
    assert "".join(parts) == text
    assert all(len(part) <= bound for part in parts)


def test_only_chunks_over_the_bound_are_split_again() -> None:
    def count(text: str) -> int:
        return sum(4 if char == "z" else 1 for char in text)

    data = b"a" * 400 + b"z" * 40 + b"a" * 400
    chunks = cut(data, 40)
    parts = cut_tokens(data, 40, 60, lambda text: count(text) if len(text) < 500 else len(text))
    kept = [chunk for chunk in chunks if count(data[chunk.start : chunk.end].decode()) <= 60]
    assert set(kept) < set(parts)
    assert all(count(data[c.start : c.end].decode()) <= 60 for c in parts)


def test_a_character_is_never_split_however_many_tokens_it_has() -> None:
    data = "🙂🙂".encode()
    assert fit(data, Chunk(0, 8), 1, lambda text: 3 * len(text)) == (Chunk(0, 4), Chunk(4, 8))


def test_a_large_chunk_is_tokenised_little_more_than_twice() -> None:
    counted = 0

    def count(text: str) -> int:
        nonlocal counted
        counted += len(text)
        return len(text)

    data = b"one line, " * 20_000
    parts = fit(data, Chunk(0, len(data)), 1_000, count)
    assert counted <= 2.1 * len(data)
    assert len(parts) <= 2 * len(data) / 1_000


@pytest.mark.parametrize(("target", "bound"), [(0, 5), (6, 5)])
def test_impossible_sizes_are_refused(target: int, bound: int) -> None:
    with pytest.raises(InputError, match="at least 1 and at most the bound"):
        cut_tokens(b"text", target, bound, len)


def test_bytes_per_token_are_exact_for_a_short_text() -> None:
    assert bytes_per_token("汉字ab".encode(), len) == 2.0
    assert target_bytes("汉字ab".encode(), 10, len) == 20


def test_the_sample_is_spread_over_the_text() -> None:
    # Half the text has four letters a word, half nineteen: 5 and 20 bytes a token.
    data = b"four " * 400_000 + b"nineteen-characters " * 100_000
    true = len(data) / 500_000
    assert bytes_per_token(data, lambda text: len(text.split())) == pytest.approx(true, rel=0.05)


def test_the_sample_leaves_out_characters_that_it_tore() -> None:
    assert bytes_per_token("🙂".encode() * 100_001, len) == 4.0


def test_nothing_has_one_byte_per_token() -> None:
    assert bytes_per_token(b"", len) == 1.0

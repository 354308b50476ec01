"""A text of 100 MB is stored, indexed and searched in bounded memory."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[3]
FACT = "Edith Märlow repaired the lighthouse clock at Farrow Point."
MAX_RSS_ANON_BYTES = 2 * 10**9
BLOCK_WORDS = 100_000


def english(generator: np.random.Generator) -> Iterator[str]:
    """Words as rare as in English: the commonest some 7 %, the 60,000 others ever less."""
    syllables = ["ba", "de", "fi", "go", "lu", "ma", "ne", "pi", "ro", "su", "ta", "ve"]
    words = [
        "".join(syllables[int(digit, 12)] for digit in np.base_repr(i, 12)) for i in range(60_000)
    ]
    shares = 1 / np.arange(1, len(words) + 1)
    shares /= shares.sum()
    while True:
        drawn = generator.choice(len(words), size=BLOCK_WORDS, p=shares)
        for start in range(0, BLOCK_WORDS, 12):
            sentence = " ".join(words[i] for i in drawn[start : start + 12])
            yield sentence.capitalize() + (".\n\n" if start % 60 == 0 else ". ")


def identifiers(generator: np.random.Generator) -> Iterator[str]:
    """A log of eleven million words in which next to none comes twice."""
    while True:
        for number in generator.integers(2**32, size=BLOCK_WORDS):
            yield f"{number:08x}" + ("\n" if number % 4 == 0 else " ")


def chinese(generator: np.random.Generator) -> Iterator[str]:
    """3,000 ideographs, each a word of its own."""
    while True:
        drawn = generator.integers(0x4E00, 0x4E00 + 3_000, size=BLOCK_WORDS)
        for start in range(0, BLOCK_WORDS, 20):
            yield "".join(map(chr, drawn[start : start + 20])) + "。"


def write(path: Path, sentences: Iterator[str], size_bytes: int) -> None:
    """A file of so many bytes, with the fact behind two thirds of them."""
    fact = f"\n\n{FACT}\n\n".encode()
    with path.open("wb") as file:
        for end in (size_bytes * 2 // 3, size_bytes):
            while file.tell() < end:
                file.write(next(sentences).encode())
            file.write(fact)
            fact = b""


@pytest.mark.parametrize(
    ("kind", "size_bytes"),
    [
        (english, 2_000_000),
        *(
            pytest.param(kind, 100_000_000, marks=[pytest.mark.long, pytest.mark.timeout(900)])
            for kind in (english, identifiers, chinese)
        ),
    ],
)
def test_a_long_text_is_searched_in_two_gigabytes(
    kind: Callable[[np.random.Generator], Iterator[str]],
    size_bytes: int,
    tmp_path: Path,
    model_dir: Path,
) -> None:
    path = tmp_path / "text.txt"
    write(path, kind(np.random.default_rng(7)), size_bytes)
    ran = subprocess.run(
        [sys.executable, "-m", "tests.unit.scaffold.long_text_memory", path, model_dir],
        cwd=ROOT,
        check=True,
        stdout=subprocess.PIPE,
    )
    path.unlink()
    figures = json.loads(ran.stdout)
    passages = figures.pop("passages")
    print(json.dumps(figures))
    assert figures["size_bytes"] >= size_bytes
    assert figures["rss_anon_bytes_most"] < MAX_RSS_ANON_BYTES
    assert any(FACT in passage for passage in passages)

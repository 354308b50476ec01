from __future__ import annotations

import bm25s
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rlm_runtime.scaffold import lexical
from rlm_runtime.scaffold.lexical import TextIndex, scores, terms

WORDS = ["the", "lighthouse", "clock", "repaired", "42", "été", "漢", "字", "Märlow"]
pieces = st.lists(st.lists(st.sampled_from(WORDS), max_size=30).map(" ".join), max_size=12)


def index_of(texts: list[str]) -> TextIndex:
    index = TextIndex()
    for text in texts:
        index.add(text)
    index.seal()
    return index


def judged(texts: list[str], question: str) -> list[float]:
    """The scores by bm25s with its default constants, in double precision."""
    index = bm25s.BM25(dtype="float64")
    index.index([terms(text) for text in texts], show_progress=False)
    known = [term for term in terms(question) if term in index.vocab_dict]
    if not known:
        return [0.0] * len(texts)
    return [float(score) for score in index.get_scores(known)]


@given(pieces, st.lists(st.sampled_from([*WORDS, "unknown"]), max_size=6).map(" ".join))
def test_scores_are_those_of_bm25s(texts: list[str], question: str) -> None:
    assume(any(map(terms, texts)))
    assert scores([index_of(texts)], question) == pytest.approx(judged(texts, question), abs=1e-9)


@given(st.lists(pieces, min_size=1, max_size=4), st.lists(st.sampled_from(WORDS), max_size=4))
def test_texts_together_have_the_scores_of_one_index_of_all(
    texts: list[list[str]], question: list[str]
) -> None:
    together = [piece for text in texts for piece in text]
    assume(any(map(terms, together)))
    found = scores([index_of(text) for text in texts], " ".join(question))
    assert found == pytest.approx(judged(together, " ".join(question)), abs=1e-9)


@given(pieces, st.integers(1, 6))
def test_scores_do_not_depend_on_where_segments_end(texts: list[str], every: int) -> None:
    segmented = TextIndex()
    for position, text in enumerate(texts):
        segmented.add(text)
        if position % every == 0:
            segmented.seal()
    segmented.seal()
    question = "the lighthouse clock"
    assert scores([segmented], question) == scores([index_of(texts)], question)


def test_a_full_segment_is_sealed_on_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lexical, "SEGMENT_POSTINGS", 4)
    index = TextIndex()
    for text in ("one two three", "four five", "six"):
        index.add(text)
    assert [(segment.first, segment.end) for segment in index.segments()] == [(0, 2)]
    index.seal()
    assert [(segment.first, segment.end) for segment in index.segments()] == [(0, 2), (2, 3)]


def test_many_pieces_and_counts_do_not_overflow_their_bytes() -> None:
    texts = ["clock " * 70_000, *["weather"] * 300, "clock"]
    found = scores([index_of(texts)], "clock")
    assert found == pytest.approx(judged(texts, "clock"), abs=1e-9)


def test_a_word_that_the_question_says_twice_counts_twice() -> None:
    index = index_of(["the clock", "the lighthouse"])
    once, twice = scores([index], "clock"), scores([index], "clock clock")
    assert twice == [2 * score for score in once]


@pytest.mark.parametrize("texts", [[], [""], ["--- ***", "?!"]])
def test_nothing_is_found_where_there_is_no_word(texts: list[str]) -> None:
    assert scores([index_of(texts)], "the clock") == [0.0] * len(texts)


def test_without_texts_there_are_no_scores() -> None:
    assert scores([], "the clock") == []


def test_different_words_cost_no_more_than_their_postings() -> None:
    """No dictionary of words is held, so a text of nothing but numbers is no danger."""
    index = TextIndex()
    for piece in range(100):
        index.add(" ".join(f"{piece * 1000 + i:08x}" for i in range(1000)))
    index.seal()
    assert index.size_bytes < 20 * 100_000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The Clock's hands", ["the", "clock", "s", "hands"]),
        ("snake_case x2", ["snake", "case", "x2"]),
        ("合同于2024年签署。", list("合同于2024年签署")),
        ("the 时钟 clock", ["the", "时", "钟", "clock"]),
        ("ひらカタ 한국", list("ひらカタ한국")),
        ("שלום عالم", ["שלום", "عالم"]),
        ("👩‍👩‍👧 ok\0no", ["ok", "no"]),
        ("", []),
    ],
)
def test_terms_are_words_and_ideographs(text: str, expected: list[str]) -> None:
    assert terms(text) == expected

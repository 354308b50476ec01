"""The corpus keeps what was used lately, and makes again what it forgot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Barrier, Thread

import pytest

from rlm_runtime.prompt import ChatTemplate, Layout, Tokenizer
from rlm_runtime.scaffold import corpus as corpus_module
from rlm_runtime.scaffold.corpus import SEAM_BYTES, Corpus, Piece, ReadDocuments
from rlm_runtime.scaffold.lexical import TextIndex
from rlm_runtime.scaffold.likelihood import TAIL
from rlm_runtime.scaffold.units import units
from rlm_runtime.store import ContextStore
from rlm_runtime.types import Ref

CHUNK_TOKENS = 64
QUESTION = "Who repaired the lighthouse clock?"
FILLER = "The weather was mild and the days went by as they always do in such a place. "
FACT = "Edith Märlow repaired the lighthouse clock at Farrow Point. "


@pytest.fixture(scope="module")
def layout(model_dir: Path) -> Layout:
    tokenizer = Tokenizer.from_folder(model_dir)
    return Layout(tokenizer, ChatTemplate.from_folder(model_dir, tokenizer), 32)


@pytest.fixture
def corpus(layout: Layout) -> Corpus:
    return Corpus(ContextStore(layout.tokenizer.count), layout, CHUNK_TOKENS)


class Encoded:
    """Counts the pieces that are tokenised."""

    def __init__(self, layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
        self.texts = 0
        encode = layout.tokenizer.encode

        def counting(text: str) -> tuple[int, ...]:
            self.texts += text != TAIL
            return encode(text)

        monkeypatch.setattr(layout.tokenizer, "encode", counting)


@pytest.fixture
def encoded(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> Encoded:
    return Encoded(layout, monkeypatch)


@pytest.fixture
def indexed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The pieces that are indexed."""
    seen: list[str] = []
    add = TextIndex.add

    def seeing(index: TextIndex, text: str) -> None:
        seen.append(text)
        add(index, text)

    monkeypatch.setattr(TextIndex, "add", seeing)
    return seen


class Enough(Exception):
    """What a watch raises to stop the work."""


def stop_after(pieces: int) -> Callable[[int, int], None]:
    def watch(_done: int, _to_do: int) -> None:
        nonlocal pieces
        pieces -= 1
        if not pieces:
            raise Enough

    return watch


def test_questions_about_two_texts_in_turn_index_each_once(
    corpus: Corpus, indexed: list[str]
) -> None:
    a = corpus.store.put_text("a", FACT + FILLER * 20)
    b = corpus.store.put_text("b", FILLER * 30)
    first = [corpus.bm25([ref], [QUESTION]) for ref in (a, b)]
    assert [corpus.bm25([ref], [QUESTION]) for ref in (a, b)] == first
    assert len(corpus.bm25([b, a], ["weather"])[0]) == len(indexed) == len(corpus.pieces([a, b]))


def test_equal_texts_share_an_index(corpus: Corpus, indexed: list[str]) -> None:
    a = corpus.store.put_text("a", FACT + FILLER * 20)
    b = corpus.store.put_text("b", FACT + FILLER * 20)
    assert corpus.bm25([a], [QUESTION]) == corpus.bm25([b], [QUESTION])
    assert len(indexed) == len(corpus.pieces([a]))
    (both,) = corpus.bm25([a, b], [QUESTION])
    assert both[: len(indexed)] == both[len(indexed) :]


def test_indexing_tells_how_far_it_is(corpus: Corpus) -> None:
    refs = [
        corpus.store.put_text("a", FACT + FILLER * 20),
        corpus.store.put_text("b", FILLER * 30),
    ]
    seen: list[tuple[int, int]] = []
    corpus.bm25(refs, [QUESTION], lambda done, to_do: seen.append((done, to_do)))
    total = sum(ref.size_bytes for ref in refs)
    assert {to_do for _, to_do in seen} == {total}
    assert seen == sorted(seen)
    assert seen[-1] == (total, total)
    assert len(seen) == len(corpus.pieces(refs))
    corpus.bm25(refs, [QUESTION], stop_after(1))  # nothing is left to be stopped


def test_a_stopped_index_is_gone_on_with(corpus: Corpus, indexed: list[str]) -> None:
    ref = corpus.store.put_text("a", FILLER * 30 + FACT)
    with pytest.raises(Enough):
        corpus.bm25([ref], [QUESTION], stop_after(3))
    assert len(indexed) == 3
    (scores,) = corpus.bm25([ref], [QUESTION])
    assert "".join(indexed) == FILLER * 30 + FACT
    assert max(scores) == scores[-1] > 0


def test_questions_at_once_make_an_index_together(corpus: Corpus, indexed: list[str]) -> None:
    ref = corpus.store.put_text("a", FACT + FILLER * 400)
    together = Barrier(4)
    results: list[list[list[float]]] = []

    def ask() -> None:
        together.wait()
        results.append(corpus.bm25([ref], [QUESTION]))

    threads = [Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert "".join(indexed) == FACT + FILLER * 400
    assert results == [results[0]] * 4


def test_one_that_stops_does_not_stop_the_other(corpus: Corpus) -> None:
    ref = corpus.store.put_text("a", FACT + FILLER * 400)
    stopped: list[bool] = []

    def stop_early() -> None:
        with pytest.raises(Enough):
            corpus.bm25([ref], [QUESTION], stop_after(1))
        stopped.append(True)

    def watch(_done: int, _to_do: int) -> None:
        if not stopped:
            thread = Thread(target=stop_early)
            thread.start()
            thread.join()

    (scores,) = corpus.bm25([ref], [QUESTION], watch)
    assert stopped
    assert [scores] == corpus.bm25([ref], [QUESTION])
    assert scores[0] > 0


def test_indexes_used_longest_ago_make_room(
    corpus: Corpus, layout: Layout, indexed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus_module, "KEPT_INDEX_BYTES", 1)
    small = Corpus(corpus.store, layout, CHUNK_TOKENS)
    refs = [corpus.store.put_text(name, name + FILLER * 20) for name in ("a", "b")]
    each = len(small.pieces(refs)) // 2
    for ref, known in zip(refs * 2, range(4), strict=True):
        small.bm25([ref], [QUESTION])
        assert len(indexed) == each * (known + 1)
        small.bm25([ref], [QUESTION])  # the newest is kept
        assert len(indexed) == each * (known + 1)


def test_questions_at_once_index_texts_once_that_are_too_long_to_keep(
    corpus: Corpus, layout: Layout, indexed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus_module, "KEPT_INDEX_BYTES", 1)
    small = Corpus(corpus.store, layout, CHUNK_TOKENS)
    refs = [corpus.store.put_text(name, f"{name} {FILLER * 20}") for name in ("a", "b")]
    first, second = small.bm25(refs, ["Where is a?", QUESTION])
    assert len(indexed) == len(small.pieces(refs))
    assert [first] == small.bm25(refs, ["Where is a?"])
    assert [second] == small.bm25(refs, [QUESTION])
    assert first != second


def test_a_piece_is_tokenised_once(corpus: Corpus, encoded: Encoded) -> None:
    ref = corpus.store.put_text("a", FILLER * 20)
    pieces = corpus.pieces([ref])
    before = encoded.texts
    assert [part for piece in pieces for part in corpus.fitted(piece)] == list(pieces)
    documents = corpus.documents(pieces)
    assert encoded.texts - before == len(pieces)
    assert documents == tuple(corpus.document(piece) for piece in pieces)
    assert encoded.texts - before == len(pieces)


def test_documents_used_longest_ago_are_forgotten_and_made_again(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus_module, "KEPT_DOCUMENT_TOKENS", 300)
    corpus = Corpus(ContextStore(layout.tokenizer.count), layout, CHUNK_TOKENS)
    pieces = corpus.pieces([corpus.store.put_text("a", FILLER * 40)])
    encoded = Encoded(layout, monkeypatch)
    documents = corpus.documents(pieces)
    room = sum(len(document.ids) for document in documents)
    assert encoded.texts == len(pieces)
    assert room > 600
    assert corpus.document(pieces[-1]) is documents[-1]
    assert corpus.document(pieces[0]) == documents[0]
    assert encoded.texts == len(pieces) + 1


def test_a_piece_of_many_tokens_is_split_within_its_bounds(corpus: Corpus) -> None:
    text = FILLER * 100 + "🜁🜂🜃🜄" * 60 + FILLER * 100
    ref = corpus.store.put_text("a", text)
    pieces = corpus.pieces([ref])
    parts = [corpus.fitted(piece) for piece in pieces]
    assert max(map(len, parts)) > 1
    for piece, own in zip(pieces, parts, strict=True):
        assert "".join(map(corpus.text, own)) == corpus.text(piece)
        assert corpus.fitted(piece) is own
        for part in own:
            assert corpus.document(part).text_tokens <= corpus.max_piece_tokens


def test_pieces_tile_each_text(corpus: Corpus) -> None:
    texts = {"a": FILLER * 30, "b": FACT * 30}
    refs = [corpus.store.put_text(name, text) for name, text in texts.items()]
    by_name: dict[str, list[Piece]] = {}
    for piece in corpus.pieces(refs):
        by_name.setdefault(piece.ref.name, []).append(piece)
    assert {n: "".join(map(corpus.text, own)) for n, own in by_name.items()} == texts


def test_what_the_cache_has_no_room_for_counts_as_unread() -> None:
    read = ReadDocuments(typical_tokens=100)
    read.add("never bounded", 10**9)
    read.add("a", 60)
    assert set(read) == {"never bounded", "a"}
    read.bound(200)
    assert set(read) == {"a"}
    read.add("b", 100)
    read.add("a", 60)  # used again
    read.add("c", 100)
    assert set(read) == {"a", "c"}
    assert "b" not in read
    read.clear()
    assert not list(read)


def test_a_document_of_untold_size_weighs_like_a_typical_one() -> None:
    read = ReadDocuments(typical_tokens=100)
    read.bound(250)
    for digest in ("a", "b", "c"):
        read.add(digest)
    assert set(read) == {"b", "c"}


def test_a_text_that_is_no_longer_kept_is_cut_again_alike(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus_module, "KEPT_CHUNKS", 1)
    corpus = Corpus(ContextStore(layout.tokenizer.count), layout, CHUNK_TOKENS)
    refs: list[Ref] = [corpus.store.put_text(name, name + FILLER * 30) for name in ("a", "b")]
    once = [corpus.pieces([ref]) for ref in refs]
    assert [corpus.pieces([ref]) for ref in refs] == once


def parts(corpus: Corpus, ref: Ref) -> list[Piece]:
    return [part for piece in corpus.pieces([ref]) for part in corpus.fitted(piece)]


def quotations(corpus: Corpus, piece: Piece) -> list[str]:
    text = corpus.text(corpus.quotable(piece))
    return [text[unit.start : unit.end] for unit in units(text)]


def test_no_border_cuts_a_sentence(corpus: Corpus) -> None:
    """Paragraphs longer than chunks, in lines as an editor breaks them."""
    sentences = [
        f"Sentence number {i} says that the {word} was mended\nby somebody in the course of\n"
        f"the year {1800 + i}, and that nobody\never thanked them for it."
        for i in range(60)
        for word in ("clock", "lighthouse door", "old harbour office window")
    ]
    ref = corpus.store.put_text("a", "\n".join(sentences))
    pieces = parts(corpus, ref)
    torn = [piece for piece in pieces[:-1] if not corpus.text(piece).rstrip().endswith("it.")]
    assert torn
    quoted = [quotations(corpus, piece) for piece in pieces]
    assert {sentence for own in quoted for sentence in own} == set(sentences)
    for one, two, piece in zip(quoted, quoted[1:], pieces, strict=False):
        assert (one[-1] == two[0]) == (piece in torn), "a torn one is quoted for both pieces"


@pytest.mark.parametrize("unit", ["word ", "1,name,22.5\n", "汉字", "🙂 ", "x", "One sentence. "])
def test_what_is_quoted_for_a_piece_is_the_piece_and_little_more(corpus: Corpus, unit: str) -> None:
    ref = corpus.store.put_text("a", unit * (6_000 // len(unit)))
    for piece in parts(corpus, ref):
        own = corpus.quotable(piece)
        assert max(0, piece.start_byte - SEAM_BYTES) <= own.start_byte <= piece.start_byte
        assert piece.end_byte <= own.end_byte <= min(ref.size_bytes, piece.end_byte + SEAM_BYTES)


def test_a_sentence_longer_than_a_piece_is_quoted_for_each_that_has_some(corpus: Corpus) -> None:
    long = f"It {'went on and on ' * 40}until the end."
    ref = corpus.store.put_text("a", f"{FILLER * 3}{long} {FILLER * 3}")
    start = len((FILLER * 3).encode())
    having = [
        piece
        for piece in parts(corpus, ref)
        if piece.start_byte < start + len(long) and piece.end_byte > start
    ]
    assert len(having) > 2
    for piece in having:
        assert long in quotations(corpus, piece)

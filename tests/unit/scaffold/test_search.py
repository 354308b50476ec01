"""The search recipe on an engine that finds a question likely when the prompt has its words."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import anyio
import anyio.to_thread
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_runtime.config import SearchConfig
from rlm_runtime.engine.base import GenerateRequest
from rlm_runtime.errors import Cancelled, EngineError
from rlm_runtime.prompt import ChatTemplate, Document, Layout, Tokenizer
from rlm_runtime.scaffold import corpus as corpus_module
from rlm_runtime.scaffold import thread_watch
from rlm_runtime.scaffold.corpus import Corpus, Piece
from rlm_runtime.scaffold.lexical import TextIndex
from rlm_runtime.scaffold.likelihood import Asker, QuestionLikelihood, ScoreMemo
from rlm_runtime.scaffold.recipes.search import FIRST_LOOK, Search
from rlm_runtime.scaffold.recipes.search_part import Part, words_of
from rlm_runtime.scaffold.recipes.search_result import Outcome, PartResult, Passage, SearchResult
from rlm_runtime.scheduler import Job, Progress, Scheduler
from rlm_runtime.store import Chunk, ContextStore, cut
from rlm_runtime.tracing import AnyEvent, CallFinished, Recorder, ValueRead
from rlm_runtime.types import AgentId, Limits, StopReason

if TYPE_CHECKING:
    from tests.unit.conftest import FakeEngine

pytestmark = pytest.mark.anyio

CHUNK_TOKENS = 64
FILLER = "The weather was mild and the days went by as they always do in such a place. "
FACT = "Edith Märlow repaired the lighthouse clock at Farrow Point."
QUESTION = "Who repaired the lighthouse clock?"
TWO_PARTS = "Who repaired the lighthouse clock, and who painted the office?"


class Bench:
    """The recipe with its store and its events."""

    def __init__(self, engine: FakeEngine, model_dir: Path, **config: float) -> None:
        self.engine = engine
        tokenizer = Tokenizer.from_folder(model_dir)
        self.layout = Layout(tokenizer, ChatTemplate.from_folder(model_dir, tokenizer), 32)
        self.shared = len(self.layout.shared_ids)
        engine.score = self.score
        self.recorder = Recorder(None)
        self.events: list[AnyEvent] = []
        self.recorder.subscribe(self.events.append)
        self.store = ContextStore(tokenizer.count)
        self.corpus = Corpus(self.store, self.layout, CHUNK_TOKENS)
        self.config = SearchConfig(chunk_tokens=CHUNK_TOKENS, **config)
        self.memo: ScoreMemo | None = None
        self.scheduler = Scheduler(
            engine, self.recorder, shared_tokens=self.shared, max_queued_calls=1000
        )

    def score(self, request: GenerateRequest) -> float:
        """Each question token costs 5 nats, less for each that the text in front of it has."""
        assert request.score is not None
        start, end = request.score.start, request.score.end
        text, question = set(request.prompt_ids[self.shared : start]), request.prompt_ids[start:end]
        return -5.0 * sum(i not in text for i in question) / len(question)

    async def ask(
        self,
        *names: str,
        question: str = QUESTION,
        limits: Limits | None = None,
        exhaustive: bool = False,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> SearchResult:
        asker = Asker(self.scheduler, self.layout, Job(limits, on_progress), AgentId("a1"))
        kv_tokens = self.engine.info.kv_tokens
        search = Search(self.corpus, self.config, self.recorder, kv_tokens, self.memo)
        refs = [self.store.get(name).ref for name in names]
        return await search.run(asker, refs, question, exhaustive=exhaustive)

    def sentences(self, piece: Piece) -> list[Document]:
        search = Search(self.corpus, self.config, self.recorder, self.engine.info.kv_tokens)
        return [candidate.document for candidate in search._candidates(piece)]

    def labels(self) -> list[str]:
        return [e.label for e in self.events if isinstance(e, CallFinished)]


@pytest.fixture
def bench(fake_engine: FakeEngine, model_dir: Path) -> Bench:
    return Bench(fake_engine, model_dir)


def paragraphs(count: int, fact_at: int) -> str:
    parts = [f"Day {i} was like this. {FILLER * 3}" for i in range(count)]
    parts[fact_at] = f"{FILLER}{FACT} {FILLER}"
    return "\n\n".join(parts)


async def test_the_answer_is_a_quotation_with_its_bytes(bench: Bench) -> None:
    text = "Präambel über Öfen.\n\n" + paragraphs(8, fact_at=5)
    bench.store.put_text("report", text)
    result = await bench.ask("report")
    best = result.passages[0]
    assert best.text == FACT
    assert text.encode()[best.start_byte : best.end_byte].decode() == FACT
    assert best.variable == "report"
    assert result.found
    assert result.stop_reason is StopReason.FINAL


@pytest.mark.parametrize(
    ("question", "echo"),
    [
        (QUESTION, QUESTION),
        (QUESTION, f"  *{QUESTION.upper().replace(' ', '  ')}*"),
        (TWO_PARTS, QUESTION),
        (TWO_PARTS, TWO_PARTS),
    ],
)
async def test_the_question_itself_is_no_answer(bench: Bench, question: str, echo: str) -> None:
    bench.store.put_text("report", f"{echo}\n\n" + paragraphs(8, fact_at=5))
    result = await bench.ask("report", question=question)
    assert result.answers[0].text == FACT
    assert not any(words_of(p.text) == words_of(echo) for p in result.passages)


async def test_a_text_of_nothing_but_the_question_is_no_certain_answer(
    fake_engine: FakeEngine, model_dir: Path
) -> None:
    bench = Bench(fake_engine, model_dir, certain_above_z=0.5)
    bench.store.put_text("report", f"{QUESTION}\n\n{QUESTION}\n")
    result = await bench.ask("report")
    assert [p.text for p in result.passages] == [QUESTION]
    assert result.is_uncertain


async def test_a_question_without_a_word_equals_no_sentence(bench: Bench) -> None:
    bench.store.put_text("report", "?!\n\n" + paragraphs(2, fact_at=1))
    assert len((await bench.ask("report", question="???")).passages) > 1


@given(
    st.lists(
        st.builds(
            lambda start, size, lift, heading, name: Passage(
                name, start, start + size, f"{start} {size}", heading, lift
            ),
            st.integers(0, 20),
            st.integers(1, 6),
            st.integers(0, 9).map(float),
            st.sampled_from(["", "Heading"]),
            st.sampled_from(["a", "b"]),
        ),
        min_size=1,
    )
)
def test_no_place_and_no_sentence_stands_twice_among_the_passages(scored: list[Passage]) -> None:
    part = Part("", cast("QuestionLikelihood", None), SearchConfig())
    for one in scored:
        part.keep(one)
    shown = part.passages
    assert shown[0].lift == max(one.lift for one in scored)
    assert [p.lift for p in shown] == sorted((p.lift for p in shown), reverse=True)
    assert len({(p.heading, p.text) for p in shown}) == len(shown)
    places = [(p.variable, byte) for p in shown for byte in range(p.start_byte, p.end_byte)]
    assert len(set(places)) == len(places)


async def test_a_text_without_the_answer_gives_not_found(bench: Bench) -> None:
    bench.store.put_text("report", "\n\n".join([FILLER] * 10))
    result = await bench.ask("report")
    assert not result.found
    assert result.passages, "what came nearest is still shown"


async def test_several_texts_are_searched_at_once(bench: Bench) -> None:
    bench.store.put_text("a", FILLER * 20)
    bench.store.put_text("b", paragraphs(3, fact_at=1))
    assert (await bench.ask("a", "b")).passages[0].variable == "b"


async def test_equal_texts_under_two_names_keep_their_names(bench: Bench) -> None:
    bench.store.put_text("first", paragraphs(2, fact_at=1))
    bench.store.put_text("second", paragraphs(2, fact_at=1))
    assert (await bench.ask("second")).passages[0].variable == "second"
    assert (await bench.ask("first")).passages[0].variable == "first"


async def test_of_a_long_text_word_search_picks_what_the_model_ranks(
    fake_engine: FakeEngine, model_dir: Path
) -> None:
    bench = Bench(fake_engine, model_dir, max_ranked_tokens=3 * CHUNK_TOKENS)
    bench.store.put_text("report", paragraphs(40, fact_at=31))
    result = await bench.ask("report")
    assert result.passages[0].text == FACT
    assert result.ranked == 3 < result.pieces
    everything = await bench.ask("report", exhaustive=True)
    assert everything.ranked == everything.pieces


async def test_of_a_long_text_the_rest_is_read_only_without_a_certain_answer(
    fake_engine: FakeEngine, model_dir: Path
) -> None:
    bench = Bench(fake_engine, model_dir, max_ranked_tokens=20 * CHUNK_TOKENS, certain_above_z=2.0)
    bench.store.put_text("report", paragraphs(60, fact_at=31))
    assert not (certain := await bench.ask("report")).is_uncertain
    assert certain.ranked == FIRST_LOOK
    bench.config = bench.config.model_copy(update={"certain_above_z": 1e9})
    assert (uncertain := await bench.ask("report")).is_uncertain
    assert uncertain.ranked == 20
    assert uncertain.passages[0] == certain.passages[0]


async def test_documents_that_were_forgotten_are_made_again_in_a_thread_a_wave_at_a_time(
    fake_engine: FakeEngine, model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus_module, "KEPT_DOCUMENT_TOKENS", 2 * CHUNK_TOKENS)
    fake_engine.kv_blocks = 16  # waves of four chunks
    bench = Bench(fake_engine, model_dir)
    text = paragraphs(40, fact_at=31)
    bench.store.put_text("report", text)
    threads: set[int] = set()
    encode = bench.layout.tokenizer.encode

    def noting(words: str) -> tuple[int, ...]:
        if len(words) > len(FILLER * 2):
            threads.add(threading.get_ident())
        return encode(words)

    alive: list[int] = []

    def count_documents(_request: GenerateRequest) -> None:
        alive.append(sum(isinstance(thing, Document) for thing in gc.get_objects()))

    monkeypatch.setattr(bench.layout.tokenizer, "encode", noting)
    monkeypatch.setattr(fake_engine, "on_request", count_documents)
    before = sum(isinstance(thing, Document) for thing in gc.get_objects())
    result = await bench.ask("report", exhaustive=True)
    assert result.passages[0].text == FACT
    assert result.ranked == result.pieces >= 40
    assert threads
    assert threading.get_ident() not in threads
    assert max(alive) - before < result.pieces // 2


async def test_sentences_are_scored_chunk_after_chunk_until_one_is_certain(
    fake_engine: FakeEngine, model_dir: Path
) -> None:
    bench = Bench(fake_engine, model_dir, certain_above_z=2.0)
    bench.store.put_text("report", paragraphs(12, fact_at=5))
    best = (await bench.ask("report")).chunks[0].piece
    scored = bench.labels().count("score sentence")
    assert scored == len({document.digest for document in bench.sentences(best)})
    bench.config = bench.config.model_copy(update={"certain_above_z": 1e9})
    await bench.ask("report")
    assert bench.labels().count("score sentence") > 2 * scored


async def test_a_question_in_two_parts_gets_a_passage_for_each(bench: Bench) -> None:
    other = "Nils Abersen painted the harbour office green."
    text = paragraphs(6, fact_at=1) + f"\n\n{FILLER}{other} {FILLER}\n\n" + FILLER * 20
    bench.store.put_text("report", text)
    result = await bench.ask("report", question=TWO_PARTS)
    assert [p.text for p in result.answers] == [FACT, other]
    assert result.answer == f"{FACT}\n{other}"
    assert list(result.passages[:2]) == list(result.answers)
    assert [p.part for p in result.answers] == [QUESTION, "Who painted the office?"]
    read = [e for e in bench.events if isinstance(e, CallFinished) and e.label == "read chunk"]
    assert len({e.group for e in read}) == len(read), "both parts share the chunks"


async def test_a_question_in_two_parts_indexes_a_text_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus_module, "KEPT_INDEX_BYTES", 1)
    bench.corpus = Corpus(bench.store, bench.layout, CHUNK_TOKENS)
    refs = [bench.store.put_text(name, paragraphs(6, fact_at=i)) for i, name in enumerate("ab")]
    indexed: list[str] = []
    add = TextIndex.add

    def noting(index: TextIndex, text: str) -> None:
        indexed.append(text)
        add(index, text)

    monkeypatch.setattr(TextIndex, "add", noting)
    await bench.ask("a", "b", question=TWO_PARTS)
    assert len(indexed) == len(bench.corpus.pieces(refs))


async def test_a_part_that_is_not_found_makes_the_answer_uncertain(
    fake_engine: FakeEngine, model_dir: Path
) -> None:
    bench = Bench(fake_engine, model_dir, not_found_below_z=2.0, certain_above_z=2.0)
    bench.store.put_text("report", paragraphs(6, fact_at=1))
    result = await bench.ask("report", question=f"{QUESTION[:-1]}, and which zebras eat quinces?")
    assert [p.text for p in result.answers] == [FACT]
    assert result.is_uncertain
    assert result.parts == (
        PartResult(QUESTION, Outcome.ANSWERED),
        PartResult("Which zebras eat quinces?", Outcome.NOT_FOUND),
    )


async def test_a_part_that_a_limit_left_out_is_told_from_one_that_is_not_found(
    fake_engine: FakeEngine, model_dir: Path
) -> None:
    bench = Bench(fake_engine, model_dir, not_found_below_z=2.0, certain_above_z=2.0)
    bench.store.put_text("report", paragraphs(6, fact_at=1))
    question = f"{QUESTION[:-1]}, and which zebras eat quinces?"
    names = (QUESTION, "Which zebras eat quinces?")
    outcomes: set[tuple[Outcome, ...]] = set()
    for calls in range(200):
        result = await bench.ask("report", question=question, limits=Limits(max_calls=calls))
        assert tuple(asked.part for asked in result.parts) == names
        outcomes.add(tuple(asked.outcome for asked in result.parts))
        scored = {passage.part for passage in result.passages}
        for asked in result.parts:
            assert (asked.outcome is Outcome.LEFT_OUT) == (asked.part not in scored)
        if result.stop_reason is StopReason.FINAL:
            break
    assert {
        (Outcome.LEFT_OUT, Outcome.LEFT_OUT),
        (Outcome.ANSWERED, Outcome.LEFT_OUT),
        (Outcome.ANSWERED, Outcome.NOT_FOUND),
    } <= outcomes

    bench.store.put_text("other", paragraphs(7, fact_at=1))
    late = await bench.ask("other", question=question, limits=Limits(max_seconds=1e-9))
    assert late.parts == tuple(PartResult(name, Outcome.LEFT_OUT) for name in names)


async def test_a_question_asked_again_is_answered_from_memory(bench: Bench) -> None:
    bench.memo = ScoreMemo()
    bench.store.put_text("report", paragraphs(8, fact_at=5))
    first = await bench.ask("report")
    seen, reads = len(bench.engine.seen), sum(isinstance(e, ValueRead) for e in bench.events)
    assert await bench.ask("report") == first
    assert len(bench.engine.seen) == seen
    assert sum(isinstance(e, ValueRead) for e in bench.events) == reads
    await bench.ask("report", question="Who repaired the weather?")
    assert len(bench.engine.seen) > seen


async def test_what_was_forgotten_is_computed_again(bench: Bench) -> None:
    bench.memo = ScoreMemo(max_scores=3)
    bench.store.put_text("report", paragraphs(8, fact_at=5))
    first = await bench.ask("report")
    seen = len(bench.engine.seen)
    assert await bench.ask("report") == first
    assert len(bench.engine.seen) > seen


async def test_chunks_in_the_cache_are_ranked_first(bench: Bench) -> None:
    """They cost little now, and much once others have taken their room."""
    bench.store.put_text("report", paragraphs(12, fact_at=5))
    pieces = bench.corpus.pieces([bench.store.get("report").ref])
    late = bench.corpus.document(pieces[-1])
    bench.corpus.read.add(late.digest)
    await bench.ask("report")
    ranked = [e for e in bench.events if isinstance(e, CallFinished) and e.label == "rank chunk"]
    assert ranked[0].group == late.digest


async def test_a_second_question_reads_no_chunk_again(bench: Bench) -> None:
    bench.store.put_text("report", paragraphs(8, fact_at=5))
    await bench.ask("report")
    read = bench.labels().count("read chunk")
    ranked = bench.labels().count("rank chunk")
    assert read == ranked > 4
    await bench.ask("report")
    assert bench.labels().count("read chunk") == read
    assert bench.labels().count("rank chunk") == 2 * ranked


async def test_chunks_end_one_token_behind_a_block_border_with_their_task(bench: Bench) -> None:
    """So that a second question computes one token and itself, and loses no log-probability."""
    bench.store.put_text("report", paragraphs(8, fact_at=5))
    await bench.ask("report")
    starts = {
        r.score.start
        for r, e in zip(bench.engine.seen, bench.labels(), strict=True)
        if r.score is not None and e == "rank chunk"
    }
    assert {start % 32 for start in starts} == {1}


@pytest.mark.parametrize("calls", [0, 1, 5, 17, 19])
async def test_a_limit_ends_the_search_with_what_is_done(bench: Bench, calls: int) -> None:
    bench.store.put_text("report", paragraphs(8, fact_at=5))
    result = await bench.ask("report", limits=Limits(max_calls=calls))
    assert result.stop_reason is StopReason.BUDGET_CALLS
    assert len(bench.engine.seen) == calls
    assert result.ranked <= calls


async def test_indexing_a_long_text_is_shown_and_ends_with_the_trees_time(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thread_watch, "EVERY_BYTES", 500)
    bench.store.put_text("report", paragraphs(40, fact_at=5))
    seen: list[Progress] = []
    await bench.ask("report", on_progress=seen.append)
    stages = [progress.stage for progress in seen]
    assert stages.index("indexing words, MiB") < stages.index("encoding chunks, MiB")
    assert "ranking chunks" in stages

    bench.store.put_text("other", paragraphs(41, fact_at=5))
    requests = len(bench.engine.seen)
    result = await bench.ask("other", limits=Limits(max_seconds=1e-9))
    assert result.stop_reason is StopReason.BUDGET_SECONDS
    assert not result.found
    assert result.pieces > result.ranked == 0
    assert len(bench.engine.seen) == requests


async def cancelled_by_a_scope(bench: Bench) -> bool:
    with anyio.CancelScope() as scope:
        await bench.ask("report", on_progress=lambda _: scope.cancel())
    return scope.cancelled_caught


async def cancelled_as_a_task(bench: Bench) -> bool:
    def cancel(_: Progress) -> None:
        asking.cancel()

    asking = asyncio.ensure_future(bench.ask("report", on_progress=cancel))
    await asyncio.wait([asking])
    return asking.cancelled()


@pytest.mark.parametrize("cancelled", [cancelled_by_a_scope, cancelled_as_a_task])
async def test_cancelling_a_question_ends_the_indexing(
    bench: Bench,
    monkeypatch: pytest.MonkeyPatch,
    cancelled: Callable[[Bench], Awaitable[bool]],
) -> None:
    monkeypatch.setattr(thread_watch, "EVERY_BYTES", 1)
    bench.store.put_text("report", paragraphs(40, fact_at=5))
    ends: list[type[BaseException] | None] = []
    has_ended = threading.Event()
    indexed = bench.corpus.bm25

    def bm25(*arguments: Any) -> object:
        try:
            scores = indexed(*arguments)
            ends.append(None)
            return scores
        except BaseException as err:
            ends.append(type(err))
            raise
        finally:
            has_ended.set()

    monkeypatch.setattr(bench.corpus, "bm25", bm25)
    assert await cancelled(bench)
    assert await anyio.to_thread.run_sync(has_ended.wait, 30)
    assert ends == [Cancelled]
    assert not bench.engine.seen


async def test_the_event_loop_cuts_and_indexes_no_text(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even to tell how many chunks there are when the time ran out."""
    monkeypatch.setattr(thread_watch, "EVERY_BYTES", 1)
    refs = [bench.store.put_text(name, paragraphs(9, fact_at=i)) for i, name in enumerate("abc")]
    threads: set[int] = set()

    def noting(*arguments: Any) -> tuple[Chunk, ...]:
        threads.add(threading.get_ident())
        return cut(*arguments)

    monkeypatch.setattr(corpus_module, "cut", noting)
    result = await bench.ask("a", "b", "c", limits=Limits(max_seconds=1e-9))
    assert result.stop_reason is StopReason.BUDGET_SECONDS
    assert threads
    assert threading.get_ident() not in threads
    assert result.pieces == len(bench.corpus.pieces(refs))


async def test_what_enters_a_prompt_is_recorded_as_read(bench: Bench) -> None:
    text = paragraphs(8, fact_at=5)
    bench.store.put_text("report", text)
    result = await bench.ask("report")
    reads = [e for e in bench.events if isinstance(e, ValueRead)]
    covered = {b for e in reads for b in range(e.start_byte, e.end_byte)}
    assert covered == set(range(len(text.encode()))), "ranked whole: every byte entered a prompt"
    assert len(reads) >= result.pieces


async def test_a_limit_in_the_middle_leaves_ranked_chunks(bench: Bench) -> None:
    """Chunks are not all read before the first is ranked, when a limit may come between."""
    bench.store.put_text("report", paragraphs(30, fact_at=5))
    result = await bench.ask("report", limits=Limits(max_calls=21))
    assert result.stop_reason is StopReason.BUDGET_CALLS
    assert result.ranked >= 8


@pytest.mark.parametrize("text", ["--- *** ---\n", "?!\n\n?!\n"])
async def test_a_text_without_a_word_is_searched_in_vain(bench: Bench, text: str) -> None:
    bench.store.put_text("report", text)
    assert not (await bench.ask("report")).found


async def test_questions_about_different_texts_at_once_keep_apart(bench: Bench) -> None:
    bench.store.put_text("a", paragraphs(3, fact_at=1))
    bench.store.put_text("b", FILLER * 40)
    results: dict[str, SearchResult] = {}

    async def ask(name: str) -> None:
        results[name] = await bench.ask(name)

    async with anyio.create_task_group() as group:
        for name in ("a", "b"):
            group.start_soon(ask, name)
    assert results["a"].passages[0].text == FACT
    assert {p.variable for p in results["b"].passages} == {"b"}
    assert results["a"].pieces != results["b"].pieces


def test_word_scores_are_those_of_the_texts_asked_about(bench: Bench) -> None:
    """Also when another question replaces the kept index in between."""
    a = bench.store.put_text("a", paragraphs(3, fact_at=1))
    b = bench.store.put_text("b", FILLER * 40)
    (alone,) = bench.corpus.bm25([a], [QUESTION])
    assert max(alone) > 0
    assert bench.corpus.bm25([b], [QUESTION]) != [alone]
    assert bench.corpus.bm25([a], [QUESTION]) == [alone]


async def test_a_score_that_is_missing_is_an_error_and_no_certainty(bench: Bench) -> None:
    bench.store.put_text("report", paragraphs(3, fact_at=1))
    bench.engine.loses_scores = True
    with pytest.raises(EngineError, match="without scores"):
        await bench.ask("report")

"""The needle workload from its sizes to its tables, on an engine that knows words."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from rlm_runtime.api import Internals
from rlm_runtime.benchmark.arms import MAX_RANKING_TOKENS, Arm
from rlm_runtime.benchmark.needle import NeedleProgress, measure, parse_sizes
from rlm_runtime.benchmark.needle_result import NeedleResult
from rlm_runtime.benchmark.workloads.needle import Kind
from rlm_runtime.config import Config, SearchConfig
from rlm_runtime.engine.base import GenerateRequest
from rlm_runtime.errors import InputError
from rlm_runtime.prompt import ChatTemplate, Layout, Tokenizer
from rlm_runtime.scaffold.corpus import Corpus
from rlm_runtime.scheduler import Scheduler
from rlm_runtime.store import ContextStore
from rlm_runtime.tracing import Recorder

if TYPE_CHECKING:
    from tests.unit.conftest import FakeEngine

SIZE = 3_000
read_once = cache(Tokenizer.from_folder)
CONFIG = Config(search=SearchConfig(chunk_tokens=300, max_ranked_tokens=2_000))


async def measured(
    engine: FakeEngine, model_dir: Path, on_answer: object = None, **wishes: object
) -> NeedleResult:
    tokenizer = read_once(model_dir)
    layout = Layout(tokenizer, ChatTemplate.from_folder(model_dir, tokenizer), 32)
    shared = len(layout.shared_ids)

    def score(request: GenerateRequest) -> float:
        assert request.score is not None
        start, end = request.score.start, request.score.end
        seen, question = set(request.prompt_ids[shared:start]), request.prompt_ids[start:end]
        return -5.0 * sum(i not in seen for i in question) / len(question)

    engine.score = score
    recorder = Recorder(None)
    store = ContextStore(tokenizer.count)
    scheduler = Scheduler(engine, recorder, shared_tokens=shared, max_queued_calls=1000)
    parts = Internals(engine, scheduler, layout, Corpus(store, layout, 300), recorder)
    wished = {"sizes": (SIZE,), "cases": 1, "seed": 1} | wishes
    return await measure(
        parts,
        CONFIG,
        lambda text, name: store.put_text(name, text),
        on_answer=on_answer,  # type: ignore[arg-type] # as the test gives it
        **wished,  # type: ignore[arg-type] # likewise
    )


@pytest.mark.parametrize(
    ("text", "sizes"),
    [("16k", (16_384,)), ("1M, 64K", (65_536, 1 << 20)), ("5000,5000", (5_000,))],
)
def test_sizes_are_read_with_their_units(text: str, sizes: tuple[int, ...]) -> None:
    assert parse_sizes(text) == sizes


@pytest.mark.parametrize("text", ["", "16k,", "k", "-1", "1.5M", "0", "²k"])
def test_what_is_no_size_is_an_error(text: str) -> None:
    with pytest.raises(InputError, match="--tokens"):
        parse_sizes(text)


@pytest.mark.anyio
async def test_every_question_is_answered_by_every_arm(
    fake_engine: FakeEngine, model_dir: Path
) -> None:
    result = await measured(fake_engine, model_dir)
    assert len(result.cases) == result.planned == len(Kind) * len(Arm)
    assert {(case.kind, case.arm) for case in result.cases} == {
        (kind, arm) for kind in Kind for arm in Arm
    }
    firsts = [result.cases[at].arm for at in range(0, len(result.cases), len(Arm))]
    assert firsts == ["both", "ranking", "bm25", "direct", "both"]


@pytest.mark.anyio
async def test_a_fact_in_the_questions_words_is_found_where_it_is(
    fake_engine: FakeEngine, model_dir: Path
) -> None:
    result = await measured(fake_engine, model_dir)
    shared = {case.arm: case for case in result.cases if case.kind == Kind.SHARED}
    for arm in (Arm.BOTH, Arm.RANKING, Arm.BM25):
        assert shared[arm].is_right
        assert shared[arm].sentence_rank == 1
    assert not shared[Arm.DIRECT].is_right  # it says one word again and again
    assert {case.depth for case in shared.values()} == {result.texts[0].depths[0]}
    (text,) = result.texts
    assert 0 < (shared[Arm.BOTH].needed_bytes or 0) <= text.shown_bytes
    assert abs(text.tokens / SIZE - 1) < 0.02


@pytest.mark.anyio
async def test_the_arm_that_reads_everything_has_short_texts_only(
    fake_engine: FakeEngine, model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlm_runtime.benchmark.needle.MAX_RANKING_TOKENS", SIZE)
    sizes = (SIZE, SIZE + 600)
    result = await measured(fake_engine, model_dir, sizes=sizes, arms=(Arm.RANKING, Arm.BM25))
    asked = {(case.size, case.arm) for case in result.cases}
    assert asked == {("3000", "ranking"), ("3000", "bm25"), ("3600", "bm25")}
    assert len(result.cases) == result.planned
    figures = result.figures()
    assert figures["accuracy_shared_ranking_3000"] == 1
    assert "accuracy_shared_ranking_3600" not in figures
    assert MAX_RANKING_TOKENS == 65_536


@pytest.mark.anyio
async def test_progress_ends_where_it_was_planned_to(
    fake_engine: FakeEngine, model_dir: Path
) -> None:
    told: list[NeedleProgress] = []
    seen: list[int] = []

    def on_answer(so_far: NeedleResult, at: NeedleProgress) -> None:
        told.append(at)
        seen.append(len(so_far.cases))

    await measured(fake_engine, model_dir, on_answer, sizes=(SIZE, 2 * SIZE))
    done = [at.done_tokens for at in told]
    assert done == sorted(done)
    assert done[0] == 0
    assert done[-1] == told[-1].planned_tokens
    assert seen == [at.answers for at in told]
    assert seen[-1] == told[-1].planned_answers == 2 * len(Kind) * len(Arm)


@pytest.mark.anyio
async def test_figures_stand_for_all_sizes_and_for_each(
    fake_engine: FakeEngine, model_dir: Path
) -> None:
    result = await measured(fake_engine, model_dir, sizes=(2_048, 4_096), arms=(Arm.BOTH, Arm.BM25))
    result = msgspec.structs.replace(
        result,
        texts=tuple(
            msgspec.structs.replace(text, size=size)
            for text, size in zip(result.texts, ("16k", "1M"), strict=True)
        ),
        cases=tuple(
            msgspec.structs.replace(
                case,
                size={"2k": "16k", "4k": "1M"}[case.size],
                wall_s=9.0 if case.kind == Kind.SHARED else 2.0,  # which is asked first
            )
            for case in result.cases
        ),
    )
    figures = result.figures()
    assert figures["cases"] == 10
    assert {"accuracy_16k", "accuracy_1m", "accuracy_1m_low", "passage_accuracy_1m"} <= set(figures)
    pooled = [figures[f"accuracy_{size}"] for size in ("16k", "1m")]
    assert figures["accuracy"] == pytest.approx(sum(v or 0 for v in pooled) / 2)
    assert figures["wall_s_1m"] == pytest.approx(9.0 + result.texts[1].stored_s)
    assert figures["wall_s_per_question_1m"] == 2.0


@pytest.mark.anyio
async def test_notes_say_what_each_arm_saw(fake_engine: FakeEngine, model_dir: Path) -> None:
    result = await measured(fake_engine, model_dir)
    notes = " ".join(result.notes())
    assert "BM25 chose" in notes
    assert result.texts[0].digest[:12] in notes
    assert "The arm direct sees the first" in notes
    short = msgspec.structs.replace(result, max_ranked_tokens=10**6, planned=99)
    assert "BM25 chose" not in " ".join(short.notes())
    assert "Ended early: 20 of 99" in " ".join(short.notes())


@pytest.mark.anyio
async def test_tables_have_a_row_for_each_kind_and_depth(
    fake_engine: FakeEngine, model_dir: Path
) -> None:
    result = await measured(fake_engine, model_dir)
    tables = {table.title: table for table in result.tables()}
    answerable = [Kind.SHARED, Kind.PARAPHRASED, Kind.TWO_PASSAGES]
    assert [cells[0] for cells in tables["Right answers"].rows] == [
        f"3000 {kind}" for kind in answerable
    ]
    (by_depth,) = [table for title, table in tables.items() if "by depth" in title]
    fifth = int(result.texts[0].depths[0] * 5)
    assert [cells[0] for cells in by_depth.rows] == [
        f"{20 * fifth} to {20 * fifth + 20} % of the text"
    ]
    assert by_depth.rows[0][1].split(" (")[0] in ("1 of 2", "2 of 2")
    nothing = msgspec.structs.replace(result, texts=(), cases=())
    assert nothing.tables() == ()

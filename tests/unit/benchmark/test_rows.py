"""Rows with their labels, and what is told of arms whose answers are known beforehand."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_runtime.api import AsyncRLM
from rlm_runtime.benchmark.results import LOUD
from rlm_runtime.benchmark.rows import measure
from rlm_runtime.benchmark.rows_arms import DEFAULT, RowsArm
from rlm_runtime.benchmark.rows_result import ArmLabels, RowsResult
from rlm_runtime.benchmark.workloads.rows import LABELS, MAX_ROWS, labelled_rows, text_of
from rlm_runtime.engine.base import EngineInfo, GenerateRequest
from rlm_runtime.errors import InputError

if TYPE_CHECKING:
    from rlm_runtime.prompt import Layout
    from tests.unit.conftest import FakeEngine

SessionOn = Callable[..., AsyncRLM]
EOS = 2
ROWS = 20
STEMS = {"fire": "fires?", "flood": "flood", "theft": "theft|thief|thieves"}


@given(st.integers(1, 300), st.integers(0, 10_000))
def test_rows_differ_and_are_the_same_for_a_seed(count: int, seed: int) -> None:
    rows = labelled_rows(count, seed)
    assert len({row.text for row in rows}) == count
    assert {row.label for row in rows} <= set(LABELS)
    assert text_of(rows).split("\n") == [row.text for row in rows]
    assert labelled_rows(count, seed) == rows


def test_no_row_has_the_word_for_its_kind() -> None:
    for text, label in labelled_rows(2_000, 0):
        assert not re.search(rf"\b({STEMS.get(label, label)})", text.lower()), text


def test_kinds_are_not_equally_many_and_depend_on_the_seed() -> None:
    first, second = (Counter(row.label for row in labelled_rows(500, seed)) for seed in (0, 1))
    assert min(first.values()) * 2 < max(first.values())
    assert first != second


@pytest.mark.parametrize("count", [0, MAX_ROWS + 1])
def test_rows_that_can_t_be_made_are_refused(count: int) -> None:
    with pytest.raises(InputError, match="rows"):
        labelled_rows(count, 0)


@dataclass
class Oracle:
    """Answers as it is told to, knowing the truth about the row that a prompt ends with."""

    layout: Layout
    truth: dict[str, str]
    held: Callable[[str], str] = lambda label: label
    free: Callable[[str], str] = lambda label: f"It is a {label}, I think."
    counts: str = "{}"

    def label(self, request: GenerateRequest) -> str:
        text = self.layout.tokenizer.decode(request.prompt_ids[len(self.layout.shared_ids) :])
        return next(label for row, label in self.truth.items() if row in text)

    def choose(self, request: GenerateRequest) -> str:
        return self.held(self.label(request))

    def answer(self, request: GenerateRequest) -> tuple[int, ...]:
        text = self.counts if request.json_schema else self.free(self.label(request))
        return (*self.layout.tokenizer.encode(text), EOS)


async def measured(
    session_on: SessionOn,
    engine: FakeEngine,
    layout: Layout,
    *,
    rows: int = ROWS,
    settings: dict[str, Any] | None = None,
    on_call: Any = None,
    **answers: Any,
) -> RowsResult:
    oracle = Oracle(layout, dict(labelled_rows(rows, 0)), **answers)
    engine.choose, engine.answer = oracle.choose, oracle.answer
    async with session_on(engine, **(settings or {})) as session:
        return await measure(session, rows=rows, seed=0, on_call=on_call)


def true_counts(rows: int = ROWS) -> dict[str, int]:
    counted = Counter(row.label for row in labelled_rows(rows, 0))
    return {label: counted[label] for label in LABELS}


@pytest.mark.anyio
async def test_who_knows_every_label_counts_without_an_error(
    session_on: SessionOn, fake_engine: FakeEngine, layout: Layout
) -> None:
    result = await measured(
        session_on, fake_engine, layout, counts=json.dumps(true_counts()), free=str.upper
    )
    figures = result.figures()
    for arm in RowsArm:
        assert figures[f"count_error_{arm}"] == 0
    for arm in (RowsArm.CLASSIFY_EACH, RowsArm.DIRECT_EACH):
        assert figures[f"accuracy_{arm}"] == 1
        assert figures[f"calls_{arm}"] == ROWS
    assert figures["accuracy"] == 1
    assert 0.8 < (figures["accuracy_low"] or 0) < 1 == figures["accuracy_high"]
    assert figures["calls_direct"] == 1
    assert "accuracy_direct" not in figures
    assert not any(note.startswith((LOUD, "Ended")) for note in result.notes())


@pytest.mark.anyio
async def test_counts_are_exact_given_the_labels_however_wrong_these_are(
    session_on: SessionOn, fake_engine: FakeEngine, layout: Layout
) -> None:
    wrong = {"fire": "noise", "noise": "fire"}
    result = await measured(
        session_on, fake_engine, layout, held=lambda label: wrong.get(label, label)
    )
    true, figures = true_counts(), result.figures()
    assert true["fire"] != true["noise"]
    (arm, *_) = result.arms
    said = Counter(arm.labels)
    assert arm.counts == {label: said[label] for label in LABELS}
    assert figures["count_fire_classify_each"] == true["noise"]
    assert figures["count_error_fire_classify_each"] == abs(true["noise"] - true["fire"])
    assert figures["count_error_classify_each"] == 2 * abs(true["noise"] - true["fire"])
    assert figures["count_gap_classify_each"] == 0
    assert figures["accuracy"] == pytest.approx(1 - (true["fire"] + true["noise"]) / ROWS)
    assert figures["accuracy_fire_classify_each"] == 0
    assert figures["accuracy_theft_classify_each"] == 1
    assert (figures["accuracy_difference_direct_each"] or 0) < 0


def test_counts_that_are_not_of_the_labels_are_told_loudly() -> None:
    rows = labelled_rows(2, 0)
    labels = tuple(row.label for row in rows)
    arm = ArmLabels(
        arm=DEFAULT,
        labels=labels,
        counts=dict.fromkeys(LABELS, 1),
        shown=2,
        is_constrained=True,
        error="",
        spent={},
        gap=3,
    )
    result = RowsResult(
        workload="rows", seed=0, text_digest="0", labels=LABELS, rows=rows, arms=(arm,)
    )
    assert any(note.startswith(LOUD) and "by 3 rows" in note for note in result.notes())


@pytest.mark.anyio
async def test_a_free_answer_that_names_no_label_is_none(
    session_on: SessionOn, fake_engine: FakeEngine, layout: Layout
) -> None:
    result = await measured(session_on, fake_engine, layout, free=lambda _: "Hard to say.")
    figures = result.figures()
    assert figures["unlabelled_direct_each"] == ROWS
    assert figures["accuracy_direct_each"] == 0
    assert figures["accuracy_difference_direct_each"] == 1
    assert figures["unlabelled_classify_each"] == 0
    assert result.detail()["rows"][0]["direct_each"] is None  # type: ignore[index] # a list of dicts


@pytest.mark.anyio
async def test_both_arms_that_label_send_the_same_prompts_and_one_is_free(
    session_on: SessionOn, fake_engine: FakeEngine, layout: Layout
) -> None:
    await measured(session_on, fake_engine, layout)
    held = [request for request in fake_engine.seen if request.choices]
    free = [r for r in fake_engine.seen if not r.choices and not r.json_schema]
    assert {request.prompt_ids for request in held} == {request.prompt_ids for request in free}
    assert len(held) == len(free) == ROWS


@pytest.mark.anyio
async def test_direct_sees_the_rows_that_fit_and_says_how_many(
    session_on: SessionOn, fake_engine: FakeEngine, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = replace(fake_engine.info, window=2_048)
    monkeypatch.setattr(type(fake_engine), "info", property(lambda _: info))
    result = await measured(
        session_on, fake_engine, layout, rows=60, counts=json.dumps(true_counts(60))
    )
    shown = result.arms[-1].shown
    assert 5 < shown < 60
    assert f"the arm direct {shown} of 60 rows" in " ".join(result.notes())
    (request,) = (r for r in fake_engine.seen if r.json_schema)
    said = layout.tokenizer.decode(request.prompt_ids)
    texts = [row.text for row in labelled_rows(60, 0)]
    assert [text in said for text in texts] == [number < shown for number in range(60)]
    assert len(request.prompt_ids) + request.max_tokens <= info.window
    # One more row would not have fitted.
    assert len(request.prompt_ids) + request.max_tokens > info.window - 60


@pytest.mark.anyio
async def test_counts_that_no_attempt_gave_are_unknown_not_zero(
    session_on: SessionOn, fake_engine: FakeEngine, layout: Layout
) -> None:
    result = await measured(session_on, fake_engine, layout, counts="many of each")
    figures = result.figures()
    assert figures["count_fire_direct"] is None
    assert figures["count_error_direct"] is None
    assert figures["calls_direct"] == 3
    assert "The arm direct: After 3 attempts" in " ".join(result.notes())
    assert [row[-2:] for row in result.tables()[1].rows] == [("-", "-")] * (len(LABELS) + 1)


@pytest.mark.anyio
async def test_an_engine_that_can_hold_no_answer_is_said(
    session_on: SessionOn, fake_engine: FakeEngine, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_engine.can_choose = False
    info: EngineInfo = fake_engine.info
    assert not info.can_choose
    monkeypatch.setattr(Oracle, "label", lambda *_: "fire")
    result = await measured(session_on, fake_engine, layout)
    assert not result.arms[0].is_constrained
    assert "can't hold answers to the labels" in " ".join(result.notes())


@pytest.mark.anyio
async def test_an_arm_that_a_limit_refuses_claims_nothing(
    session_on: SessionOn, fake_engine: FakeEngine, layout: Layout
) -> None:
    settings = {"limits": {"max_calls": 3}}
    counts = json.dumps(true_counts())
    result = await measured(session_on, fake_engine, layout, settings=settings, counts=counts)
    figures = result.figures()
    assert "accuracy_classify_each" not in figures
    assert figures["count_error_classify_each"] is None
    assert figures["count_error_direct"] == 0
    assert "The arm classify_each: The limit max_calls=3" in " ".join(result.notes())
    assert len(result.tables()) == 3


@pytest.mark.anyio
async def test_progress_reaches_its_end_and_arms_begin_with_an_empty_cache(
    session_on: SessionOn, fake_engine: FakeEngine, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    resets: list[int] = []

    async def reset(engine: FakeEngine) -> None:
        resets.append(len(engine.seen))

    monkeypatch.setattr(type(fake_engine), "reset_prefix_cache", reset)
    told: list[tuple[int, int, int]] = []
    await measured(
        session_on,
        fake_engine,
        layout,
        counts=json.dumps(true_counts()),
        on_call=lambda so_far, done, planned: told.append((len(so_far.arms), done, planned)),
    )
    assert resets == [0, ROWS, 2 * ROWS]
    assert told == sorted(told)
    assert told[-1] == (3, 2 * ROWS + 1, 2 * ROWS + 1)

"""`classify_each` on an engine that knows the labels, or has words of its own."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_runtime.engine.base import GenerateRequest
from rlm_runtime.errors import EngineDead, EngineError, InputError, LimitExceeded, PromptTooLong
from rlm_runtime.scaffold.agent import Outcome
from rlm_runtime.scaffold.recipes.classify_each import Classified, ClassifyEach
from rlm_runtime.scaffold.recipes.rows import BLOCK_BYTES, Rows
from rlm_runtime.store import ContextStore
from rlm_runtime.tracing import CallFinished, ValueRead
from rlm_runtime.types import Limits, StopReason, Usage

if TYPE_CHECKING:
    from tests.unit.scaffold.conftest import Grove

pytestmark = pytest.mark.anyio

TASK = "Classify each animal as cat, dog or bird."
ANIMALS = ["a grey cat", "an old dog", "a dog again", "one bird", "another cat", "a third dog"]
KINDS = ["cat", "dog", "dog", "bird", "cat", "dog"]


def know(grove: Grove) -> None:
    """Let the engine take the choice that stands in the row."""
    shared = len(grove.layout.shared_ids)

    def row(request: GenerateRequest) -> str:
        text = grove.layout.tokenizer.decode(request.prompt_ids[shared:])
        return text.partition("\n\n")[0]

    grove.engine.choose = lambda request: next(c for c in request.choices if c in row(request))
    grove.engine.answer = lambda request: (
        *grove.layout.tokenizer.encode(grove.engine.choose(request)),
        2,
    )


async def run(
    grove: Grove, recipe: ClassifyEach, *, task: str = TASK, limits: Limits | None = None
) -> tuple[Outcome, Classified, dict[str, object]]:
    seat, context = grove.root(grove.tree(limits))
    outcome = await recipe.run(seat, task, context)
    assert isinstance(outcome.detail, Classified)
    assert outcome.result is not None
    value = grove.store.load(outcome.result)
    assert isinstance(value, dict)
    return outcome, outcome.detail, value


async def test_each_item_of_a_list_gets_a_label_and_python_counts(grove: Grove) -> None:
    know(grove)
    grove.store.put_value("animals", ANIMALS)
    outcome, detail, value = await run(grove, ClassifyEach())
    assert value["labels"] == KINDS
    assert value["counts"] == {"cat": 2, "dog": 3, "bird": 1}
    assert (value["unlabelled"], value["left_out"], value["cut"]) == (0, 0, [])
    assert value["is_constrained"] is True
    assert detail.counts == value["counts"]
    assert outcome.stop_reason is StopReason.FINAL
    assert all(request.choices == ("cat", "dog", "bird") for request in grove.engine.seen)


async def test_a_label_that_no_row_has_counts_zero(grove: Grove) -> None:
    know(grove)
    grove.store.put_value("animals", ["a cat"])
    _, detail, _ = await run(grove, ClassifyEach(labels=("cat", "horse")))
    assert detail.counts == {"cat": 1, "horse": 0}


async def test_lines_of_a_text_are_rows_and_blank_ones_are_not(grove: Grove) -> None:
    know(grove)
    grove.store.put_text("animals", "\n\n  " + " \r\n\t\n".join(ANIMALS) + "\n \n")
    _, _, value = await run(grove, ClassifyEach())
    assert value["labels"] == KINDS
    reads = [e for e in grove.events if isinstance(e, ValueRead)]
    text = [grove.store.slice(grove.store.get("animals").ref, e.start_byte, e.end_byte)
            for e in reads]  # fmt: skip
    assert [line.decode() for line in text] == ANIMALS


async def test_json_lines_and_csv_have_a_row_a_line(grove: Grove) -> None:
    know(grove)
    lines = [json.dumps({"id": i, "text": text}) for i, text in enumerate(ANIMALS)]
    grove.store.put_text("a", "\n".join(lines))
    grove.store.put_text("b", "\n".join(f"{i},{text}" for i, text in enumerate(ANIMALS)))
    _, _, value = await run(grove, ClassifyEach())
    assert value["labels"] == KINDS * 2, "rows of several values follow one another by name"


async def test_items_that_are_no_text_are_shown_as_json(grove: Grove) -> None:
    know(grove)
    grove.store.put_value("animals", [{"kind": "dog", "legs": 4}, ["a", "bird"], "cat"])
    _, _, value = await run(grove, ClassifyEach())
    assert value["labels"] == ["dog", "bird", "cat"]


async def test_chunks_of_texts_get_labels(grove: Grove) -> None:
    know(grove)
    text = "\n\n".join(f"Here is a {kind}. " + "It sat there all day long. " * 9 for kind in KINDS)
    ref = grove.store.put_text("animals", text)
    _, detail, value = await run(grove, ClassifyEach(each="chunk"))
    assert len(value["labels"]) == len(grove.corpus.pieces([ref])) > 3  # type: ignore[arg-type]
    assert detail.unlabelled == 0


async def test_a_row_stands_in_front_of_the_question_unfilled(grove: Grove) -> None:
    know(grove)
    grove.store.put_value("animals", ANIMALS)
    await run(grove, ClassifyEach())
    shared = grove.layout.shared_ids
    for request, row in zip(grove.engine.seen, ANIMALS, strict=True):
        ids = grove.layout.tokenizer.encode(row)
        assert request.prompt_ids[: len(shared) + len(ids)] == shared + ids
    tails = {request.prompt_ids[len(shared) + len(grove.layout.tokenizer.encode(row)) :]
             for request, row in zip(grove.engine.seen, ANIMALS, strict=True)}  # fmt: skip
    assert len(tails) == 1, "behind the row, all are asked the same"


async def test_a_row_too_long_for_the_window_is_judged_by_its_beginning(grove: Grove) -> None:
    know(grove)
    grove.store.put_value("animals", ["a cat", "a dog " + "and so on " * 20_000, "a bird"])
    _, detail, value = await run(grove, ClassifyEach())
    assert value["labels"] == ["cat", "dog", "bird"]
    assert value["cut"] == [1]
    assert detail.cut == (1,)
    assert max(len(r.prompt_ids) + r.max_tokens for r in grove.engine.seen) == 8192


async def test_without_constrained_choice_labels_are_found_in_free_answers(grove: Grove) -> None:
    grove.engine.can_choose = False
    encode = grove.layout.tokenizer.encode
    answers = iter(["I would say that this one is a Dog, not a bird.", "cat", "no idea"])
    grove.engine.answer = lambda _: (*encode(next(answers)), 2)
    grove.store.put_value("animals", ANIMALS[:3])
    grove.engine.max_running = 1
    _, detail, value = await run(grove, ClassifyEach())
    assert value["labels"] == ["dog", "cat", None]
    assert value["is_constrained"] is False
    assert value["unlabelled"] == detail.unlabelled == 1
    assert not any(request.choices for request in grove.engine.seen)


async def test_labels_given_go_before_those_of_the_question(grove: Grove) -> None:
    know(grove)
    grove.store.put_value("animals", ["a grey cat"])
    _, _, value = await run(grove, ClassifyEach(labels=("grey", "brown")))
    assert value["counts"] == {"grey": 1, "brown": 0}


async def test_a_question_without_labels_is_refused_before_any_call(grove: Grove) -> None:
    grove.store.put_value("animals", ANIMALS)
    with pytest.raises(InputError, match="labels"):
        await run(grove, ClassifyEach(), task="How many animals are there?")
    assert not grove.engine.seen


@pytest.mark.parametrize("value", [{"rows": ["a"]}, 7, None, b"abc"])
async def test_a_value_without_rows_is_refused(grove: Grove, value: object) -> None:
    grove.store.put_value("animals", value)
    with pytest.raises(InputError, match="animals"):
        await run(grove, ClassifyEach())


async def test_an_empty_context_is_refused_and_an_empty_list_counts_nothing(grove: Grove) -> None:
    with pytest.raises(InputError):
        await run(grove, ClassifyEach())
    grove.store.put_value("animals", [])
    _, _, value = await run(grove, ClassifyEach())
    assert value["labels"] == []
    assert value["counts"] == {"cat": 0, "dog": 0, "bird": 0}


async def test_a_failed_row_does_not_fail_the_others(grove: Grove) -> None:
    know(grove)
    grove.store.put_value("animals", ANIMALS)

    def fail(_: GenerateRequest) -> None:
        if len(grove.engine.seen) == 2:
            raise EngineError("refused", "")

    grove.engine.on_request = fail
    outcome, detail, value = await run(grove, ClassifyEach())
    assert value["labels"] == ["cat", None, *KINDS[2:]]
    assert value["counts"] == {"cat": 2, "dog": 2, "bird": 1}
    assert outcome.stop_reason is StopReason.FINAL
    assert (detail.unlabelled, detail.error) == (1, "refused")


async def test_when_every_row_fails_the_first_error_is_raised(grove: Grove) -> None:
    grove.store.put_value("animals", ANIMALS)

    def fail(_: GenerateRequest) -> None:
        raise EngineError("refused", "")

    grove.engine.on_request = fail
    with pytest.raises(EngineError, match="refused"):
        await run(grove, ClassifyEach())


async def test_a_dead_engine_leaves_the_labels_so_far(
    grove: Grove, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlm_runtime.scaffold.recipes.classify_each.WAVE", 2)
    know(grove)
    grove.store.put_value("animals", ANIMALS)

    def die(_: GenerateRequest) -> None:
        if len(grove.engine.seen) > 4:
            raise EngineDead("the test ended it")

    grove.engine.on_request = die
    seat, context = grove.root(grove.tree())
    with pytest.raises(EngineDead):
        await ClassifyEach().run(seat, TASK, context)
    (ref,) = context.written
    value = grove.store.load(ref)
    assert isinstance(value, dict)
    assert value["labels"] == [*KINDS[:4], None, None]
    assert value["unlabelled"] == 2


async def test_a_budget_refuses_or_leaves_out_rows_from_the_end(grove: Grove) -> None:
    know(grove)
    grove.store.put_value("animals", ANIMALS)
    limits = Limits(max_calls=4)
    with pytest.raises(LimitExceeded, match="the plan"):
        await run(grove, ClassifyEach(), limits=limits)
    assert not grove.engine.seen
    outcome, detail, value = await run(grove, ClassifyEach(over="shrink"), limits=limits)
    assert value["labels"] == KINDS[:4]
    assert value["left_out"] == detail.plan.left_out == 2
    assert outcome.stop_reason is StopReason.FINAL


async def test_a_limit_on_the_way_keeps_the_labels_so_far(
    grove: Grove, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlm_runtime.scaffold.recipes.classify_each.WAVE", 2)
    know(grove)
    grove.store.put_value("animals", ANIMALS)
    tree = grove.tree(Limits(max_calls=100))
    seat, context = grove.root(tree)

    def spend(_: GenerateRequest) -> None:
        # Somebody else in the tree: the plan was within its limit when it was made.
        if len(grove.engine.seen) == 3:
            tree.job.usage += Usage(calls=100)

    grove.engine.on_request = spend
    outcome = await ClassifyEach().run(seat, TASK, context)
    assert isinstance(outcome.detail, Classified)
    assert outcome.stop_reason is StopReason.BUDGET_CALLS
    assert outcome.result is not None
    value = grove.store.load(outcome.result)
    assert isinstance(value, dict)
    assert value["labels"] == [*KINDS[:4], None, None]
    assert outcome.detail.unlabelled == 2


async def test_labels_that_do_not_fit_the_window_are_refused(grove: Grove) -> None:
    grove.store.put_value("animals", ANIMALS)
    labels = tuple(f"label number {i}" for i in range(3000))
    with pytest.raises(PromptTooLong):
        await run(grove, ClassifyEach(labels=labels))


async def test_rows_of_equal_prompts_are_one_call(grove: Grove) -> None:
    know(grove)
    grove.store.put_value("animals", ["a cat"] * 50)
    _, detail, _ = await run(grove, ClassifyEach())
    assert detail.counts["cat"] == 50
    assert len([e for e in grove.events if isinstance(e, CallFinished)]) == 1


def lines_of(grove: Grove, data: bytes) -> list[bytes]:
    seat = grove.root(grove.tree())[0]
    ref = grove.store.put("text", "str", data)
    return [data[start:end] for _, start, end in Rows(seat, [ref], 100).places]


def stripped(lines: Iterable[bytes]) -> list[bytes]:
    return [line.strip() for line in lines if line.strip()]


@given(
    st.lists(st.sampled_from(["a", "ö", "\n", "\n\n", " ", "\r\n", "\t", "word" * 3]), max_size=60)
)
async def test_lines_are_those_that_splitting_gives(pieces: list[str]) -> None:
    data = "".join(pieces).encode()
    store = ContextStore(len)
    ref = store.put("text", "str", data)
    found = list(rows_module_lines(store, ref.name))
    assert [data[start:end] for start, end in found] == stripped(data.split(b"\n"))


def rows_module_lines(store: ContextStore, name: str) -> Iterable[tuple[int, int]]:
    from rlm_runtime.scaffold.recipes.rows import _lines

    return _lines(store.get(name))


async def test_lines_across_blocks_are_whole(grove: Grove) -> None:
    long = b"x" * (BLOCK_BYTES + 17)
    data = b"  first\n" + b"y" * (BLOCK_BYTES - 12) + b"\n \n" + long + b"  \n" + b"end"
    assert lines_of(grove, data) == stripped(data.split(b"\n"))

"""`map_reduce` on an engine that answers with words of its prompt."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_runtime.config import Config
from rlm_runtime.config.model import AgentsConfig
from rlm_runtime.engine.base import GenerateRequest
from rlm_runtime.errors import EngineDead, EngineError, InputError, LimitExceeded, PromptTooLong
from rlm_runtime.scaffold.agent import Outcome
from rlm_runtime.scaffold.recipes.levels import groups_of
from rlm_runtime.scaffold.recipes.map_reduce import MapReduce, MapReduced
from rlm_runtime.tracing import CallFinished, ValueRead
from rlm_runtime.types import Limits, Ref, StopReason, Usage

if TYPE_CHECKING:
    from tests.unit.conftest import FakeEngine
    from tests.unit.scaffold.conftest import Grove

pytestmark = pytest.mark.anyio

TASK = "What happened?"
SENTENCE = "On day {} the harbour was calm and the boats went out as they always do. "


def days(count: int) -> str:
    return "\n\n".join(SENTENCE.format(i) * 3 for i in range(count))


@pytest.fixture(autouse=True)
def said(grove: Grove) -> Callable[[Callable[[str], str]], None]:
    """Let the engine answer with what a function says to the text of a prompt; here, its day."""

    def answer_by(say: Callable[[str], str]) -> None:
        tokenizer = grove.layout.tokenizer
        end = grove.layout.template.turn_end_ids

        def answer(request: GenerateRequest) -> tuple[int, ...]:
            text = tokenizer.decode(request.prompt_ids[len(grove.layout.shared_ids) :])
            return tokenizer.encode(say(text)) + end

        grove.engine.answer = answer

    answer_by(day)
    return answer_by


async def run(
    grove: Grove,
    recipe: MapReduce,
    *,
    limits: Limits | None = None,
    config: Config | None = None,
    task: str = TASK,
) -> tuple[Outcome, MapReduced, Usage]:
    tree = grove.tree(limits, config=config)
    seat, context = grove.root(tree)
    outcome = await recipe.run(seat, task, context)
    assert isinstance(outcome.detail, MapReduced)
    return outcome, outcome.detail, tree.job.usage


def stored(grove: Grove, ref: Ref | None) -> str:
    assert ref is not None
    return grove.store.text(ref, 0, ref.size_bytes)


def labels(grove: Grove) -> list[str]:
    return [e.label for e in grove.events if isinstance(e, CallFinished)]


def day(text: str) -> str:
    return "day " + text.partition("On day ")[2].partition(" ")[0]


async def test_each_chunk_is_asked_and_joined_in_the_texts_order(
    grove: Grove, said: Callable[[Callable[[str], str]], None]
) -> None:
    said(day)
    grove.store.put_text("log", days(6))
    outcome, detail, _ = await run(grove, MapReduce(combine="join"))
    asked = [part.piece for part in detail.parts]
    assert (asked[0].start_byte, asked[-1].end_byte) == (0, len(days(6).encode()))
    assert [a.end_byte for a in asked[:-1]] == [b.start_byte for b in asked[1:]]
    expected = [day(grove.corpus.text(piece)) for piece in asked]
    assert stored(grove, outcome.result) == "\n\n".join(expected)
    assert [stored(grove, part.result) for part in detail.parts] == expected
    assert labels(grove) == ["extract"] * len(asked)
    assert outcome.stop_reason is StopReason.FINAL


async def test_the_list_of_parts_says_where_each_comes_from_and_where_it_went(
    grove: Grove, said: Callable[[Callable[[str], str]], None]
) -> None:
    said(lambda text: "" if "day 2 " in text else f"Ölfaß, {day(text)}")
    grove.store.put_text("log", days(6))
    outcome, detail, _ = await run(grove, MapReduce(combine="join"))
    joined = stored(grove, outcome.result).encode()
    listed = grove.store.load(detail.parts_list)
    assert isinstance(listed, list)
    assert any(entry["place"] is None for entry in listed), "an empty part is nowhere in the result"
    for entry, part in zip(listed, detail.parts, strict=True):
        assert entry["text"] == "log"
        assert entry["bytes"] == [part.piece.start_byte, part.piece.end_byte]
        own = grove.store.get(entry["part"]).ref
        if entry["place"] is not None:
            start, end = entry["place"]
            assert joined[start:end].decode() == stored(grove, own)


async def test_a_chunk_stands_in_front_of_the_task_and_starts_on_the_shared_prefix(
    grove: Grove,
) -> None:
    grove.store.put_text("log", days(4))
    _, detail, _ = await run(grove, MapReduce(combine="join"))
    shared = grove.layout.shared_ids
    tail = grove.layout.tail(f"\n\n{TASK}")
    for request, part in zip(grove.engine.seen, detail.parts, strict=True):
        document = grove.corpus.document(part.piece)
        assert request.prompt_ids == shared + document.ids + tail


async def test_results_are_combined_in_levels_until_one_is_left(
    grove: Grove, said: Callable[[Callable[[str], str]], None]
) -> None:
    said(lambda text: " ".join(w for w in text.split() if w.isdigit()) or "not found")
    grove.store.put_text("log", days(30))
    config = Config(agents=AgentsConfig(answer_tokens=1000))  # few fit the window of 8,192
    outcome, detail, _ = await run(grove, MapReduce(), config=config)
    assert len(detail.levels) > 2
    assert detail.levels[-1] == 1
    assert detail.is_combined
    kept = set(stored(grove, outcome.result).split())
    assert kept == {str(i) for i in range(30)}, "every part reached the last call"
    assert labels(grove).count("combine") == sum(detail.levels[1:])


async def test_the_shape_of_the_tree_does_not_depend_on_what_is_answered(
    grove: Grove, said: Callable[[Callable[[str], str]], None]
) -> None:
    grove.store.put_text("log", days(30))
    config = Config(agents=AgentsConfig(answer_tokens=1000))

    async def shape(answer: str) -> tuple[object, ...]:
        said(lambda _: answer)
        seat, context = grove.root(grove.tree(config=config))
        # The second run must not read what the first one wrote.
        only = context.child(seat.agent_id, ["log"], grove.tree().agent_reads())
        outcome = await MapReduce().run(seat, TASK, only)
        assert isinstance(outcome.detail, MapReduced)
        return outcome.detail.levels, [part.piece for part in outcome.detail.parts]

    assert await shape("one") == await shape("word " * 300)


async def test_parts_that_say_nothing_are_left_out_of_the_result(
    grove: Grove, said: Callable[[Callable[[str], str]], None]
) -> None:
    said(lambda text: "Not found." if "day 3 " not in text else "It rained.")
    grove.store.put_text("log", days(8))
    outcome, detail, usage = await run(grove, MapReduce())
    assert stored(grove, outcome.result) == "It rained."
    assert usage.calls == len(detail.parts), "a single result is combined with nothing"
    assert outcome.found


async def test_a_text_that_says_nothing_anywhere_is_not_found(
    grove: Grove, said: Callable[[Callable[[str], str]], None]
) -> None:
    said(lambda _: "not found")
    grove.store.put_text("log", days(4))
    for combine in ("join", "model"):
        outcome, _, _ = await run(grove, MapReduce(combine=combine))
        assert outcome.found is False
        assert stored(grove, outcome.result) == "not found"


async def test_one_chunk_is_answered_by_one_call(grove: Grove) -> None:
    grove.store.put_text("log", "A short note.")
    outcome, detail, usage = await run(grove, MapReduce())
    assert usage.calls == 1
    assert stored(grove, outcome.result) == stored(grove, detail.parts[0].result)


async def test_a_level_is_one_batch(fake_engine: FakeEngine, grove: Grove) -> None:
    fake_engine.max_running = 64
    grove = type(grove)(fake_engine, grove.layout)
    grove.store.put_text("log", days(12))
    _, detail, _ = await run(grove, MapReduce(combine="join"))
    assert fake_engine.most_running == len(detail.parts) > 10


async def test_reads_of_chunks_and_of_results_are_in_the_log(grove: Grove) -> None:
    grove.store.put_text("log", days(6))
    _, detail, _ = await run(grove, MapReduce())
    reads = [e for e in grove.events if isinstance(e, ValueRead)]
    of_text = [(e.start_byte, e.end_byte) for e in reads if e.name == "log"]
    assert of_text == [(p.piece.start_byte, p.piece.end_byte) for p in detail.parts]
    of_results = [e.name for e in reads if e.name != "log"]
    assert of_results == [part.result.name for part in detail.parts if part.result]
    assert all(e.tokens > 0 for e in reads)


async def test_a_budget_below_the_plan_is_refused_before_the_first_call(grove: Grove) -> None:
    grove.store.put_text("log", days(6))
    seat, context = grove.root(grove.tree())
    plan = await MapReduce().plan(seat, TASK, context)
    for limits in (Limits(max_tokens=plan.tokens - 1), Limits(max_calls=plan.calls - 1)):
        with pytest.raises(LimitExceeded, match="the plan"):
            await run(grove, MapReduce(), limits=limits)
    assert not grove.engine.seen
    outcome, _, _ = await run(
        grove, MapReduce(), limits=Limits(max_tokens=plan.tokens, max_calls=plan.calls)
    )
    assert outcome.stop_reason is StopReason.FINAL


async def test_a_budget_below_the_plan_shrinks_it_and_the_outcome_says_so(grove: Grove) -> None:
    grove.store.put_text("log", days(12))
    seat, context = grove.root(grove.tree())
    plan = await MapReduce().plan(seat, TASK, context)
    limits = Limits(max_tokens=plan.tokens // 2)
    outcome, detail, usage = await run(grove, MapReduce(over="shrink"), limits=limits)
    assert outcome.stop_reason is StopReason.FINAL
    assert 0 < len(detail.parts) == detail.plan.parts < plan.parts
    assert detail.plan.left_out == plan.parts - detail.plan.parts
    assert usage.computed_tokens + usage.generated_tokens <= plan.tokens // 2
    with pytest.raises(LimitExceeded):
        await run(grove, MapReduce(over="shrink"), limits=Limits(max_tokens=100))


async def test_what_a_tree_has_spent_is_no_longer_there_for_the_plan(grove: Grove) -> None:
    grove.store.put_text("log", days(6))
    seat, context = grove.root(grove.tree())
    plan = await MapReduce().plan(seat, TASK, context)
    tree = grove.tree(Limits(max_calls=plan.calls))
    seat, context = grove.root(tree)
    tree.job.usage += Usage(calls=1)
    with pytest.raises(LimitExceeded):
        await MapReduce().run(seat, TASK, context)


@pytest.mark.parametrize("wave", [4, 500])
async def test_a_limit_on_the_way_leaves_what_was_made_so_far(
    grove: Grove, wave: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlm_runtime.scaffold.recipes.map_reduce.WAVE", wave)
    grove.store.put_text("log", days(12))
    tree = grove.tree(Limits(max_calls=1000))
    seat, context = grove.root(tree)

    def spend(_: GenerateRequest) -> None:
        # Somebody else in the tree: the plan was within its limit when it was made.
        if len(grove.engine.seen) == 3:
            tree.job.usage += Usage(calls=1000)

    grove.engine.on_request = spend
    outcome = await MapReduce().run(seat, TASK, context)
    assert outcome.stop_reason is StopReason.BUDGET_CALLS
    assert "max_calls" in outcome.error
    detail = outcome.detail
    assert isinstance(detail, MapReduced)
    done = [part for part in detail.parts if part.result is not None]
    # All parts but not the call that combines them, or the first wave of parts.
    assert len(done) == min(wave, 12)
    assert not detail.is_combined
    joined = "\n\n".join(stored(grove, part.result) for part in done)
    assert stored(grove, outcome.result) == joined


async def test_a_failed_part_does_not_fail_the_others_but_all_of_them_do(grove: Grove) -> None:
    grove.store.put_text("log", days(6))
    failing = {2}

    def fail(_: GenerateRequest) -> None:
        if len(grove.engine.seen) in failing:
            raise EngineError("refused", "")

    grove.engine.on_request = fail
    outcome, detail, _ = await run(grove, MapReduce(combine="join"))
    assert outcome.stop_reason is StopReason.FINAL
    assert [part.error for part in detail.parts if part.result is None] == ["refused"]
    failing = set(range(1000))
    with pytest.raises(EngineError, match="refused"):
        await run(grove, MapReduce(combine="join"))


async def test_results_that_could_not_all_be_combined_are_joined(grove: Grove) -> None:
    grove.store.put_text("log", days(12))

    def fail(request: GenerateRequest) -> None:
        if len(grove.engine.seen) == 14:  # twelve parts, and the first of several groups
            raise EngineError("refused", "")

    grove.engine.on_request = fail
    config = Config(agents=AgentsConfig(answer_tokens=1500))
    outcome, detail, _ = await run(grove, MapReduce(), config=config)
    assert labels(grove).count("combine") > 2
    assert not detail.is_combined
    joined = [stored(grove, part.result) for part in detail.parts]
    assert len(joined) == 12
    assert stored(grove, outcome.result) == "\n\n".join(joined)


async def test_a_dead_engine_leaves_the_parts_that_were_stored(
    grove: Grove, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlm_runtime.scaffold.recipes.map_reduce.WAVE", 2)
    grove.store.put_text("log", days(8))

    def die(_: GenerateRequest) -> None:
        if len(grove.engine.seen) > 4:
            raise EngineDead("the test ended it")

    grove.engine.on_request = die
    seat, context = grove.root(grove.tree())
    with pytest.raises(EngineDead):
        await MapReduce().run(seat, TASK, context)
    assert len(context.written) == 4


async def test_a_cancelled_run_leaves_no_request_behind(grove: Grove) -> None:
    grove.store.put_text("log", days(8))
    grove.engine.gate = anyio.Event()
    seat, context = grove.root(grove.tree())
    async with anyio.create_task_group() as group:
        group.start_soon(MapReduce().run, seat, TASK, context)
        while grove.engine.running < grove.engine.max_running:
            await anyio.lowlevel.checkpoint()
        group.cancel_scope.cancel()
    assert grove.engine.running == 0


async def test_what_does_not_fit_the_window_is_refused_before_the_first_call(grove: Grove) -> None:
    grove.store.put_text("log", days(8))
    for recipe, task in (
        (MapReduce(answer_tokens=8000), TASK),
        (MapReduce(combine="join"), "Say it again. " * 3000),
        (MapReduce(answer_tokens=4000), TASK),  # a chunk fits, two results and a third don't
    ):
        with pytest.raises(PromptTooLong):
            await run(grove, recipe, task=task)
    assert not grove.engine.seen


async def test_a_joined_result_has_the_room_of_a_chunk_or_what_the_window_leaves(
    grove: Grove, fake_engine: FakeEngine
) -> None:
    async def room(chunk_tokens: int) -> tuple[int, int]:
        own = type(grove)(fake_engine, grove.layout, chunk_tokens)
        own.store.put_text("log", "On day 1 all was calm. " * 2000)
        fake_engine.seen.clear()
        _, detail, _ = await run(own, MapReduce(combine="join"))
        assert len(detail.parts) > 1
        longest = max(len(request.prompt_ids) for request in fake_engine.seen)
        return fake_engine.seen[0].max_tokens, longest + fake_engine.seen[0].max_tokens

    window = fake_engine.info.window
    assert (await room(400))[0] == 600
    tokens, whole = await room(3500)
    assert tokens < 3500 * 3 // 2
    assert window - 3500 < whole <= window


async def test_an_empty_task_and_a_context_without_text_are_refused(grove: Grove) -> None:
    with pytest.raises(InputError):
        await run(grove, MapReduce())
    grove.store.put_value("numbers", [1, 2])
    with pytest.raises(InputError):
        await run(grove, MapReduce())
    grove.store.put_text("log", days(1))
    with pytest.raises(InputError):
        await run(grove, MapReduce(), task="  ")


@given(st.integers(1, 5000), st.integers(2, 60))
def test_groups_are_neighbours_as_even_and_as_few_as_they_can_be(results: int, most: int) -> None:
    groups = groups_of(results, most)
    assert [i for group in groups for i in group] == list(range(results))
    assert len(groups) == -(-results // most)
    sizes = {len(group) for group in groups}
    assert max(sizes) <= most
    assert max(sizes) - min(sizes) <= 1

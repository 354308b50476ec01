"""Given ids through the real engine: exact, beside free requests, computed and cached like any."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from typing import Any

import anyio
import pytest

from rlm_runtime.api import Internals
from rlm_runtime.engine.vllm_engine import VLLMEngine
from rlm_runtime.errors import EngineError, InputError
from rlm_runtime.prompt import Tokenizer
from rlm_runtime.scheduler import Call, Job
from rlm_runtime.tracing import AnyEvent, CallFinished
from rlm_runtime.types import AgentId

pytestmark = [pytest.mark.engine, pytest.mark.anyio]

Ids = tuple[int, ...]
Make = Callable[[int], Ids]
Ask = Callable[..., Awaitable[Any]]  # gives an Answer of conftest.py

EOS = 2
TURN = 1  # opens a turn; no text holds it
KNOWN = "The capital of France is Paris. The capital of Italy is Rome. The capital of France is"


async def test_scripts_are_generated_to_the_token_beside_free_requests(
    ask: Ask, fresh: Make, model_dir: Path
) -> None:
    """More requests than rows, of all lengths: they come, go and change rows all the time."""
    known = Tokenizer.from_folder(model_dir).encode(KNOWN)
    alone = (await ask(known, max_tokens=2)).ids
    random = Random(1)  # noqa: S311 # a test repeats itself
    scripts = [(*fresh(random.randrange(1, 30)), TURN) for _ in range(14)]
    forced: dict[Ids, Any] = {}
    free: list[Ids] = []

    async def force(script: Ids, temperature: float) -> None:
        forced[script] = await ask(fresh(20), script=script, max_tokens=40, temperature=temperature)

    async def leave_free() -> None:
        free.append((await ask(known, max_tokens=2, read_cache=False)).ids)

    async with anyio.create_task_group() as group:
        for number, script in enumerate(scripts):
            group.start_soon(force, script, number % 2 * 1.5)
            group.start_soon(leave_free)
    assert {script: answer.ids for script, answer in forced.items()} == {
        script: (*script, EOS) for script in scripts
    }
    assert {answer.facts.finish_reason for answer in forced.values()} == {"stop"}
    assert free == [alone] * len(scripts)


@pytest.mark.parametrize(
    ("script", "room", "ids", "reason"),
    [
        ((500, 600), 9, (500, 600, EOS), "stop"),
        ((500, 600, EOS), 3, (500, 600, EOS), "stop"),
        ((EOS,), 9, (EOS,), "stop"),
        ((500, 600), 2, (500, 600), "length"),
    ],
)
async def test_a_script_ends_with_the_sequence_or_where_max_tokens_cut_it(
    ask: Ask, fresh: Make, script: Ids, room: int, ids: Ids, reason: str
) -> None:
    answer = await ask(fresh(10), script=script, max_tokens=room)
    assert (answer.ids, answer.facts.finish_reason) == (ids, reason)
    assert answer.facts.generated_tokens == len(ids)


async def test_a_script_that_can_not_be_is_refused_before_it_is_sent(
    engine: VLLMEngine, ask: Ask
) -> None:
    before = engine.stats()
    vocabulary = engine.info.vocab_size
    for script, words in (
        ((5, vocabulary), "not in 0.."),
        ((-1,), "not in 0.."),
        ((5,) * 11, "more than max_tokens"),
        ((5, EOS, 6), "Id 2 of the script ends the request, and 3 are given"),
    ):
        with pytest.raises(InputError, match=words):
            await ask((5, 6), script=script, max_tokens=10)
    assert engine.stats() == before


async def test_an_engine_that_was_not_started_for_it_generates_no_given_ids(
    engine: VLLMEngine, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert engine.info.can_force
    monkeypatch.setattr(engine, "_info", dataclasses.replace(engine.info, can_force=False))
    with pytest.raises(EngineError, match=r"engine\.forced_decode"):
        await ask((5, 6), script=(7,), max_tokens=4)


class IdealCache:
    """Whole blocks of all that was computed, for ever; looked up as a prompt is."""

    def __init__(self, block_size: int) -> None:
        self._size = block_size
        self._known: set[Ids] = set()

    def hit(self, prompt: Ids) -> int:
        """Tokens of the longest known beginning; a prompt's last token is always computed."""
        ends = range(self._size, len(prompt), self._size)
        return max((end for end in ends if prompt[:end] in self._known), default=0)

    def add(self, prompt: Ids, generated: Ids) -> None:
        """The last generated id never went through the model."""
        ids = prompt + generated[:-1]
        self._known |= {ids[:end] for end in range(self._size, len(ids) + 1, self._size)}


async def test_a_scripted_conversation_takes_from_the_cache_all_that_was_ever_computed(
    parts: Internals, fresh: Make
) -> None:
    """Blocks that the script generated are hit by the next turn as those of its prompt are."""
    await parts.engine.reset_prefix_cache()
    layout, job = parts.layout, Job()
    events: list[CallFinished] = []

    def hear(event: AnyEvent) -> None:
        if isinstance(event, CallFinished):
            events.append(event)

    parts.recorder.subscribe(hear)
    ideal = IdealCache(parts.engine.info.block_size)
    prompt = layout.prompt(task="Read what you need, one call a turn.")
    of_scripts = 0
    for turn, length in enumerate((3, 40, 70, 9, 33, 64, 1, 50)):
        script = fresh(length)
        call = Call(
            prompt=prompt,
            agent_id=AgentId("a"),
            label="turn",
            max_tokens=length + 1,
            script=script,
        )
        result = await parts.scheduler.run(job, call)
        assert result.ids == (*script, EOS)
        facts = result.facts
        assert facts.cached_tokens == ideal.hit(prompt.ids), turn
        if turn:
            before = events[-2].prompt_tokens or 0
            of_scripts += max(0, facts.cached_tokens - before)
        ideal.add(prompt.ids, result.ids)
        following = layout.append_turn(prompt, result.ids, f"Done: {turn}.")
        assert following.ids[: len(prompt.ids) + len(script)] == prompt.ids + script
        prompt = following
    assert of_scripts > 100
    assert [event.is_forced for event in events] == [True] * 8

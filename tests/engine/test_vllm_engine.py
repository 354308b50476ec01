"""The engine on real vLLM: what it computes, what it takes from the cache, what it says of both."""

from __future__ import annotations

import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from rlm_runtime.engine.base import EngineStats, Span
from rlm_runtime.engine.vllm_engine import VLLMEngine
from rlm_runtime.errors import InputError, PromptTooLong

pytestmark = [pytest.mark.engine, pytest.mark.anyio]

Ids = tuple[int, ...]
Make = Callable[[int], Ids]
Ask = Callable[..., Awaitable[Any]]  # gives an Answer of conftest.py

BLOCK = 32

# The same model on the same ids, computed in other pieces: bfloat16 rounds differently.
NATS = 0.5


def whole_blocks(tokens: int) -> int:
    return tokens // BLOCK * BLOCK


def counters(stats: EngineStats) -> tuple[int, int, int, int]:
    return (
        stats.prompt_tokens,
        stats.cached_tokens,
        stats.computed_tokens,
        stats.generated_tokens,
    )


async def ask_together(ask: Ask, prompts: list[Ids], **fields: Any) -> list[Any]:
    answers: list[Any] = [None] * len(prompts)

    async def one(index: int) -> None:
        answers[index] = await ask(prompts[index], **fields)

    async with anyio.create_task_group() as group:
        for index in range(len(prompts)):
            group.start_soon(one, index)
    return answers


async def test_info_says_what_was_configured(engine: VLLMEngine) -> None:
    info = engine.info
    assert (info.model, info.tokenizer_digest) == ("smol", "digest")
    assert (info.window, info.block_size, info.max_running) == (2048, BLOCK, 8)
    assert info.vocab_size == 49_152
    # 1 GiB at 22.5 KiB a token.
    assert info.kv_tokens == pytest.approx(46_600, rel=0.01)


def test_the_log_is_for_its_owner_alone(engine: VLLMEngine, engine_log: Path) -> None:
    assert stat.S_IMODE(engine_log.stat().st_mode) == 0o600
    assert "EngineCore" in engine_log.read_text()


async def test_facts_of_a_cold_request_add_up(ask: Ask, fresh: Make) -> None:
    answer = await ask(fresh(100), max_tokens=5, ignore_eos=True)
    facts = answer.facts
    assert (facts.prompt_tokens, facts.cached_tokens, facts.computed_tokens) == (100, 0, 100)
    assert facts.generated_tokens == len(answer.ids) == 5
    assert (facts.finish_reason, facts.runs, facts.preemptions) == ("length", 1, 0)
    assert facts.ttft_s == pytest.approx(facts.queue_s + facts.prefill_s)
    assert facts.prefill_s > 0
    assert facts.decode_s > 0
    assert facts.finished_at_s == pytest.approx(
        facts.scheduled_at_s + facts.prefill_s + facts.decode_s
    )


@pytest.mark.parametrize("shared", [31, 32, 100])
async def test_a_warm_request_reuses_the_whole_blocks_it_shares(
    ask: Ask, fresh: Make, shared: int
) -> None:
    prefix = fresh(shared)
    await ask(prefix + fresh(20))
    facts = (await ask(prefix + fresh(20))).facts
    assert facts.cached_tokens == whole_blocks(shared)
    assert facts.computed_tokens == shared + 20 - whole_blocks(shared)


async def test_the_last_token_of_a_repeated_prompt_is_computed_again(ask: Ask, fresh: Make) -> None:
    prompt = fresh(4 * BLOCK)
    await ask(prompt)
    assert (await ask(prompt)).facts.cached_tokens == 3 * BLOCK


async def test_a_salt_is_a_cache_of_its_own(ask: Ask, fresh: Make) -> None:
    prompt = fresh(3 * BLOCK)
    cached = [
        (await ask(prompt, cache_salt=salt)).facts.cached_tokens
        for salt in (None, "a", "b", "a", None)
    ]
    assert cached == [0, 0, 0, 2 * BLOCK, 2 * BLOCK]


async def test_a_request_that_skips_the_cache_still_fills_it(ask: Ask, fresh: Make) -> None:
    prompt = fresh(3 * BLOCK)
    await ask(prompt)
    assert (await ask(prompt, read_cache=False)).facts.cached_tokens == 0
    other = fresh(3 * BLOCK)
    await ask(other, read_cache=False)
    assert (await ask(other)).facts.cached_tokens == 2 * BLOCK


async def test_a_reset_makes_the_cache_cold(engine: VLLMEngine, ask: Ask, fresh: Make) -> None:
    prompt = fresh(3 * BLOCK)
    await ask(prompt)
    await engine.reset_prefix_cache()
    assert (await ask(prompt)).facts.cached_tokens == 0


async def test_of_16_requests_on_a_cold_prefix_one_pays(ask: Ask, fresh: Make) -> None:
    prefix = fresh(300)
    answers = await ask_together(ask, [prefix + fresh(10) for _ in range(16)])
    cached = sorted(answer.facts.cached_tokens for answer in answers)
    assert cached == [0, *[whole_blocks(300)] * 15]


async def test_greedy_answers_repeat_themselves(ask: Ask, prose: Make) -> None:
    prompt = prose(60)
    first = await ask(prompt, max_tokens=12, read_cache=False)
    second = await ask(prompt, max_tokens=12, read_cache=False)
    assert first.ids == second.ids


async def test_a_seed_repeats_a_sampled_answer(ask: Ask, prose: Make) -> None:
    prompt = prose(60)
    first, second, other = [
        await ask(prompt, max_tokens=12, temperature=1.0, seed=seed, read_cache=False)
        for seed in (1, 1, 2)
    ]
    assert first.ids == second.ids
    assert first.ids != other.ids


async def test_a_stop_token_is_the_last_id(ask: Ask, prose: Make) -> None:
    prompt = prose(60)
    free = await ask(prompt, max_tokens=8, ignore_eos=True)
    stop = free.ids[4]
    stopped = await ask(prompt, max_tokens=8, ignore_eos=True, stop_token_ids=(stop,))
    assert stopped.ids == free.ids[: free.ids.index(stop) + 1]
    assert stopped.facts.finish_reason == "stop"


async def test_a_loop_is_ended_when_that_is_asked(ask: Ask) -> None:
    prompt = tuple(range(5, 200))  # the model answers with two ids in turn
    loose = await ask(prompt, max_tokens=60, ignore_eos=True)
    ended = await ask(prompt, max_tokens=60, ignore_eos=True, stop_repetition=True)
    assert loose.facts.finish_reason == "length"
    assert ended.facts.finish_reason == "repetition"
    assert len(ended.ids) < 60
    assert ended.ids == loose.ids[: len(ended.ids)]


async def test_a_scored_span_behind_the_cache_computes_only_the_tail(ask: Ask, prose: Make) -> None:
    prefix, tail = prose(8 * BLOCK), prose(40)
    await ask(prefix)
    span = Span(8 * BLOCK + 1, 8 * BLOCK + 40)
    warm = await ask(prefix + tail, score=span)
    cold = await ask(prefix + tail, score=span, read_cache=False)
    assert (warm.facts.runs, warm.facts.cached_tokens, warm.facts.computed_tokens) == (
        1,
        8 * BLOCK,
        40,
    )
    assert (cold.facts.runs, cold.facts.cached_tokens) == (1, 0)
    assert len(warm.logprobs) == 39
    assert all(logprob < 0 for logprob in warm.logprobs)
    assert warm.logprobs == pytest.approx(cold.logprobs, abs=NATS)


@pytest.mark.parametrize("start", [8 * BLOCK, 5 * BLOCK + 7, 1])
async def test_a_span_that_the_cache_reaches_into_is_computed_again(
    ask: Ask, prose: Make, start: int
) -> None:
    prompt = prose(9 * BLOCK)
    span = Span(start, 9 * BLOCK)
    cold = await ask(prompt, score=span)
    warm = await ask(prompt, score=span)
    assert (cold.facts.runs, cold.facts.cached_tokens) == (1, 0)
    assert (warm.facts.runs, warm.facts.prompt_tokens) == (2, 2 * len(prompt))
    assert warm.facts.cached_tokens == 8 * BLOCK
    assert warm.facts.computed_tokens == 2 * len(prompt) - 8 * BLOCK
    assert warm.facts.generated_tokens == 2
    assert warm.logprobs == pytest.approx(cold.logprobs, abs=NATS)


async def test_the_first_position_after_the_cache_is_not_computed_again(
    ask: Ask, prose: Make
) -> None:
    prompt = prose(9 * BLOCK)
    await ask(prompt)
    assert (await ask(prompt, score=Span(8 * BLOCK + 1, 9 * BLOCK))).facts.runs == 1


async def test_scores_are_those_of_the_ids_in_the_prompt(ask: Ask, prose: Make) -> None:
    prompt = prose(100)
    [likely] = (await ask(prompt, ignore_eos=True)).ids
    unlikely = (likely + 1) % 49_152
    best, other = [
        (await ask((*prompt, last), score=Span(100, 101))).logprobs[0]
        for last in (likely, unlikely)
    ]
    assert best > other + 1


@pytest.mark.parametrize(
    ("prompt", "fields", "error"),
    [
        ((), {}, InputError),
        ((5, -1), {}, InputError),
        ((5, 6), {"max_tokens": 0}, InputError),
        ((5, 6), {"temperature": -1.0}, InputError),
        ((5, 6), {"temperature": float("nan")}, InputError),
        ((5, 6), {"score": Span(0, 2)}, InputError),
        ((5, 6), {"score": Span(1, 3)}, InputError),
        ((5, 6), {"score": Span(1, 1)}, InputError),
        ((5,) * 2048, {}, PromptTooLong),
        ((5,) * 2000, {"max_tokens": 49}, PromptTooLong),
    ],
)
async def test_what_can_not_run_is_refused_before_it_is_sent(
    engine: VLLMEngine, ask: Ask, prompt: Ids, fields: dict[str, Any], error: type[Exception]
) -> None:
    before = engine.stats()
    with pytest.raises(error):
        await ask(prompt, **fields)
    assert engine.stats() == before


async def test_ids_of_another_vocabulary_are_named_as_such(ask: Ask) -> None:
    with pytest.raises(InputError, match=r"not in 0\.\.49,151. Use this model's tokenizer"):
        await ask((5, 49_152))


async def test_a_prompt_may_fill_the_window(ask: Ask, fresh: Make) -> None:
    answer = await ask(fresh(3) * 682, max_tokens=2, ignore_eos=True)
    assert (answer.facts.prompt_tokens, answer.facts.generated_tokens) == (2046, 2)


async def test_the_counters_and_the_scheduler_agree_with_the_facts(
    engine: VLLMEngine, ask: Ask, fresh: Make, scheduled: Callable[[], int]
) -> None:
    """All tokens that the engine core computed are in the facts, and none is there twice.

    A run computes its prompt but for what is cached, and then each token it generated but for the
    last, which no step needs: `scheduled = sum(computed + generated - runs)`.
    """
    before = engine.stats()
    prefix = fresh(100)
    answers = await ask_together(
        ask, [prefix + fresh(length) for length in (1, 30, 64, 700, 700)], max_tokens=7
    )
    prompt = fresh(3 * BLOCK)
    answers.append(await ask(prompt, score=Span(1, 90), max_tokens=3, ignore_eos=True))
    answers.append(await ask(prompt, score=Span(1, 90), ignore_eos=True))
    answers.append(await ask(prompt, cache_salt="ledger", max_tokens=2))
    facts = [answer.facts for answer in answers]
    assert [fact.runs for fact in facts[-3:]] == [1, 2, 1]
    assert scheduled() == sum(
        fact.computed_tokens + fact.generated_tokens - fact.runs for fact in facts
    )
    ledger = (
        sum(fact.prompt_tokens for fact in facts),
        sum(fact.cached_tokens for fact in facts),
        sum(fact.computed_tokens for fact in facts),
        sum(fact.generated_tokens for fact in facts),
    )
    counted = zip(counters(engine.stats()), counters(before), strict=True)
    assert tuple(after - earlier for after, earlier in counted) == ledger

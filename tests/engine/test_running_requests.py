"""Requests that end early, wait, or are in each other's way."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import aclosing
from functools import partial
from itertools import count
from typing import Any

import anyio
import pytest

from rlm_runtime.engine.base import EngineStats, GenerateRequest
from rlm_runtime.engine.vllm_engine import VLLMEngine
from rlm_runtime.errors import EngineError
from rlm_runtime.types import RequestId

pytestmark = [pytest.mark.engine, pytest.mark.anyio]

Ids = tuple[int, ...]
Make = Callable[[int], Ids]
Ask = Callable[..., Awaitable[Any]]  # gives an Answer of conftest.py

numbers = count()


def endless(prompt_ids: Ids) -> GenerateRequest:
    return GenerateRequest(
        RequestId(f"endless-{next(numbers)}"), prompt_ids, max_tokens=1500, ignore_eos=True
    )


async def until(engine: VLLMEngine, holds: Callable[[EngineStats], bool]) -> None:
    """Wait for what the engine core reports with its steps."""
    with anyio.fail_after(30):
        while not holds(engine.stats()):  # noqa: ASYNC110 # nothing tells when a step is over
            await anyio.sleep(0.01)


async def drain(engine: VLLMEngine, request: GenerateRequest, began: anyio.Event) -> None:
    async with aclosing(engine.generate(request)) as items:
        async for _item in items:
            began.set()


async def test_cancelling_the_task_aborts_the_request_in_the_engine(
    engine: VLLMEngine, ask: Ask, fresh: Make
) -> None:
    began = anyio.Event()
    prompt = fresh(100)
    async with anyio.create_task_group() as group:
        group.start_soon(drain, engine, endless(prompt), began)
        await began.wait()
        await until(engine, lambda stats: stats.running == 1)
        group.cancel_scope.cancel()
    await until(engine, lambda stats: stats.running == 0)
    # What it computed is not lost.
    assert (await ask(prompt)).facts.cached_tokens == 96


async def test_closing_the_iterator_aborts_the_request_in_the_engine(
    engine: VLLMEngine, fresh: Make
) -> None:
    async with aclosing(engine.generate(endless(fresh(10)))) as items:
        await anext(items)
        await until(engine, lambda stats: stats.running == 1)
    await until(engine, lambda stats: stats.running == 0)
    assert engine.stats().running == 0


async def test_a_request_that_waits_can_be_cancelled(engine: VLLMEngine, fresh: Make) -> None:
    began = anyio.Event()
    async with anyio.create_task_group() as group:
        for _ in range(engine.info.max_running + 3):
            group.start_soon(drain, engine, endless(fresh(10)), began)
        await until(engine, lambda stats: (stats.running, stats.waiting) == (8, 3))
        group.cancel_scope.cancel()
    await until(engine, lambda stats: (stats.running, stats.waiting) == (0, 0))
    assert (engine.stats().running, engine.stats().waiting) == (0, 0)


async def test_the_cache_is_not_reset_under_a_running_request(
    engine: VLLMEngine, fresh: Make
) -> None:
    async with aclosing(engine.generate(endless(fresh(10)))) as items:
        await anext(items)
        with pytest.raises(EngineError, match="while requests are running"):
            await engine.reset_prefix_cache()
        await anext(items)
    await until(engine, lambda stats: stats.running == 0)


async def test_urgent_requests_run_before_others_that_wait(
    engine: VLLMEngine, ask: Ask, fresh: Make
) -> None:
    began_at_s: dict[str, float] = {}

    async def send(name: str, **fields: Any) -> None:
        began_at_s[name] = (await ask(fresh(10), ignore_eos=True, **fields)).facts.scheduled_at_s

    async with anyio.create_task_group() as group:
        for number in range(engine.info.max_running):
            group.start_soon(partial(send, f"first {number}", max_tokens=40 + 4 * number))
        await until(engine, lambda stats: stats.running == 8)
        for number in range(3):
            group.start_soon(partial(send, f"patient {number}", priority=5))
        await until(engine, lambda stats: stats.waiting == 3)
        group.start_soon(partial(send, "urgent", priority=0))
    order = sorted(began_at_s, key=began_at_s.__getitem__)
    assert order[8:] == ["urgent", "patient 0", "patient 1", "patient 2"]

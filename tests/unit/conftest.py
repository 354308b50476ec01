"""A scripted engine for logic above the engine: it computes nothing and obeys its test."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field

import anyio
import pytest

from rlm_runtime.engine.base import (
    EngineInfo,
    EngineStats,
    Finished,
    GenerateRequest,
    RequestFacts,
    TokenDelta,
)
from rlm_runtime.engine.requests import check_constraint

EOS = 2
"""Its end-of-sequence token."""


@dataclass
class FakeEngine:
    """Answers each request with what `answer` says, when its gate is open."""

    max_running: int = 4
    kv_blocks: int = 10_000
    seen: list[GenerateRequest] = field(default_factory=list)
    running: int = 0
    most_running: int = 0
    aborted: list[str] = field(default_factory=list)
    gate: anyio.Event | None = None
    on_request: Callable[[GenerateRequest], None] | None = None
    loses_scores: bool = False
    score: Callable[[GenerateRequest], float] = lambda _: -1.0
    """Log-probability of each scored token."""
    choose: Callable[[GenerateRequest], str] = lambda request: request.choices[0]
    """Which of a request's choices it takes."""
    can_choose: bool = True
    can_force: bool = True
    answer: Callable[[GenerateRequest], tuple[int, ...]] = lambda request: (7,) * request.max_tokens
    """What it generates for a request without a script, cut at `max_tokens`; one that is shorter or
    ends with `EOS` has stopped by itself. A grammar or a schema is the hook's to obey."""

    @property
    def info(self) -> EngineInfo:
        return EngineInfo(
            model="fake",
            window=8192,
            block_size=32,
            kv_blocks=self.kv_blocks,
            tokenizer_digest="0",
            vocab_size=1000,
            max_running=self.max_running,
            backend="fake",
            can_choose=self.can_choose,
            can_force=self.can_force,
        )

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[TokenDelta | Finished]:
        self.seen.append(request)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            if self.on_request is not None:
                self.on_request(request)
            if self.gate is not None:
                await self.gate.wait()
            await anyio.lowlevel.checkpoint()
            generated = self.generated(request)
            yield TokenDelta(generated)
            span = request.score
            logprobs = None
            if span is not None and not self.loses_scores:
                logprobs = (self.score(request),) * (span.end - span.start)
            choice = self.choose(request) if request.choices else None
            yield Finished(self.facts(request, generated), logprobs, choice)
        except anyio.get_cancelled_exc_class():
            self.aborted.append(request.request_id)
            raise
        finally:
            self.running -= 1

    def generated(self, request: GenerateRequest) -> tuple[int, ...]:
        if request.script:
            check_constraint(request)
            end = () if request.script[-1] == EOS else (EOS,)
            return (*request.script, *end)[: request.max_tokens]
        return self.answer(request)[: request.max_tokens]

    def facts(self, request: GenerateRequest, generated: tuple[int, ...]) -> RequestFacts:
        return RequestFacts(
            prompt_tokens=len(request.prompt_ids),
            cached_tokens=0,
            computed_tokens=len(request.prompt_ids),
            generated_tokens=len(generated),
            ttft_s=0.0,
            queue_s=0.0,
            prefill_s=0.0,
            decode_s=0.0,
            runs=1,
            preemptions=0,
            scheduled_at_s=0.0,
            finished_at_s=0.0,
            finish_reason="stop"
            if len(generated) < request.max_tokens or generated[-1] == EOS
            else "length",
        )

    async def reset_prefix_cache(self) -> None:
        return

    def stats(self) -> EngineStats:
        return EngineStats(0, 0, 0, 0, 0, self.running, 0, 0.0)

    async def close(self) -> None:
        return


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def fake_engine() -> FakeEngine:
    return FakeEngine()

"""An engine with a prefix cache and a clock of its own: what is measured is known beforehand."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import pytest

from rlm_runtime.api import Internals
from rlm_runtime.engine.base import (
    EngineInfo,
    EngineStats,
    Finished,
    GenerateRequest,
    RequestFacts,
    TokenDelta,
)
from rlm_runtime.prompt import ChatTemplate, Layout, Tokenizer
from rlm_runtime.scaffold.corpus import Corpus
from rlm_runtime.scheduler import Scheduler
from rlm_runtime.store import ContextStore
from rlm_runtime.tracing import AnyEvent, Recorder

PREFILL_S = 0.001
"""A computed prompt token."""

DECODE_S = 0.02
"""A generated token; requests that run together decode at once."""


@dataclass
class CachingEngine:
    """Keeps whole blocks by all ids before them, without evicting any."""

    block_size: int = 32
    max_running: int = 64
    now_s: float = 0.0
    resident: set[tuple[int, ...]] = field(default_factory=set)
    seen: list[GenerateRequest] = field(default_factory=list)
    running: int = 0
    most_running: int = 0
    resets: int = 0
    can_reset: bool = True
    on_request: Callable[[GenerateRequest], None] | None = None

    @property
    def info(self) -> EngineInfo:
        return EngineInfo(
            model="pretended",
            window=8192,
            block_size=self.block_size,
            kv_blocks=1000,
            tokenizer_digest="0",
            vocab_size=100_000,
            max_running=self.max_running,
            backend="pretended 1 cpu",
        )

    async def generate(
        self, request: GenerateRequest
    ) -> AsyncGenerator[TokenDelta | Finished, None]:
        self.seen.append(request)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            if self.on_request is not None:
                self.on_request(request)
            began_s = self.now_s
            cached = self._read_and_store(request.prompt_ids)
            for _ in range(100):  # whoever comes with this request has come by then
                await anyio.lowlevel.checkpoint()
            prefill_s = (len(request.prompt_ids) - cached) * PREFILL_S
            decode_s = (request.max_tokens - 1) * DECODE_S
            end_s = began_s + prefill_s + decode_s
            self.now_s = max(self.now_s, end_s)
            yield TokenDelta((7,) * request.max_tokens)
            yield Finished(
                RequestFacts(
                    prompt_tokens=len(request.prompt_ids),
                    cached_tokens=cached,
                    computed_tokens=len(request.prompt_ids) - cached,
                    generated_tokens=request.max_tokens,
                    ttft_s=prefill_s + 0.001,
                    queue_s=0.001,
                    prefill_s=prefill_s,
                    decode_s=decode_s,
                    runs=1,
                    preemptions=0,
                    scheduled_at_s=began_s,
                    finished_at_s=end_s,
                    finish_reason="length",
                )
            )
        finally:
            self.running -= 1

    def _read_and_store(self, ids: tuple[int, ...]) -> int:
        ends = range(self.block_size, len(ids) + 1, self.block_size)
        cached = 0
        for end in ends:
            if ids[:end] not in self.resident or end == len(ids):
                break
            cached = end
        self.resident.update(ids[:end] for end in ends)
        return cached

    async def reset_prefix_cache(self) -> None:
        self.resets += 1
        if self.can_reset:
            self.resident.clear()

    def stats(self) -> EngineStats:
        return EngineStats(0, 0, 0, 0, 0, self.running, 0, 0.0)

    async def close(self) -> None:
        return


@dataclass
class Rig:
    """A session on a pretended engine, with the events it wrote."""

    engine: CachingEngine
    parts: Internals
    events: list[AnyEvent]


@pytest.fixture(scope="session")
def layout(model_dir: Path) -> Layout:
    tokenizer = Tokenizer.from_folder(model_dir)
    return Layout(tokenizer, ChatTemplate.from_folder(model_dir, tokenizer), 32)


@pytest.fixture
def rig(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> Rig:
    engine = CachingEngine()
    recorder = Recorder(None)
    events: list[AnyEvent] = []
    recorder.subscribe(events.append)
    monkeypatch.setattr(recorder, "now", lambda: engine.now_s)
    scheduler = Scheduler(
        engine, recorder, shared_tokens=len(layout.shared_ids), max_queued_calls=100
    )
    corpus = Corpus(ContextStore(layout.tokenizer.count), layout, 700)
    return Rig(engine, Internals(engine, scheduler, layout, corpus, recorder), events)


@pytest.fixture(scope="session")
def make_engine() -> type[CachingEngine]:
    return CachingEngine

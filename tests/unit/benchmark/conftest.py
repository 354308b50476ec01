"""An engine with a prefix cache and a clock of its own: what is measured is known beforehand."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import anyio
import msgspec
import pytest

from rlm_runtime.api import AsyncRLM, Internals
from rlm_runtime.blocks import block_chain
from rlm_runtime.config import Config
from rlm_runtime.engine.base import (
    EngineInfo,
    EngineStats,
    Finished,
    GenerateRequest,
    RequestFacts,
    TokenDelta,
)
from rlm_runtime.profiler.run_log import RunLog
from rlm_runtime.prompt import ChatTemplate, Layout, Tokenizer
from rlm_runtime.scaffold.corpus import Corpus
from rlm_runtime.scheduler import Scheduler
from rlm_runtime.store import ContextStore
from rlm_runtime.tracing import (
    AgentFinished,
    AgentStarted,
    AnyEvent,
    CallFinished,
    EngineStarted,
    Recorder,
    RunFinished,
    RunStarted,
    Segment,
    blob_digest,
    ids_to_blob,
)

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
    can_force: bool = False
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
            can_force=self.can_force,
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
            yield TokenDelta(request.script or (7,) * request.max_tokens)
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


@pytest.fixture
def session_on(
    layout: Layout, model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., AsyncRLM]:
    """Makes a session whose engine is the one that is given; keeps no run."""

    class Boots:
        engine: Any

        async def start(self, *_: object, **__: object) -> Any:
            await anyio.lowlevel.checkpoint()
            return self.engine

    boots, module = Boots(), ModuleType("rlm_runtime.engine.vllm_engine")
    module.VLLMEngine = boots  # type: ignore[attr-defined] # a module made here
    monkeypatch.setitem(sys.modules, "rlm_runtime.engine.vllm_engine", module)
    monkeypatch.setattr(Tokenizer, "from_folder", lambda _: layout.tokenizer)  # reading takes long

    def make(engine: Any, **settings: Any) -> AsyncRLM:
        boots.engine = engine
        given = {"model": str(model_dir), "run": {"keep": False}, **settings}
        return AsyncRLM(Config.model_validate(given))

    return make


@pytest.fixture(scope="session")
def make_engine() -> type[CachingEngine]:
    return CachingEngine


SHARED = tuple(range(1, 65))
"""The shared prefix of a `RecordedRun`: two blocks of 32."""


@dataclass
class RecordedRun:
    """A run as a log has it, made call by call; one task `a1` and an engine to begin with."""

    directory: Path
    events: list[AnyEvent] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.directory.mkdir()
        (self.directory / "blobs").mkdir()
        self.events += [
            RunStarted(
                at_s=0.0,
                schema_version=1,
                run_id="run-1",
                started_at="2026-01-01T00:00:00+00:00",
                package_version="0.1.0",
                python="3.11.7",
                machine="pretended, 2 cores",
                config_digest="abc123",
            ),
            EngineStarted(
                at_s=1.0,
                model="pretended",
                backend="pretended 1 cpu",
                window=8192,
                block_size=32,
                kv_blocks=1000,
                max_running=16,
                tokenizer_digest="0",
                shared_prefix_digest="0",
                shared_prefix_tokens=len(SHARED),
                boot_s=1.0,
            ),
        ]
        self.agent("a1")

    def agent(self, agent_id: str, parent_id: str | None = None, kind: str = "search") -> None:
        """An agent begins."""
        depth = 0 if parent_id is None else 1
        self.events.append(
            AgentStarted(
                at_s=1.0,
                agent_id=agent_id,
                parent_id=parent_id,
                depth=depth,
                kind=kind,
                task_blob=None,
            )
        )

    def call(self, number: int, own: Sequence[int], cached: int, **changed: object) -> CallFinished:
        """A call for the shared prefix and some ids, alone at second `number`."""
        ids = (*SHARED, *own)
        segments = []
        for kind, start, part in (("shared", 0, SHARED), ("task", len(SHARED), tuple(own))):
            blob = ids_to_blob(part)
            (self.directory / "blobs" / blob_digest(blob)).write_bytes(blob)
            segments.append(Segment(kind, start, start + len(part), blob_digest(blob)))
        event = CallFinished(
            at_s=number + 0.9,
            request_id=f"r{number}",
            agent_id="a1",
            label="rank chunk",
            depth=0,
            group=None,
            outcome="ok",
            error_code=None,
            submitted_at_s=number,
            admitted_at_s=number,
            segments=tuple(segments),
            blocks=b"".join(block_chain(ids, 32)).hex(),
            output_blob=None,
            reads_cache=True,
            salt_digest=None,
            max_tokens=1,
            temperature=0.0,
            shared_by=1,
            prompt_tokens=len(ids),
            cached_tokens=cached,
            computed_tokens=len(ids) - cached,
            generated_tokens=1,
            runs=1,
            ttft_s=(len(ids) - cached) * PREFILL_S + 0.001,
            queue_s=0.001,
            prefill_s=(len(ids) - cached) * PREFILL_S,
            decode_s=0.1,
            preemptions=0,
            scheduled_at_s=100.0 + number,
            finished_at_s=100.8 + number,
            finish_reason="length",
        )
        event = msgspec.structs.replace(event, **changed)
        self.events.append(event)
        return event

    def end(self, engine_computed_tokens: int) -> None:
        """The agent and the run end in order."""
        calls = [event for event in self.events if isinstance(event, CallFinished)]
        prompt = sum(call.prompt_tokens or 0 for call in calls)
        self.events += [
            AgentFinished(
                at_s=50.0,
                agent_id="a1",
                stop_reason="final",
                found=True,
                result_blob=None,
                wall_s=10.0,
            ),
            RunFinished(
                at_s=51.0,
                outcome="ok",
                error_code=None,
                engine_prompt_tokens=prompt,
                engine_cached_tokens=prompt - engine_computed_tokens,
                engine_computed_tokens=engine_computed_tokens,
                engine_generated_tokens=len(calls),
                engine_preemptions=0,
                wall_s=51.0,
            ),
        ]

    def log(self) -> RunLog:
        """Written and read back."""
        lines = [msgspec.json.encode(event) + b"\n" for event in self.events]
        (self.directory / "events.jsonl").write_bytes(b"".join(lines))
        return RunLog.load(self.directory)


@pytest.fixture
def recorded(tmp_path: Path) -> RecordedRun:
    return RecordedRun(tmp_path / "run")

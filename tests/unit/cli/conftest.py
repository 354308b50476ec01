"""The command line on an engine that computes nothing: everything between argv and it is real."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import anyio
import pytest

from rlm_runtime.cli import apps
from rlm_runtime.engine.base import (
    EngineInfo,
    EngineStats,
    Finished,
    GenerateRequest,
    RequestFacts,
    TokenDelta,
)
from rlm_runtime.prompt import Tokenizer


@dataclass
class ScriptedEngine:
    """Finds a question likelier the more of its tokens the text in front of it holds.

    Of choices it takes "Anna Meier", else the first. Otherwise it says `says`, ids with an end.

    `on_request` is called with each request, in the session's thread, before it is answered.
    """

    block_size: int
    kv_blocks: int = 10_000
    cached: set[tuple[int, ...]] = field(default_factory=set)
    requests: int = 0
    computed: int = 0
    on_request: Callable[[GenerateRequest], None] | None = None
    says: tuple[int, ...] = ()
    is_closed: bool = False
    model: str = "scripted"
    tokenizer_digest: str = "0"

    @property
    def info(self) -> EngineInfo:
        return EngineInfo(
            model=self.model,
            window=8192,
            block_size=self.block_size,
            kv_blocks=self.kv_blocks,
            tokenizer_digest=self.tokenizer_digest,
            vocab_size=49_152,
            max_running=4,
            backend="scripted 1.0 cpu",
            can_choose=True,
            can_force=True,
        )

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[TokenDelta | Finished]:
        self.requests += 1
        await anyio.lowlevel.checkpoint()
        if self.on_request is not None:
            self.on_request(request)
        ids, span = request.prompt_ids, request.score
        logprobs = None
        if span is not None:
            # Behind the shared prefix, where texts differ.
            text = set(ids[1200 : span.start - 20])
            logprobs = tuple(-0.1 if id_ in text else -4.0 for id_ in ids[span.start : span.end])
        yield TokenDelta(self.says[: request.max_tokens] or (7,) * request.max_tokens)
        choice = next(iter(request.choices), None)
        if "Anna Meier" in request.choices:
            choice = "Anna Meier"
        yield Finished(self._facts(request), logprobs, choice)

    def _facts(self, request: GenerateRequest) -> RequestFacts:
        ids = request.prompt_ids
        blocks = [ids[: n * self.block_size] for n in range(1, len(ids) // self.block_size + 1)]
        hits = sum(block in self.cached for block in blocks if len(block) < len(ids))
        self.cached.update(blocks)
        cached = hits * self.block_size
        self.computed += len(ids) - cached
        return RequestFacts(
            prompt_tokens=len(ids),
            cached_tokens=cached,
            computed_tokens=len(ids) - cached,
            generated_tokens=len(self.says) or request.max_tokens,
            ttft_s=(len(ids) - cached) * 1e-3,
            queue_s=0.0,
            prefill_s=(len(ids) - cached) * 1e-3,
            decode_s=0.0,
            runs=1,
            preemptions=0,
            scheduled_at_s=float(self.requests),
            finished_at_s=self.requests + 0.5,
            finish_reason="stop" if self.says else "length",
        )

    async def reset_prefix_cache(self) -> None:
        self.cached.clear()

    def stats(self) -> EngineStats:
        return EngineStats(0, 0, self.computed, 0, 0, 0, 0, 0.0)

    async def close(self) -> None:
        self.is_closed = True


@dataclass
class Boots:
    """Every engine that was started, and what shall happen at a start or a request."""

    engines: list[ScriptedEngine] = field(default_factory=list)
    on_start: Callable[[int], None] | None = None
    on_request: Callable[[GenerateRequest], None] | None = None
    says: tuple[int, ...] = ()
    stages: tuple[str, ...] = ("loading the model",)

    async def start(
        self,
        config: Any,
        model_path: Path,
        *,
        model_name: str = "scripted",
        tokenizer_digest: str = "0",
        on_stage: Callable[[str], None] | None,
        **_: Any,
    ) -> ScriptedEngine:
        await anyio.lowlevel.checkpoint()
        for stage in self.stages:
            if on_stage is not None:
                on_stage(stage)
        if self.on_start is not None:
            self.on_start(len(self.engines) + 1)
        engine = ScriptedEngine(
            config.block_size,
            on_request=self.on_request,
            says=self.says,
            model=model_name,
            tokenizer_digest=tokenizer_digest,
        )
        self.engines.append(engine)
        return engine


READ_ONCE = cache(Tokenizer.from_folder)


@pytest.fixture(autouse=True)
def tokenizers_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading a tokenizer takes longer than the rest of a test."""
    monkeypatch.setattr(Tokenizer, "from_folder", READ_ONCE)


@pytest.fixture
def boots(monkeypatch: pytest.MonkeyPatch) -> Boots:
    """Engines that sessions start from now on."""
    scripted = Boots()
    module = ModuleType("rlm_runtime.engine.vllm_engine")
    module.VLLMEngine = scripted  # type: ignore[attr-defined] # a module made here
    monkeypatch.setitem(sys.modules, "rlm_runtime.engine.vllm_engine", module)
    return scripted


@dataclass(frozen=True)
class Ended:
    """How a command ended, with what it wrote."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


Rlm = Callable[..., Ended]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of the test's own, as RLM_HOME; no other variable is read."""
    for variable in [name for name in os.environ if name.startswith("RLM_")]:
        monkeypatch.delenv(variable)
    folder = tmp_path / "home"
    monkeypatch.setenv("RLM_HOME", str(folder))
    return folder


@pytest.fixture
def rlm(home: Path, capsys: pytest.CaptureFixture[str]) -> Rlm:
    """Runs `rlm` in this process."""

    def run(*arguments: str | Path) -> Ended:
        capsys.readouterr()
        code = apps.rlm([str(argument) for argument in arguments])
        return Ended(code, *capsys.readouterr())

    return run


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "REPORT.txt"
    path.write_text(
        "The garden has an old wall.\n\n"
        "Signatures\n\n"
        "The treaty of the northern harbour was signed by Anna Meier. "
        "Bob Kern watched.\n\n"
        "Rain fell on the hills.\n"
    )
    return path

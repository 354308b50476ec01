"""The engine of a session: booted when it is first needed, and again after it died."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import anyio

from rlm_runtime.config import Config
from rlm_runtime.engine import model_files
from rlm_runtime.engine.base import Engine, EngineStats
from rlm_runtime.engine.model_identity import model_digest
from rlm_runtime.errors import InputError
from rlm_runtime.prompt import Layout
from rlm_runtime.scaffold.corpus import Corpus
from rlm_runtime.scheduler import FinishedCalls, Scheduler
from rlm_runtime.tracing import EngineStarted, Recorder


@dataclass(frozen=True, slots=True)
class Internals:
    """What a started session is made of, for measurements; not a stable interface."""

    engine: Engine
    scheduler: Scheduler
    layout: Layout
    corpus: Corpus
    recorder: Recorder


class Counted(NamedTuple):
    """Engines' own counters, over all the lives of a session's engine."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    computed_tokens: int = 0
    generated_tokens: int = 0
    preemptions: int = 0

    def plus(self, stats: EngineStats) -> Counted:
        """With what one more engine has counted."""
        return Counted(*(count + getattr(stats, name) for name, count in self._asdict().items()))


class EngineLife:
    """Boots one engine at a time, with what stands around it, and ends it.

    Args:
        config: The session's.
        model: The prepared model.
        corpus: The session's texts, with the layout of its prompts.
        recorder: Where the engine's start is recorded.
        on_stage: Called with a few words at each step of a boot.
        finished: What the run that is resumed had finished.
    """

    def __init__(
        self,
        config: Config,
        model: model_files.ModelFolder,
        corpus: Corpus,
        recorder: Recorder,
        on_stage: Callable[[str], None] | None,
        finished: FinishedCalls | None = None,
    ) -> None:
        self._config = config
        self._model = model
        self._corpus = corpus
        self._recorder = recorder
        self._on_stage = on_stage
        self._finished = finished
        self._parts: Internals | None = None
        self._booting = anyio.Lock()
        self._is_over = False
        self._counted: Counted | None = None

    async def parts(self) -> Internals:
        """The session's parts around a booted engine.

        Raises:
            InputError: `close` was called.
            EngineError: The engine could not start.
        """
        async with self._booting:
            if self._is_over:
                raise InputError("The session is closed.", "Open a new one.")
            if self._parts is None:
                self._parts = await self._boot()
            return self._parts

    async def drop(self, parts: Internals) -> None:
        """End an engine and keep its counters; another question may have done so already."""
        if self._parts is not parts:
            return
        self._parts = None
        self._counted = (self._counted or Counted()).plus(parts.engine.stats())
        await parts.engine.close()

    async def close(self) -> Counted | None:
        """End the engine for good; `None` if there never was one. Can't be cancelled."""
        self._is_over = True
        with anyio.CancelScope(shield=True):
            # A boot under way in another task ends first; none begins after it.
            async with self._booting:
                if self._parts is not None:
                    await self.drop(self._parts)
        return self._counted

    async def _boot(self) -> Internals:
        # Here, not above: this pulls in what `import rlm_runtime` must not.
        from rlm_runtime.engine.vllm_engine import VLLMEngine

        began_s = self._recorder.now()
        tokenizer = self._corpus.layout.tokenizer
        engine = await VLLMEngine.start(
            self._config.engine,
            self._model.path,
            model_name=self._model.name,
            tokenizer_digest=tokenizer.digest,
            encode=tokenizer.encode,
            log_path=self._log_path(),
            on_stage=self._on_stage,
        )
        try:
            return self._furnish(engine, self._recorder.now() - began_s)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await engine.close()
            raise

    def _log_path(self) -> Path | None:
        directory = self._recorder.directory
        return None if directory is None else directory / "engine.log"

    def _furnish(self, engine: Engine, boot_s: float) -> Internals:
        """What stands around a booted engine; its first event."""
        layout, info = self._corpus.layout, engine.info
        self._corpus.read.clear()
        self._corpus.read.bound(info.kv_tokens - len(layout.shared_ids))
        self._counted = self._counted or Counted()
        self._recorder.emit(
            EngineStarted(
                at_s=self._recorder.now(),
                model=info.model,
                backend=info.backend,
                window=info.window,
                block_size=info.block_size,
                kv_blocks=info.kv_blocks,
                max_running=info.max_running,
                tokenizer_digest=info.tokenizer_digest,
                shared_prefix_digest=layout.shared_digest,
                shared_prefix_tokens=len(layout.shared_ids),
                boot_s=boot_s,
                model_digest=model_digest(self._model.path),
            )
        )
        scheduler = Scheduler(
            engine,
            self._recorder,
            shared_tokens=len(layout.shared_ids),
            max_queued_calls=self._config.scheduler.max_queued_calls,
            finished=self._finished,
        )
        return Internals(engine, scheduler, layout, self._corpus, self._recorder)

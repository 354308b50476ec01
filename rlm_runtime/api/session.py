"""The session on an event loop: one configuration, one engine, one run directory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import anyio

from rlm_runtime.api.engine_life import EngineLife, Internals
from rlm_runtime.api.result import Result, Source
from rlm_runtime.config import Config, config_digest, load, state_home
from rlm_runtime.engine import model_files
from rlm_runtime.engine.base import EngineInfo
from rlm_runtime.errors import (
    Cancelled,
    ConfigError,
    EngineDead,
    EngineError,
    InputError,
    PromptTooLong,
    RLMError,
)
from rlm_runtime.profiler import Ledger
from rlm_runtime.prompt import ChatTemplate, Layout, Tokenizer
from rlm_runtime.scaffold.corpus import Corpus
from rlm_runtime.scaffold.likelihood import TAIL, Asker, ScoreMemo
from rlm_runtime.scaffold.recipes.search import Search
from rlm_runtime.scaffold.recipes.search_result import Passage, SearchResult
from rlm_runtime.scaffold.short_form import ShortForm, short_form
from rlm_runtime.scheduler import Job, Progress
from rlm_runtime.store import ContextStore, name_for
from rlm_runtime.tracing import (
    AgentFinished,
    AgentStarted,
    Recorder,
    RunFinished,
    ValueStored,
    new_run_directory,
    run_started,
)
from rlm_runtime.types import AgentId, Limits, Ref, StopReason, Usage


class AsyncRLM:
    """A session on the running event loop; an async context manager.

    Making one reads the configuration and the tokenizer (a moment, no engine). The engine boots
    with the first question or with `start`, and again after it died. Questions may run at the same
    time; they share the engine and its cache.

    Args:
        config: A configuration, the name of a shipped one, or a YAML file; `None` is the default.
        on_stage: Called with a few words at each step of a boot.
        shared_text: Another system text than the one that ships, to compare the two; `None` is
            the right value.

    Raises:
        ConfigError: The configuration can't be used.
        ModelError: The model is not prepared, incomplete, or its chat template is unusable.
        TraceError: The run directory can't be made.
    """

    def __init__(
        self,
        config: Config | str | Path | None = None,
        *,
        on_stage: Callable[[str], None] | None = None,
        shared_text: str | None = None,
    ) -> None:
        self.config = config if isinstance(config, Config) else load(config).config
        model = model_files.resolve(self.config.model)
        self._tokenizer = Tokenizer.from_folder(model.path)
        template = ChatTemplate.from_folder(model.path, self._tokenizer)
        block_size = self.config.engine.block_size
        self.layout = Layout(self._tokenizer, template, block_size, shared_text)
        self.context = ContextStore(self._tokenizer.count)
        self.ledger = Ledger()
        self._corpus = Corpus(self.context, self.layout, self.config.search.chunk_tokens)
        self._room_for("", "The shared prefix and one chunk")
        self._recorder = _open_recorder(self.config)
        self._recorder.subscribe(self.ledger.add)
        self._engine = EngineLife(self.config, model, self._corpus, self._recorder, on_stage)
        self._memo = ScoreMemo()
        self._files: dict[tuple[Path, int, int], Ref] = {}
        self._agents = 0
        self._error: BaseException | None = None
        self._is_closed = False
        self._recorder.emit(run_started(self._recorder.run_id, config_digest(self.config)))

    @property
    def run_directory(self) -> Path | None:
        """Where events and blobs are written; `None` when nothing is kept."""
        return self._recorder.directory

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._error = error or self._error
        await self.close()

    def store(self, value: Source, name: str | None = None) -> Ref:
        """Make a text a context variable of the session.

        Args:
            value: The text or its file.
            name: An identifier; without one, made from the file's name, or `context`.

        Raises:
            InputError: It is empty, not text or can't be read; or the name is no identifier.
        """
        if isinstance(value, Ref):
            return value
        if isinstance(value, Path):
            identity = _identity(value)
            known = self._files.get(identity)
            if known is not None and name in (None, known.name):
                return known  # the same file, asked about again
            ref = self.context.put_file(name or name_for(value, self.context.names()), value)
            self._files[identity] = ref
        else:
            name = name or "context"
            if not value:
                raise InputError(
                    f"The text {name!r} is empty.", "Give a text with something in it."
                )
            ref = (
                self.context.put_text(name, value)
                if isinstance(value, str)
                else self.context.put(name, "str", value)
            )
        count = self.context.tokens(ref)
        self._recorder.emit(
            ValueStored(
                at_s=self._recorder.now(),
                name=ref.name,
                version=ref.version,
                kind=ref.kind,
                size_bytes=ref.size_bytes,
                digest=ref.digest,
                writer="user",
                tokens=count.tokens,
                is_estimated=count.is_estimated,
            )
        )
        return ref

    def check(self, task: str) -> None:
        """See whether a question can be asked, before anything is started.

        Raises:
            InputError: It is empty.
            PromptTooLong: It does not fit the window beside a chunk of text.
        """
        if not task.strip():
            raise InputError("The question is empty.", "Ask something.")
        self._room_for(task, "The question, the shared prefix and one chunk")

    async def start(self) -> None:
        """Boot the engine now; nothing to do when it runs.

        Raises:
            EngineError: It could not start; the message has the cause and the remedy.
        """
        await self.internals()

    async def internals(self) -> Internals:
        """The parts of the session, its engine booted.

        Raises:
            InputError: The session is closed.
            EngineError: As `start`.
        """
        return await self._engine.parts()

    async def run(
        self,
        task: str,
        context: Source | Sequence[Source] | Mapping[str, Source] | None = None,
        *,
        limits: Limits | None = None,
        exhaustive: bool = False,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Result:
        """Answer one question about texts.

        Args:
            task: The question.
            context: The texts: one, several, or several by name. `None`: all that was stored.
            limits: Bounds of this question; the configuration's where `None`.
            exhaustive: Let the model rank every chunk, however long the texts are.
            on_progress: Called in the event loop at each change; must be quick.

        Raises:
            InputError: The question or a text can't be used; nothing was started.
            PromptTooLong: The question does not fit the window; nothing was started.
            EngineError: The engine could not start, or died (`EngineDead`). The session goes on:
                the next question starts a new one.
        """
        self.check(task)
        refs = self._refs(context)
        parts = await self.internals()
        self._agents += 1
        agent_id = AgentId(f"a{self._agents}")
        job = Job(limits or Limits(**self.config.limits.model_dump()), on_progress)
        asker = Asker(parts.scheduler, self.layout, job, agent_id)
        kv_tokens = parts.engine.info.kv_tokens
        search = Search(self._corpus, self.config.search, self._recorder, kv_tokens, self._memo)
        started_at_s = self._recorder.now()
        self._recorder.emit(
            AgentStarted(
                at_s=started_at_s,
                agent_id=agent_id,
                parent_id=None,
                depth=0,
                kind="search",
                task_blob=self._recorder.blob(task.encode()),
            )
        )
        reason, found, answer = StopReason.FAILED, None, None
        try:
            result = await search.run(asker, refs, task, exhaustive=exhaustive)
            found = result.found
            answer = result.answer
            shorts = await self._shorts(asker, task, result.answers, parts.engine.info)
            reason = result.stop_reason
        except anyio.get_cancelled_exc_class():
            reason = StopReason.CANCELLED
            raise
        except EngineDead as err:
            reason = StopReason.ENGINE_DEAD
            self._error = err
            await self._engine.drop(parts)
            raise
        finally:
            now = self._recorder.now()
            self._recorder.emit(
                AgentFinished(
                    at_s=now,
                    agent_id=agent_id,
                    stop_reason=reason,
                    found=found,
                    result_blob=None if answer is None else self._recorder.blob(answer.encode()),
                    wall_s=now - started_at_s,
                )
            )
        return self._result(result, shorts, job.usage, agent_id)

    async def close(self) -> None:
        """End the engine and the run's log. Idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        counted = await self._engine.close()
        outcome, code = _end(self._error)
        self._recorder.emit(
            RunFinished(
                at_s=self._recorder.now(),
                outcome=outcome,
                error_code=code,
                engine_prompt_tokens=counted and counted.prompt_tokens,
                engine_cached_tokens=counted and counted.cached_tokens,
                engine_computed_tokens=counted and counted.computed_tokens,
                engine_generated_tokens=counted and counted.generated_tokens,
                engine_preemptions=counted and counted.preemptions,
                wall_s=self._recorder.now(),
            )
        )
        self._recorder.close()

    async def _shorts(
        self, asker: Asker, task: str, answers: Sequence[Passage], info: EngineInfo
    ) -> tuple[ShortForm | None, ...]:
        """The words of each answer that matter, where the engine can choose among them."""
        if not (self.config.search.short_form and info.can_choose):
            return (None,) * len(answers)
        shorts: list[ShortForm | None] = []
        for answer in answers:
            question = answer.part or task
            try:
                short = await short_form(
                    asker, question, answer.text, answer.start_byte, info.window
                )
            except EngineDead:
                raise
            except (EngineError, InputError):
                # A highlight is no reason to lose the answer; the call is in the log as failed.
                short = None
            shorts.append(short)
        return tuple(shorts)

    def _refs(
        self, context: Source | Sequence[Source] | Mapping[str, Source] | None
    ) -> tuple[Ref, ...]:
        if context is None:
            refs = tuple(self.context.get(name).ref for name in self.context.names())
            if not refs:
                raise InputError("There is no text to search.", "Give one as `context`.")
            return refs
        if isinstance(context, Mapping):
            return tuple(self.store(value, name) for name, value in context.items())
        if isinstance(context, str | bytes | Path | Ref):
            return (self.store(context),)
        return tuple(self.store(value) for value in context)

    def _room_for(self, task: str, what: str) -> None:
        """A prompt of `S`, a chunk, the tail and the question must fit the window."""
        window = self.config.engine.window_tokens
        if window is None:
            return
        fixed = len(self.layout.shared_ids) + len(self.layout.tail(TAIL)) + 1
        chunk = self._corpus.max_piece_tokens + self.layout.block_size
        need = fixed + chunk + self._tokenizer.count(task)
        if need <= window:
            return
        if not task:
            raise ConfigError(
                f"{what} need {need:,} tokens, engine.window_tokens is {window:,}.",
                "Use a larger window, or a smaller search.chunk_tokens.",
            )
        raise PromptTooLong(need, window, f"{what} must fit: shorten the question.")

    def _result(
        self,
        result: SearchResult,
        shorts: tuple[ShortForm | None, ...],
        usage: Usage,
        agent_id: AgentId,
    ) -> Result:
        return Result(
            answer=result.answer,
            answers=result.answers,
            shorts=shorts,
            parts=result.parts,
            found=result.found,
            is_uncertain=result.is_uncertain,
            passages=result.passages,
            chunks=result.chunks,
            stop_reason=result.stop_reason,
            usage=usage,
            figures=self.ledger.agent_figures(agent_id),
            pieces=result.pieces,
            ranked=result.ranked,
            agent_id=agent_id,
            run_directory=self.run_directory,
        )


def _identity(file: Path) -> tuple[Path, int, int]:
    """Equal as long as the file is the same and unchanged; zeros for one that is not there."""
    try:
        status = file.stat()
    except OSError:
        return file, 0, 0  # what is wrong with it is said when it is read
    return file.resolve(), status.st_mtime_ns, status.st_size


def _open_recorder(config: Config) -> Recorder:
    if not config.run.keep:
        return Recorder(None)
    return Recorder(config.run.directory or new_run_directory(state_home() / "runs"))


def _end(error: BaseException | None) -> tuple[Literal["ok", "failed", "cancelled"], str | None]:
    if error is None:
        return "ok", None
    if isinstance(error, RLMError) and not isinstance(error, Cancelled):
        return "failed", error.code
    if isinstance(error, KeyboardInterrupt | anyio.get_cancelled_exc_class() | Cancelled):
        return "cancelled", None
    return "failed", type(error).__name__

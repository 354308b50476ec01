"""The session on an event loop: one configuration, one engine, one run directory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, cast

from rlm_runtime.api import recording
from rlm_runtime.api.agents import SessionAgent, make, meant
from rlm_runtime.api.engine_life import EngineLife, Internals
from rlm_runtime.api.leaf_agent import LeafAgent, check_texts
from rlm_runtime.api.planned_agent import PlannedAgent
from rlm_runtime.api.result import Result, Source
from rlm_runtime.api.resuming import finished_calls
from rlm_runtime.api.texts import Sources, Texts
from rlm_runtime.config import Config, load, state_home
from rlm_runtime.engine import model_files
from rlm_runtime.engine.base import EngineInfo
from rlm_runtime.errors import ContextError, EngineDead, InputError
from rlm_runtime.profiler import Ledger
from rlm_runtime.prompt import ChatTemplate, Layout, Tokenizer
from rlm_runtime.scaffold.agent import Agent, check_task, run_agent
from rlm_runtime.scaffold.agent_context import AgentContext
from rlm_runtime.scaffold.choosing import auto
from rlm_runtime.scaffold.corpus import Corpus
from rlm_runtime.scaffold.leaf_calls import LeafAnswer
from rlm_runtime.scaffold.likelihood import ScoreMemo
from rlm_runtime.scaffold.recipes.classify_each import ClassifyEach
from rlm_runtime.scaffold.recipes.map_reduce import MapReduce
from rlm_runtime.scaffold.recipes.plan import Plan
from rlm_runtime.scaffold.recipes.search_agent import (
    SearchAgent,
    check_question,
    check_window,
    texts_of,
)
from rlm_runtime.scaffold.tree import Seat, Tree
from rlm_runtime.scaffold.typed_answer import AnswerType
from rlm_runtime.scheduler import FinishedCalls, Job, Progress
from rlm_runtime.store import ContextStore
from rlm_runtime.store.budget import ReadBudget
from rlm_runtime.types import AgentId, AgentKind, Limits, Ref


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
        resume: The directory of a run that died or was stopped: calls that ask what it had
            finished take its results, and the engine makes the others. Ask the same as then.
        anyway: Resume it although settings, model or version have changed: what still asks the
            same is taken.

    Raises:
        ConfigError: The configuration can't be used.
        ModelError: The model is not prepared, incomplete, or its chat template is unusable.
        TraceError: The run directory can't be made; or the run to be resumed can't be read.
        RunChanged: The run to be resumed was asked with something else.
        InputError: It goes on still.
    """

    def __init__(
        self,
        config: Config | str | Path | None = None,
        *,
        on_stage: Callable[[str], None] | None = None,
        shared_text: str | None = None,
        resume: Path | str | None = None,
        anyway: bool = False,
    ) -> None:
        self.config = config if isinstance(config, Config) else load(config).config
        model = model_files.resolve(self.config.model)
        tokenizer = Tokenizer.from_folder(model.path)
        template = ChatTemplate.from_folder(model.path, tokenizer)
        block_size = self.config.engine.block_size
        self.layout = Layout(tokenizer, template, block_size, shared_text)
        kept = self.config.store
        self._values = ContextStore(
            tokenizer.count,
            spill_bytes=kept.spill_bytes,
            spill_directory=kept.spill_directory or state_home() / "values",
            max_bytes=kept.max_bytes,
        )
        self.ledger = Ledger()
        self._corpus = Corpus(self._values, self.layout, self.config.search.chunk_tokens)
        check_window(self._corpus, self.config.engine.window_tokens)
        self.resumed: FinishedCalls | None = None
        if resume is not None:
            self.resumed = finished_calls(
                Path(resume), self.config, model, self.layout, anyway=anyway
            )
        earlier = None if self.resumed is None else self.resumed.directory
        self._recorder = recording.begin(self.config, self.ledger.add, earlier)
        self._engine = EngineLife(
            self.config, model, self._corpus, self._recorder, on_stage, self.resumed
        )
        self._texts = Texts(self._values, self._recorder)
        self._memo = ScoreMemo()
        self._agents = 0
        self._error: BaseException | None = None
        self._is_closed = False

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
            name: An identifier; without one, made from the file's name, or `text`.

        Raises:
            InputError: It is empty, not text or can't be read; or the name is no identifier. Or
                the session is closed.
            ContextError: It is a reference that this session did not give.
            QuotaExceeded: The store, or the disk behind it, is full.
        """
        self._check_open()
        return self._texts.store(value, name)

    def context(
        self, *, max_tokens_per_read: int | None = None, max_tokens: int | None = None
    ) -> AgentContext:
        """The session's values by name, to read and write, and to give to agents.

        Args:
            max_tokens_per_read: Most tokens of one read, its own and each agent's it is given to.
            max_tokens: Most tokens of all its reads and all of those agents' together. Data of
                leaf calls is no read: it is not counted.
        """
        is_bounded = max_tokens_per_read is not None or max_tokens is not None
        return AgentContext(
            self._values,
            self._recorder,
            budget=ReadBudget(max_tokens_per_read=max_tokens_per_read, max_tokens=max_tokens)
            if is_bounded
            else None,
        )

    def agent(self, kind: Agent | AgentKind | Literal["auto"], **options: Any) -> SessionAgent:
        """An agent of this session, whose `run(task, context)` can be called many times.

        Args:
            kind: Who decides its steps; or an agent.
            options: Of the kind (`rlm_runtime.api.agents.make`).

        Raises:
            InputError: The kind has no such option.
        """
        if isinstance(kind, str) and kind != "auto":
            return SessionAgent(self, make(kind, **options))
        if options:
            raise InputError("Only an agent named by its kind has options.", "Name its kind.")
        return SessionAgent(self, kind)

    def check(self, task: str) -> None:
        """See whether a question can be searched for, before anything is started.

        Raises:
            InputError: It is empty.
            PromptTooLong: It does not fit the window beside a chunk of text.
        """
        check_question(task, self._corpus, self.config.engine.window_tokens)

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
        context: Sources | AgentContext | None = None,
        *,
        agent: Agent | AgentKind | Literal["auto"] | None = None,
        limits: Limits | None = None,
        exhaustive: bool = False,
        on_progress: Callable[[Progress], None] | None = None,
        on_plan: Callable[[Plan], None] | None = None,
    ) -> Result:
        """Work on one task about texts.

        Args:
            task: The question, or what to do.
            context: The texts: one, several, several by name, or a context with values of any
                kind. `None`: all texts that were stored.
            agent: Who works on it; `None` is the configuration's (`agents.kind`).
            limits: Bounds of this task; the configuration's where `None`.
            exhaustive: Let the model rank every chunk, however long the texts are; of a search.
            on_progress: Called in the event loop at each change; must be quick.
            on_plan: Called with what the task can cost at most, before it begins: of `map_reduce`
                and `classify_each`. The texts are measured once more for it.

        Returns:
            What came of it. A limit is no error but its `stop_reason`; so is a plan that is over
            the limits and is not to be cut down to them.

        Raises:
            InputError: The task or a text can't be used, or no agent is meant; nothing was started
                where that shows before.
            ContextError: A reference, or the context, is not this session's.
            PromptTooLong: The task does not fit the window.
            RLMError: Why the agent can't go on.
            EngineError: The engine could not start, or died (`EngineDead`). The session goes on:
                the next task starts a new one.
        """
        self._check_open()
        check_task(task)
        chosen = meant(agent or self.config.agents.kind, task, exhaustive=exhaustive)
        if isinstance(chosen, SearchAgent):
            self.check(task)
        given, texts = self._given(context)
        if isinstance(chosen, SearchAgent):
            chosen = replace(chosen, texts=chosen.texts or texts or texts_of(given))
        parts = await self.internals()
        if chosen is None:
            chosen = self._best(task, given, parts.engine.info)
            if isinstance(chosen, SearchAgent):
                chosen = replace(chosen, texts=texts, exhaustive=exhaustive)
        if on_plan is not None and isinstance(chosen, MapReduce | ClassifyEach):
            chosen = PlannedAgent(chosen, on_plan)
        job = Job(limits or Limits(**self.config.limits.model_dump()), on_progress)
        self._agents += 1
        seat = Seat(self._tree(parts, job, given), AgentId(f"a{self._agents}"))
        own = given.child(seat.agent_id, budget=seat.tree.agent_reads())
        try:
            result = await run_agent(chosen, seat, task, own)
        except EngineDead as err:
            self._error = err
            await self._engine.drop(parts)
            raise
        return Result.of(result, self._values, self.ledger, job.usage, self.run_directory)

    async def llm_map(
        self,
        chunks: Sequence[str],
        questions: Sequence[str],
        *,
        answer_type: object = None,
        choices: Sequence[str] = (),
        max_tokens: int | None = None,
        limits: Limits | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> list[list[LeafAnswer]]:
        """Ask every question about every chunk, as one batch: each chunk is computed once.

        Args:
            chunks: Texts that each fit a prompt; an empty one is no data.
            questions: In words.
            answer_type: What each answer must be: a JSON Schema as a dict, a dataclass, a pydantic
                model, or a type like `list[int]`; `None` is text.
            choices: Each answer is one of these.
            max_tokens: Most tokens of an answer; `None` is `agents.answer_tokens`.
            limits: Bounds of all of it; the configuration's where `None`.
            on_progress: As `run`.

        Returns:
            Item `[i][j]` answers question `j` about chunk `i`: its `value`, or its `error`. One
            that fails does not fail the others.

        Raises:
            InputError: The type is none that can be asked for; or chunks, questions or choices are
                no lists of texts.
            EngineError: As `run`.
        """
        check_texts(chunks=chunks, questions=questions, choices=choices)
        answer = None if answer_type is None else AnswerType.of(answer_type)
        agent = LeafAgent(
            lambda calls: calls.map(
                [chunk or None for chunk in chunks],
                questions,
                answer=answer,
                choices=choices,
                max_tokens=max_tokens,
            )
        )
        task = f"{len(questions)} questions about {len(chunks)} chunks"
        result = await self.run(task, {}, agent=agent, limits=limits, on_progress=on_progress)
        return cast("list[list[LeafAnswer]]", result.detail)  # what a LeafAgent's detail is

    async def llm_query(self, question: str, data: str = "", **options: Any) -> object:
        """Ask one question about a text, or about nothing; options as of `llm_map`.

        Returns:
            The answer: text, or a value of the type asked for.

        Raises:
            RLMError: There is no answer; what is wrong with the question, or what ended it.
        """
        ((answer,),) = await self.llm_map([data], [question], **options)
        if answer.error is not None:
            raise answer.error
        return answer.value

    async def close(self) -> None:
        """End the engine and the run's log. Idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        counted = await self._engine.close()
        recording.end(self._recorder, counted, self._error)

    def _given(
        self, context: Sources | AgentContext | None
    ) -> tuple[AgentContext, tuple[Ref, ...]]:
        """What a task is about: the values it may read, and the texts as they were given."""
        if isinstance(context, AgentContext):
            if not context.is_of(self._values):
                raise ContextError(
                    "The context belongs to another session.", "Make one with this session's."
                )
            return context, ()
        refs = self._texts.refs(context)
        texts = tuple(ref for ref in refs if ref.kind == "str")
        return AgentContext(self._values, self._recorder, visible=refs), texts

    def _check_open(self) -> None:
        if self._is_closed:
            raise InputError("The session is closed.", "Open a new one.")

    def _best(self, task: str, context: AgentContext, info: EngineInfo) -> Agent:
        choice = auto(
            task,
            context,
            self._corpus,
            window=info.window,
            answer_tokens=self.config.agents.answer_tokens,
        )
        return make(choice.kind, **choice.options)

    def _tree(self, parts: Internals, job: Job, context: AgentContext) -> Tree:
        return Tree(
            scheduler=parts.scheduler,
            layout=self.layout,
            job=job,
            recorder=self._recorder,
            corpus=self._corpus,
            info=parts.engine.info,
            config=self.config,
            memo=self._memo,
            reads=ReadBudget(
                max_tokens=self.config.agents.max_tree_read_tokens,
                parent=context.budget,
                owner="tree",
            ),
        )

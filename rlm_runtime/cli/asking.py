"""What `rlm run` does: one session, one engine, question after question."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from rlm_runtime.api import RLM, AsyncRLM, Result
from rlm_runtime.api.agents import KINDS, make
from rlm_runtime.cli import answers, asked, graphing, options, outcomes, progress
from rlm_runtime.cli.command import DONE, FAILED, Document
from rlm_runtime.cli.first_use import get_ready
from rlm_runtime.cli.inputs import STDIN, Source, Text, check_question, sources
from rlm_runtime.cli.interrupts import Terminated
from rlm_runtime.cli.terminal import Terminal, shown_path
from rlm_runtime.errors import EngineDead, InputError, RLMError, TraceError
from rlm_runtime.scaffold.agent import Agent
from rlm_runtime.scaffold.recipes.classify_each import ClassifyEach
from rlm_runtime.scaffold.recipes.labels import check_labels, labels_of
from rlm_runtime.scaffold.recipes.levels import Combine
from rlm_runtime.scaffold.recipes.plan import Over, Plan
from rlm_runtime.scaffold.recipes.search_agent import SearchAgent
from rlm_runtime.scheduler import Progress
from rlm_runtime.types import AgentKind

PROMPT = "question> "

_KIND_OF: dict[str, AgentKind] = {"labels": "classify_each", "combine": "map_reduce"}
_NEED_NO_TEXT = ("auto", "direct", "calls")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What was asked for on the command line.

    Attributes:
        files: Paths, or `-`.
        questions: None is none: they come from the terminal.
        source: `--config`.
        settings: `--set`, each.
        named: Settings with an option of their own, by dotted key.
        agent: The kind of agent; `None` is the configuration's.
        labels: Of `classify_each`, with commas between them.
        combine: Of `map_reduce`.
        over: Of both.
        output: Where the last result is written.
        show: `graph`, or nothing but the answers.
        is_exhaustive: Rank every chunk.
        ttft_pairs: Cold and warm requests to measure at the end.
    """

    files: Sequence[str]
    questions: Sequence[str]
    source: str | None
    settings: Sequence[str]
    named: Mapping[str, object | None]
    agent: str | None
    labels: str | None
    combine: str | None
    over: str | None
    output: Path | None
    show: str | None
    is_exhaustive: bool
    ttft_pairs: int


def ask(wish: Wish, terminal: Terminal, document: Document) -> int:
    """Answer the questions; returns the exit code.

    Everything that can be wrong with them is looked at before the engine boots, most of it before
    anything is written.

    Raises:
        RLMError: The first error; answers before it stand in the document and on stdout.
    """
    config = options.load(wish.source, wish.settings, wish.named).config
    _check_ways(wish, terminal)
    _one_of("--show", wish.show, ("graph",))
    if wish.show and not config.run.keep:
        raise InputError("--show graph reads the run's log, and none is kept.", "Keep the run.")
    agent = chosen(wish, config.agents.kind)
    for question in wish.questions:
        check_question(question)
    given = sources(wish.files)
    if wish.output is not None:
        outcomes.check_output(wish.output, (source.path for source in given))
    get_ready(config, terminal)
    boot = progress.Boot()
    rlm = RLM(config, on_stage=boot.tell)
    return answer(rlm, boot, wish, agent, given, terminal, document)


def answer(
    rlm: RLM,
    boot: progress.Boot,
    wish: Wish,
    agent: Agent | Literal["auto"],
    given: Sequence[Source],
    terminal: Terminal,
    document: Document,
) -> int:
    """Answer the questions in a session, and close it; returns the exit code.

    Args:
        rlm: The session, fresh.
        boot: Hears the stages of its boot.
        wish: What was asked for.
        agent: Who works on it.
        given: The texts, checked.
        terminal: Gets the answers.
        document: Gets the same as facts.

    Raises:
        RLMError: As `ask`.
    """
    session = _Session(rlm, agent, boot, wish, terminal, document)
    try:
        with rlm:
            session.store(given)
            session.check(wish.questions)
            session.keep_asked()
            session.start()
            code = session.answer_all() if wish.questions else session.answer_on()
            session.measure_pairs()
            session.show()
            return code
    finally:
        session.is_over()


def chosen(wish: Wish, default: AgentKind | Literal["auto"]) -> Agent | Literal["auto"]:
    """The agent that the options ask for.

    Raises:
        InputError: There is no such agent, or it has no such option; or it needs a text.
    """
    options = {
        "labels": None if wish.labels is None else _labels(wish.labels),
        "combine": _one_of("--combine", wish.combine, get_args(Combine)),
        "over": _one_of("--over", wish.over, get_args(Over)),
        "exhaustive": wish.is_exhaustive or None,
    }
    given = {name: value for name, value in options.items() if value is not None}
    # An option that only one kind has names that kind.
    implied = [kind for name, kind in _KIND_OF.items() if name in given]
    kinds = ("auto", *KINDS)
    named: AgentKind | Literal["auto"] | None = _one_of("--agent", wish.agent, kinds)
    kind = named or (implied[0] if implied else default)
    if not wish.files and kind not in _NEED_NO_TEXT:
        raise InputError("There is no text.", "Name a file, or - for standard input.")
    if kind != "auto":
        return make(kind, **given)
    if given:
        raise InputError(f"--{min(given)} belongs to an agent.", "Name it with --agent.")
    return "auto"


def _labels(text: str) -> tuple[str, ...]:
    return tuple(label.strip() for label in text.split(","))


def _one_of(option: str, value: str | None, known: Iterable[str]) -> Any:  # Any: a literal type
    if value is not None and value not in known:
        raise InputError(f"{option} {value!r} is not known.", f"One of: {', '.join(known)}.")
    return value


def _check_ways(wish: Wish, terminal: Terminal) -> None:
    if wish.questions:
        return
    if wish.output is not None:
        raise InputError("--output needs a question.", "Give one or more with -q.")
    if terminal.wants_json:
        raise InputError("--json needs a question.", "Give one or more with -q.")
    if STDIN in wish.files or not terminal.can_ask:
        raise InputError(
            "There is no question, and no terminal to ask for one.", "Give one or more with -q."
        )


class _Session:
    """The session and what has come of it."""

    def __init__(
        self,
        rlm: RLM,
        agent: Agent | Literal["auto"],
        boot: progress.Boot,
        wish: Wish,
        terminal: Terminal,
        document: Document,
    ) -> None:
        self._rlm = rlm
        self._agent = agent
        self._boot = boot
        self._wish = wish
        self._terminal = terminal
        self._texts: dict[str, Text] = {}
        self._answered: list[dict[str, object]] = []
        self._ttft: dict[str, float | int | None] = {}
        self._document = document
        self._is_started = False
        document["variables"] = []
        document["questions"] = self._answered
        run_directory = rlm.run_directory
        document["run_directory"] = None if run_directory is None else shown_path(run_directory)

    def store(self, given: Sequence[Source]) -> None:
        variables = []
        for source in given:
            ref = self._rlm.store(source.path or source.text, source.name)
            self._texts[ref.name] = Text(ref, source)
            variables.append(
                {
                    "name": ref.name,
                    "file": source.shown,
                    "size_bytes": ref.size_bytes,
                    "digest": ref.digest,
                }
            )
        self._document["variables"] = variables

    def check(self, questions: Sequence[str]) -> None:
        for question in questions:
            if isinstance(self._agent, SearchAgent):
                self._rlm.check(question)
            elif isinstance(self._agent, ClassifyEach):
                check_labels(self._agent.labels or labels_of(question))

    def keep_asked(self) -> None:
        """So that the run can be resumed; the questions of the terminal stand in its log."""
        if self._rlm.run_directory is not None:
            asked.keep(self._rlm.run_directory, self._wish, self._texts.values())

    def start(self) -> None:
        self._is_started = True
        with self._progress("starting the engine"):
            self._rlm.start()

    def answer_all(self) -> int:
        """The questions of the command line."""
        several = len(self._wish.questions) > 1
        code = DONE
        for number, question in enumerate(self._wish.questions):
            result = self._answer(question)
            code = code or outcomes.exit_code(result)
            self._show(result, f"Q: {question}" if several else "", is_first=number == 0)
        output = self._wish.output
        if output is not None and outcomes.has_result(result):
            outcomes.write(result, output)
            self._terminal.hint(f"result: {shown_path(output)}")
        elif output is not None:
            self._terminal.error(f"There is no result to write to {shown_path(output)}.")
            code = code or FAILED
        return code

    def answer_on(self) -> int:
        """Questions from the terminal, until there are no more.

        An error or an interrupt ends its question only; a second interrupt in a row ends it all.
        """
        # For its effect on `input`: editing and history. Not in every Python.
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401 - as said

        self._terminal.hint(
            "Ask about the text. An empty line or Ctrl-D ends; Ctrl-C ends a question under way."
        )
        was_interrupted = False
        while True:
            try:
                question = input(PROMPT)
                if not question.strip():
                    return DONE
                was_interrupted = False
                check_question(question)
                self._show(self._answer(question), "", is_first=True)
            except EOFError:
                self._terminal.put("")
                return DONE
            except KeyboardInterrupt as err:
                self._terminal.say("")  # the prompt's line ends here
                if was_interrupted or isinstance(err, Terminated):
                    raise
                was_interrupted = True
                self._terminal.interrupts.rearm()
                self._terminal.say("Ctrl-C once more, an empty line or Ctrl-D ends.")
            except TraceError:
                raise  # nothing more can be kept of this session
            except RLMError as err:
                self._terminal.error(str(err))
                if isinstance(err, EngineDead):
                    self._terminal.say("The next question starts a new engine.")

    def measure_pairs(self) -> None:
        """Time to first token, after the questions: a run's own requests wait for each other."""
        pairs = self._wish.ttft_pairs
        if not pairs:
            return
        # Late: numpy and the statistics are for those who measure.
        from rlm_runtime.benchmark import ttft
        from rlm_runtime.benchmark.ttft_result import TtftResult

        async def measure(session: AsyncRLM) -> TtftResult:
            return await ttft.pairs(await session.internals(), pairs, on_sample=on_sample)

        with self._progress("measuring time to first token") as show:

            def on_sample(so_far: TtftResult) -> None:
                done, planned = len(so_far.samples), so_far.planned_samples
                show(progress.State("measuring time to first token", done, planned))

            result = self._rlm.call(measure)
        self._ttft = dict(result.figures())
        self._document["ttft"] = result.detail()
        self._terminal.hint(answers.pairs(result))

    def show(self) -> None:
        """What was asked for beside the answers."""
        directory = self._rlm.run_directory
        if self._wish.show and directory is not None:
            graphing.show_session(directory, self._terminal, self._document)

    def is_over(self) -> None:
        """However it ended, the engine included, whose own counters come with its end."""
        self._document["figures"] = {**self._rlm.ledger.figures(), **self._ttft}
        if self._is_started and self._rlm.run_directory is not None:
            self._terminal.hint(f"run: {shown_path(self._rlm.run_directory)}")

    def _answer(self, question: str) -> Result:
        with self._progress("reading the question") as show:

            def on_progress(now: Progress) -> None:
                if now.stage:
                    show(progress.of_job(now))

            result = self._rlm.run(
                question, agent=self._agent, on_progress=on_progress, on_plan=self._tell_plan
            )
        if result.kind == "search":
            self._answered.append(answers.facts(question, result, self._texts))
        else:
            self._answered.append(outcomes.facts(question, result))
        return result

    def _tell_plan(self, plan: Plan) -> None:
        self._terminal.hint(outcomes.plan(plan))

    def _show(self, result: Result, header: str, *, is_first: bool) -> None:
        terminal = self._terminal
        if not terminal.wants_json:
            lines = [] if is_first else [""]
            lines += [header] if header else []
            is_search = result.kind == "search"
            shown = (
                answers.block(result, self._texts, terminal.strong)
                if is_search
                else outcomes.block(result)
            )
            terminal.put("\n".join([*lines, shown]))
        terminal.hint(answers.cost(result))
        caveat = answers.caveat(result) if result.kind == "search" else outcomes.caveat(result)
        if caveat:
            (terminal.say if outcomes.is_partial(result) else terminal.hint)(caveat)

    @contextlib.contextmanager
    def _progress(self, first: str) -> Iterator[progress.Show]:
        with progress.shown(self._terminal, first) as show:
            self._boot.show = show
            try:
                yield show
            finally:
                self._boot.show = None

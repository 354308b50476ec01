"""What `rlm-bench run many-questions` does between its options and its results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rlm_runtime.api import AsyncRLM
from rlm_runtime.benchmark.many_questions import measure
from rlm_runtime.benchmark.many_questions_result import ManyQuestionsResult, Order
from rlm_runtime.benchmark.many_questions_text import document_text
from rlm_runtime.benchmark.results import Measurement
from rlm_runtime.benchmark.run_report import run_measurement
from rlm_runtime.cli import options
from rlm_runtime.cli.command import Document
from rlm_runtime.cli.terminal import Terminal
from rlm_runtime.cli.workload_run import Tell, Wish, run_workload
from rlm_runtime.errors import ConfigError
from rlm_runtime.profiler import RunLog


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The measurement that was asked for, as `measure` takes it; `tokens` of the document."""

    questions: int
    tokens: int
    orders: tuple[Order, ...]
    repeats: int
    seed: int


def run(
    asked: Asked,
    out: Path | None,
    source: str | None,
    settings: Sequence[str],
    named: Mapping[str, object | None],
    terminal: Terminal,
    document: Document,
) -> int:
    """Measure, show and write down; returns the exit code.

    Raises:
        ConfigError: The configuration keeps no log of the run.
        RLMError: It ended early. What was measured before is shown and written all the same.
    """
    if not options.load(source, settings, named).config.run.keep:
        raise ConfigError(
            "This workload's figures come from the run's log, and run.keep is false.",
            "Leave run.keep out.",
        )

    async def ask(session: AsyncRLM, tell: Tell) -> None:
        text = document_text(asked.tokens, asked.seed, session.layout.tokenizer.count)
        await measure(
            await session.internals(),
            session.store(text, "reference"),
            questions=asked.questions,
            orders=asked.orders,
            seed=asked.seed,
            repeats=asked.repeats,
            on_call=tell,
        )

    wish = Wish(
        benchmark="many-questions",
        what="asking",
        out=out,
        source=source,
        settings=settings,
        named=named,
        conclude=_conclude,
    )
    return run_workload(wish, ask, terminal, document)


def _conclude(measured: Measurement, log: RunLog) -> tuple[Measurement, ...]:
    """The whole run's figures first, then those of the orders, which come from its log too."""
    if not isinstance(measured, ManyQuestionsResult):
        raise TypeError(f"not a result of this workload: {measured!r}")
    return run_measurement(log), replace(measured, log=log)

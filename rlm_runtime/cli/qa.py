"""`rlm-bench run qa`: questions with ground truth over a real text."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlm_runtime.cli.command import EXIT_CODES, Command, Document
from rlm_runtime.cli.options import (
    ArmsOption,
    ConfigOption,
    JsonOption,
    ModelOption,
    OutOption,
    QuietOption,
    SetOption,
)
from rlm_runtime.errors import InputError

if TYPE_CHECKING:
    from rlm_runtime.cli.terminal import Terminal

EPILOG = f"""\b
Examples:
  rlm-bench run qa --cases 12
  rlm-bench run qa --half test --arms both,bm25 --json

{EXIT_CODES}"""


class Half(StrEnum):
    """Which half of the questions."""

    TUNE = "tune"
    TEST = "test"


Cases = Annotated[
    int | None,
    typer.Option(
        "--cases",
        metavar="N",
        min=1,
        help="Questions, the kinds in proportion; about 25 s each on two CPU cores.",
        show_default="all, 72",
    ),
]
Which = Annotated[
    Half, typer.Option("--half", help="tune: for making choices; test: for reporting.")
]
Seed = Annotated[
    int, typer.Option("--seed", metavar="N", help="Places the sentences that are planted.")
]
SharedPrefix = Annotated[
    Path | None,
    typer.Option(
        "--shared-prefix",
        metavar="FILE",
        help="Another system text, to compare it with the one that ships.",
        show_default="the one that ships",
    ),
]


def qa(
    cases: Cases = None,
    half: Which = Half.TUNE,
    arms: ArmsOption = None,
    seed: Seed = 0,
    shared_prefix: SharedPrefix = None,
    out: OutOption = None,
    model: ModelOption = None,
    config: ConfigOption = None,
    settings: SetOption = None,
    wants_json: JsonOption = False,
    quiet: QuietOption = False,
) -> Command:
    """Ask questions about Python's language reference, and count what is found.

    Each question is answered in several ways, beside each other. Those that rank do so with every
    chunk, so that one run shows what word search, the model's likelihood and both together find;
    then which sentence is quoted, and how sure it is. Kinds of questions apart.
    """

    def work(terminal: Terminal, document: Document) -> int:
        # Late: the session with all that it is made of.
        from rlm_runtime.api import AsyncRLM
        from rlm_runtime.benchmark.arms import Arm, parse_arms
        from rlm_runtime.benchmark.qa import measure
        from rlm_runtime.benchmark.qa_result import QaResult
        from rlm_runtime.cli.workload_run import Tell, Wish, run_workload

        chosen = tuple(Arm) if arms is None else parse_arms(arms)

        async def ask(session: AsyncRLM, tell: Tell) -> None:
            def on_answer(so_far: QaResult) -> None:
                tell(so_far, len(so_far.cases), so_far.planned)

            await measure(
                await session.internals(),
                session.config,
                session.store,
                half=half.value,
                seed=seed,
                arms=chosen,
                cases=cases,
                on_answer=on_answer,
            )

        wish = Wish(
            benchmark="qa",
            what="asking",
            out=out,
            source=config,
            settings=settings or (),
            named={"model": model},
            shared_text=None if shared_prefix is None else _text(shared_prefix),
        )
        return run_workload(wish, ask, terminal, document)

    return Command(work, wants_json=wants_json, is_quiet=quiet)


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as err:
        raise InputError(f"{file} can't be read: {err}.", "Name a text file.") from err

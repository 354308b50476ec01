"""`rlm-bench run`: a workload with ground truth."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlm_runtime.cli.command import DONE, EXIT_CODES, Command, Document
from rlm_runtime.cli.options import ConfigOption, JsonOption, ModelOption, QuietOption, SetOption
from rlm_runtime.errors import InputError

if TYPE_CHECKING:
    from rlm_runtime.cli.terminal import Terminal

EPILOG = f"""\b
Examples:
  rlm-bench run qa --cases 12
  rlm-bench run qa --half test --json

{EXIT_CODES}"""


class Workload(StrEnum):
    """What can be run."""

    QA = "qa"


class Half(StrEnum):
    """Which half of the questions."""

    TUNE = "tune"
    TEST = "test"


Name = Annotated[
    Workload,
    typer.Argument(help="qa: questions over Python's language reference, 110,000 tokens."),
]
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
Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="DIR",
        help="Where result.json and result.md go.",
        show_default="the run directory",
    ),
]


def run(
    workload: Name,
    cases: Cases = None,
    half: Which = Half.TUNE,
    seed: Seed = 0,
    shared_prefix: SharedPrefix = None,
    out: Out = None,
    model: ModelOption = None,
    config: ConfigOption = None,
    settings: SetOption = None,
    wants_json: JsonOption = False,
    quiet: QuietOption = False,
) -> Command:
    """Ask questions whose answers are known, and count what is found.

    Every chunk is ranked, so that one run shows what word search, the model's likelihood and both
    together find; then which sentence is quoted, and how sure it is. Kinds of questions apart.
    """

    def work(terminal: Terminal, document: Document) -> int:
        # Late: the session with all that it is made of.
        from rlm_runtime.api import RLM, AsyncRLM, Internals
        from rlm_runtime.benchmark import qa
        from rlm_runtime.benchmark.qa_result import QaResult
        from rlm_runtime.benchmark.results import report
        from rlm_runtime.cli import options, progress, results
        from rlm_runtime.cli.first_use import get_ready
        from rlm_runtime.cli.terminal import shown_path
        from rlm_runtime.config import config_digest

        config_tree = options.load(config, settings or (), {"model": model}).config
        if out is not None:
            results.make(out)
        text = None if shared_prefix is None else _text(shared_prefix)
        get_ready(config_tree, terminal)
        boot = progress.Boot()
        parts: list[Internals] = []
        done: list[QaResult] = []
        with RLM(config_tree, on_stage=boot.tell, shared_text=text) as rlm:
            document["run_directory"] = rlm.run_directory and shown_path(rlm.run_directory)
            try:
                with progress.shown(terminal, "starting the engine") as show:
                    boot.show = show

                    def on_case(so_far: QaResult) -> None:
                        done[:] = [so_far]
                        show(progress.State("asking", len(so_far.cases), so_far.planned))

                    async def measure(session: AsyncRLM) -> None:
                        parts.append(await session.internals())
                        await qa.measure(
                            session, half=half.value, seed=seed, cases=cases, on_case=on_case
                        )

                    rlm.call(measure)
            finally:
                # What was measured before an interrupt is shown and written all the same.
                if done:
                    made = report("qa", done, parts[0], config_digest(config_tree))
                    document |= made.document()
                    # Written before shown: whoever reads the output may be gone.
                    files = results.write(made, out or rlm.run_directory, terminal)
                    document["files"] = [shown_path(file) for file in files]
                    results.show(made, terminal)
                    if files:
                        terminal.hint("written: " + ", ".join(shown_path(file) for file in files))
        return DONE

    return Command(work, wants_json=wants_json, is_quiet=quiet)


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as err:
        raise InputError(f"{file} can't be read: {err}.", "Name a text file.") from err

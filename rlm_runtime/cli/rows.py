"""`rlm-bench run rows`: one label for each of many rows, and how many there are of each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from rlm_runtime.cli.command import EXIT_CODES, Command, Document
from rlm_runtime.cli.options import (
    ConfigOption,
    JsonOption,
    ModelOption,
    OutOption,
    QuietOption,
    SetOption,
)

if TYPE_CHECKING:
    from rlm_runtime.cli.terminal import Terminal

EPILOG = f"""\b
Examples:
  rlm-bench run rows
  rlm-bench run rows --rows 100 --seed 3 --json

{EXIT_CODES}"""

Rows = Annotated[
    int, typer.Option("--rows", metavar="N", min=1, max=10_000, help="Rows to be labelled.")
]
Seed = Annotated[int, typer.Option("--seed", metavar="N", help="Of the rows.")]


def rows(
    rows: Rows = 500,
    seed: Seed = 0,
    out: OutOption = None,
    model: ModelOption = None,
    config: ConfigOption = None,
    settings: SetOption = None,
    wants_json: JsonOption = False,
    quiet: QuietOption = False,
) -> Command:
    """Give each of many rows one of five labels, and count them.

    The recipe classify_each asks about each row and lets the model choose among the labels only.
    Beside it: the same calls with free answers, and one call that is shown as many rows as fit the
    window and asked for all counts. The truth is known, so labels and counts are both judged.
    """

    def work(terminal: Terminal, document: Document) -> int:
        # Late: the session with all that it is made of.
        from rlm_runtime.api import AsyncRLM
        from rlm_runtime.benchmark.rows import measure
        from rlm_runtime.cli.workload_run import Tell, Wish, run_workload

        async def ask(session: AsyncRLM, tell: Tell) -> None:
            await measure(session, rows=rows, seed=seed, on_call=tell)

        wish = Wish(
            benchmark="rows",
            what="labelling rows",
            out=out,
            source=config,
            settings=settings or (),
            named={"model": model},
        )
        return run_workload(wish, ask, terminal, document)

    return Command(work, wants_json=wants_json, is_quiet=quiet)

"""`rlm resume`: go on with a run that died."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlm_runtime.cli.command import EXIT_CODES, Command, Document
from rlm_runtime.cli.options import JsonOption, QuietOption

if TYPE_CHECKING:
    from rlm_runtime.cli.terminal import Terminal

EPILOG = f"""\b
Examples:
  rlm resume last
  rlm resume 20260101T120000.000000Z-1a2b3c --json
  rlm resume RUN --anyway

{EXIT_CODES}"""

Run = Annotated[
    str | None,
    typer.Argument(
        metavar="RUN",
        help='A run directory of `rlm run`, the id of a run in the state directory, or "last" for '
        "the newest of these.",
        show_default=False,
    ),
]
Anyway = Annotated[
    bool,
    typer.Option(
        "--anyway",
        help="Go on although a text, a setting, the model or the version has changed: calls that "
        "still ask the same are taken, the others are made.",
    ),
]
RunDir = Annotated[
    Path | None,
    typer.Option(
        "--run-dir",
        metavar="DIR",
        help="Where this run is written; it can be resumed, too.",
        show_default="a new one in the state directory",
    ),
]


def resume(
    run: Run = None,
    anyway: Anyway = False,
    run_dir: RunDir = None,
    wants_json: JsonOption = False,
    quiet: QuietOption = False,
) -> Command:
    """Go on with a run that was killed, interrupted, or failed.

    What it was asked is asked once more, with its settings. Calls that it had finished are taken
    from its log, and the engine makes the others; both are counted at the end. Limits count the
    calls that are taken, too, but time begins anew.

    Batches are put together differently than without the break: where a model's choice was a near
    tie, what comes after it may differ. A run that goes on still is refused.
    """

    def work(terminal: Terminal, document: Document) -> int:
        # Late: the session with all that it is made of.
        from rlm_runtime.cli.resuming import resume_run

        return resume_run(run, terminal, document, is_anyway=anyway, run_directory=run_dir)

    return Command(work, wants_json=wants_json, is_quiet=quiet)

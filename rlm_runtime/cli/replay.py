"""`rlm replay`: a recorded run's calls through the engine once more."""

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
  rlm replay last
  rlm replay RUN --json --run-dir replayed
  rlm-bench report replayed

{EXIT_CODES}"""

Run = Annotated[
    str | None,
    typer.Argument(
        metavar="RUN",
        help='A run directory, its events.jsonl, the id of a run in the state directory, or "last" '
        "for the newest of these.",
        show_default=False,
    ),
]
Top = Annotated[
    int, typer.Option("--top", metavar="N", min=0, help="Calls shown of those that differ.")
]
RunDir = Annotated[
    Path | None,
    typer.Option(
        "--run-dir",
        metavar="DIR",
        help="Where the replay is written, a run like any other.",
        show_default="a new one in the state directory",
    ),
]


def replay(
    run: Run = None,
    top: Top = 10,
    run_dir: RunDir = None,
    wants_json: JsonOption = False,
    quiet: QuietOption = False,
) -> Command:
    """Drive a recorded run through the engine once more and say where it differs.

    The same prompts, the same generated ids (given, not chosen), in the same order and beside the
    same others, with the run's settings. What is compared is what the engine did: tokens it took
    from its cache, and tokens it computed.

    No agent runs, and nothing is answered. Calls that were cancelled or failed are left out.
    """

    def work(terminal: Terminal, document: Document) -> int:
        # Late: the session with all that it is made of.
        from rlm_runtime.cli.replaying import replay_run

        return replay_run(run, terminal, document, top=top, run_directory=run_dir)

    return Command(work, wants_json=wants_json, is_quiet=quiet)

"""`rlm graph`: who read and wrote what in a recorded run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from rlm_runtime.cli.command import EXIT_CODES, Command, Document
from rlm_runtime.cli.options import JsonOption, QuietOption

if TYPE_CHECKING:
    from rlm_runtime.cli.terminal import Terminal

EPILOG = f"""\b
Examples:
  rlm graph last
  rlm graph RUN --value summary
  rlm graph RUN --value summary@2 --json
  rlm graph RUN --mermaid > run.mmd

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
Value = Annotated[
    str | None,
    typer.Option(
        "--value",
        metavar="NAME",
        help="Only about this value: what it depends on, who read it, what would change with it. "
        "NAME@2 is its second version.",
        show_default="all agents and values",
    ),
]
Mermaid = Annotated[bool, typer.Option("--mermaid", help="Print it as a Mermaid flowchart.")]


def graph(
    run: Run = None,
    value: Value = None,
    mermaid: Mermaid = False,
    wants_json: JsonOption = False,
    quiet: QuietOption = False,
) -> Command:
    """Show which agent read and wrote which value in a recorded run.

    A value's tree tells what its writer had read when it wrote it, and so on down to what was
    given. Agents may also learn by words: a sub-agent from its task, its parent from its result.
    What came only that way is marked "perhaps".

    A run that died, or is still running, is shown as far as its log goes.
    """

    def work(terminal: Terminal, document: Document) -> int:
        # Late: the profiler.
        from rlm_runtime.cli.graphing import show_run

        return show_run(run, value, terminal, document, as_mermaid=mermaid)

    return Command(work, wants_json=wants_json, is_quiet=quiet)

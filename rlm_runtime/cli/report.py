"""`rlm-bench report`: what a recorded run computed, and why."""

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
  rlm-bench report ~/.local/state/rlm-vllm/runs/20260101T120000.000000Z-1a2b3c
  rlm-bench report RUN --json --out report

{EXIT_CODES}"""

Run = Annotated[Path, typer.Argument(metavar="RUN", help="A run directory, or its events.jsonl.")]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="DIR",
        help="Where report.json, report.md and the plots go.",
        show_default="the run directory",
    ),
]


def report(
    run: Run, out: Out = None, wants_json: JsonOption = False, quiet: QuietOption = False
) -> Command:
    """Report a recorded run from its event log alone: what was computed, and why.

    Computed tokens a task lead, and the hit rate against what a cache without limit would have
    served; a raw hit rate says little alone. The causes of computed tokens add up. The engine's own
    counters stand beside the log's sums: they have to be equal.

    A run that died, or is still running, is reported as far as its log goes.
    """

    def work(terminal: Terminal, document: Document) -> int:
        # Late: numpy and the profiler.
        from rlm_runtime.cli.reporting import report_run

        return report_run(run, out, terminal, document)

    return Command(work, wants_json=wants_json, is_quiet=quiet)

"""`rlm-bench compare`: what changed between two results of the same benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlm_runtime.cli.command import DONE, EXIT_CODES, Command, Document
from rlm_runtime.cli.options import JsonOption, QuietOption

if TYPE_CHECKING:
    from rlm_runtime.cli.terminal import Terminal

EPILOG = f"""\b
Examples:
  rlm-bench compare before/result.json after/result.json
  rlm-bench compare before after --json

{EXIT_CODES}"""

First = Annotated[
    Path,
    typer.Argument(metavar="A", help="What to compare with: result.json, or its directory."),
]
Second = Annotated[Path, typer.Argument(metavar="B", help="What to compare, likewise.")]
Force = Annotated[
    bool, typer.Option("--force", help="Compare although settings differ; the output says which.")
]


def compare(
    a: First,
    b: Second,
    force: Force = False,
    wants_json: JsonOption = False,
    quiet: QuietOption = False,
) -> Command:
    """Compare two results: each figure of B against that of A.

    Counts and times as ratios B / A, quality and other shares as differences B - A in points.
    95 % intervals stand where the results hold samples: requests are resampled, questions are
    paired. A verdict is "unclear" where the interval holds "no change", or a time was measured
    once.

    Results of different benchmarks, models, workloads, seeds, sizes, machines or configurations
    are refused: what differs is named.
    """

    def work(terminal: Terminal, document: Document) -> int:
        # Late: numpy.
        from rlm_runtime.benchmark import compare as comparing
        from rlm_runtime.benchmark.result_file import read_result
        from rlm_runtime.cli import results

        made = comparing.compare(read_result(a), read_result(b), is_forced=force)
        document |= made.document() | {"notes": made.notes()}
        results.show_tables(made.tables(), made.notes(), terminal)
        return DONE

    return Command(work, wants_json=wants_json, is_quiet=quiet)

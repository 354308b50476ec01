"""`rlm-bench ttft`: what the shared prefix and batching save on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlm_runtime.cli.command import EXIT_CODES, Command, Document
from rlm_runtime.cli.options import ConfigOption, JsonOption, ModelOption, QuietOption, SetOption

if TYPE_CHECKING:
    from rlm_runtime.cli.terminal import Terminal

EPILOG = f"""\b
Examples:
  rlm-bench ttft
  rlm-bench ttft --samples 5 --batch-repeats 0 --json

{EXIT_CODES}"""

Samples = Annotated[
    int,
    typer.Option(
        "--samples",
        metavar="N",
        min=1,
        help="Requests of each series; about 5 s for one of each on two CPU cores.",
    ),
]
BatchRepeats = Annotated[
    int,
    typer.Option(
        "--batch-repeats",
        metavar="N",
        min=0,
        help="Runs of each way to make 16 sub-calls; about 60 s each on two CPU cores, "
        "0 leaves them out.",
    ),
]
Seed = Annotated[
    int, typer.Option("--seed", metavar="N", help="Of the prompts' texts and of the order.")
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="DIR",
        help="Where result.json, result.md, ttft.png and batching.png go.",
        show_default="the run directory",
    ),
]


def ttft(
    samples: Samples = 20,
    batch_repeats: BatchRepeats = 5,
    seed: Seed = 0,
    out: Out = None,
    model: ModelOption = None,
    config: ConfigOption = None,
    settings: SetOption = None,
    wants_json: JsonOption = False,
    quiet: QuietOption = False,
) -> Command:
    """Measure time to first token, one request at a time, and what batching saves.

    "cold": nothing is cached. "warm": the shared prefix is. "variable": names and earlier results
    stand on top of the prompt, so that it can't be shared. Ratios come first, with 95 % intervals;
    milliseconds belong to this machine. What was measured before an interrupt is kept.
    """

    def work(terminal: Terminal, document: Document) -> int:
        # Late: numpy and the session with all that it is made of.
        from rlm_runtime.cli.measuring import Wish, measure

        wish = Wish(
            samples=samples,
            batch_repeats=batch_repeats,
            seed=seed,
            out=out,
            source=config,
            settings=settings or (),
            named={"model": model},
        )
        return measure(wish, terminal, document)

    return Command(work, wants_json=wants_json, is_quiet=quiet)

"""`rlm-bench run calls`: agents whose every step the model decides."""

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
  rlm-bench run calls
  rlm-bench run calls --turns 50 --set limits.max_turns=8 --json

{EXIT_CODES}"""

Turns = Annotated[
    int,
    typer.Option(
        "--turns",
        metavar="N",
        min=1,
        help="Turns to be made; agents that are at work then go on to their end.",
    ),
]
Seed = Annotated[int, typer.Option("--seed", metavar="N", help="Of the tasks.")]


def calls(
    turns: Turns = 200,
    seed: Seed = 0,
    out: OutOption = None,
    model: ModelOption = None,
    config: ConfigOption = None,
    settings: SetOption = None,
    wants_json: JsonOption = False,
    quiet: QuietOption = False,
) -> Command:
    """Let agents work on small tasks by calls that the model writes, many agents at once.

    Each task is to store something, to find a number in a text, or to return a value, and has one
    right result. Told are the turns that were legal calls, the errors they met, how many agents
    ended with FINAL, and how many of these with the right result.
    """

    def work(terminal: Terminal, document: Document) -> int:
        # Late: the session with all that it is made of.
        from rlm_runtime.api import AsyncRLM
        from rlm_runtime.benchmark.calls import measure
        from rlm_runtime.cli.workload_run import Tell, Wish, run_workload

        async def ask(session: AsyncRLM, tell: Tell) -> None:
            await measure(session, turns=turns, seed=seed, on_turn=tell)

        wish = Wish(
            benchmark="calls",
            what="turns of agents",
            out=out,
            source=config,
            settings=settings or (),
            named={"model": model},
        )
        return run_workload(wish, ask, terminal, document)

    return Command(work, wants_json=wants_json, is_quiet=quiet)

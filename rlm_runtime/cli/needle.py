"""`rlm-bench run needle`: invented facts hidden in long texts."""

from __future__ import annotations

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

if TYPE_CHECKING:
    from rlm_runtime.cli.terminal import Terminal

QUICK_SIZES, QUICK_CASES = "16k", 2
FULL_SIZES, FULL_CASES = "16k,64k,256k,1M", 10

EPILOG = f"""\b
Examples:
  rlm-bench run needle
  rlm-bench run needle --tokens 64k,1M --cases 5 --arms both,bm25
  rlm-bench run needle --full --json

{EXIT_CODES}"""

Tokens = Annotated[
    str | None,
    typer.Option(
        "--tokens",
        metavar="SIZES",
        help="Sizes of the texts, with commas between them; k is 1,024 tokens, M 1,024 k.",
        show_default=QUICK_SIZES,
    ),
]
Cases = Annotated[
    int | None,
    typer.Option(
        "--cases",
        metavar="N",
        min=1,
        help="Questions of each of the five kinds and each size, at most 12.",
        show_default=str(QUICK_CASES),
    ),
]
Full = Annotated[
    bool,
    typer.Option(
        "--full",
        help=f"All sizes ({FULL_SIZES}) with {FULL_CASES} questions of a kind, where --tokens and "
        "--cases say nothing else: about 2 hours on two CPU cores.",
    ),
]
Seed = Annotated[int, typer.Option("--seed", metavar="N", help="Of the texts and the facts.")]


def needle(
    tokens: Tokens = None,
    cases: Cases = None,
    full: Full = False,
    arms: ArmsOption = None,
    seed: Seed = 0,
    out: OutOption = None,
    model: ModelOption = None,
    config: ConfigOption = None,
    settings: SetOption = None,
    wants_json: JsonOption = False,
    quiet: QuietOption = False,
) -> Command:
    """Hide invented facts at all depths of long texts, ask for them, and count what is found.

    Questions share words with the fact, avoid them, ask for two facts, or ask what the text does
    not say. Half of a text ships with Python, half is made up of papers that are nearly alike.
    Without options a few minutes on two CPU cores. What was had before an interrupt is kept.
    """

    def work(terminal: Terminal, document: Document) -> int:
        # Late: the session with all that it is made of.
        from rlm_runtime.api import AsyncRLM
        from rlm_runtime.benchmark.arms import Arm, parse_arms
        from rlm_runtime.benchmark.needle import NeedleProgress, check, measure, parse_sizes
        from rlm_runtime.benchmark.needle_result import NeedleResult
        from rlm_runtime.cli.workload_run import Tell, Wish, run_workload

        sizes = parse_sizes(tokens or (FULL_SIZES if full else QUICK_SIZES))
        count = cases or (FULL_CASES if full else QUICK_CASES)
        chosen = tuple(Arm) if arms is None else parse_arms(arms)
        check(sizes, count, chosen)

        async def ask(session: AsyncRLM, tell: Tell) -> None:
            def on_answer(so_far: NeedleResult, at: NeedleProgress) -> None:
                detail = f"{at.size} tokens, answer {at.answers} of {at.planned_answers}"
                tell(so_far, at.done_tokens, at.planned_tokens, detail)

            await measure(
                await session.internals(),
                session.config,
                session.store,
                sizes=sizes,
                cases=count,
                seed=seed,
                arms=chosen,
                on_answer=on_answer,
            )

        wish = Wish(
            benchmark="needle",
            what="asking, in tokens",
            out=out,
            source=config,
            settings=settings or (),
            named={"model": model},
        )
        return run_workload(wish, ask, terminal, document)

    return Command(work, wants_json=wants_json, is_quiet=quiet)

"""`rlm-bench explain`: why a recorded run's tokens were computed, call by call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from rlm_runtime.cli.command import EXIT_CODES, Command, Document
from rlm_runtime.cli.options import JsonOption, QuietOption

if TYPE_CHECKING:
    from rlm_runtime.cli.terminal import Terminal

EPILOG = f"""\b
Kinds of differences:
  template         control tokens, or the chat template's own text
  rejoined_text    equal text as other tokens: joined as text and tokenised again
  data_after_task  the same data behind differing instructions
  varying_value    a date, counter, name or path in front of equal text
  other            none of these

\b
Examples:
  rlm-bench explain last
  rlm-bench explain 20260101T120000.000000Z-1a2b3c --top 10
  rlm-bench explain RUN --json --no-text

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
    int,
    typer.Option("--top", metavar="N", min=0, help="Calls shown for each cause and each break."),
]
NoText = Annotated[
    bool, typer.Option("--no-text", help="Leave out the texts around a break; places stay.")
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="MODEL",
        help="Whose tokenizer reads the prompts: the run's model, by name or folder.",
        show_default="found by the name in the log",
    ),
]


def explain(
    run: Run = None,
    top: Top = 3,
    no_text: NoText = False,
    model: Model = None,
    wants_json: JsonOption = False,
    quiet: QuietOption = False,
) -> Command:
    """Explain why a recorded run's tokens were computed and not taken from the cache.

    Each cause with its tokens, the calls behind it and what can be done. Where the same tokens had
    been computed behind another prefix: the first token that differs, the text around it in both
    prompts, and what kind of difference it is.

    Texts are shown where the run's model is on this machine, else token ids.
    """

    def work(terminal: Terminal, document: Document) -> int:
        # Late: numpy, the profiler and tokenizers.
        from rlm_runtime.cli.explaining import explain_run

        return explain_run(run, terminal, document, top=top, shows_text=not no_text, model=model)

    return Command(work, wants_json=wants_json, is_quiet=quiet)

"""`rlm run`: questions about texts."""

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
  rlm run REPORT.txt -q "Who signed it?"
  rlm run A.txt B.txt -q "Who signed it?" -q "And when?" --json
  curl -s URL | rlm run - -q "What is it about?" --max-seconds 60
  rlm run REPORT.txt            # keeps asking on the terminal

{EXIT_CODES}"""

Files = Annotated[
    list[str],
    typer.Argument(metavar="FILE", help="UTF-8 texts; - is standard input.", show_default=False),
]
Questions = Annotated[
    list[str] | None,
    typer.Option(
        "-q",
        "--question",
        metavar="QUESTION",
        help="A question about all the texts; repeated ones share one engine and its cache.",
        show_default="asked for on the terminal",
    ),
]
Exhaustive = Annotated[
    bool,
    typer.Option(
        "--exhaustive",
        help="Let the model rank every chunk. Otherwise, of texts longer than "
        "search.max_ranked_tokens, word search (BM25) picks the chunks.",
    ),
]
MaxTokens = Annotated[
    int | None,
    typer.Option(
        "--max-tokens",
        metavar="N",
        help="Tokens a question may compute and generate; those from the cache are free.",
        show_default="no limit",
    ),
]
MaxCalls = Annotated[
    int | None,
    typer.Option(
        "--max-calls",
        metavar="N",
        help="Engine requests a question may make.",
        show_default="no limit",
    ),
]
MaxSeconds = Annotated[
    float | None,
    typer.Option(
        "--max-seconds",
        metavar="SECONDS",
        help="Wall time a question may take, the engine's boot not counted.",
        show_default="no limit",
    ),
]
RunDir = Annotated[
    Path | None,
    typer.Option(
        "--run-dir",
        metavar="DIR",
        help="Where the run is written: events, prompts, values.",
        show_default="a new one in the state directory",
    ),
]
NoKeep = Annotated[bool, typer.Option("--no-keep", help="Write nothing of the run.")]
TtftPairs = Annotated[
    int,
    typer.Option(
        "--ttft-pairs",
        metavar="N",
        min=0,
        help="At the end, measure time to first token: N cold and N warm requests, run alone.",
    ),
]


def run(
    files: Files,
    question: Questions = None,
    exhaustive: Exhaustive = False,
    max_tokens: MaxTokens = None,
    max_calls: MaxCalls = None,
    max_seconds: MaxSeconds = None,
    model: ModelOption = None,
    config: ConfigOption = None,
    settings: SetOption = None,
    run_dir: RunDir = None,
    no_keep: NoKeep = False,
    ttft_pairs: TtftPairs = 0,
    wants_json: JsonOption = False,
    quiet: QuietOption = False,
) -> Command:
    """Answer questions about texts of any length, by quoting them.

    stdout is the answer: the sentence, verbatim, and where it stands: bytes A-B of the file, B
    not included. "uncertain:" marks one that wrong answers often look like, and "Not found" says
    that nothing in the texts answers the question. stderr is progress, and what a question cost.

    Without -q it keeps asking on the terminal: an empty line or Ctrl-D ends, Ctrl-C ends only the
    question under way.

    The first use prepares the default model: it says beforehand how much it downloads, and where
    to. Without a network, see `rlm model add --help`.
    """
    named = {
        "model": model,
        "limits.max_tokens": max_tokens,
        "limits.max_calls": max_calls,
        "limits.max_seconds": max_seconds,
        "run.directory": run_dir,
        "run.keep": False if no_keep else None,
    }

    def work(terminal: Terminal, document: Document) -> int:
        # Late: the session with all that it is made of.
        from rlm_runtime.cli.asking import Wish, ask

        wish = Wish(
            files=files,
            questions=question or (),
            source=config,
            settings=settings or (),
            named=named,
            is_exhaustive=exhaustive,
            ttft_pairs=ttft_pairs,
        )
        return ask(wish, terminal, document)

    return Command(work, wants_json=wants_json, is_quiet=quiet)

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
  rlm run REPORT.txt --agent map_reduce -q "Summarise this in one sentence."
  rlm run rows.csv --labels praise,complaint -q "Is this praise or a complaint?"

{EXIT_CODES}"""

Files = Annotated[
    list[str] | None,
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
AgentOption = Annotated[
    str | None,
    typer.Option(
        "--agent",
        metavar="KIND",
        help="Who works on it. search quotes the sentence that answers. direct puts the texts into "
        "one prompt. map_reduce asks of each chunk and combines. classify_each gives each row one "
        "label and counts. calls lets the model read, ask and store by calls. auto chooses.",
        show_default="the configuration's",
    ),
]
Labels = Annotated[
    str | None,
    typer.Option(
        "--labels",
        metavar="A,B,...",
        help="Of classify_each: what each row can be.",
        show_default="those that the question names",
    ),
]
Combine = Annotated[
    str | None,
    typer.Option(
        "--combine",
        metavar="model|join",
        help="Of map_reduce: the model combines the results of the chunks in levels, or they are "
        "joined as they are, for results in which every part must appear.",
        show_default="model",
    ),
]
Over = Annotated[
    str | None,
    typer.Option(
        "--over",
        metavar="refuse|shrink",
        help="Of map_reduce and classify_each, with a limit below what they may cost: do nothing, "
        "or leave out chunks or rows from the end.",
        show_default="refuse",
    ),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        metavar="FILE",
        help="Write the last question's result there: text as it is, anything else as JSON.",
        show_default="none",
    ),
]
MaxDepth = Annotated[
    int | None,
    typer.Option(
        "--max-depth",
        metavar="N",
        help="Deepest sub-agent; 0 is none.",
        show_default="the configuration's",
    ),
]
MaxTurns = Annotated[
    int | None,
    typer.Option(
        "--max-turns",
        metavar="N",
        help="Turns of an agent whose steps the model decides.",
        show_default="the configuration's",
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
Show = Annotated[
    str | None,
    typer.Option(
        "--show",
        metavar="graph",
        help="Below the answers, which agent read and wrote which value; see `rlm graph`.",
        show_default="none",
    ),
]
RunDir = Annotated[
    Path | None,
    typer.Option(
        "--run-dir",
        metavar="DIR",
        help="Where the run is written: events, prompts, answers.",
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
    files: Files = None,
    question: Questions = None,
    agent: AgentOption = None,
    labels: Labels = None,
    combine: Combine = None,
    over: Over = None,
    exhaustive: Exhaustive = False,
    max_tokens: MaxTokens = None,
    max_calls: MaxCalls = None,
    max_seconds: MaxSeconds = None,
    max_depth: MaxDepth = None,
    max_turns: MaxTurns = None,
    output: Output = None,
    show: Show = None,
    model: ModelOption = None,
    config: ConfigOption = None,
    settings: SetOption = None,
    run_dir: RunDir = None,
    no_keep: NoKeep = False,
    ttft_pairs: TtftPairs = 0,
    wants_json: JsonOption = False,
    quiet: QuietOption = False,
) -> Command:
    """Answer questions about texts of any length: quote, combine, classify.

    stdout is the answer: the sentence, verbatim, and where it stands: bytes A-B of the file, B
    not included. "uncertain:" marks one that wrong answers often look like, and "Not found" says
    that nothing in the texts answers the question. stderr is progress, and what a question cost.
    With another --agent than search, stdout is its result.

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
        "limits.max_depth": max_depth,
        "limits.max_turns": max_turns,
        "run.directory": run_dir,
        "run.keep": False if no_keep else None,
    }

    def work(terminal: Terminal, document: Document) -> int:
        # Late: the session with all that it is made of.
        from rlm_runtime.cli.asking import Wish, ask

        wish = Wish(
            files=files or (),
            questions=question or (),
            agent=agent,
            labels=labels,
            combine=combine,
            over=over,
            output=output,
            show=show,
            source=config,
            settings=settings or (),
            named=named,
            is_exhaustive=exhaustive,
            ttft_pairs=ttft_pairs,
        )
        return ask(wish, terminal, document)

    return Command(work, wants_json=wants_json, is_quiet=quiet)

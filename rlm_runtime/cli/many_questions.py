"""`rlm-bench run many-questions`: what the order of the calls costs."""

from __future__ import annotations

from enum import StrEnum
from fractions import Fraction
from math import ceil
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
    load,
)
from rlm_runtime.errors import ConfigError, InputError

if TYPE_CHECKING:
    from rlm_runtime.cli.terminal import Terminal
    from rlm_runtime.config import Config

EPILOG = f"""\b
Examples:
  rlm-bench run many-questions
  rlm-bench run many-questions --kv-tokens 1/3 --order both
  rlm-bench run many-questions --tokens 8k --questions 4 --order document --json

{EXIT_CODES}"""


class WhichOrder(StrEnum):
    """The orders of the calls to measure."""

    DOCUMENT = "document"
    QUESTION = "question"
    BOTH = "both"


Questions = Annotated[
    int, typer.Option("--questions", metavar="K", min=1, help="Questions about the document.")
]
Tokens = Annotated[
    str,
    typer.Option(
        "--tokens",
        metavar="N",
        help="Length of the document, about: 30000 or 30k; Python's language reference has 110k.",
    ),
]
KvTokens = Annotated[
    str | None,
    typer.Option(
        "--kv-tokens",
        metavar="N",
        help="Size of the KV cache in tokens: 10000, 10k, or a share of --tokens: 1/3.",
        show_default="the configuration's",
    ),
]
OrderOption = Annotated[
    WhichOrder,
    typer.Option(
        "--order",
        help="document: all questions about a chunk, then the next chunk; question: one question "
        "after another.",
    ),
]
Repeats = Annotated[
    int,
    typer.Option(
        "--repeats",
        metavar="N",
        min=1,
        help="Passes in each order; 5 give the ratio of times an interval.",
    ),
]
Seed = Annotated[
    int, typer.Option("--seed", metavar="N", help="Of the document and the questions.")
]


def many_questions(
    questions: Questions = 8,
    tokens: Tokens = "30k",
    kv_tokens: KvTokens = None,
    order: OrderOption = WhichOrder.DOCUMENT,
    repeats: Repeats = 1,
    seed: Seed = 0,
    out: OutOption = None,
    model: ModelOption = None,
    config: ConfigOption = None,
    settings: SetOption = None,
    wants_json: JsonOption = False,
    quiet: QuietOption = False,
) -> Command:
    """Ask several questions about one document, and see what the order of the calls costs.

    The same calls are made in document order, which is the runtime's own, and in question order.
    While the KV cache holds the whole document, both compute it once; with less, the question order
    computes it once a question. Each computed token has its cause. A pass over 30,000 tokens takes
    about a minute on two CPU cores, and in question order with a small cache eight times as long.
    """

    def work(terminal: Terminal, document: Document) -> int:
        # Late: the session with all that it is made of.
        from rlm_runtime.benchmark.many_questions_result import Order
        from rlm_runtime.cli.many_questions_run import Asked, run

        length = _count(tokens, "--tokens")
        named: dict[str, object | None] = {"model": model}
        if kv_tokens is not None:
            named |= _small_cache(load(config, settings, named).config, _size(kv_tokens, length))
        asked = Asked(
            questions=questions,
            tokens=length,
            orders=tuple(Order) if order is WhichOrder.BOTH else (Order(order.value),),
            repeats=repeats,
            seed=seed,
        )
        return run(asked, out, config, settings or (), named, terminal, document)

    return Command(work, wants_json=wants_json, is_quiet=quiet)


def _count(text: str, option: str) -> int:
    """`30000`, `30_000` or `30k`."""
    digits, factor = (text[:-1], 1000) if text.endswith("k") else (text, 1)
    try:
        number = int(digits) * factor
    except ValueError as err:
        raise InputError(
            f"{option} {text!r} is no number of tokens.", "Write it like 30000 or 30k."
        ) from err
    if number < 1:
        raise InputError(f"{option} must be at least 1 token.")
    return number


def _size(text: str, length: int) -> int:
    """A number of tokens, or a share of `length` as a fraction."""
    if "/" not in text:
        return _count(text, "--kv-tokens")
    try:
        share = Fraction(text)
    except (ValueError, ZeroDivisionError) as err:
        raise InputError(
            f"--kv-tokens {text!r} is no share.", "Write it like 1/3, or a number of tokens."
        ) from err
    return _count(str(int(share * length)), "--kv-tokens")


def _small_cache(config: Config, tokens: int) -> dict[str, object]:
    """Settings of a KV cache of exactly so many tokens, in whole blocks.

    vLLM keeps one block for itself, and refuses a window that the others can't hold.

    Raises:
        ConfigError: There are too few blocks for any window.
    """
    engine = config.engine
    blocks = ceil(tokens / engine.block_size)
    window = (blocks - 1) * engine.block_size
    if window < 1:
        raise ConfigError(
            f"A KV cache of {tokens:,} tokens has no two blocks of {engine.block_size}.",
            "Use a larger --kv-tokens.",
        )
    return {
        "engine.vllm_args": {**engine.vllm_args, "num_gpu_blocks_override": blocks},
        "engine.window_tokens": min(engine.window_tokens or window, window),
    }

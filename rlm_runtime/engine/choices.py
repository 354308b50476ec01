"""Constrained choice: an answer that can only be one of some strings.

The grammar is made of token ids, `Token(5) Token(7) | Token(9)`, not of characters. So a choice has
one way to be generated, the ids that its text has in any prompt, and nothing of the strings stands
in the grammar: no quote, backslash or newline can break it, and what looks like a control token is
spelled out. vLLM's own `choice` is made of characters and generates the control token itself:
xgrammar knows control tokens by their text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from rlm_runtime.errors import EngineError, InputError

MAX_CHOICES = 2_000
MAX_CHOICE_TOKENS = 20_000
"""Bounds of one request, all its choices together. Measured with xgrammar 0.2.8 and the default
model at both bounds: parsing 0.02 s in the event loop, compiling 0.1 s in the engine core, 2.4 MB;
linear up to there, then steeper."""

CACHE_MB = 0
"""Compiled grammars that the engine core keeps. xgrammar 0.2.8 finds them by a hash that leaves
the ids of `Token` out: with a cache, a grammar of equal shape gets another one's mask."""

Encode = Callable[[str], Sequence[int]]
"""Token ids of a text as it stands in the middle of a prompt, control tokens read as text."""

_BACKENDS = ("auto", "xgrammar")


def settle_backend(vllm_config: Any) -> None:
    """Leave vLLM no choice of the grammar backend where it has one.

    It would hand a schema that xgrammar does not know to another backend. An engine has only one:
    were that the first request, all later choices and grammars would fail.

    Args:
        vllm_config: A `VllmConfig`; changed in place.
    """
    settings = vllm_config.structured_outputs_config
    if settings.backend == "auto" and find_spec("xgrammar") is not None:
        settings.backend = "xgrammar"


def obstacle(backend: str) -> str:
    """Why an engine can't constrain what it generates; empty when it can.

    Args:
        backend: vLLM's `structured_outputs_config.backend`.
    """
    if find_spec("xgrammar") is None:
        return "the package xgrammar is not installed"
    if backend not in _BACKENDS:
        return f"engine.vllm_args sets the grammar backend {backend!r}; it takes 'xgrammar'"
    return ""


def encoded(choices: Sequence[str], encode: Encode) -> dict[tuple[int, ...], str]:
    """The choices by their ids; of equal ones, the first.

    Raises:
        InputError: One is empty, or they are more than a grammar may have.
    """
    if len(choices) > MAX_CHOICES:
        raise InputError(
            f"There are {len(choices):,} choices, at most {MAX_CHOICES:,} are allowed.",
            "Give fewer.",
        )
    by_ids: dict[tuple[int, ...], str] = {}
    for choice in choices:
        ids = tuple(encode(choice))
        if not ids:
            raise InputError("A choice is empty.", "Give each at least one character.")
        by_ids.setdefault(ids, choice)
    tokens = sum(map(len, by_ids))
    if tokens > MAX_CHOICE_TOKENS:
        raise InputError(
            f"The choices have {tokens:,} tokens together, {MAX_CHOICE_TOKENS:,} are allowed.",
            "Give fewer, or shorter ones.",
        )
    return by_ids


def grammar(by_ids: Mapping[tuple[int, ...], str]) -> str:
    """The choices as an EBNF grammar of xgrammar."""
    return "root ::= " + " | ".join(
        " ".join(f"Token({token_id})" for token_id in ids) for ids in by_ids
    )


def chosen(by_ids: Mapping[tuple[int, ...], str], ids: Sequence[int]) -> str:
    """The choice that was generated: `ids` without the end-of-sequence token behind it.

    Raises:
        EngineError: It is none of them.
    """
    choice = by_ids.get(tuple(ids[:-1]))
    if choice is None:
        raise EngineError("The engine generated none of the choices.", "Report this.")
    return choice

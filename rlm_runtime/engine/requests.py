"""A request in vLLM's words, and what is wrong with one before it is sent."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rlm_runtime.engine.base import EngineInfo, GenerateRequest
from rlm_runtime.errors import InputError, PromptTooLong

LONGEST_LOOP_TOKENS = 48
LOOP_COUNT = 6
"""A tail of this many equal patterns of 1 to `LONGEST_LOOP_TOKENS` tokens is a loop. Small models
repeat sentences of 20 to 40 tokens; fewer repeats would end tables and rules of dashes."""


def check(request: GenerateRequest, info: EngineInfo) -> None:
    """See whether a request can run on an engine; its choices apart (`check_choices`).

    Raises:
        InputError: An id outside the vocabulary, no ids, a number out of range, a span outside the
            prompt.
        PromptTooLong: The prompt and `max_tokens` exceed the window.
    """
    ids, span = request.prompt_ids, request.score
    if not ids:
        raise InputError("The prompt has no tokens.", "Send at least one.")
    if request.max_tokens < 1:
        raise InputError("max_tokens must be at least 1.")
    if not (0 <= request.temperature < math.inf):
        raise InputError("temperature must be a number, 0 or above.")
    if min(ids) < 0 or max(ids) >= info.vocab_size:
        raise InputError(
            f"The prompt has an id that is not in 0..{info.vocab_size - 1:,}.",
            "Use this model's tokenizer.",
        )
    if len(ids) + request.max_tokens > info.window:
        raise PromptTooLong(
            len(ids),
            info.window - request.max_tokens,
            f"That leaves room for max_tokens={request.max_tokens:,}; shorten the prompt.",
        )
    if span is not None and not (1 <= span.start < span.end <= len(ids)):
        raise InputError(
            f"The span {span.start}..{span.end} is not inside positions 1..{len(ids)}.",
            "The first position has no log-probability: nothing stands before it.",
        )


def check_choices(request: GenerateRequest, by_ids: Mapping[tuple[int, ...], str]) -> None:
    """See whether the answer to a request can only be one of its choices.

    Args:
        request: With choices.
        by_ids: Its choices by their token ids.

    Raises:
        InputError: Something else of the request would end it elsewhere.
    """
    others = {
        "stop_token_ids": bool(request.stop_token_ids),
        "ignore_eos": request.ignore_eos,
        "stop_repetition": request.stop_repetition,
        "score": request.score is not None,
    }
    for name, is_set in others.items():
        if is_set:
            raise InputError(
                f"A request with choices can't have {name}.",
                "A choice ends itself; ask for the other in a request of its own.",
            )
    need = max(map(len, by_ids)) + 1
    if request.max_tokens < need:
        raise InputError(
            f"max_tokens={request.max_tokens:,} is too small for the longest choice.",
            f"With the token that ends it, it needs {need:,}.",
        )


def sampling_params(
    request: GenerateRequest, *, reads_cache: bool, grammar: str | None
) -> Any:  # a SamplingParams; vLLM is no dependency of the type check
    """A request in vLLM's words.

    Args:
        request: A checked one.
        reads_cache: This run of it may take prompt tokens from the prefix cache.
        grammar: What constrains the generated ids; `None` is nothing.
    """
    from vllm import SamplingParams
    from vllm.sampling_params import (
        RepetitionDetectionParams,
        RequestOutputKind,
        StructuredOutputsParams,
    )

    return SamplingParams(
        temperature=request.temperature,
        seed=request.seed,
        max_tokens=request.max_tokens,
        stop_token_ids=list(request.stop_token_ids),
        ignore_eos=request.ignore_eos,
        prompt_logprobs=None if request.score is None else 0,
        flat_logprobs=request.score is not None,
        # Said outright: vLLM would not read the cache for a request with log-probabilities.
        skip_reading_prefix_cache=not reads_cache,
        repetition_detection=RepetitionDetectionParams(
            max_pattern_size=LONGEST_LOOP_TOKENS, min_pattern_size=1, min_count=LOOP_COUNT
        )
        if request.stop_repetition
        else None,
        structured_outputs=None if grammar is None else StructuredOutputsParams(grammar=grammar),
        detokenize=False,
        output_kind=RequestOutputKind.DELTA,
    )

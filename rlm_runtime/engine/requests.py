"""A request in vLLM's words, and what is wrong with one before it is sent."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rlm_runtime.engine import choices, forced_decode
from rlm_runtime.engine.base import EngineInfo, GenerateRequest
from rlm_runtime.engine.model_tokens import ModelTokens
from rlm_runtime.errors import EngineError, InputError, PromptTooLong

LONGEST_LOOP_TOKENS = 48
LOOP_COUNT = 6
"""A tail of this many equal patterns of 1 to `LONGEST_LOOP_TOKENS` tokens is a loop. Small models
repeat sentences of 20 to 40 tokens; fewer repeats would end tables and rules of dashes."""

CONSTRAINTS = ("choices", "script", "grammar", "json_schema")
"""Fields of a request that say what it may generate."""

MAX_TEXT_CHARACTERS = 500_000
"""Of a grammar or a schema: it is parsed in the event loop, 0.15 s at this bound."""

_NEVER = -1e9
"""Added to a logit. Less than any other, and still a number: where nothing else is possible, the
engine goes on."""

_V2_LOGIT_BIASES = 1024
"""Biases of one request in vLLM's second runner (`MAX_NUM_LOGIT_BIAS_TOKENS`)."""


def check(request: GenerateRequest, info: EngineInfo) -> None:
    """See whether a request can run on an engine, what its tokenizer must say apart.

    Raises:
        InputError: An id outside the vocabulary, no ids, a number out of range, a span outside the
            prompt, or what `check_constraint` refuses.
        PromptTooLong: The prompt and `max_tokens` exceed the window.
    """
    ids, span = request.prompt_ids, request.score
    if not ids:
        raise InputError("The prompt has no tokens.", "Send at least one.")
    if request.max_tokens < 1:
        raise InputError("max_tokens must be at least 1.")
    if not (0 <= request.temperature < math.inf):
        raise InputError("temperature must be a number, 0 or above.")
    for name, some in (("prompt", ids), ("script", request.script)):
        if some and (min(some) < 0 or max(some) >= info.vocab_size):
            raise InputError(
                f"The {name} has an id that is not in 0..{info.vocab_size - 1:,}.",
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
    check_constraint(request)


def check_constraint(request: GenerateRequest) -> None:
    """See whether what a request may generate is said once, and ends by itself.

    Raises:
        InputError: It is not; or a script or a text is too long.
    """
    given = [name for name in CONSTRAINTS if getattr(request, name)]
    if not given:
        return
    if len(given) > 1:
        raise InputError(
            f"A request can't have {given[0]} and {given[1]}.", "Leave one of them out."
        )
    is_text = bool(request.grammar or request.json_schema)
    others = {
        "stop_token_ids": bool(request.stop_token_ids),
        "ignore_eos": request.ignore_eos,
        "stop_repetition": request.stop_repetition and not is_text,
        "score": request.score is not None,
    }
    for name, is_set in others.items():
        if is_set:
            raise InputError(
                f"A request with {given[0]} can't have {name}.",
                "What it generates ends itself; ask for the other in a request of its own.",
            )
    length = len(request.grammar) + len(request.json_schema)
    if length > MAX_TEXT_CHARACTERS:
        raise InputError(
            f"The {given[0]} has {length:,} characters, {MAX_TEXT_CHARACTERS:,} are allowed.",
            "Give fewer names, or shorter ones.",
        )
    if request.json_schema and not request.json_schema.lstrip().startswith("{"):
        raise InputError("The json_schema is no JSON object.", "Give one: {} allows any JSON.")
    if len(request.script) > request.max_tokens:
        raise InputError(
            f"The script has {len(request.script):,} ids, more than max_tokens="
            f"{request.max_tokens:,}.",
            "Raise max_tokens, or cut the script.",
        )


def check_choices(request: GenerateRequest, by_ids: Mapping[tuple[int, ...], str]) -> None:
    """See whether the longest choice of a request, given by their ids, fits.

    Raises:
        InputError: It does not.
    """
    need = max(map(len, by_ids)) + 1
    if request.max_tokens < need:
        raise InputError(
            f"max_tokens={request.max_tokens:,} is too small for the longest choice.",
            f"With the token that ends it, it needs {need:,}.",
        )


def constraint(
    request: GenerateRequest,
    by_ids: Mapping[tuple[int, ...], str],
    tokens: ModelTokens,
    vllm_config: Any,  # a VllmConfig; vLLM is no dependency of the type check
) -> dict[str, Any]:
    """What a request may generate, as fields of `SamplingParams`; empty when that is anything.

    Args:
        request: A checked one.
        by_ids: Its choices by their ids.
        tokens: The model's.
        vllm_config: The engine's.

    Raises:
        InputError: The script goes on behind a token that ends the request.
        EngineError: The model has more control tokens than vLLM can rule out.
    """
    from vllm.sampling_params import StructuredOutputsParams

    if request.script:
        cut = next((i for i, id_ in enumerate(request.script) if id_ in tokens.end_ids), None)
        if cut is not None and cut + 1 < len(request.script):
            raise InputError(
                f"Id {cut + 1:,} of the script ends the request, and {len(request.script):,} are "
                "given.",
                "Cut the script there.",
            )
        ids = forced_decode.completed(request.script, tokens)
        return forced_decode.sampling(vllm_config, ids)
    if by_ids:
        grammar = choices.grammar(by_ids)
        return {"structured_outputs": StructuredOutputsParams(grammar=grammar)}
    if not (request.grammar or request.json_schema):
        return {}
    if vllm_config.use_v2_model_runner and len(tokens.control_ids) > _V2_LOGIT_BIASES:
        raise EngineError(
            f"The model has {len(tokens.control_ids):,} control tokens; vLLM can keep at most "
            f"{_V2_LOGIT_BIASES:,} out of a text.",
            "Ask without a grammar and a schema.",
        )
    return {
        "structured_outputs": StructuredOutputsParams(
            grammar=request.grammar or None, json=request.json_schema or None
        ),
        # To xgrammar a control token is its text: a rule for strings would let it pass.
        "logit_bias": dict.fromkeys(tokens.control_ids, _NEVER),
    }


def sampling_params(
    request: GenerateRequest, *, reads_cache: bool, limits: Mapping[str, Any]
) -> Any:  # a SamplingParams; vLLM is no dependency of the type check
    """A request in vLLM's words.

    Args:
        request: A checked one.
        reads_cache: This run of it may take prompt tokens from the prefix cache.
        limits: What limits the generated ids (`constraint`).
    """
    from vllm import SamplingParams
    from vllm.sampling_params import (
        RepetitionDetectionParams,
        RequestOutputKind,
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
        detokenize=False,
        output_kind=RequestOutputKind.DELTA,
        **limits,
    )

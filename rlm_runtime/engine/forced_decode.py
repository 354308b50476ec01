"""Forced decode: a request brings the ids that it generates, and the engine computes them.

What a script generates goes through the model, the KV cache and every counter as the model's own
choice would, so a run of many turns can be repeated exactly. vLLM has two ways, and which one works
depends on the runner it picks for a device. The one that CPUs have, a logits processor
(`scripted_decode.py`), is tested; the other, trace replay of its second runner (CUDA), is written
by vLLM's source and has not been run.
"""

from __future__ import annotations

from typing import Any

from rlm_runtime.engine.model_tokens import ModelTokens

PROCESSOR = "rlm_runtime.engine.scripted_decode:ScriptedDecode"
SCRIPT = "rlm_script"
"""The script's key in `SamplingParams.extra_args`."""


def enable(vllm_config: Any) -> None:
    """Let an engine take scripts: to be called before its processes are started.

    Args:
        vllm_config: A `VllmConfig`; changed in place.
    """
    model = vllm_config.model_config
    if vllm_config.use_v2_model_runner:
        model.enable_trace_replay = True
    else:
        model.logits_processors = [*(model.logits_processors or ()), PROCESSOR]


def completed(script: tuple[int, ...], tokens: ModelTokens) -> list[int]:
    """The ids to generate: a script of at least one id, and the end of the sequence behind it."""
    if tokens.end_id is None or script[-1] in tokens.end_ids:
        return [*script]
    return [*script, tokens.end_id]


def sampling(vllm_config: Any, ids: list[int]) -> dict[str, Any]:
    """Fields of `SamplingParams` that make an enabled engine generate `ids`."""
    if vllm_config.use_v2_model_runner:
        return {"trace_decode_token_ids": ids}
    return {"extra_args": {SCRIPT: ids}}

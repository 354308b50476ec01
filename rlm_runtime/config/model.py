"""The configuration: one frozen tree, an unknown key anywhere is an error.

Every field says its unit in its name and its meaning in its description; `rlm config --explain`
prints them. Loading (files, environment, flags) is in `load.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class EngineConfig(_Section):
    """How vLLM is started."""

    dtype: Literal["bfloat16", "float16", "float32", "auto"] = Field(
        "bfloat16", description="Weights and KV cache number format."
    )
    window_tokens: int | None = Field(
        8192, ge=256, description="Prompt plus generated tokens of one request; null: the model's."
    )
    block_size: int = Field(
        32, ge=1, le=512, description="Tokens of a prefix-cache block. CPU kernels want 32 x n."
    )
    kv_cache_gib: float | None = Field(
        4.0,
        gt=0,
        description="Memory for the KV cache, GiB; null: vLLM takes a share of the GPU's memory.",
    )
    max_running: int = Field(
        16, ge=1, description="Requests that run at once. On a small CPU 16 is the knee."
    )
    max_batched_tokens: int = Field(
        2048, ge=32, description="Most tokens of one engine step; longer prefills are split."
    )
    enforce_eager: bool = Field(
        True, description="No torch.compile and no CUDA graphs: boots faster; on a GPU, slower."
    )
    cpu_threads: int | None = Field(
        None, ge=1, description="OpenMP threads of the CPU engine; null: all cores but one."
    )
    start_timeout_s: float = Field(600.0, gt=0, description="Longest boot before it is given up.")
    vllm_args: dict[str, JsonValue] = Field(
        default_factory=dict,
        description="More arguments of vLLM's AsyncEngineArgs, passed as they are.",
    )


class SchedulerConfig(_Section):
    """Which calls go to the engine, and how many may wait."""

    max_queued_calls: int = Field(
        4096, ge=1, description="Calls that may wait in one process; more is an error."
    )


class LimitsConfig(_Section):
    """Bounds of one question's tree of calls; null is no bound."""

    max_tokens: int | None = Field(
        None, ge=1, description="Computed prompt tokens plus generated tokens."
    )
    max_calls: int | None = Field(None, ge=1, description="Engine requests.")
    max_seconds: float | None = Field(None, gt=0, description="Wall time, seconds.")


class SearchConfig(_Section):
    """The search recipe. Thresholds belong to a model; these were measured with the default."""

    chunk_tokens: int = Field(700, ge=64, description="Target size of a chunk.")
    max_ranked_tokens: int = Field(
        24_000,
        ge=1,
        description="Texts below this are ranked whole by the model; of a longer text, "
        "BM25 picks chunks of this many tokens together.",
    )
    bm25_weight: float = Field(1.0, ge=0, description="Weight of the BM25 score beside the lift.")
    passages: int = Field(3, ge=1, le=20, description="Best chunks whose sentences are scored.")
    not_found_below_z: float = Field(
        8.0, description="Lift (nats) of the best sentence below which the answer is 'not found'."
    )
    certain_above_z: float = Field(
        20.0, description="Lift (nats) from which an answer is not marked as uncertain."
    )
    short_form: bool = Field(
        True, description="Choose the words of the quoted sentence that matter: one call more."
    )


class RunConfig(_Section):
    """What is written to disk."""

    directory: Path | None = Field(
        None, description="Run directory; null: a new one in the user's state directory."
    )
    keep: bool = Field(True, description="False writes nothing: no events, no contents.")


class Config(_Section):
    """The whole tree."""

    model: str = Field(
        "smollm2-135m-instruct",
        description="The default model's name, a folder, or a Hugging Face id (owner/name).",
    )
    temperature: float = Field(
        0.0,
        ge=0,
        le=2,
        description="Of generated answers; 0 is greedy. `search` quotes and generates none.",
    )
    engine: EngineConfig = EngineConfig()
    scheduler: SchedulerConfig = SchedulerConfig()
    limits: LimitsConfig = LimitsConfig()
    search: SearchConfig = SearchConfig()
    run: RunConfig = RunConfig()

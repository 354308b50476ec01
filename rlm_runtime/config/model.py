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
    forced_decode: bool = Field(
        False,
        description="Requests may bring the ids they generate: tests, benchmarks and replay only.",
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
    max_depth: int = Field(
        1, ge=0, le=16, description="Deepest sub-agent; the root is 0. 0 is no sub-agents."
    )
    max_turns: int = Field(24, ge=1, description="Turns of one agent whose steps a model decides.")


class AgentsConfig(_Section):
    """Agents: what one turn may read, show and write."""

    kind: Literal["auto", "direct", "search", "map_reduce", "classify_each", "calls"] = Field(
        "search",
        description="Who works on a task that names nobody; auto chooses by task and texts.",
    )
    max_tokens_per_read: int | None = Field(
        2000, ge=1, description="Most tokens one READ may bring into a prompt."
    )
    max_read_tokens: int | None = Field(
        None, ge=1, description="Most tokens all READs of one agent may bring into its prompts."
    )
    max_tree_read_tokens: int | None = Field(
        None, ge=1, description="The same for a tree of agents together."
    )
    answer_tokens: int = Field(
        128, ge=1, description="Most tokens of one generated answer of a leaf call."
    )
    max_names_shown: int = Field(
        40, ge=1, description="Names a prompt or one page of LIST_CONTEXT() shows."
    )
    max_string_characters: int = Field(
        200, ge=16, description="About the longest text in one call: as many words of 6 characters."
    )
    max_errors_in_a_row: int = Field(
        3, ge=1, description="Calls that fail one after another before an agent ends."
    )
    max_children: int = Field(64, ge=1, description="Sub-agents of one agent that run at once.")
    schema_retries: int = Field(
        2, ge=0, description="More attempts at an answer that is not of the type asked for."
    )


class StoreConfig(_Section):
    """Where values are held that no prompt shows."""

    spill_bytes: int = Field(
        16 * 2**20, ge=1, description="Values larger than this are kept in a file, read in place."
    )
    spill_directory: Path | None = Field(
        None, description="Where; null: the user's state directory. Files there have no name."
    )
    max_bytes: int | None = Field(
        None, ge=1, description="Bytes all stored values may have together."
    )


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
    seed: int | None = Field(
        0, ge=0, description="Of sampling above temperature 0; null: another one each time."
    )
    engine: EngineConfig = EngineConfig()
    scheduler: SchedulerConfig = SchedulerConfig()
    limits: LimitsConfig = LimitsConfig()
    agents: AgentsConfig = AgentsConfig()
    store: StoreConfig = StoreConfig()
    search: SearchConfig = SearchConfig()
    run: RunConfig = RunConfig()

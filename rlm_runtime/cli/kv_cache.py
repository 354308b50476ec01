"""What the KV cache of a configuration holds and takes, from the model's own description."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from rlm_runtime.cli.findings_packages import installed
from rlm_runtime.cli.terminal import size
from rlm_runtime.config import Config
from rlm_runtime.errors import EngineError

_NUMBER_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}
_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What a model's `config.json` says.

    Attributes:
        window_tokens: Positions it has; `None` where it doesn't say.
        kv_token_bytes: KV cache of one token in the configuration's number format; `None` for a
            model whose layers do not all keep keys and values of one size.
        weights_bytes: Of its safetensors files.
    """

    window_tokens: int | None
    kv_token_bytes: int | None
    weights_bytes: int


def shape(folder: Path, dtype: str) -> ModelShape:
    """Read a model's shape.

    Args:
        folder: A checked model folder.
        dtype: `engine.dtype`; "auto" is the model's own.
    """
    told = json.loads((folder / "config.json").read_bytes())
    text = told.get("text_config", told)
    number = text.get("dtype") or text.get("torch_dtype") if dtype == "auto" else dtype
    return ModelShape(
        window_tokens=text.get("max_position_embeddings"),
        kv_token_bytes=_kv_token_bytes(text, str(number)),
        weights_bytes=sum(path.stat().st_size for path in folder.glob("*.safetensors")),
    )


def kv_bytes(config: Config) -> int | None:
    """What the configuration gives to the KV cache; `None` leaves it to vLLM."""
    gib = config.engine.kv_cache_gib
    return None if gib is None else int(gib * 2**30)


def refuse_too_large(config: Config, folder: Path) -> None:
    """Refuse a CPU engine that this machine's memory can't hold, before it is tried.

    A GPU's memory is not looked at: there, vLLM does it itself.

    The engine would boot (memory is only taken when it is used) and be killed by the system under
    load, without a word.

    Raises:
        EngineError: KV cache and weights are larger than the memory that is available.
    """
    wanted = kv_bytes(config)
    if wanted is None or installed("vllm") is not None:
        return
    weights = shape(folder, config.engine.dtype).weights_bytes
    available = available_bytes()
    if wanted + weights > available:
        raise EngineError(
            f"The KV cache ({size(wanted)}) and the weights ({size(weights)}) are larger than the "
            f"memory that is available ({size(available)}).",
            "Lower engine.kv_cache_gib, for example: --set engine.kv_cache_gib="
            f"{max(0.25, (available - weights) / 2**30 // 2):g}",
        )


def available_bytes() -> int:
    """Memory this process may still use: the machine's, or its container's if that is less."""
    available = psutil.virtual_memory().available
    limit = _number(_CGROUP / "memory.max")
    if limit is None:
        return available
    used = _number(_CGROUP / "memory.current") or 0
    return min(available, max(0, limit - used + _inactive_file_bytes()))


def _inactive_file_bytes() -> int:
    """File pages that count as used, but are given up when somebody needs the memory."""
    try:
        lines = (_CGROUP / "memory.stat").read_text().splitlines()
    except OSError:
        return 0
    found = dict(line.split() for line in lines if line)
    return int(found.get("inactive_file", 0))


def _number(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None  # "max" is no limit


def _kv_token_bytes(text: Mapping[str, object], number: str) -> int | None:
    layers, heads = text.get("num_hidden_layers"), text.get("num_attention_heads")
    hidden, number_bytes = text.get("hidden_size"), _NUMBER_BYTES.get(number)
    kv_heads = text.get("num_key_value_heads", heads)
    if not isinstance(layers, int) or not isinstance(heads, int) or not isinstance(hidden, int):
        return None
    if not isinstance(kv_heads, int) or number_bytes is None or "layer_types" in text:
        return None
    head_dim = text.get("head_dim") or hidden // heads
    if not isinstance(head_dim, int):
        return None
    return 2 * layers * kv_heads * head_dim * number_bytes  # keys and values

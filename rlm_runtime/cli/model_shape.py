"""What a model's own description says of its size, without loading it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_NUMBER_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What a model's `config.json` says.

    Attributes:
        window_tokens: Positions it has; `None` where it does not say.
        kv_token_bytes: KV cache of one token in the configuration's number format; `None` for a
            model whose layers do not all keep keys and values of one size.
    """

    window_tokens: int | None
    kv_token_bytes: int | None


def model_shape(folder: Path, dtype: str) -> ModelShape:
    """Read a model's shape.

    Args:
        folder: A checked model folder.
        dtype: `engine.dtype`; "auto" is the model's own.
    """
    told = json.loads((folder / "config.json").read_bytes())
    text = told.get("text_config", told)
    number = text.get("dtype") or text.get("torch_dtype") if dtype == "auto" else dtype
    return ModelShape(text.get("max_position_embeddings"), _kv_token_bytes(text, str(number)))


def mixed_layers(folder: Path) -> tuple[str, ...]:
    """Kinds of layers beside full attention, as the model's own description names them.

    Engines keep less of such layers, or nothing that two prompts could share.

    Args:
        folder: A checked model folder.
    """
    told = json.loads((folder / "config.json").read_bytes())
    text = told.get("text_config", told)
    # Several names for the same thing: "layer_types" is the common one, the others older models'.
    kinds = [*(text.get("layer_types") or ()), *(text.get("layers_block_type") or ())]
    found = {str(kind) for kind in kinds} - {"full_attention", "attention"}
    if any(key.startswith(("mamba_", "ssm_")) or key == "state_size" for key in text):
        found.add("mamba")
    if text.get("sliding_window") and text.get("use_sliding_window", "layer_types" not in text):
        found.add("sliding_attention")
    return tuple(sorted(found))


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

"""The tokens of a model that are no text: what ends a request, and what marks turns and tools."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ModelTokens:
    """Token ids that requests must know of.

    Attributes:
        end_id: The end-of-sequence token; `None` for a model without one.
        end_ids: All that end a request, `end_id` among them.
        control_ids: The other control tokens: all that the tokenizer marks as special, and every
            added token that is more than white space.
    """

    end_id: int | None
    end_ids: frozenset[int]
    control_ids: frozenset[int]


def model_tokens(llm: Any) -> ModelTokens:
    """Read them where vLLM does, so that both mean the same.

    Args:
        llm: An `AsyncLLM`.
    """
    listed = llm.vllm_config.model_config.try_get_generation_config().get("eos_token_id")
    ends = {listed} if isinstance(listed, int) else set(listed or ())
    end_id = llm.renderer.get_eos_token_id()
    if end_id is not None:
        ends.add(end_id)
    elif ends:
        end_id = min(ends)
    # There is none when vLLM was told to do without: it then refuses grammars, too.
    added = getattr(llm.renderer.tokenizer, "added_tokens_decoder", {})
    control = {id_ for id_, token in added.items() if token.special or token.content.strip()}
    return ModelTokens(end_id, frozenset(ends), frozenset(control - ends))

"""Values by reference: the store, the text files in it, and how texts are cut into chunks."""

from rlm_runtime.store.chunks import Chunk, bytes_per_token, cut, cut_tokens, fit, target_bytes
from rlm_runtime.store.context import ContextStore, TokenCount
from rlm_runtime.store.names import check_name, name_for
from rlm_runtime.store.values import Sliceable, Value

__all__ = [
    "Chunk",
    "ContextStore",
    "Sliceable",
    "TokenCount",
    "Value",
    "bytes_per_token",
    "check_name",
    "cut",
    "cut_tokens",
    "fit",
    "name_for",
    "target_bytes",
]

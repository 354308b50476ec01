"""Values by reference: the store, the texts in it, and how they are cut into chunks."""

from rlm_runtime.store.chunks import Chunk, bytes_per_token, cut, cut_tokens, fit, target_bytes
from rlm_runtime.store.codec import Decode, Encoded, decode, encode
from rlm_runtime.store.context import ContextStore, TokenCount
from rlm_runtime.store.names import FUNCTIONS, check_name, closest, name_for
from rlm_runtime.store.paths import Step, ValuePath, follow, parse_path
from rlm_runtime.store.text_view import TextMatch, TextView
from rlm_runtime.store.values import Sliceable, Value

__all__ = [
    "FUNCTIONS",
    "Chunk",
    "ContextStore",
    "Decode",
    "Encoded",
    "Sliceable",
    "Step",
    "TextMatch",
    "TextView",
    "TokenCount",
    "Value",
    "ValuePath",
    "bytes_per_token",
    "check_name",
    "closest",
    "cut",
    "cut_tokens",
    "decode",
    "encode",
    "fit",
    "follow",
    "name_for",
    "parse_path",
    "target_bytes",
]

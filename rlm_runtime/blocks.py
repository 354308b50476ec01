"""Token ids → chain of block digests, the model of vLLM's prefix cache.

vLLM caches whole blocks of `block_size` tokens; a block's key covers all tokens before it and the
request's cache salt (vLLM docs, "Automatic Prefix Caching"). Two prompts share cached work exactly
as far as their chains agree. The digests here are ours, not vLLM's: they stand in event logs, where
the ceiling and the cause of each miss are computed from them without any token id.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from hashlib import blake2b

DIGEST_BYTES = 8
"""Two different chains collide with chance n² / 2**65: negligible below billions of blocks."""


def block_chain(ids: Sequence[int], block_size: int, salt: str | None = None) -> tuple[bytes, ...]:
    """Digests of the whole blocks of `ids`, each covering everything before it.

    Args:
        ids: Token ids, `(num_tokens,)`.
        block_size: Tokens a block, > 0.
        salt: The request's `cache_salt`; different salts never share a block.

    Returns:
        One digest of `DIGEST_BYTES` bytes a whole block; a partial last block has none.
    """
    packed = array("I", ids).tobytes()
    step = block_size * array("I").itemsize
    key = blake2b((salt or "").encode(), digest_size=DIGEST_BYTES).digest()
    chain: list[bytes] = []
    for start in range(0, len(packed) - step + 1, step):
        key = blake2b(key + packed[start : start + step], digest_size=DIGEST_BYTES).digest()
        chain.append(key)
    return tuple(chain)

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rlm_runtime.blocks import DIGEST_BYTES, block_chain

ids_lists = st.lists(st.integers(0, 2**31), max_size=80)


@given(ids=ids_lists, block=st.integers(1, 40))
def test_there_is_one_digest_a_whole_block(ids: list[int], block: int) -> None:
    chain = block_chain(ids, block)
    assert len(chain) == len(ids) // block
    assert all(len(digest) == DIGEST_BYTES for digest in chain)


@given(a=ids_lists, b=ids_lists, shared=ids_lists, block=st.integers(1, 8))
def test_chains_agree_exactly_as_far_as_the_ids_do(
    a: list[int], b: list[int], shared: list[int], block: int
) -> None:
    left, right = shared + a, shared + b
    common = 0
    while common < min(len(left), len(right)) and left[common] == right[common]:
        common += 1
    agreeing = 0
    for x, y in zip(block_chain(left, block), block_chain(right, block), strict=False):
        if x != y:
            break
        agreeing += 1
    assert agreeing == common // block


def test_a_salt_is_a_namespace_of_its_own() -> None:
    plain, salted = block_chain(range(64), 32), block_chain(range(64), 32, "tenant")
    assert not set(plain) & set(salted)
    assert block_chain(range(64), 32, "tenant") == salted

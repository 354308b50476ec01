"""What token ids tell about first uses that were none: rounding, salts, copies elsewhere."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from rlm_runtime.blocks import DIGEST_BYTES, block_chain
from rlm_runtime.profiler.cache_model import Reuse
from rlm_runtime.profiler.causes import Cause, EarlierCopy, IdsOf
from rlm_runtime.profiler.copies import WINDOW_TOKENS, Copy, Siblings, Span, find_copies, packed
from rlm_runtime.tracing import CallFinished


def split_first_use(
    judged: Sequence[Reuse],
    calls: Sequence[CallFinished],
    tokens: Sequence[dict[Cause, int]],
    prompt_ids: IdsOf,
    output_ids: IdsOf | None,
) -> list[tuple[EarlierCopy, ...]]:
    """Move what ids tell more about out of `first_use`, in place; returns the copies by call."""
    namespaces: dict[tuple[int, str | None], _Namespace] = {}
    unsalted: defaultdict[int, set[bytes]] = defaultdict(set)
    has_salts = any(call.salt_digest is not None for call in calls)
    layout: list[tuple[EarlierCopy, ...]] = [() for _ in judged]
    for number, reuse in enumerate(judged):
        call, causes = calls[reuse.lookup.number], tokens[number]
        prompt = prompt_ids(call) if reuse.block_size else None
        if prompt is None or len(prompt) != reuse.lookup.prompt_tokens:
            continue
        generated = (output_ids(call) if output_ids is not None else None) or ()
        # The last generated id was sampled, but never went through the model.
        ids = np.array([*prompt, *generated[:-1]], dtype=np.uint32)
        # The engine may have hit more than the log explains; what it hit is not asked about.
        asks_from = max(reuse.possible_blocks, reuse.hit_blocks)
        if has_salts:
            chain = block_chain(ids.tolist(), reuse.block_size)
            elsewhere = unsalted[reuse.epoch]
            end = reuse.prompt_blocks if causes[Cause.FIRST_USE] else asks_from
            while asks_from < end and chain[asks_from] in elsewhere:
                asks_from += 1
                _move(causes, Cause.SALT, reuse.block_size)
            elsewhere.update(chain)
        key = (reuse.epoch, call.salt_digest)
        namespace = namespaces.setdefault(key, _Namespace())
        shared = namespace.add(number, reuse, ids, asks_from if causes[Cause.FIRST_USE] else None)
        _move(causes, Cause.BLOCK_ROUNDING, shared)
    for namespace in namespaces.values():
        for number, copies in namespace.copies():
            layout[number] = tuple(
                EarlierCopy(copy.start, copy.end, calls[source].request_id, copy.earlier_start)
                for copy in copies
                for source in [judged[namespace.numbers[copy.earlier]].lookup.number]
            )
            _move(tokens[number], Cause.LAYOUT, sum(copy.end - copy.start for copy in copies))
    return layout


def _move(causes: dict[Cause, int], cause: Cause, tokens: int) -> None:
    causes[Cause.FIRST_USE] -= tokens
    causes[cause] += tokens


class _Namespace:
    """What was computed in one epoch under one salt. A copy elsewhere is no fault of a layout."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self._spans: list[Span] = []
        self._siblings = Siblings()

    def add(self, number: int, reuse: Reuse, ids: NDArray[np.uint32], asks_from: int | None) -> int:
        """Add a call's new ids.

        Args:
            number: The caller's name for the call.
            reuse: What is known of it.
            ids: Prompt and generated ids.
            asks_from: The first block whose earlier copies are wanted; `None` wants none.

        Returns:
            Tokens of that block that begin a block of an earlier call, behind the same prefix.
        """
        size, end = reuse.block_size, reuse.prompt_blocks * reuse.block_size
        new = max(reuse.hit_blocks, reuse.known_blocks)
        shared, asks = 0, end
        if asks_from is not None and asks_from < reuse.prompt_blocks:
            asks = asks_from * size
            block = packed(ids[asks : asks + size])
            shared = self._siblings.shared_tokens(_prefix(reuse, asks_from), block)
            # Behind these tokens nothing was computed with the same prefix, so whatever equal
            # window begins there stood behind another.
            asks += shared
        for block_number in range(new, -(-len(ids) // size)):
            place = block_number * size
            self._siblings.add(_prefix(reuse, block_number), packed(ids[place : place + size]))
        start = max(0, new * size - WINDOW_TOKENS + 1)
        self.numbers.append(number)
        # A copy: a view would hold all of the prompt.
        self._spans.append(Span(ids[start:].copy(), start, asks, end))
        return shared

    def copies(self) -> Iterator[tuple[int, list[Copy]]]:
        """The calls that computed what an earlier one had computed, and what."""
        for number, copies in zip(self.numbers, find_copies(self._spans), strict=True):
            if copies:
                yield number, copies


def _prefix(reuse: Reuse, blocks: int) -> bytes:
    """A name for everything in front of a block."""
    return reuse.lookup.chain[max(0, blocks - 1) * DIGEST_BYTES : blocks * DIGEST_BYTES]

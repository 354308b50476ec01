"""Why each prompt token was computed and not taken from the prefix cache.

    first_use       no call had computed it: the work that the task needs
    block_rounding  the end of a prompt that fills no block, or its last token; or the beginning of
                    a block that an earlier one has too, and goes on differently
    evicted         the engine had it and threw it away
    layout          the same text was computed before, behind another prefix
    skipped         the call asked not to read the cache
    salt            computed before in another namespace of the cache
    unexplained     none of these: calls that are not in the log, or a fault

The causes of a call add up to its `computed_tokens`. Where two could be named, the first of these
is: rounding, skipped, evicted, salt, layout, first use. `evicted` is only said when the engine's
cache was used up at that time; where it was not, such a miss is `unexplained`.

`layout`, `salt` and the shared beginning of a block need token ids, which are blobs beside the log;
without them their tokens count as `first_use`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from rlm_runtime.blocks import DIGEST_BYTES
from rlm_runtime.profiler.cache_model import CacheHistory, Reuse
from rlm_runtime.tracing import AnyEvent, CallFinished


class Cause(StrEnum):
    """Why a prompt token was computed; see the head of this file."""

    FIRST_USE = "first_use"
    BLOCK_ROUNDING = "block_rounding"
    EVICTED = "evicted"
    LAYOUT = "layout"
    SKIPPED = "skipped"
    SALT = "salt"
    UNEXPLAINED = "unexplained"


@dataclass(frozen=True, slots=True)
class EarlierCopy:
    """Tokens that were computed before, in another call, behind another prefix.

    Attributes:
        start: First of their positions in this prompt.
        end: Behind the last.
        request_id: The call that computed them first.
        earlier_start: Position of the first in that call; past its prompt, they were generated.
    """

    start: int
    end: int
    request_id: str
    earlier_start: int


@dataclass(frozen=True, slots=True)
class CallCauses:
    """One call and the causes of its misses.

    Attributes:
        call: As recorded.
        ceiling_tokens: Prompt tokens that an infinite cache would have served. Below
            `call.cached_tokens` only when something that is not in the log used the engine.
        tokens: Computed tokens by cause, all causes named; adds up to `call.computed_tokens`.
        layout: What `tokens[Cause.LAYOUT]` is made of, in order, without overlap.
    """

    call: CallFinished
    ceiling_tokens: int
    tokens: Mapping[Cause, int]
    layout: tuple[EarlierCopy, ...]


IdsOf = Callable[[CallFinished], Sequence[int] | None]
"""The token ids of a call, in order; `None` when they were not kept."""


def attribute(
    events: Iterable[AnyEvent],
    prompt_ids: IdsOf | None = None,
    output_ids: IdsOf | None = None,
) -> tuple[CallCauses, ...]:
    """Find the causes of all misses of a run.

    Costs time linear in the blocks of all prompts; with ids, linear in the ids, a sort of the
    computed ones, and about 100 bytes of memory for each token computed or generated.

    Args:
        events: A run's, in the order of its log.
        prompt_ids: Gives a call's prompt. Without it, or where it gives `None`, nothing is called
            `layout` or `salt`.
        output_ids: Gives what a call generated: it counts as computed too.

    Returns:
        The calls that have facts, in the order in which the engine scheduled them.
    """
    history = CacheHistory()
    calls: list[CallFinished] = []
    for event in events:
        history.add(event)
        if isinstance(event, CallFinished):
            calls.append(event)
    _, judged = history.settle()
    tokens = [by_cause(reuse) for reuse in judged]
    layout: list[tuple[EarlierCopy, ...]] = [() for _ in judged]
    if prompt_ids is not None:
        # Late: numpy is for those who read ids.
        from rlm_runtime.profiler.first_use import split_first_use

        layout = split_first_use(judged, calls, tokens, prompt_ids, output_ids)
    return tuple(
        CallCauses(calls[reuse.lookup.number], reuse.ceiling_tokens, causes, copies)
        for reuse, causes, copies in zip(judged, tokens, layout, strict=True)
    )


def by_cause(reuse: Reuse) -> dict[Cause, int]:
    """Computed tokens of a call by cause, as far as its block digests tell."""
    lookup, size = reuse.lookup, reuse.block_size
    hit, known = reuse.hit_blocks, reuse.known_blocks
    usable, whole = reuse.usable_blocks, reuse.prompt_blocks
    tokens = dict.fromkeys(Cause, 0)
    resident = max(0, min(known, usable) - hit) * size
    if not lookup.reads_cache:
        tokens[Cause.SKIPPED] = resident
    elif reuse.can_evict:
        tokens[Cause.EVICTED] = resident
    else:
        tokens[Cause.UNEXPLAINED] = resident
    # A whole last block that is known: its last token had to be computed, and so all of it was.
    last = max(0, min(known, whole) - max(usable, hit)) * size
    tokens[Cause.BLOCK_ROUNDING] = lookup.prompt_tokens - whole * size + last
    tokens[Cause.FIRST_USE] = max(0, whole - max(known, hit)) * size
    again = lookup.runs - 1
    tokens[Cause.SKIPPED] += again * usable * size
    tokens[Cause.BLOCK_ROUNDING] += again * (lookup.prompt_tokens - usable * size)
    is_whole_log = size and len(lookup.chain) >= whole * DIGEST_BYTES
    if not is_whole_log or sum(tokens.values()) != lookup.computed_tokens:
        # Facts that contradict each other, or a log without its engine: nothing can be said.
        return dict.fromkeys(Cause, 0) | {Cause.UNEXPLAINED: lookup.computed_tokens}
    return tokens

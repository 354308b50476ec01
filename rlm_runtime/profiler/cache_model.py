"""An infinite prefix cache, fed with a run's calls in the order in which the engine scheduled them.

What it holds when a call is scheduled is what no engine could hold more of: the ceiling. Each rule
follows vLLM's scheduler:

- Whole blocks only, and never a prompt's last token (at least one token is computed for the
  logits): a prompt of P tokens hits at most `(P - 1) // block_size` blocks.
- A prompt's blocks can be shared from the moment the call is scheduled, so the calls of one engine
  step already share. Calls of one step have the same `scheduled_at_s`. They stand in the order in
  which they were admitted, the engine's for calls of equal priority; but one that hit what only
  another of its step computed stands behind that one.
- Generated ids are cached block by block while they are decoded, all but the last id. When exactly
  is not in the log, so they count from the end of their call on, and before it only as far as the
  engine did hit them.
- A call that ended without facts (cancelled before its first token) may have computed any part of
  its prompt. It counts as far as the engine did hit it.
- A request with `runs` = 2 is two requests: the second asks not to read the cache, and would find
  all of its prompt in the infinite one.
- A new engine (`EngineStarted`) and an emptied cache (`CacheReset`) begin an epoch with an empty
  cache.

Cached tokens therefore never exceed the ceiling, unless something used the engine that is not in
the log. Nothing is clamped: such a hit shows as a ceiling below the cached tokens.
"""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import inf
from operator import attrgetter
from typing import NamedTuple

from rlm_runtime.blocks import DIGEST_BYTES
from rlm_runtime.errors import TraceError
from rlm_runtime.tracing import AnyEvent, CacheReset, CallFinished, EngineStarted

_DIGEST_TYPECODE = "Q"


class Lookup(NamedTuple):
    """What the cache model needs of a call: about 200 bytes, and 8 more a block.

    Attributes:
        number: Position among the run's `CallFinished` events.
        chain: Block digests of the prompt and the generated ids, one after another.
        prompt_tokens: Of one run of the request.
        cached_tokens: Of the first run; a second one reads nothing.
        computed_tokens: Of all runs.
        generated_tokens: As the facts have them.
        runs: 1 or 2.
        reads_cache: False: the request asked not to.
        preemptions: Times its KV was thrown away.
        scheduled_at_s: Engine clock.
        admitted_at_s: Run clock.
        finished_at_s: Engine clock.
    """

    number: int
    chain: bytes
    prompt_tokens: int
    cached_tokens: int
    computed_tokens: int
    generated_tokens: int
    runs: int
    reads_cache: bool
    preemptions: int
    scheduled_at_s: float
    admitted_at_s: float
    finished_at_s: float


class Reuse(NamedTuple):
    """What the infinite cache says of one call; all counts are of one run of the request.

    Attributes:
        lookup: The call.
        block_size: Tokens a block; 0 when no engine had started.
        hit_blocks: Leading blocks that the engine took from its cache.
        known_blocks: Leading prompt blocks that had been computed before.
        possible_blocks: The same, with those that a call still running, or one without facts, may
            have computed.
        usable_blocks: Blocks that a request of this length can hit.
        prompt_blocks: Whole blocks of the prompt.
        new_blocks: Of these, never computed in this run before, in no epoch.
        can_evict: The engine's cache may have been full, so a known block may have been evicted.
        epoch: Counts engines and emptied caches.
    """

    lookup: Lookup
    block_size: int
    hit_blocks: int
    known_blocks: int
    possible_blocks: int
    usable_blocks: int
    prompt_blocks: int
    new_blocks: int
    can_evict: bool
    epoch: int

    @property
    def ceiling_tokens(self) -> int:
        """Most prompt tokens that a cache of these blocks can serve, over all runs."""
        first = min(self.known_blocks, self.usable_blocks)
        again = (self.lookup.runs - 1) * self.usable_blocks
        return (first + again) * self.block_size

    @property
    def needed_tokens(self) -> int:
        """Tokens that this prompt adds to the run's prefix tree: new blocks, and its tail."""
        tail = self.lookup.prompt_tokens - self.prompt_blocks * self.block_size
        return self.new_blocks * self.block_size + tail


@dataclass(slots=True)
class _Epoch:
    """One engine with one life of its cache."""

    block_size: int
    kv_blocks: int
    lookups: list[Lookup]
    unsure: list[bytes]  # chains of calls without facts


class _Place(NamedTuple):
    """The last judged call."""

    epoch: int
    scheduled_at_s: float


class CacheHistory:
    """The calls of a run and what the infinite cache says of each.

    Events come in the log's order, in which calls end; `settle` judges them in the order in which
    they were scheduled. All lookups are kept, for a late one changes what follows it.

    Args:
        holds_generated: False leaves generated ids out of the cache, as models of prompts do.
    """

    def __init__(self, *, holds_generated: bool = True) -> None:
        self._holds_generated = holds_generated
        self._epochs = [_Epoch(0, 0, [], [])]
        self._calls = 0
        self._last: _Place | None = None
        self._begin()

    def add(self, event: AnyEvent) -> None:
        """Take in one event; O(blocks of the call).

        Raises:
            TraceError: A call's block digests are none.
        """
        match event:
            case EngineStarted():
                self._epochs.append(_Epoch(event.block_size, event.kv_blocks, [], []))
            case CacheReset():
                last = self._epochs[-1]
                self._epochs.append(_Epoch(last.block_size, last.kv_blocks, [], []))
            case CallFinished():
                self._add_call(event)
            case _:
                return

    def settle(self) -> tuple[bool, list[Reuse]]:
        """Judge the calls that came since the last time.

        Returns:
            Whether all calls are judged anew, because what came bears on calls that had been
            judged; and the judgements, in the order in which calls were scheduled.
        """
        if self._is_stale():
            self._begin()
        is_anew = not self._judged
        judged: list[Reuse] = []
        for number, epoch in enumerate(self._epochs):
            done = self._judged.get(number, 0)
            pending = sorted(epoch.lookups[done:], key=_order)
            if not pending:
                continue
            if not done:
                self._model.begin(number, epoch)
            judged += self._judge(pending)
            self._judged[number] = len(epoch.lookups)
            self._last = _Place(number, pending[-1].scheduled_at_s)
        self._unsure = sum(len(epoch.unsure) for epoch in self._epochs)
        return is_anew, judged

    def _judge(self, pending: Sequence[Lookup]) -> Iterator[Reuse]:
        for _, step in groupby(pending, key=attrgetter("scheduled_at_s")):
            waiting = list(step)
            while waiting:
                fits = (at for at, lookup in enumerate(waiting) if self._model.explains(lookup))
                yield self._model.judge(waiting.pop(next(fits, 0)))

    def _begin(self) -> None:
        self._model = _Model(holds_generated=self._holds_generated)
        self._judged: dict[int, int] = {}  # calls judged, by epoch
        self._last = None
        self._unsure = 0

    def _is_stale(self) -> bool:
        """Something came that bears on a call which was judged before."""
        last = self._last
        if last is None:
            return False
        if self._unsure != sum(len(epoch.unsure) for epoch in self._epochs):
            return True
        late = self._epochs[last.epoch].lookups[self._judged[last.epoch] :]
        return any(lookup.scheduled_at_s <= last.scheduled_at_s for lookup in late)

    def _add_call(self, call: CallFinished) -> None:
        number, self._calls = self._calls, self._calls + 1
        epoch = self._epochs[-1]
        lookup = _lookup(number, call)
        if lookup is not None:
            epoch.lookups.append(lookup)
        elif call.admitted_at_s is not None:
            epoch.unsure.append(_chain(call))


def _lookup(number: int, call: CallFinished) -> Lookup | None:
    if call.prompt_tokens is None:
        return None
    runs = call.runs or 1
    return Lookup(
        number=number,
        chain=_chain(call),
        prompt_tokens=call.prompt_tokens // runs,
        cached_tokens=call.cached_tokens or 0,
        computed_tokens=call.computed_tokens or 0,
        generated_tokens=call.generated_tokens or 0,
        runs=runs,
        reads_cache=call.reads_cache,
        preemptions=call.preemptions or 0,
        scheduled_at_s=_time(call.scheduled_at_s),
        admitted_at_s=_time(call.admitted_at_s),
        finished_at_s=_time(call.finished_at_s),
    )


def _chain(call: CallFinished) -> bytes:
    try:
        chain = bytes.fromhex(call.blocks)
    except ValueError:
        chain = b"?"
    if len(chain) % DIGEST_BYTES:
        raise TraceError(
            f"The block digests of request {call.request_id} are damaged.",
            "The log was changed after the run.",
        )
    return chain


def _time(at_s: float | None) -> float:
    return inf if at_s is None else at_s


def _order(lookup: Lookup) -> tuple[float, float, int]:
    return lookup.scheduled_at_s, lookup.admitted_at_s, lookup.number


def _leading(digests: Sequence[int], holds: Callable[[int], bool]) -> int:
    """How many digests it holds, up to the first it doesn't."""
    for position, digest in enumerate(digests):
        if not holds(digest):
            return position
    return len(digests)


class _Model:
    """The infinite cache itself."""

    def __init__(self, *, holds_generated: bool) -> None:
        self._holds_generated = holds_generated
        self._seen: dict[int, int] = {}  # digest -> epoch in which it was computed last
        self._unsure: set[int] = set()
        self._running: list[tuple[float, int, Sequence[int]]] = []  # a heap by end

    def begin(self, number: int, epoch: _Epoch) -> None:
        """Empty the cache."""
        self._number = number
        self._block_size, self._kv_blocks = epoch.block_size, epoch.kv_blocks
        self._running.clear()
        self._unsure = {
            digest for chain in epoch.unsure for digest in array(_DIGEST_TYPECODE, chain)
        }
        # Blocks that requests took from the pool so far: only a pool that was used up evicts. One
        # block is vLLM's null block.
        self._taken = sum(len(chain) // DIGEST_BYTES + 1 for chain in epoch.unsure) + 1

    def explains(self, lookup: Lookup) -> bool:
        """What the engine took from its cache for this call had been computed."""
        hits = lookup.cached_tokens // self._block_size if self._block_size else 0
        chain = array(_DIGEST_TYPECODE, lookup.chain[: hits * DIGEST_BYTES])
        seen, unsure, number = self._seen, self._unsure, self._number
        return all(seen.get(digest) == number or digest in unsure for digest in chain)

    def judge(self, lookup: Lookup) -> Reuse:
        """Look a call up, then insert it."""
        size = self._block_size
        if not size:
            return Reuse(lookup, 0, 0, 0, 0, 0, 0, 0, can_evict=True, epoch=self._number)
        while self._running and self._running[0][0] <= lookup.scheduled_at_s:
            self._insert(heapq.heappop(self._running)[2])
        digests = array(_DIGEST_TYPECODE, lookup.chain)
        blocks = lookup.prompt_tokens // size
        prompt, generated = digests[:blocks], digests[blocks:]
        hits = lookup.cached_tokens // size
        seen, unsure, number = self._seen, self._unsure, self._number
        known = _leading(prompt, lambda digest: seen.get(digest) == number)
        possible = known + _leading(
            prompt[known:], lambda digest: digest in unsure or seen.get(digest) == number
        )
        if known < hits <= possible:
            known = hits  # what was hit had been computed
        new = sum(digest not in seen for digest in prompt)
        can_evict = self._taken > self._kv_blocks or hits > possible
        reuse = Reuse(
            lookup=lookup,
            block_size=size,
            hit_blocks=hits,
            known_blocks=known,
            possible_blocks=max(possible, known),
            usable_blocks=(lookup.prompt_tokens - 1) // size,
            prompt_blocks=blocks,
            new_blocks=new,
            can_evict=can_evict,
            epoch=number,
        )
        self._insert(prompt)
        if self._holds_generated and generated:
            unsure.update(generated)
            heapq.heappush(self._running, (lookup.finished_at_s, lookup.number, generated))
        held = -(-(lookup.prompt_tokens + lookup.generated_tokens) // size)
        self._taken += held * (lookup.runs + lookup.preemptions) - hits
        if hits > possible:
            self._taken += self._kv_blocks  # others use this engine: who knows what they took
        return reuse

    def _insert(self, digests: Sequence[int]) -> None:
        for digest in digests:
            self._seen[digest] = self._number

"""Does this engine cache prompts with this model, and in which steps?

vLLM's prefix cache is on by default and silent: a model whose layers can't share their state gets
no hits, one with mixed kinds of layers may get them only in steps of many blocks, and nothing says
so. Here it is tried, with a dozen small requests to an engine that nobody else uses.
"""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

from rlm_runtime.engine.base import Engine, Finished, GenerateRequest, RequestFacts, Span
from rlm_runtime.errors import EngineError
from rlm_runtime.types import RequestId

MAX_PROBE_TOKENS = 2048
"""Length of the repeated prompt, less in a small window: a step beyond it looks like no hits."""

GENERATED_TOKENS = 128
"""What is generated to see whether it is cached; a longer step can't be seen in it."""

SCORED_TOKENS = 8

SCORED_BEHIND_TOKENS = 256
"""Least length of the cached beginning behind which they stand; whole steps of the cache."""


@dataclass(frozen=True, slots=True)
class CacheProbe:
    """What the requests showed. All in tokens.

    Attributes:
        repeated_tokens: Length of the prompt that was sent twice.
        repeated_cached_tokens: What the second one took from the cache.
        step_tokens: The shortest beginning that two prompts must share for a hit; `None` without
            hits.
        shared_tokens: Length of the shared prefix.
        shared_cached_tokens: What a second task behind it took from the cache.
        generated_cached_tokens: What a next turn took from the cache of the answer before it;
            `None` where the step is too long to see it.
        scored_cached_tokens: What a scored prompt took from the cache; 0 where the engine had to
            compute it whole after all.
        score_gap: Difference, in nats, of the log-probability of the same tokens in that prompt and
            without the cache.
    """

    repeated_tokens: int
    repeated_cached_tokens: int
    step_tokens: int | None
    shared_tokens: int
    shared_cached_tokens: int
    generated_cached_tokens: int | None
    scored_cached_tokens: int
    score_gap: float

    @property
    def shared_loss_tokens(self) -> int:
        """Tokens of the shared prefix that each call computes again."""
        return self.shared_tokens - self.shared_cached_tokens


class _Answer(NamedTuple):
    ids: tuple[int, ...]
    facts: RequestFacts
    logprobs: tuple[float, ...] | None


class _Scores(NamedTuple):
    cached_tokens: int
    gap: float


async def probe_cache(engine: Engine, shared_ids: tuple[int, ...], seed: int = 0) -> CacheProbe:
    """Try the engine's cache; about 5,000 tokens are computed.

    Args:
        engine: Started, with nothing running.
        shared_ids: What all prompts begin with.
        seed: Of the made-up token ids.

    Raises:
        EngineError: A request failed, or the window holds no prompt to try.
    """
    return await _Prober(engine, Random(seed)).run(shared_ids)  # noqa: S311 # a probe repeats itself


class _Prober:
    def __init__(self, engine: Engine, random: Random) -> None:
        self._engine = engine
        self._random = random
        self._sent = 0

    async def run(self, shared_ids: tuple[int, ...]) -> CacheProbe:
        info = self._engine.info
        room = info.window - GENERATED_TOKENS - 2 * info.block_size
        if room < max(len(shared_ids), info.block_size):
            raise EngineError(
                f"The window of {info.window:,} tokens is too small to try the cache.",
                "Use a larger engine.window_tokens.",
            )
        prompt = self._fresh(min(MAX_PROBE_TOKENS, room))
        await self._send(prompt)
        repeated = (await self._send(prompt)).facts.cached_tokens
        step = await self._step(prompt) if repeated else None
        await self._send(shared_ids + self._fresh(1))
        shared = (await self._send(shared_ids + self._fresh(1))).facts.cached_tokens
        scored, gap = await self._scores(prompt, step or info.block_size)
        return CacheProbe(
            repeated_tokens=len(prompt),
            repeated_cached_tokens=repeated,
            step_tokens=step,
            shared_tokens=len(shared_ids),
            shared_cached_tokens=shared,
            generated_cached_tokens=await self._generated(step),
            scored_cached_tokens=scored,
            score_gap=gap,
        )

    async def _step(self, prompt: tuple[int, ...]) -> int | None:
        """The least part of the prompt that is found again, by halving; the cache holds it all."""
        misses, hits = 0, len(prompt)
        step: int | None = None
        while hits - misses > 1:
            middle = (misses + hits) // 2
            # Another token behind it: a whole prompt is never taken from the cache.
            probe = prompt[:middle] + self._fresh(1)
            cached = (await self._send(probe)).facts.cached_tokens
            if cached:
                hits, step = middle, cached
            else:
                misses = middle
        return step

    async def _generated(self, step: int | None) -> int | None:
        if step is None or 2 * step > GENERATED_TOKENS:
            return None
        prompt = self._fresh(step)
        answer = await self._send(prompt, max_tokens=2 * step, ignore_eos=True)
        turn = await self._send(prompt + answer.ids + self._fresh(1))
        return max(0, turn.facts.cached_tokens - len(prompt))

    async def _scores(self, cached: tuple[int, ...], step: int) -> _Scores:
        steps = -(-SCORED_BEHIND_TOKENS // step)
        # One token more than the cache holds: the first scored one needs the state that the token
        # before it leaves, so that one has to be computed, or all of the prompt will be.
        scored = cached[: steps * step] + self._fresh(1 + SCORED_TOKENS)
        span = Span(len(scored) - SCORED_TOKENS, len(scored))
        sums, cached_tokens = [], 0
        for read_cache in (True, False):
            answer = await self._send(scored, score=span, read_cache=read_cache)
            if answer.facts.runs == 1:
                cached_tokens += answer.facts.cached_tokens
            if answer.logprobs is None:
                raise EngineError(
                    "The engine gave no log-probabilities of a prompt.",
                    "`search` needs them: use vLLM, or a version of it that has prompt_logprobs.",
                )
            sums.append(sum(answer.logprobs))
        return _Scores(cached_tokens, abs(sums[0] - sums[1]))

    async def _send(
        self,
        prompt_ids: tuple[int, ...],
        *,
        max_tokens: int = 1,
        ignore_eos: bool = False,
        score: Span | None = None,
        read_cache: bool = True,
    ) -> _Answer:
        self._sent += 1
        request = GenerateRequest(
            request_id=RequestId(f"probe{self._sent}"),
            prompt_ids=prompt_ids,
            max_tokens=max_tokens,
            ignore_eos=ignore_eos,
            score=score,
            read_cache=read_cache,
        )
        ids: list[int] = []
        async with aclosing(self._engine.generate(request)) as stream:
            async for item in stream:
                if isinstance(item, Finished):
                    return _Answer(tuple(ids), item.facts, item.logprobs)
                ids.extend(item.ids)
        raise EngineError(f"Request {request.request_id} ended without facts.", "Report this.")

    def _fresh(self, count: int) -> tuple[int, ...]:
        """Ids that no other prompt had; special tokens, mostly the first ids, left out."""
        first = min(1000, self._engine.info.vocab_size // 2)
        return tuple(
            self._random.randrange(first, self._engine.info.vocab_size) for _ in range(count)
        )

"""The contract between the scheduler and whatever runs the model: token ids in, ids and facts out.

Prompts are ids, never text, so that what was cached is exactly what is sent again. An engine owns
no agents, no documents and no limits of a tree.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Literal, Protocol

from rlm_runtime.types import RequestId

FinishReason = Literal["stop", "length", "repetition"]


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What an engine is, known once it has started.

    Attributes:
        model: Name of the served model (not a path).
        window: Prompt plus generated tokens a request may have.
        block_size: Tokens of one prefix-cache block.
        kv_blocks: Blocks the KV cache holds.
        tokenizer_digest: Digest of the tokenizer file, to refuse ids of another tokenizer.
        vocab_size: Ids are below this.
        max_running: Requests that run at the same time.
        backend: Version and device, for reports: "vllm 0.32.0 cpu".
        can_choose: Requests may have `choices`, a `grammar` or a `json_schema`.
        can_force: Requests may have a `script`.
    """

    model: str
    window: int
    block_size: int
    kv_blocks: int
    tokenizer_digest: str
    vocab_size: int
    max_running: int
    backend: str
    can_choose: bool = False
    can_force: bool = False

    @property
    def kv_tokens(self) -> int:
        """Tokens the KV cache holds."""
        return self.kv_blocks * self.block_size


@dataclass(frozen=True, slots=True)
class Span:
    """Positions `start <= i < end` of a prompt."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """One request to the engine.

    Attributes:
        request_id: Unique among live requests.
        prompt_ids: Token ids, `(num_tokens,)`; at least one.
        max_tokens: Most tokens to generate, >= 1.
        temperature: 0 is greedy.
        seed: For `temperature > 0`.
        stop_token_ids: End generation; the stop token is the last of the generated ids. The model's
            own end-of-sequence token always ends it, unless `ignore_eos`.
        ignore_eos: Generate exactly `max_tokens` (measurements).
        score: Prompt positions whose log-probabilities are wanted (`Finished.logprobs`). The prefix
            cache is still read; where it reaches into the span, the engine computes the prompt once
            more without it, and the facts count both.
        priority: Lower runs first.
        cache_salt: A namespace of the prefix cache; `None` is the common one.
        read_cache: False computes the whole prompt; its blocks are still stored.
        stop_repetition: End generation when it loops (finish reason "repetition").
        choices: The answer is exactly one of these texts (`Finished.choice`), generated as the ids
            that the tokenizer makes of it, and then the end-of-sequence token. Equal ones count
            once; none is no constraint. `max_tokens` must hold the longest one and the end, and
            nothing else that ends a request may be set. Up to 2,000, of 20,000 tokens together; a
            new set costs up to 0.1 s before the request is scheduled.
        script: The ids to generate, instead of what the model would choose: they are computed and
            cached as its own would be. The end-of-sequence token follows, unless the script has it
            or fills `max_tokens`: then it ends with "length", as an answer that was cut. Needs
            `EngineInfo.can_force`.
        grammar: The generated text obeys this grammar: xgrammar's EBNF, from the rule `root` on.
            Compiled anew for each request, off the event loop: 500 names 0.03 s, 2,000 names 0.1 s,
            a character class with bounds (`[^"]{1,200}`) 2 s; without bounds, or a word with bounds
            so many times, next to nothing.
        json_schema: The generated text is JSON that obeys this schema, itself given as JSON. The
            same costs: a string with `maxLength` is a character class with bounds.

    At most one of `choices`, `script`, `grammar` and `json_schema` is given, and with any of them
    nothing else that ends a request early; under a grammar or schema, `stop_repetition` is allowed.
    A text under these two holds no control token, though it may spell one out in plain tokens. It
    may be cut by `max_tokens`: the facts say why it ended.
    """

    request_id: RequestId
    prompt_ids: tuple[int, ...]
    max_tokens: int = 1
    temperature: float = 0.0
    seed: int | None = None
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    score: Span | None = None
    priority: int = 0
    cache_salt: str | None = None
    read_cache: bool = True
    stop_repetition: bool = False
    choices: tuple[str, ...] = ()
    script: tuple[int, ...] = ()
    grammar: str = ""
    json_schema: str = ""


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """What the engine measured of one request. Times are seconds.

    Attributes:
        prompt_tokens: `cached_tokens + computed_tokens`.
        cached_tokens: Prompt tokens taken from the prefix cache.
        computed_tokens: Prompt tokens prefilled. For a scored request that had to run twice, both
            runs count in all three.
        generated_tokens: Tokens sampled: the ids delivered, and for a request that had to run twice
            the one of its first run that was not.
        ttft_s: From arrival at the engine's front end to the first token, waiting included.
        queue_s: `ttft_s - prefill_s`.
        prefill_s: From the first scheduling to the first token.
        decode_s: From the first token to the last.
        runs: 1, or 2 for a scored request that had to be computed once more.
        preemptions: Times the engine threw the request's KV away and computed it again.
        scheduled_at_s: Engine clock (monotonic) when the request was first scheduled.
        finished_at_s: The same clock at the last token.
        finish_reason: Why it ended.
    """

    prompt_tokens: int
    cached_tokens: int
    computed_tokens: int
    generated_tokens: int
    ttft_s: float
    queue_s: float
    prefill_s: float
    decode_s: float
    runs: int
    preemptions: int
    scheduled_at_s: float
    finished_at_s: float
    finish_reason: FinishReason


@dataclass(frozen=True, slots=True)
class TokenDelta:
    """Ids generated since the last delta, as the engine made them."""

    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Finished:
    """The last item of every stream.

    Attributes:
        facts: What the engine measured.
        logprobs: Natural-log probabilities of `GenerateRequest.score`'s positions, in order; `None`
            when none were asked for.
        choice: Which of `GenerateRequest.choices` was generated; `None` when there were none.
    """

    facts: RequestFacts
    logprobs: tuple[float, ...] | None = None
    choice: str | None = None


@dataclass(frozen=True, slots=True)
class EngineStats:
    """The engine's own counters since it started, the independent side of the ledger.

    Attributes:
        prompt_tokens: Prompt tokens of finished prefills.
        cached_tokens: Of these, from the prefix cache.
        computed_tokens: Of these, prefilled.
        generated_tokens: Tokens decoded.
        preemptions: Requests whose KV was thrown away while running.
        running: Requests running now.
        waiting: Requests the engine has but does not run yet.
        kv_usage: Share of the KV cache in use, 0..1.
    """

    prompt_tokens: int
    cached_tokens: int
    computed_tokens: int
    generated_tokens: int
    preemptions: int
    running: int
    waiting: int
    kv_usage: float


class Engine(Protocol):
    """Runs requests on a model. One asyncio loop uses it; methods are not thread-safe."""

    @property
    def info(self) -> EngineInfo:
        """What this engine is."""
        ...

    def generate(self, request: GenerateRequest) -> AsyncGenerator[TokenDelta | Finished]:
        """Stream the generated ids, then `Finished`.

        Cancelling the task that iterates, or closing the iterator, aborts the request in the
        engine; its KV blocks stay reusable.

        Raises:
            InputError: The request contradicts itself or the model, and nothing was sent; or the
                engine can't compile its grammar or schema.
            PromptTooLong: The prompt and `max_tokens` exceed the window; nothing was sent.
            EngineDead: The engine's process ended, before or during the request.
            EngineError: The engine refused this one request, or can't choose or force; it lives
                on.
        """
        ...

    async def reset_prefix_cache(self) -> None:
        """Forget all cached blocks, so that the next prompt is cold.

        Raises:
            EngineError: A request is running; the cache was not reset.
        """
        ...

    def stats(self) -> EngineStats:
        """The engine's counters. Free of side effects."""
        ...

    async def close(self) -> None:
        """End the engine and its processes. Idempotent."""
        ...

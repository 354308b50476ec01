"""What came of a request, gathered from vLLM's outputs. A scored one may take two runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, get_args

from rlm_runtime.engine.base import FinishReason, GenerateRequest, RequestFacts, Span
from rlm_runtime.errors import EngineError


@dataclass(slots=True)
class Run:
    """One request as vLLM saw it, while its outputs come in."""

    request: GenerateRequest
    ids: list[int] = field(default_factory=list)
    logprobs: tuple[float, ...] | None = None
    is_scored: bool = True
    last: Any = field(default=None)  # a RequestOutput

    def add(self, output: Any) -> tuple[int, ...]:
        """Take in the next output and return its ids; sets `is_scored` and `logprobs`."""
        is_first = self.last is None
        self.last = output
        completion = output.outputs[0]
        ids = tuple(completion.token_ids)
        self.ids += ids
        span = self.request.score
        if span is not None and is_first:
            # Position i is computed with position i - 1. One that came from the cache was not
            # computed: what stands there is whatever memory held. After a preemption nobody knows.
            self.is_scored = (
                output.num_cached_tokens < span.start and output.metrics.num_preemptions == 0
            )
            if self.is_scored:
                self.logprobs = _read(output.prompt_logprobs, self.request.prompt_ids, span)
        return ids


def _read(prompt_logprobs: Any, ids: tuple[int, ...], span: Span) -> tuple[float, ...]:
    return tuple(prompt_logprobs[i][ids[i]].logprob for i in range(span.start, span.end))


def facts(runs: list[Run]) -> RequestFacts:
    """Sums over the runs of a request."""
    prompt_tokens = len(runs[0].request.prompt_ids) * len(runs)
    cached_tokens = sum(run.last.num_cached_tokens or 0 for run in runs)
    metrics = [run.last.metrics for run in runs]
    ttft_s = sum(m.first_token_latency for m in metrics)
    # The latency is wall clock, these are the engine's: a step of the wall clock must not show.
    prefill_s = sum(m.first_token_ts - m.scheduled_ts for m in metrics)
    return RequestFacts(
        prompt_tokens=prompt_tokens,
        cached_tokens=cached_tokens,
        computed_tokens=prompt_tokens - cached_tokens,
        generated_tokens=sum(len(run.ids) for run in runs),
        ttft_s=ttft_s,
        queue_s=max(0.0, ttft_s - prefill_s),
        prefill_s=prefill_s,
        decode_s=sum(m.last_token_ts - m.first_token_ts for m in metrics),
        runs=len(runs),
        preemptions=sum(m.num_preemptions for m in metrics),
        scheduled_at_s=metrics[0].scheduled_ts,
        finished_at_s=metrics[-1].last_token_ts,
        finish_reason=_finish_reason(runs[-1].last.outputs[0].finish_reason),
    )


def _finish_reason(reason: str | None) -> FinishReason:
    for known in get_args(FinishReason):
        if reason == known:
            return known  # type: ignore[no-any-return] # get_args is untyped
    raise EngineError(f"The engine ended a request with {reason!r}.", "Send it again.")

"""The engine's own counters, added up once a step from what vLLM's scheduler reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rlm_runtime.engine.base import EngineStats


@dataclass(slots=True)
class _Gauges:
    running: int = 0
    waiting: int = 0
    kv_usage: float = 0.0


class Counters:
    """A stat logger in vLLM's sense, for all engine cores of one front end.

    vLLM calls `record` in the front end's loop, once an engine step; the other methods are those
    that it expects of a stat logger.
    """

    def __init__(self) -> None:
        self.zero()

    def zero(self) -> None:
        """Count from here on."""
        self._prompt_tokens = 0
        self._cached_tokens = 0
        self._computed_tokens = 0
        self._generated_tokens = 0
        self._preemptions = 0
        self._gauges: dict[int, _Gauges] = {}

    def record(
        self,
        scheduler_stats: Any,  # vLLM is no dependency of the type check
        iteration_stats: Any,  # the same
        mm_cache_stats: object = None,
        engine_idx: int = 0,
    ) -> None:
        """Add one engine step."""
        if scheduler_stats is not None:
            self._gauges[engine_idx] = _Gauges(
                scheduler_stats.num_running_reqs,
                scheduler_stats.num_waiting_reqs + scheduler_stats.num_skipped_waiting_reqs,
                scheduler_stats.kv_cache_usage,
            )
        if iteration_stats is not None:  # None on steps without output
            prompts = iteration_stats.prompt_token_stats
            self._prompt_tokens += prompts.total
            self._cached_tokens += prompts.cached_tokens
            self._computed_tokens += prompts.computed
            self._generated_tokens += iteration_stats.num_generation_tokens
            self._preemptions += iteration_stats.num_preempted_reqs

    def log_engine_initialized(self) -> None:
        """Nothing is logged."""

    def log(self) -> None:
        """Nothing is logged."""

    def stats(self) -> EngineStats:
        """The sums since `zero`, and the last step's gauges."""
        gauges = self._gauges.values()
        return EngineStats(
            prompt_tokens=self._prompt_tokens,
            cached_tokens=self._cached_tokens,
            computed_tokens=self._computed_tokens,
            generated_tokens=self._generated_tokens,
            preemptions=self._preemptions,
            running=sum(gauge.running for gauge in gauges),
            waiting=sum(gauge.waiting for gauge in gauges),
            kv_usage=max((gauge.kv_usage for gauge in gauges), default=0.0),
        )

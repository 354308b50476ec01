"""Schedulers that vLLM imports in its engine core: one counts, one breaks, one asks it to end."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from vllm.v1.core.sched.scheduler import Scheduler

FILE = "RLM_TEST_SCHEDULED_TOKENS"
"""Names the file that gets one line a step."""

BREAKING_PRIORITY = 13


class CountingScheduler(Scheduler):  # type: ignore[misc] # vLLM is no dependency of the type check
    """Appends the number of tokens that each step computes to a file."""

    def schedule(self, *args: Any, **kwargs: Any) -> Any:
        output = super().schedule(*args, **kwargs)
        with Path(os.environ[FILE]).open("a") as file:
            file.write(f"{sum(output.num_scheduled_tokens.values())}\n")
        return output


class BreakingScheduler(Scheduler):  # type: ignore[misc] # vLLM is no dependency of the type check
    """Fails when a request of `BREAKING_PRIORITY` is scheduled."""

    def schedule(self, *args: Any, **kwargs: Any) -> Any:
        if any(request.priority == BREAKING_PRIORITY for request in self.requests.values()):
            raise RuntimeError("the scheduler broke on purpose")
        return super().schedule(*args, **kwargs)


class EndingScheduler(Scheduler):  # type: ignore[misc] # vLLM is no dependency of the type check
    """Ends the engine core in good order when a request of `BREAKING_PRIORITY` is scheduled."""

    def schedule(self, *args: Any, **kwargs: Any) -> Any:
        if any(request.priority == BREAKING_PRIORITY for request in self.requests.values()):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
            signal.raise_signal(signal.SIGTERM)
        return super().schedule(*args, **kwargs)

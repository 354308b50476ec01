"""The public face: `RLM` for scripts and notebooks, `AsyncRLM` for programs with an event loop.

One object is one session: one configuration, one engine whose cache stays warm from question to
question, one run directory with its events.
"""

from rlm_runtime.api.blocking import RLM
from rlm_runtime.api.engine_life import Internals
from rlm_runtime.api.result import Result, Source
from rlm_runtime.api.session import AsyncRLM

__all__ = ["RLM", "AsyncRLM", "Internals", "Result", "Source"]

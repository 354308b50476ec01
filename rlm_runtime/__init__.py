"""A local-inference runtime for Recursive Language Models.

A long text never goes into the prompt: it is a context variable, read in parts, and every agent
reads through one vLLM engine with one shared, cached prefix.

    from pathlib import Path
    from rlm_runtime import RLM

    with RLM() as rlm:
        result = rlm.run("Who signed it?", Path("REPORT.txt"))
        print(result.answer, result.passages[0].start_byte)

The names below are loaded when they are first used: importing the package stays cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rlm_runtime.api import RLM, AsyncRLM, Result
    from rlm_runtime.config import Config
    from rlm_runtime.errors import RLMError
    from rlm_runtime.scaffold.agent_context import AgentContext
    from rlm_runtime.scaffold.recipes.search_result import Passage
    from rlm_runtime.scheduler import Progress
    from rlm_runtime.types import Limits, Ref, StopReason, Usage

_HOMES = {
    "AgentContext": "scaffold.agent_context",
    "RLM": "api",
    "AsyncRLM": "api",
    "Result": "api",
    "Config": "config",
    "RLMError": "errors",
    "Passage": "scaffold.recipes.search",
    "Progress": "scheduler",
    "Limits": "types",
    "Ref": "types",
    "StopReason": "types",
    "Usage": "types",
}

__all__ = [
    "RLM",
    "AgentContext",
    "AsyncRLM",
    "Config",
    "Limits",
    "Passage",
    "Progress",
    "RLMError",
    "Ref",
    "Result",
    "StopReason",
    "Usage",
]


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

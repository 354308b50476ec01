"""`calls` agents: the model decides the steps, one function call a turn."""

from rlm_runtime.scaffold.calls.agent import CallsAgent

__all__ = ["CallsAgent"]

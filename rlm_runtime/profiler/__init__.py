"""Figures from events: what was computed and why, what came from the cache, how long it took."""

from rlm_runtime.profiler.causes import CallCauses, Cause, EarlierCopy, attribute
from rlm_runtime.profiler.ledger import Figures, Ledger
from rlm_runtime.profiler.run_log import RunLog

__all__ = ["CallCauses", "Cause", "EarlierCopy", "Figures", "Ledger", "RunLog", "attribute"]

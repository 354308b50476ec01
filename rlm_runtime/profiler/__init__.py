"""Figures from events: what was computed, what came from the cache, how long it took."""

from rlm_runtime.profiler.ledger import Figures, Ledger

__all__ = ["Figures", "Ledger"]

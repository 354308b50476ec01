"""Which calls go to the engine, when and in what order; the tree's limits and its cancellation."""

from rlm_runtime.scheduler.job import Job, Progress
from rlm_runtime.scheduler.scheduler import Call, CallResult, Scheduler

__all__ = ["Call", "CallResult", "Job", "Progress", "Scheduler"]

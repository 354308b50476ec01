"""Which calls go to the engine, when and in what order; the tree's limits and its cancellation."""

from rlm_runtime.scheduler.call import Call, CallResult
from rlm_runtime.scheduler.finished_calls import FinishedCalls
from rlm_runtime.scheduler.job import Job, Progress
from rlm_runtime.scheduler.scheduler import Scheduler

__all__ = ["Call", "CallResult", "FinishedCalls", "Job", "Progress", "Scheduler"]

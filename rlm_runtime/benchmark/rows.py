"""`rows`: is each row given its label, and how many are there of each?

The count of a recipe is exact given its labels, since Python counts; what is wrong with it is the
labels. So both are told: how many labels are right, and how far each count is off.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from rlm_runtime.api import AsyncRLM, Result
from rlm_runtime.benchmark.bench import Bench
from rlm_runtime.benchmark.rows_arms import DirectCounted, RowsArm, agent_of, task_of
from rlm_runtime.benchmark.rows_result import ArmLabels, RowsResult
from rlm_runtime.benchmark.workloads.rows import LABELS, NAME, QUESTION, labelled_rows, text_of
from rlm_runtime.scaffold.recipes.classify_each import Classified
from rlm_runtime.scheduler import Progress
from rlm_runtime.types import AgentId

OnCall = Callable[[RowsResult, int, int], None]
"""Gets the arms so far, calls made and calls in all. Quick, in the event loop."""


async def measure(
    session: AsyncRLM, *, rows: int, seed: int, on_call: OnCall | None = None
) -> RowsResult:
    """Let every arm label or count the same rows; each begins with an empty prefix cache.

    Args:
        session: Nothing else is asked of it meanwhile.
        rows: How many.
        seed: Of the rows.
        on_call: Called at each change.

    Raises:
        InputError: So many rows can't be made.
        EngineDead: The engine's process ended.
    """
    made = labelled_rows(rows, seed)
    parts = await session.internals()
    ref = session.store(text_of(made), "reports")
    result = RowsResult(
        workload=NAME, seed=seed, text_digest=ref.digest, labels=LABELS, rows=made, arms=()
    )
    planned = {arm: 1 if arm is RowsArm.DIRECT else rows for arm in RowsArm}
    done = 0
    for arm in RowsArm:

        def on_progress(now: Progress, so_far: RowsResult = result, before: int = done) -> None:
            if on_call is not None:
                on_call(so_far, before + now.done, sum(planned.values()))

        await Bench(parts, AgentId("rows"), seed).forget_cache()
        ended = await session.run(
            task_of(arm, QUESTION, LABELS),
            ref,
            agent=agent_of(arm, LABELS),
            on_progress=on_progress,
        )
        result = replace(result, arms=(*result.arms, _told(arm, ended, rows)))
        done += planned[arm]
        if on_call is not None:
            on_call(result, done, sum(planned.values()))
    return result


def _told(arm: RowsArm, ended: Result, rows: int) -> ArmLabels:
    """What an arm said, out of its agent's result."""
    found = ended.detail
    if isinstance(found, DirectCounted):
        return ArmLabels(
            arm=arm,
            labels=None,
            counts=found.counts,
            shown=found.shown,
            is_constrained=found.is_constrained,
            error=found.error,
            spent=ended.figures,
        )
    if found is None:  # a limit of the configuration refused it
        return ArmLabels(
            arm=arm,
            labels=None,
            counts=None,
            shown=0,
            is_constrained=False,
            error=ended.error,
            spent=ended.figures,
        )
    value = ended.value()
    if not (isinstance(found, Classified) and isinstance(value, dict)):
        raise TypeError(f"not what the recipe leaves: {found!r}")
    labels: list[str | None] = value["labels"]
    counts: dict[str, int] = value["counts"]
    counted = Counter(labels)
    return ArmLabels(
        arm=arm,
        labels=tuple(labels),
        counts=counts,
        shown=rows,
        is_constrained=found.is_constrained,
        error=ended.error or found.error,
        spent=ended.figures,
        gap=sum(abs(counts[label] - counted[label]) for label in counts),
    )

"""How a figure is compared with itself: as a ratio or in points, and which way is better.

Read from the figure's name, so that a workload that is added later is compared without a word
here. A raw hit rate has no better way: more shared text raises it without saving anything.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase

SET_UP = (
    "shared_prefix_tokens",
    "block_size",
    "kv_tokens",
    "cases",
    "tasks",
    "stored_tokens",
    "stored_tokens_estimated",
    "batch_calls",
)
"""Figures that say what was measured. They have to be equal, and no ratio of them is shown."""

_SAMPLES = ("*_n", "batch_repeats")
_ENDS = ("*_low", "*_high")
_NEITHER = (
    "hit_rate",
    "hit_rate_call_mean",
    "hit_rate_ceiling",
    "ttft_variable_*",
    "ttft_saved_*",  # a slower cold request saves more
    "loaded_*",
    "*_question_over_document",
    "*_difference_*",  # one arm less another: either may have moved
    "miss_*_tokens*",  # parts of the computed tokens; less of one may be more of another
    "gpu_power_*",
)
_LOWER = (
    "prompt_tokens*",
    "computed_tokens*",
    "generated_tokens*",
    "engine_computed_tokens",
    "preempted_tokens",
    "engine_preemptions",
    "ledger_gap_tokens",
    "prefill_*",
    "calls_without_facts",
    "calls_computed_twice",
    "ttft_*",
    "false_answer_rate*",
    "wall_s*",
    "boot_s",
    "engine_busy_s",
    "overhead_share*",
    "fork_first_cell_*",
    "second_cell_*",
    "worker_extra_*",
    "gpu_energy_*",
    "count_error_*",
    "count_gap_*",
    "unlabelled_*",
)
_HIGHER = (
    "hit_rate_of_ceiling*",
    "*batch_speedup",
    "accuracy*",
    "passage_accuracy*",
    "certain_rate*",
    "not_found_rate*",
    "saving_*",
    "legal_share",
    "final_share",
)
_IS_SHARE = re.compile(r"(^|_)(rate|share|accuracy|saving)(_|$)")
_IS_MEASURED = re.compile(r"_(s|ms|mb|j|w)(_|$)|speedup|_over_|running_mean|overhead")


class Better(StrEnum):
    """Which way a figure should go."""

    LOWER = "lower"
    HIGHER = "higher"
    NEITHER = "neither"


@dataclass(frozen=True, slots=True)
class FigureKind:
    """How to compare one figure.

    Attributes:
        better: Which way it should go.
        is_share: Of 0..1; the difference is told in points, because a ratio of small shares
            says nothing.
        is_measured: A time or what follows from times: it differs from run to run, so one value
            without an interval decides nothing.
    """

    better: Better
    is_share: bool
    is_measured: bool


def figure_kind(name: str) -> FigureKind | None:
    """How to compare a figure; `None` for one that is set-up, a sample count or an interval's end.

    Args:
        name: As in `figures`.
    """
    if name in SET_UP or _is_any(name, _SAMPLES) or _is_any(name, _ENDS):
        return None
    better = Better.NEITHER
    if not _is_any(name, _NEITHER):
        if _is_any(name, _HIGHER):
            better = Better.HIGHER
        elif _is_any(name, _LOWER):
            better = Better.LOWER
    return FigureKind(better, bool(_IS_SHARE.search(name)), bool(_IS_MEASURED.search(name)))


def _is_any(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)

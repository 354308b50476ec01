"""Runs of sub-calls, batched and in turn, and the figures that follow from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import msgspec

from rlm_runtime.benchmark.results import Table
from rlm_runtime.benchmark.statistics import Estimate, percentile, ratio_of_medians
from rlm_runtime.benchmark.ttft_result import OWN_TOKENS
from rlm_runtime.profiler import Figures

GENERATED_TOKENS = 32


class Arm(StrEnum):
    """One way to make the calls."""

    SCHEDULER_BATCHED = "scheduler_batched"
    SCHEDULER_IN_TURN = "scheduler_in_turn"
    ENGINE_BATCHED = "engine_batched"
    ENGINE_IN_TURN = "engine_in_turn"

    @property
    def is_direct(self) -> bool:
        """Past the scheduler."""
        return self in (Arm.ENGINE_BATCHED, Arm.ENGINE_IN_TURN)


class SpeedUp(NamedTuple):
    """A published speed-up: the median time of one arm over that of another."""

    figure: str
    label: str
    in_turn: Arm
    batched: Arm


SPEED_UPS = (
    SpeedUp("batch_speedup", "through the scheduler", Arm.SCHEDULER_IN_TURN, Arm.SCHEDULER_BATCHED),
    SpeedUp("engine_batch_speedup", "on the engine alone", Arm.ENGINE_IN_TURN, Arm.ENGINE_BATCHED),
)


class ArmRun(msgspec.Struct, frozen=True):
    """All calls of one arm, once.

    Attributes:
        arm: How they were made.
        repeat: Runs of one repeat were measured next to each other; counts from 0.
        calls: How many.
        wall_s: From the first call's start to the last one's end.
        prompt_tokens: Sum over the calls.
        cached_tokens: Of these, from the prefix cache.
        expected_cached_tokens: What an unbounded cache had to hold of them.
        generated_tokens: Sum over the calls.
    """

    arm: Arm
    repeat: int
    calls: int
    wall_s: float
    prompt_tokens: int
    cached_tokens: int
    expected_cached_tokens: int
    generated_tokens: int

    @property
    def is_as_meant(self) -> bool:
        """Every call found exactly the shared prefix in the cache."""
        return self.cached_tokens == self.expected_cached_tokens


@dataclass(frozen=True, slots=True)
class BatchingResult:
    """Runs in the order in which they were made, finished or partial.

    Attributes:
        runs: Warm-up not among them.
        planned_runs: Of the whole measurement.
        seed: Of texts and intervals.
        calls: Of each run.
        max_running: Requests the engine runs at once.
    """

    runs: tuple[ArmRun, ...]
    planned_runs: int
    seed: int
    calls: int
    max_running: int

    @property
    def name(self) -> str:
        """`batching`."""
        return "batching"

    @property
    def is_complete(self) -> bool:
        """Every planned run was made."""
        return len(self.runs) == self.planned_runs

    @property
    def direct_computed_tokens(self) -> int:
        """Prompt tokens that the direct arms computed; no event has them."""
        return sum(r.prompt_tokens - r.cached_tokens for r in self.runs if r.arm.is_direct)

    def of(self, arm: Arm) -> tuple[ArmRun, ...]:
        """The runs of an arm whose calls were all warm."""
        return tuple(r for r in self.runs if r.arm is arm and r.is_as_meant)

    def wall_s(self, arm: Arm) -> list[float]:
        """Wall times of an arm's runs, seconds."""
        return [run.wall_s for run in self.of(arm)]

    def speed_up(self, speed_up: SpeedUp) -> Estimate | None:
        """The speed-up with its interval; `None` without runs of both arms."""
        in_turn, batched = self.wall_s(speed_up.in_turn), self.wall_s(speed_up.batched)
        return ratio_of_medians(in_turn, batched, seed=self.seed)

    def figures(self) -> Figures:
        """`batch_speedup`, `engine_batch_speedup`, their intervals, and the set-up."""
        figures: dict[str, float | int | None] = {}
        for speed_up in SPEED_UPS:
            value, low, high = self.speed_up(speed_up) or (None, None, None)
            figures |= {speed_up.figure: value}
            figures |= {f"{speed_up.figure}_low": low, f"{speed_up.figure}_high": high}
        figures["batch_calls"] = self.calls
        figures["batch_repeats"] = min(len(self.of(arm)) for arm in Arm)
        return figures

    def detail(self) -> dict[str, object]:
        """The set-up and every run."""
        return {
            "is_complete": self.is_complete,
            "planned_runs": self.planned_runs,
            "seed": self.seed,
            "calls": self.calls,
            "own_tokens": OWN_TOKENS,
            "generated_tokens": GENERATED_TOKENS,
            "max_running": self.max_running,
            "direct_computed_tokens": self.direct_computed_tokens,
            "runs": [
                {**msgspec.to_builtins(run), "is_as_meant": run.is_as_meant} for run in self.runs
            ],
        }

    def tables(self) -> tuple[Table, ...]:
        """Speed-ups first, then times by arm."""
        speed_ups = tuple(
            (speed_up.label, f"{estimate.value:.2f}", estimate.interval)
            for speed_up in SPEED_UPS
            if (estimate := self.speed_up(speed_up)) is not None
        )
        rows = tuple(_row(arm, self.of(arm)) for arm in Arm if self.of(arm))
        found = (
            Table(
                f"{self.calls} warm sub-calls, in turn / batched",
                ("medians", "speed-up", "95 % interval"),
                speed_ups,
            ),
            Table("Sub-calls by arm", ("arm", "n", "p50 s", "max s", "tokens/s at p50"), rows),
        )
        return tuple(table for table in found if table.rows)

    def notes(self) -> tuple[str, ...]:
        """A batch larger than the engine runs, runs that were left out, an early end."""
        notes = []
        if self.calls > self.max_running:
            notes.append(
                f"The engine runs {self.max_running} requests at once, fewer than the "
                f"{self.calls} calls of a batch."
            )
        odd = sum(not run.is_as_meant for run in self.runs)
        if odd:
            notes.append(
                f"Left out: {odd} of {len(self.runs)} runs, in which not all calls were warm."
            )
        if not self.is_complete:
            notes.append(f"Ended early, after {len(self.runs)} of {self.planned_runs} runs.")
        return tuple(notes)


def _row(arm: Arm, runs: Sequence[ArmRun]) -> tuple[str, ...]:
    p50_s = percentile([run.wall_s for run in runs], 50)
    return (
        arm.replace("_", " "),
        str(len(runs)),
        f"{p50_s:,.2f}",
        f"{max(run.wall_s for run in runs):,.2f}",
        f"{runs[0].generated_tokens / p50_s:,.1f}",
    )

"""What the `calls` workload found: how turns and agents ended, and what the cache served."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property

import msgspec

from rlm_runtime.benchmark.results import Table
from rlm_runtime.benchmark.run_tables import maybe_percent
from rlm_runtime.benchmark.statistics import share, told_share, with_ends
from rlm_runtime.profiler import Figures
from rlm_runtime.tracing import AgentFinished, AgentStarted, TurnFinished

_OF_THE_RUN = (
    "calls",
    "prompt_tokens",
    "cached_tokens",
    "computed_tokens",
    "generated_tokens",
    "hit_rate",
    "hit_rate_ceiling",
    "hit_rate_of_ceiling",
    "prefill_redundancy",
    "prompt_tokens_max",
    "depth_max",
    "running_mean",
)
"""Figures of the ledger that are this workload's, which is all that its session did."""


class CallsCase(msgspec.Struct, frozen=True, kw_only=True):
    """One task and the agent that worked on it.

    Attributes:
        id: The task's.
        kind: The task's.
        task: In words.
        agent_id: In the log; `None` of an agent that an error ended.
        stop_reason: How it ended.
        turns: Its own; `None` likewise.
        is_final: It ended with FINAL.
        is_right: And its result is the one that was asked for.
        answer: The beginning of its result, as text.
        error: The message of the error that ended it; empty when none did.
    """

    id: str
    kind: str
    task: str
    agent_id: str | None
    stop_reason: str
    turns: int | None
    is_final: bool
    is_right: bool
    answer: str
    error: str


@dataclass(frozen=True, kw_only=True)
class CallsResult:
    """Agents and turns so far.

    Attributes:
        workload: Name and version of the workload.
        seed: Of the tasks.
        wanted_turns: At least so many were to be made.
        cases: The agents that ended, in that order.
        events: Beginnings, turns and ends of all agents, sub-agents among them.
        run: The ledger's figures.
        wall_s: From the first agent's start to the last event, seconds.
    """

    workload: str
    seed: int
    wanted_turns: int
    cases: tuple[CallsCase, ...]
    events: tuple[AgentStarted | TurnFinished | AgentFinished, ...]
    run: Figures
    wall_s: float

    @property
    def name(self) -> str:
        """`calls`."""
        return "calls"

    @cached_property
    def turns(self) -> tuple[TurnFinished, ...]:
        """All turns, in the order in which they ended."""
        return tuple(event for event in self.events if isinstance(event, TurnFinished))

    @cached_property
    def legal(self) -> tuple[TurnFinished, ...]:
        """The turns of which what was generated is a call, whatever came of it."""
        return tuple(turn for turn in self.turns if turn.function)

    @cached_property
    def errors(self) -> Counter[str]:
        """Turns that ended in an error, by its code."""
        return Counter(turn.error_code or "" for turn in self.turns if turn.outcome == "error")

    @cached_property
    def stops(self) -> Counter[str]:
        """Agents by how they ended, sub-agents among them."""
        return Counter(e.stop_reason for e in self.events if isinstance(e, AgentFinished))

    @property
    def sub_agents(self) -> int:
        """Agents that other agents began."""
        return sum(isinstance(e, AgentStarted) and e.parent_id is not None for e in self.events)

    def figures(self) -> Figures:
        """Turns, how they and the agents ended, and the run's tokens and hit rates."""
        finals, right = map(len, self._finals())
        return {
            "turns": len(self.turns),
            "legal_turns": len(self.legal),
            **with_ends("legal_share", share(len(self.legal), len(self.turns))),
            "errors": self.errors.total(),
            **{f"errors_{code}": count for code, count in sorted(self.errors.items())},
            "agents": len(self.cases),
            "sub_agents": self.sub_agents,
            "finals": finals,
            **with_ends("final_share", share(finals, len(self.cases))),
            "finals_right": right,
            **with_ends("accuracy", share(right, len(self.cases))),
            **{
                f"accuracy_{kind}": sum(case.is_right for case in cases) / len(cases)
                for kind, cases in self._by_kind().items()
            },
            **{f"stop_{reason}": count for reason, count in sorted(self.stops.items())},
            **{figure: self.run[figure] for figure in _OF_THE_RUN},
            "wall_s": self.wall_s,
        }

    def detail(self) -> dict[str, object]:
        """Every task and every turn."""
        return {
            "workload": self.workload,
            "seed": self.seed,
            "wanted_turns": self.wanted_turns,
            "is_complete": self._is_complete,
            "cases": msgspec.to_builtins(self.cases),
            "turns": [
                {
                    "agent_id": turn.agent_id,
                    "turn": turn.turn,
                    "function": turn.function,
                    "error_code": turn.error_code,
                }
                for turn in self.turns
            ],
        }

    def tables(self) -> tuple[Table, ...]:
        """Agents by kind of task, turns by function, how agents ended, what it cost."""
        if not self.turns:
            return ()
        found = (
            self._turns_table(),
            self._tasks_table(),
            self._functions_table(),
            _counted("Errors of turns", "code", self.errors),
            _counted("How agents ended, sub-agents included", "stop reason", self.stops),
            self._costs_table(),
        )
        return tuple(table for table in found if table.rows)

    def notes(self) -> tuple[str, ...]:
        """What counts as legal and as right, and what is missing."""
        notes = [
            f"{self.workload}, seed {self.seed}: the model decided every turn.",
            "Legal is a turn that could be read as a call, also where the call then failed. Right "
            "is a result that holds what was asked for and nothing else it might have been.",
        ]
        if not self._is_complete:
            notes.append(
                f"Ended early: {len(self.turns):,} of {self.wanted_turns:,} turns were made."
            )
        return tuple(notes)

    @property
    def _is_complete(self) -> bool:
        return len(self.turns) >= self.wanted_turns

    def _finals(self) -> tuple[list[CallsCase], list[CallsCase]]:
        """The agents that ended with FINAL, and of these, those whose result is right."""
        finals = [case for case in self.cases if case.is_final]
        return finals, [case for case in finals if case.is_right]

    def _by_kind(self) -> dict[str, list[CallsCase]]:
        kinds: dict[str, list[CallsCase]] = {}
        for case in self.cases:
            kinds.setdefault(case.kind, []).append(case)
        return dict(sorted(kinds.items()))

    def _turns_table(self) -> Table:
        finals, right = self._finals()
        agents = len(self.cases)
        rows = (
            ("legal turns", told_share(len(self.legal), len(self.turns))),
            ("turns that ended in an error", told_share(self.errors.total(), len(self.turns))),
            ("agents that ended with FINAL", told_share(len(finals), agents)),
            ("agents whose result is right", told_share(len(right), agents)),
        )
        return Table("Turns and agents", ("", "of all (95 % interval)"), rows)

    def _tasks_table(self) -> Table:
        rows = []
        for kind, cases in self._by_kind().items():
            turns = [case.turns for case in cases if case.turns is not None]
            rows.append(
                (
                    kind,
                    f"{len(cases):,}",
                    f"{sum(case.is_final for case in cases):,}",
                    f"{sum(case.is_right for case in cases):,}",
                    f"{sum(turns) / len(turns):.1f}" if turns else "-",
                )
            )
        header = ("task", "agents", "ended with FINAL", "right", "turns of one")
        return Table("Tasks", header, tuple(rows))

    def _functions_table(self) -> Table:
        made = Counter(turn.function for turn in self.turns)
        failed = Counter(turn.function for turn in self.turns if turn.outcome == "error")
        rows = [
            (function or "(no call)", f"{count:,}", f"{failed[function]:,}")
            for function, count in made.most_common()
        ]
        return Table("Turns by function", ("function", "turns", "errors"), tuple(rows))

    def _costs_table(self) -> Table:
        run = self.run
        rows = (
            ("computed tokens", _number(run["computed_tokens"])),
            ("generated tokens", _number(run["generated_tokens"])),
            ("calls of the engine", _number(run["calls"])),
            ("hit rate / ceiling", _decimal(run["hit_rate_of_ceiling"])),
            ("hit rate", maybe_percent(run["hit_rate"])),
            ("longest prompt", _number(run["prompt_tokens_max"])),
            ("requests at once", _decimal(run["running_mean"])),
            ("seconds", f"{self.wall_s:,.1f}"),
        )
        return Table("What it cost", ("", ""), rows)


def _counted(title: str, what: str, counts: Counter[str]) -> Table:
    rows = [(name, f"{count:,}") for name, count in counts.most_common()]
    return Table(title, (what, "count"), tuple(rows))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _decimal(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"

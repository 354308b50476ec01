"""What is wrong with a workflow, and what it needs: found from its table, before it runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from rlm_runtime.workflow.definition import Workflow

S = TypeVar("S", bound=Enum)


def strangers(states: type[Enum], used: Iterable[object]) -> list[str]:
    """Of what a workflow is made of, what is no state of it."""
    odd = dict.fromkeys(repr(state) for state in used if not isinstance(state, states))
    return [f"{state} is no member of {states.__name__}." for state in odd]


def mistakes(workflow: Workflow[Any]) -> list[str]:
    """Every mistake, with what to do about it; none in a workflow that can work."""
    ways = {state: [way.target for way in out] for state, out in workflow.transitions.items()}
    found = [*_bad_ends(workflow), *_bad_ways(workflow), *_bad_steps(workflow)]
    reachable = _reachable(ways, [workflow.start])
    lost = [state for state in workflow.states if state not in reachable]
    if lost:
        found.append(f"No transition leads to {_list(lost)} from {workflow.start.name}.")
    back: dict[Enum, list[Enum]] = {state: [] for state in ways}
    for state, targets in ways.items():
        for target in targets:
            back[target].append(state)
    hopeful = _reachable(back, workflow.ends)
    trapped = [s for s in workflow.states if s in reachable and s not in hopeful and ways[s]]
    if workflow.ends and trapped:
        found.append(f"No end can be reached from {_list(trapped)}.")
    loop = _loop(ways, workflow.start)
    if workflow.max_visits is None and loop:
        way = " -> ".join(state.name for state in (*loop, loop[0]))
        found.append(f"{way} is a loop without a bound: give max_visits.")
    return found


def inputs(workflow: Workflow[Any]) -> frozenset[str]:
    """The names that must be there when a workflow begins.

    A name that a step reads is one of them unless on every way to it a step has written it.
    """
    writes = {
        state: frozenset(step.writes for step in steps if step.writes)
        for state, steps in workflow.steps.items()
    }
    everything = frozenset[str]().union(*writes.values())
    before = dict.fromkeys(workflow.states, everything)
    before[workflow.start] = frozenset()
    is_stable = False
    while not is_stable:
        is_stable = True
        for state, out in workflow.transitions.items():
            for way in out:
                common = before[way.target] & (before[state] | writes[state])
                is_stable = is_stable and common == before[way.target]
                before[way.target] = common
    return frozenset(
        name
        for state, steps in workflow.steps.items()
        for step in steps
        for name in step.names - before[state]
    )


def _bad_ends(workflow: Workflow[Any]) -> list[str]:
    found = [] if workflow.ends else ["It has no end: give at least one in ends."]
    for state, out in workflow.transitions.items():
        if state in workflow.ends and out:
            found.append(f"{state.name} is an end, but has transitions: leave out one of them.")
        if state not in workflow.ends and not out:
            found.append(f"{state.name} is a dead end: give its transitions, or make it an end.")
    return found


def _bad_ways(workflow: Workflow[Any]) -> list[str]:
    found = []
    for state, out in workflow.transitions.items():
        for way, before in zip(out[1:], out, strict=False):
            if before.when is None:
                found.append(
                    f"{state.name} -> {way.target.name} is never taken: "
                    f"{before.target.name} stands before it without a guard."
                )
    most = workflow.max_visits
    if most is not None and most < 1:
        found.append(f"max_visits is {most}: it must be at least 1.")
    return found


def _bad_steps(workflow: Workflow[Any]) -> list[str]:
    found = []
    for state, steps in workflow.steps.items():
        if not steps and state not in workflow.ends:
            found.append(f"{state.name} has no step.")
        twice = [name for name, n in Counter(s.writes for s in steps).items() if name and n > 1]
        found += [f"Two steps of {state.name} write {name!r}." for name in twice]
    return found


def _reachable(ways: Mapping[S, Sequence[S]], starts: Iterable[S]) -> set[S]:
    reached = set(starts)
    to_do = list(reached)
    while to_do:
        for target in ways[to_do.pop()]:
            if target not in reached:
                reached.add(target)
                to_do.append(target)
    return reached


def _loop(ways: Mapping[S, Sequence[S]], start: S) -> list[S]:
    """The states of a circle that can be reached; empty when there is none."""
    path: list[S] = [start]
    left = [iter(ways[start])]
    done: set[S] = set()
    while path:
        target = next(left[-1], None)
        if target is None:
            done.add(path.pop())
            left.pop()
        elif target in path:
            return path[path.index(target) :]
        elif target not in done:
            path.append(target)
            left.append(iter(ways[target]))
    return []


def _list(states: Iterable[Enum]) -> str:
    return ", ".join(state.name for state in states)

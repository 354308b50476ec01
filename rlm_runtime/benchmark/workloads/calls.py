"""The `calls` workload: small tasks for agents that work by calls, each with one right result.

Four kinds in turn: store a given text and return it, find a number in a text, find it and store it,
return one of three texts. All of them take two to four calls. Whatever an agent ends with is right
if it holds what was asked for and nothing else that it might have been.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import count

from rlm_runtime.benchmark.workloads.people import GIVEN_NAMES, SURNAMES

NAME = "calls-1"
"""Name and version of the workload; changed whenever its tasks change."""

_LINES = 8
"""Of a text in which a number is to be found."""

_PLACES = ("gate", "harbour", "library", "market", "mill", "museum", "school", "station")


class Kind(StrEnum):
    """What a task takes; figures are reported for each apart."""

    STORE = "store"
    """Store a text that the task says, and return it."""
    FIND = "find"
    """Find a number in a text, and return it."""
    FIND_AND_STORE = "find_and_store"
    """The same, stored on the way."""
    RETURN = "return"
    """Return one of several texts as it is."""


@dataclass(frozen=True, slots=True)
class CallTask:
    """A task for one agent.

    Attributes:
        id: Kind and number.
        kind: What it takes.
        task: In words.
        values: The texts that the agent may read, by name.
        wanted: What its result must hold.
        others: What it must not hold: the other things that were there to be returned.
    """

    id: str
    kind: Kind
    task: str
    values: dict[str, str]
    wanted: str
    others: tuple[str, ...] = ()

    def is_right(self, result: str) -> bool:
        """Whether a result, as text, is the one that was asked for."""
        return self.wanted in result and not any(other in result for other in self.others)


def call_tasks(seed: int) -> Iterator[CallTask]:
    """Tasks without end, kinds in turn; the same ones for a seed."""
    rng = random.Random(f"calls {seed}")  # noqa: S311 - makes up tasks, guards nothing
    makers: dict[Kind, Callable[[random.Random, str], CallTask]] = {
        Kind.STORE: _store,
        Kind.FIND: _find,
        Kind.FIND_AND_STORE: _find_and_store,
        Kind.RETURN: _return,
    }
    for number in count(1):
        for kind, make in makers.items():
            yield make(rng, f"{kind}-{number:03}")


def _store(rng: random.Random, task_id: str) -> CallTask:
    text = f"The {rng.choice(_PLACES)} opens at {rng.randint(6, 11)}:{rng.randint(10, 59)}."
    task = f'Store the text "{text}" under the name note, and end with note.'
    return CallTask(task_id, Kind.STORE, task, {}, text)


def _find(rng: random.Random, task_id: str) -> CallTask:
    person, numbers, text = _permits(rng)
    task = f"Which number has the permit of {person}? It stands in permits. End with the number."
    return CallTask(task_id, Kind.FIND, task, {"permits": text}, *_first(numbers))


def _find_and_store(rng: random.Random, task_id: str) -> CallTask:
    person, numbers, text = _permits(rng)
    task = (
        f"Find the number of the permit of {person} in permits, store it under the name number, "
        "and end with number."
    )
    return CallTask(task_id, Kind.FIND_AND_STORE, task, {"permits": text}, *_first(numbers))


def _return(rng: random.Random, task_id: str) -> CallTask:
    places = rng.sample(_PLACES, 3)
    texts = [f"The {place} was built in {rng.randint(1701, 1899)}." for place in places]
    wanted, *others = texts
    values = {f"about_{place}": text for place, text in zip(places, texts, strict=True)}
    task = f"Return the value about_{places[0]} as it is."
    return CallTask(task_id, Kind.RETURN, task, dict(sorted(values.items())), wanted, tuple(others))


def _permits(rng: random.Random) -> tuple[str, list[str], str]:
    """Somebody, all numbers with theirs first, and the text that has them in any order."""
    people = [
        f"{given} {surname}"
        for given, surname in zip(
            rng.sample(GIVEN_NAMES, _LINES), rng.sample(SURNAMES, _LINES), strict=True
        )
    ]
    numbers = [str(number) for number in rng.sample(range(1_001, 9_999), _LINES)]
    lines = [
        f"The permit of {person} has the number {number}."
        for person, number in zip(people, numbers, strict=True)
    ]
    return people[0], numbers, "\n".join(rng.sample(lines, _LINES))


def _first(numbers: list[str]) -> tuple[str, tuple[str, ...]]:
    return numbers[0], tuple(numbers[1:])

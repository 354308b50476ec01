"""The `rows` workload: reports to a town office, one a line, each of one kind.

A report is a sentence filled in with invented names. It never has the word for its own kind, and
some have a word that sounds like another one, so that looking for words is not enough. Kinds are
not equally frequent: which ones are many depends on the seed.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

from rlm_runtime.benchmark.workloads.people import GIVEN_NAMES, SURNAMES
from rlm_runtime.errors import InputError

NAME = "rows-1"
"""Name and version of the workload; changed whenever its rows change."""

MAX_ROWS = 10_000
"""There are more that differ, but drawing them gets slow."""

QUESTION = "Which kind of event does this report to the town office tell of?"
"""What is asked about each row, with the labels behind it."""

_SENTENCES = {
    "fire": (
        "{person} saw flames behind the barn in {street} at {time}.",
        "Thick smoke is coming out of the attic of {number} {street}, says {person}.",
        "A rubbish bin in {street} was burning at {time}; {person} put it out with a bucket.",
        "The kitchen of {person} at {number} {street} burnt out, and the ceiling is black.",
        "{person} smelled something burning in {street} and found sparks in the hedge.",
        "At {time} the hay of {person} near {street} was alight.",
        "The old shed in {street} burnt down to the ground, {person} writes.",
        "{person} left a candle on the sill, and the curtains at {number} {street} were in flames.",
    ),
    "flood": (
        "The cellar of {person} at {number} {street} is full of water up to the third step.",
        "The stream has come over its banks, and {street} stood under water at {time}.",
        "A main pipe burst in {street}; {person} has water in the hall.",
        "{person} can't leave the house: {street} is a lake since the rain.",
        "After the storm the water ran through the door of {number} {street}, {person} reports.",
        "The drains in {street} came up at {time} and the shop of {person} is soaked.",
        "{person} asks for sandbags, because the river is rising towards {street}.",
        "All carpets at {number} {street} are wet, since the canal ran over, says {person}.",
    ),
    "theft": (
        "The bicycle of {person} was gone from {street} at {time}, and the lock was cut.",
        "Somebody took the purse of {person} out of her bag in {street}.",
        "{person} found the window of {number} {street} forced and the silver missing.",
        "Two sacks of coal were carried off from the yard of {person} in {street} by night.",
        "A stranger walked out of the shop in {street} at {time} without paying, says {person}.",
        "The copper pipes of the empty house at {number} {street} have been stolen.",
        "{person} reports that a water pump was taken from the garage in {street}.",
        "The fire extinguisher of {number} {street} was stolen before {time}, says {person}.",
    ),
    "noise": (
        "The music at {number} {street} was so loud at {time} that {person} could not sleep.",
        "{person} complains about a barking dog in {street}, night after night.",
        "Somebody drills in {street} before {time} every day, writes {person}.",
        "The party in {street} went on with shouting and drums, and woke {person}.",
        "{person} can't bear the hammering from the workshop in {street} any longer.",
        "A car alarm howled in {street} from {time} on; {person} asks who can turn it off.",
        "The neighbours of {person} at {number} {street} practise the trumpet until midnight.",
        "Church bells, then a chainsaw: {person} of {street} asks for one quiet Sunday.",
    ),
    "accident": (
        "Two cars ran into each other in {street} at {time}; {person} has a broken arm.",
        "{person} fell from a ladder at {number} {street} and was taken to hospital.",
        "A lorry hit the lamp post in {street}, and the driver, {person}, is hurt.",
        "{person} slipped on the ice in {street} at {time} and broke a leg.",
        "A cyclist was knocked down at the corner of {street}; {person} called the doctor.",
        "The bus skidded in {street} and struck the wall of {person}.",
        "A boy was hit by a swing in {street}; {person} bandaged his head.",
        "{person} drove into the water tank of {number} {street} and was pulled out of the car.",
    ),
}

LABELS = tuple(_SENTENCES)
"""The kinds of events, in a fixed order."""

_WEIGHTS = (10, 8, 6, 4, 3)
_STREETS = (
    "Mill Lane", "Church Street", "Station Road", "Linden Street", "Market Place", "North Street",
    "Garden Row", "Bridge Street", "Castle Hill", "School Lane", "Orchard Way", "Harbour Street",
)  # fmt: skip


class LabelledRow(NamedTuple):
    """A report.

    Attributes:
        text: One line, unlike all others.
        label: Its kind, of `LABELS`.
    """

    text: str
    label: str


def labelled_rows(count: int, seed: int) -> tuple[LabelledRow, ...]:
    """Make reports; equal arguments give equal ones.

    Args:
        count: How many, 1 to `MAX_ROWS`.
        seed: Of their kinds and words.

    Raises:
        InputError: So many can't be made.
    """
    if not 1 <= count <= MAX_ROWS:
        raise InputError(f"{count:,} rows can't be made.", f"Take 1 to {MAX_ROWS:,}.")
    rng = random.Random(f"rows {seed}")  # noqa: S311 - makes up reports, guards nothing
    weights = rng.sample(_WEIGHTS, len(_WEIGHTS))
    rows: dict[str, LabelledRow] = {}
    while len(rows) < count:
        (label,) = rng.choices(LABELS, weights)
        text = _filled(rng.choice(_SENTENCES[label]), rng)
        rows.setdefault(text, LabelledRow(text, label))
    return tuple(rows.values())


def text_of(rows: Sequence[LabelledRow]) -> str:
    """The reports as a text, one a line."""
    return "\n".join(row.text for row in rows)


def _filled(sentence: str, rng: random.Random) -> str:
    return sentence.format(
        person=f"{rng.choice(GIVEN_NAMES)} {rng.choice(SURNAMES)}",
        street=rng.choice(_STREETS),
        number=rng.randint(2, 98),
        time=f"{rng.randint(0, 23)}:{rng.randint(0, 59):02}",
    )

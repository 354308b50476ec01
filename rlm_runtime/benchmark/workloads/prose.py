"""Text that nobody wrote: letters, minutes and logs of an office, as many as are wanted.

Made of a few forms that are filled in again and again, so that a long text is full of sentences
that are nearly the same. Nothing in it is about what `needle.json` asks.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

_SURNAMES = (
    "Abbott", "Brandt", "Castell", "Devlin", "Ekman", "Farrow", "Grieg", "Hansen", "Ibsen",
    "Jarvis", "Keller", "Lambert", "Mercer", "Norling", "Osborne", "Palmer", "Quist", "Ramsey",
    "Sander", "Thorne", "Upton", "Vance", "Weller", "Yates",
)  # fmt: skip
_TOWNS = (
    "Ashby", "Calder", "Dunmore", "Eastwick", "Fenton", "Garside", "Harwell", "Kelso", "Linden",
    "Marlow", "Norbury", "Oakham",
)  # fmt: skip
_GOODS = (
    "planks", "rope", "bricks", "lamp oil", "nails", "canvas", "paint", "sacks", "timber",
    "glass", "coal", "barrels", "window frames", "roof slates", "writing paper", "iron hinges",
)  # fmt: skip
_TASKS = (
    "the drains are to be cleared before the winter",
    "the accounts are to be read aloud at the next meeting",
    "the east road is to be measured again",
    "the key of the meeting room is to be kept by the clerk",
    "a second quotation is to be asked for",
    "the fence along the canal is to be mended",
    "nothing is to be bought before the prices are known",
    "the notice is to be put up at the gate for a week",
)
_WEATHER = ("rain", "light rain", "fog", "clear", "wind from the west", "sleet", "overcast")
_STATES = ("open", "closed", "late", "checked", "refused", "signed for", "sent back", "in order")
_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September",
    "October", "November", "December",
)  # fmt: skip


def office_papers(seed: int) -> Iterator[str]:
    """Papers without end, of about 2,000 characters each; the same ones for a seed.

    Args:
        seed: Of everything in them.
    """
    rng = random.Random(f"papers {seed}")  # noqa: S311 - makes up letters, guards nothing
    while True:
        yield rng.choice((_letter, _minutes, _log))(rng)


def _letter(rng: random.Random) -> str:
    writer, reader = rng.sample(_SURNAMES, 2)
    paragraphs = [f"{rng.choice(_TOWNS)}, {_date(rng)}", f"Dear {_title(rng)} {reader},"]
    for _ in range(rng.randint(4, 7)):
        sentences = [_letter_sentence(rng) for _ in range(rng.randint(2, 4))]
        paragraphs.append(" ".join(sentences))
    paragraphs += ["Yours faithfully,", f"{_title(rng)} {writer}"]
    return "\n\n".join(paragraphs)


def _letter_sentence(rng: random.Random) -> str:
    goods, name, town = rng.choice(_GOODS), rng.choice(_SURNAMES), rng.choice(_TOWNS)
    number = rng.randint(3, 96)
    return rng.choice(
        (
            f"The {goods} that you ordered in {rng.choice(_MONTHS)} will be sent to {town} "
            f"within {number} days.",
            f"We have written to {_title(rng)} {name} about the {goods}, and wait for an answer.",
            f"Please let us know whether {number} crates of {goods} can be stored in {town}.",
            f"The invoice over {number} pounds for {goods} has not been settled by {name}.",
            f"Of the {goods} from {town}, {number} pieces arrived damp and were sent back.",
            f"{_title(rng)} {name} will call on you in {town} on {_date(rng)}.",
            f"I regret that the {goods} cannot be had at the price that {name} named to you.",
        )
    )


def _minutes(rng: random.Random) -> str:
    present = rng.sample(_SURNAMES, 5)
    parts = [
        f"Minutes of the committee of {rng.choice(_TOWNS)}, {_date(rng)}",
        f"Present: {', '.join(present[:-1])} and {present[-1]}.",
    ]
    for number in range(1, rng.randint(6, 9)):
        name, other = rng.sample(present, 2)
        parts.append(
            f"{number}. {_title(rng)} {name} reported that the {rng.choice(_GOODS)} for "
            f"{rng.choice(_TOWNS)} had cost {rng.randint(3, 96)} pounds. {other} asked for "
            f"the receipts. It was agreed that {rng.choice(_TASKS)}."
        )
    parts.append(f"The meeting closed at {rng.randint(4, 9)} o'clock.")
    return "\n\n".join(parts)


def _log(rng: random.Random) -> str:
    day = f"{rng.randint(1, 28):02} {rng.choice(_MONTHS)}"
    lines = [f"Daybook of the depot at {rng.choice(_TOWNS)}, {day}", ""]
    for hour in range(6, 20):
        for minute in sorted(rng.sample(range(60), 2)):
            lines.append(
                f"{hour:02}:{minute:02}  {rng.choice(_GOODS)}, {rng.randint(3, 96)} units, "
                f"{rng.choice(_STATES)} ({rng.choice(_SURNAMES)}), {rng.choice(_WEATHER)}"
            )
    return "\n".join(lines)


def _title(rng: random.Random) -> str:
    return rng.choice(("Mr", "Mrs", "Miss", "Dr"))


def _date(rng: random.Random) -> str:
    return f"{rng.randint(1, 28)} {rng.choice(_MONTHS)} 19{rng.randint(10, 59)}"

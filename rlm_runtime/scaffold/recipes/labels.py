"""Labels: which ones a question names, and which one a free answer means.

Works on the marks and the short words of English alone. A question that names no labels by these
rules is refused rather than guessed at.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from rlm_runtime.errors import InputError

MAX_WORDS = 4
"""A longer phrase is no label."""

MAX_CHARACTERS = 2_000
"""Of a question: a longer one does not name its labels by the way."""

_QUOTED = re.compile(
    r"\"([^\"\n]+)\"|“([^”\n]+)”|‘([^’\n]+)’|«([^»\n]+)»|`([^`\n]+)`|"
    r"(?<!\w)'([^'\n]+)'(?!\w)"
)
_INTRODUCED = re.compile(r"\b(?:as|into|either|whether it is)\s+([^.?!:]+)", re.IGNORECASE)
_WORDS_OR = re.compile(r"(?<![\w-])((?:[\w-]+,\s+)*[\w-]+),?\s+or\s+([\w-]+)", re.IGNORECASE)
_BETWEEN = re.compile(r"\s*(?:[,;/|\n]\s*(?:(?:and|or)\s+)?|\s(?:and|or)\s)\s*", re.IGNORECASE)
_IN_FRONT = re.compile(r"^(?:[-*+•]|an?|the|either)\s+", re.IGNORECASE)
_EDGES = " \t\r\n.,;:!?\"'“”‘’`*"


def labels_of(question: str) -> tuple[str, ...]:
    """The labels that a question names, in its order; empty when it names none.

    The first of these rules that gives two labels or more:

    1. What stands in quotation marks: `Is each letter "angry" or "calm"?`
    2. A list behind the last colon: `Classify the tickets: bug, feature, question`
    3. A list behind "as", "into" or "either": `Sort the rows into fruit, vegetables and meat.`
    4. Single words in front of and behind "or": `How many reviews are positive, negative or mixed?`

    A list has commas, semicolons, slashes, bars, lines, "and" or "or" between its labels; each has
    up to `MAX_WORDS` words, and articles in front are left out.
    """
    if len(question) > MAX_CHARACTERS:
        return ()
    for found in (_quoted, _listed, _introduced, _words_or):
        labels = tuple(dict.fromkeys(found(question)))
        if len(labels) > 1:
            return labels
    return ()


def check_labels(labels: Sequence[str]) -> None:
    """Make sure that labels can be told apart.

    Raises:
        InputError: There are fewer than two, one is empty, or two are the same but for case.
    """
    remedy = 'Name them in the question ("as bug, feature or question"), or give them as labels.'
    if len(labels) < 2:
        raise InputError("There are fewer than two labels to choose from.", remedy)
    seen: dict[str, str] = {}
    for label in labels:
        if not label.strip() or "\n" in label:
            raise InputError(f"{label!r} can't be a label.", "Give each some words on one line.")
        other = seen.get(_folded(label))
        if other is not None:
            raise InputError(f"The labels {other!r} and {label!r} are the same.", "Keep one.")
        seen[_folded(label)] = label


def label_meant(answer: str, labels: Sequence[str]) -> str | None:
    """The label that a free answer names: the whole answer, else the first one that stands in it.

    Case does not count, and only whole words do. Of two that begin at the same place, the longer.
    """
    said = _folded(answer)
    best: tuple[int, int, str] | None = None
    for label in labels:
        match = re.search(rf"(?<!\w){re.escape(_folded(label))}(?!\w)", said)
        if match is None:
            continue
        place = (match.start(), -len(match.group()), label)
        if best is None or place[:2] < best[:2]:
            best = place
    return None if best is None else best[2]


def _folded(text: str) -> str:
    return " ".join(text.split()).casefold()


def _quoted(question: str) -> Iterator[str]:
    for match in _QUOTED.finditer(question):
        text = next(group for group in match.groups() if group is not None).strip(_EDGES)
        if text:
            yield text


def _listed(question: str) -> Iterator[str]:
    _, colon, listed = question.rpartition(":")
    if colon and not re.search(r"[.?!]\s+\S", listed):  # no further sentence behind it
        yield from _split(listed)


def _introduced(question: str) -> Iterator[str]:
    for match in _INTRODUCED.finditer(question):
        labels = list(_split(match[1]))
        if len(labels) > 1:
            yield from labels
            return


def _words_or(question: str) -> Iterator[str]:
    match = _WORDS_OR.search(question)
    if match is not None:
        yield from _split(f"{match[1]}, {match[2]}")


def _split(text: str) -> list[str]:
    """The items of a list; none at all when one of them is no label."""
    items = [_IN_FRONT.sub("", item.strip(_EDGES)) for item in _BETWEEN.split(text)]
    items = [item for item in items if item]
    return items if all(len(item.split()) <= MAX_WORDS for item in items) else []

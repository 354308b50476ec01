"""The `qa` workload: questions with ground truth over Python's language reference.

The text is `pydoc_data.topics` of the running Python, so it ships with every installation and
differs a little between versions: a case is used only if its phrases stand in the text at hand
(`usable`), and results name the digest of their text. `qa.json` has two halves of equal make-up
and from different topics: choices are made on `tune`, figures are reported on `test`.

Phrases are compared with runs of whitespace as one blank, nothing else folded; only what a model
or a recipe answered is compared more loosely (`truth.holds`).
"""

from __future__ import annotations

import random
import re
import textwrap
from collections.abc import Iterable, Iterator
from enum import StrEnum
from importlib import resources
from typing import Literal, NamedTuple

import msgspec

from rlm_runtime.benchmark.workloads.truth import Asked, ByteSpan, Wanted, holds

Half = Literal["tune", "test"]

_WRAP_COLUMNS = 72
# A paragraph ends with a full stop and the next one begins, unindented, with a capital: a plant
# there cuts no list, table or example in two.
_BORDER = re.compile(r"(?<=\.)\n\n(?=[A-Z])")


class Kind(StrEnum):
    """What makes a question easy or hard; figures are reported for each apart."""

    SHARED = "shared"
    """Shares content words with the passage: word search finds it."""
    PARAPHRASED = "paraphrased"
    """Avoids the passage's content words."""
    TWO_PASSAGES = "two_passages"
    """Asks two things (", and ..."), answered far apart."""
    PLANTED = "planted"
    """About an invented sentence put into the text, in its words."""
    PLANTED_PARAPHRASED = "planted_paraphrased"
    """About an invented sentence, in other words."""
    UNANSWERABLE_FIELD = "unanswerable_field"
    """About Python, but not answered by this text."""
    UNANSWERABLE_OFF_TOPIC = "unanswerable_off_topic"
    """About something else altogether."""


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One thing that is asked.

    Attributes:
        topic: Key of `pydoc_data.topics` where the passage stands, `/` and a section of it where
            the topic is long; empty for a planted sentence.
        answers: Short strings of which an answer must hold one.
        passages: Sentences or fragments that answer it. Any is right, wherever it stands; each
            holds one of `answers`. A version of Python need have only one of them.
    """

    topic: str
    answers: tuple[str, ...]
    passages: tuple[str, ...]


class Case(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A question with its ground truth.

    Attributes:
        id: Unique over both halves.
        kind: See `Kind`.
        question: As a person would ask it.
        parts: All of them must be answered; none if the right answer is "not found".
        plant: The invented sentence that `planted_text` puts in; empty if there is none.
        absent: Words of an unanswerable question's answer; a text that has one of them may
            answer it after all.
    """

    id: str
    kind: Kind
    question: str
    parts: tuple[Part, ...] = ()
    plant: str = ""
    absent: tuple[str, ...] = ()

    @property
    def is_answerable(self) -> bool:
        """False if "not found" is the right answer."""
        return bool(self.parts)


class Span(NamedTuple):
    """A stretch of a text, in characters, end exclusive."""

    start: int
    end: int


class Usable(NamedTuple):
    """Cases that hold for a text, and the ids of those that do not."""

    cases: tuple[Case, ...]
    dropped: tuple[str, ...]


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    tune: tuple[Case, ...]
    test: tuple[Case, ...]


def workload_name() -> str:
    """Name and version of the question set, for results; changed whenever a case changes."""
    return _read().name


def load_cases(half: Half) -> tuple[Case, ...]:
    """All cases of a half, in a fixed order; not yet checked against a text."""
    return _read().tune if half == "tune" else _read().test


def reference_text() -> str:
    """Python's language reference as the running version ships it.

    About 0.5 MB, or 110,000 tokens of the default model's tokenizer.
    """
    # Late: half a megabyte that only this workload needs.
    from pydoc_data.topics import topics

    return "\n\n".join(topics[key] for key in sorted(topics))


def planted_text(cases: Iterable[Case], seed: int) -> str:
    """The reference text with the plants of `cases` put in as paragraphs of their own.

    Each plant gets an equal share of the text and a random paragraph border within it, so plants
    lie at all depths and never together; which plant gets which share is random too. Equal
    arguments and text give an equal result. Made for the ten plants of a half: the text has
    borders enough for about twenty.
    """
    text = reference_text()
    rng = random.Random(seed)  # noqa: S311 - places sentences, guards nothing
    plants = [case.plant for case in cases if case.plant]
    rng.shuffle(plants)
    borders = [match.end() for match in _BORDER.finditer(text)]
    pieces, done = [], 0
    for number, plant in enumerate(plants):
        start, end = (len(text) * n // len(plants) for n in (number, number + 1))
        place = rng.choice([border for border in borders if start <= border < end])
        pieces += [text[done:place], textwrap.fill(plant, _WRAP_COLUMNS), "\n\n"]
        done = place
    return "".join((*pieces, text[done:]))


def places(phrase: str, text: str) -> tuple[Span, ...]:
    """Everywhere `phrase` stands in `text`, in order; line breaks in it do not matter."""
    pattern = r"\s+".join(re.escape(word) for word in phrase.split())
    return tuple(Span(*match.span()) for match in re.finditer(pattern, text))


def check(case: Case, text: str) -> tuple[str, ...]:
    """What keeps a case from being used with `text`; empty if it holds.

    Args:
        case: The case.
        text: What the question will be asked of, plants included.

    Returns:
        For an answerable case, the first passage of each part of which no passage stands in the
        text; for an unanswerable one, each of its `absent` words that the text has.
    """
    missing = [
        part.passages[0]
        for part in case.parts
        if not any(places(passage, text) for passage in part.passages)
    ]
    present = [
        word for word in case.absent if re.search(rf"\b{re.escape(word)}\b", text, re.IGNORECASE)
    ]
    return (*missing, *present)


def usable(cases: Iterable[Case], text: str) -> Usable:
    """Part the cases that hold for `text` from the ids of those that do not (see `check`)."""
    kept, dropped = [], []
    for case in cases:
        if check(case, text):
            dropped.append(case.id)
        else:
            kept.append(case)
    return Usable(tuple(kept), tuple(dropped))


def asked(case: Case, text: str) -> Asked:
    """A case as a question over `text`, with the places of its passages.

    Args:
        case: One that holds for the text.
        text: Plants included.
    """
    wanted = (Wanted(part.answers, tuple(_byte_spans(part.passages, text))) for part in case.parts)
    return Asked(case.id, case.kind, case.question, tuple(wanted))


def is_answered(case: Case, answer: str) -> bool:
    """Whether `answer` holds, for every part of the case, one of the expected strings.

    Whole words, whatever the case, quotation marks and markup. Always false for an unanswerable
    case: there the right result is that nothing was found.
    """
    return case.is_answerable and all(holds(answer, part.answers) for part in case.parts)


def _byte_spans(passages: Iterable[str], text: str) -> Iterator[ByteSpan]:
    for passage in passages:
        for start, end in places(passage, text):
            yield ByteSpan(len(text[:start].encode()), len(text[:end].encode()))


def _read() -> _File:
    data = resources.files(__package__).joinpath("qa.json").read_bytes()
    return msgspec.json.decode(data, type=_File)

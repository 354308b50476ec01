"""The `needle` workload: invented facts at all depths of a long text, and questions about them.

A document is a haystack (`haystack.py`) with facts and decoys planted as paragraphs of their own.
A fact is a sentence of `needle.json` filled in with invented names and numbers; its decoy is one
that sounds like it, about something else. For each case there are two facts:

    first    asked in its own words, in other words, and together with the second
    second   asked together with the first; and what it does not say of the same person is asked

so that kinds are asked about the same places, and differ by wording alone. All questions of a size
are asked about one document, which is read once. What a question expects stands nowhere in the
text but where it was planted.
"""

from __future__ import annotations

import random
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache, partial
from importlib import resources

import msgspec

from rlm_runtime.benchmark.workloads.haystack import haystack
from rlm_runtime.benchmark.workloads.truth import Asked, ByteSpan, Wanted
from rlm_runtime.benchmark.workloads.wording import content_stems
from rlm_runtime.errors import InputError

MAX_CASES = 12
"""Two facts a case, each of a form of its own, since a question in other words names nobody."""

_LEAST_TOKENS_A_FACT = 600
"""A text with more facts than that is no haystack."""

_WRAP_COLUMNS = 72
# A paragraph ends with a full stop and the next one begins, unindented, with a capital or a number:
# what is planted there cuts no sentence, table or example in two.
_BORDER = re.compile(r"(?<=\.)\n\n(?=[A-Z0-9])")
_ANY_BORDER = re.compile(r"\n\n(?=\S)")
"""The same for a short text that has few of those."""
_SYLLABLES = (
    "bar", "bel", "bro", "cal", "dor", "dra", "fen", "gar", "gol", "hal", "har", "isk", "jor",
    "kal", "kel", "lin", "lom", "mar", "mel", "mir", "nar", "nol", "orm", "osk", "pel", "ran",
    "ros", "sal", "sel", "tar", "tor", "ulm", "val", "vel", "wen", "wul", "yar", "zan",
)  # fmt: skip
_SURNAME_ENDINGS = ("ek", "ssen", "vik", "dahl", "holt")
_PLACE_ENDINGS = ("mora", "haven", "sund", "garth")
_TRIES = 500


class Kind(StrEnum):
    """What makes a question easy or hard; figures are reported for each apart."""

    SHARED = "shared"
    """In the words of the fact."""
    PARAPHRASED = "paraphrased"
    """Without one content word of the fact, names included."""
    TWO_PASSAGES = "two_passages"
    """Asks for two facts, far apart (", and ...")."""
    UNANSWERABLE_NAME = "unanswerable_name"
    """Like a question about a fact, but of somebody who is not in the text."""
    UNANSWERABLE_FACT = "unanswerable_fact"
    """About somebody who is in the text: something that is not said."""


class Form(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A fact before its names are filled in; all texts have the same fields.

    Attributes:
        name: Of the form.
        answer: The field that is asked for.
        sentence: The fact.
        shared: A question in its words.
        paraphrased: The same in other words, without a field.
        near_miss: What the fact does not say.
        decoy: Another sentence, about something else.
        choices: Values of fields that belong to this form.
    """

    name: str
    answer: str
    sentence: str
    shared: str
    paraphrased: str
    near_miss: str
    decoy: str
    choices: dict[str, tuple[str, ...]]


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    given_names: tuple[str, ...]
    forms: tuple[Form, ...]


@dataclass(frozen=True, slots=True)
class Needle:
    """A fact and where it was planted.

    Attributes:
        form: Its form's name.
        sentence: Its words.
        answers: What an answer about it must hold one of.
        depth: Where its first byte stands, as a share of the text.
        place: Its bytes.
    """

    form: str
    sentence: str
    answers: tuple[str, ...]
    depth: float
    place: ByteSpan


@dataclass(frozen=True, slots=True)
class NeedleDocument:
    """A text and its questions.

    Attributes:
        text: Haystack, facts and decoys.
        tokens: What was asked for; the text's own differ by less than 2 %.
        needles: The facts, in the order in which they stand.
        decoys: Sentences that sound like them.
        asked: The questions, kinds in turn.
        depths: By question: of the first fact it asks for; none without one.
    """

    text: str
    tokens: int
    needles: tuple[Needle, ...]
    decoys: tuple[str, ...]
    asked: tuple[Asked, ...]
    depths: dict[str, float]


@dataclass(frozen=True, slots=True, eq=False)
class _Fact:
    """A filled-in form; equal to itself alone."""

    form: Form
    sentence: str
    answers: tuple[str, ...]
    shared: str
    near_miss: str


def workload_name() -> str:
    """Name and version of the workload, for results; changed whenever a document changes."""
    return _read().name


def forms() -> tuple[Form, ...]:
    """All forms of facts, in a fixed order."""
    return _read().forms


def needle_document(
    tokens: int, cases: int, seed: int, count_tokens: Callable[[str], int]
) -> NeedleDocument:
    """Make a document; equal arguments give an equal one on the same Python.

    Costs one tokenisation of the text, in pieces: some seconds for a million tokens.

    Args:
        tokens: Size of the text.
        cases: Of each kind, 1 to `MAX_CASES`.
        seed: Of everything in it.
        count_tokens: Tokens of a text.

    Raises:
        InputError: So many cases can't be made, or do not fit so short a text.
    """
    check_size(tokens, cases)
    rng = random.Random(f"needle {seed} {tokens}")  # noqa: S311 - makes up facts, guards nothing
    chosen = rng.sample(forms(), 2 * cases)
    hay = haystack(tokens - _planted_tokens(chosen, count_tokens), seed, count_tokens)
    maker = _Maker(rng, hay)
    facts = [maker.fact(form) for form in chosen]
    decoys = tuple(maker.decoy(form) for form in chosen)
    strangers = [maker.fact(form).shared for form in chosen[:cases]]
    firsts, seconds = facts[:cases], facts[cases:]
    # First and second in turn at evenly spread depths, the second of a case about half a text away.
    shift = (cases + 1) // 2
    in_turn = [f for i in range(cases) for f in (firsts[i], seconds[(i + shift) % cases])]
    text, needles = _planted(hay, in_turn, decoys, rng)
    size = len(text.encode())
    asked, depths = [], {}
    for number, (first, second) in enumerate(zip(firsts, seconds, strict=True), start=1):
        places = needles[first].place, needles[second].place
        for kind, question, wanted in _questions(first, second, strangers[number - 1], *places):
            asked.append(Asked(f"{size_label(tokens)}-{kind}-{number:02}", kind, question, wanted))
            if wanted:
                depths[asked[-1].id] = places[0].start / size
    return NeedleDocument(text, tokens, tuple(needles.values()), decoys, tuple(asked), depths)


def check_size(tokens: int, cases: int) -> None:
    """See whether a document can be made, without making it.

    Raises:
        InputError: So many cases can't be made, or do not fit so short a text.
    """
    if not 1 <= cases <= MAX_CASES:
        raise InputError(
            f"{cases} cases of each kind can't be made: there are facts for {MAX_CASES}.",
            f"Take 1 to {MAX_CASES}.",
        )
    least = 2 * cases * _LEAST_TOKENS_A_FACT
    if tokens < least:
        raise InputError(
            f"{2 * cases} facts do not fit a text of {tokens:,} tokens.",
            f"Take at least {least:,} tokens, or fewer cases.",
        )


def size_label(tokens: int) -> str:
    """A size as it is written on the command line: "16k", "1M"; k is 1,024."""
    for unit, factor in (("M", 1 << 20), ("k", 1 << 10)):
        if tokens and tokens % factor == 0:
            return f"{tokens // factor}{unit}"
    return str(tokens)


def _questions(
    first: _Fact, second: _Fact, stranger: str, at_first: ByteSpan, at_second: ByteSpan
) -> Iterator[tuple[Kind, str, tuple[Wanted, ...]]]:
    one, other = Wanted(first.answers, (at_first,)), Wanted(second.answers, (at_second,))
    both = f"{first.shared.removesuffix('?')}, and {second.shared[0].lower()}{second.shared[1:]}"
    yield Kind.SHARED, first.shared, (one,)
    yield Kind.PARAPHRASED, first.form.paraphrased, (one,)
    yield Kind.TWO_PASSAGES, both, (one, other)
    yield Kind.UNANSWERABLE_NAME, stranger, ()
    yield Kind.UNANSWERABLE_FACT, second.near_miss, ()


def _planted_tokens(chosen: Sequence[Form], count_tokens: Callable[[str], int]) -> int:
    """What the facts and decoys of forms take, as near as other names can tell."""
    maker = _Maker(random.Random(0), "")  # noqa: S311 - makes up facts, guards nothing
    return sum(
        count_tokens(f"{maker.fact(form).sentence}\n\n{maker.decoy(form)}\n\n") for form in chosen
    )


def _planted(
    hay: str, facts: Sequence[_Fact], decoys: Iterable[str], rng: random.Random
) -> tuple[str, dict[_Fact, Needle]]:
    """`hay` with the facts evenly spread, in order, and the decoys anywhere."""
    borders = [match.end() for match in _BORDER.finditer(hay)]
    if len(borders) < 4 * len(facts):
        borders = [match.end() for match in _ANY_BORDER.finditer(hay)]
    if len(borders) < 2 * len(facts):
        raise InputError(
            f"The haystack has {len(borders):,} places to plant {2 * len(facts)} sentences.",
            "Take more tokens, fewer cases, or another seed.",
        )
    at: dict[int, _Fact | str] = {}
    for number, fact in enumerate(facts):
        wanted = len(hay) * (2 * number + 1) // (2 * len(facts))
        at[min((b for b in borders if b not in at), key=lambda b: abs(b - wanted))] = fact
    for decoy in decoys:
        at[rng.choice([border for border in borders if border not in at])] = decoy
    pieces: list[str] = []
    spans: dict[_Fact, ByteSpan] = {}
    done = size = 0
    for border, what in sorted(at.items(), key=lambda item: item[0]):
        before = hay[done:border]
        paragraph = _paragraph(what if isinstance(what, str) else what.sentence)
        start = size + len(before.encode())
        size = start + len(paragraph.encode()) + 2
        if isinstance(what, _Fact):
            spans[what] = ByteSpan(start, size - 2)
        pieces += [before, paragraph, "\n\n"]
        done = border
    size += len(hay[done:].encode())
    needles = {
        fact: Needle(fact.form.name, fact.sentence, fact.answers, span.start / size, span)
        for fact, span in spans.items()
    }
    return "".join((*pieces, hay[done:])), needles


def _paragraph(sentence: str) -> str:
    return textwrap.fill(sentence, _WRAP_COLUMNS, break_on_hyphens=False)


class _Maker:
    """Fills in forms with values that stand nowhere in the text, and none twice."""

    def __init__(self, rng: random.Random, hay: str) -> None:
        self._rng = rng
        self._hay = hay.lower()
        self._used: set[str] = set()

    def fact(self, form: Form) -> _Fact:
        for _ in range(_TRIES):
            values = self._values(form)
            words = {field: spellings[0] for field, spellings in values.items()}
            sentence = form.sentence.format_map(words)
            # A made-up name that is like a word of the question by chance would give it away.
            if not content_stems(sentence) & content_stems(form.paraphrased):
                break
        return _Fact(
            form,
            sentence,
            values[form.answer],
            form.shared.format_map(words),
            form.near_miss.format_map(words),
        )

    def decoy(self, form: Form) -> str:
        values = self._values(form)
        return form.decoy.format_map({field: s[0] for field, s in values.items()})

    def _values(self, form: Form) -> dict[str, tuple[str, ...]]:
        """A value for each field of a form, in all ways in which it may be written."""
        rng = self._rng

        def number() -> tuple[str, ...]:
            drawn = rng.randint(1_001, 9_899)
            return f"{drawn:,}", str(drawn)

        makers: dict[str, Callable[[], tuple[str, ...]]] = {
            "person": self._person,
            "other": self._person,
            "place": lambda: (self._name(_PLACE_ENDINGS),),
            "place2": lambda: (self._name(_PLACE_ENDINGS),),
            "ship": lambda: (self._name(_SURNAME_ENDINGS),),
            "pet": lambda: (self._name(_SURNAME_ENDINGS),),
            "word": lambda: (self._name(_SURNAME_ENDINGS).lower(),),
            "number": number,
            "count": lambda: (str(rng.randint(101, 989)),),
            "year": lambda: (str(rng.randint(1701, 1899)),),
        }
        fields = [field for field in makers if f"{{{field}}}" in form.sentence + form.decoy]
        values = {field: self._new(makers[field]) for field in fields}
        for field, choices in form.choices.items():
            values[field] = self._new(partial(self._choice, choices))
        return values

    def _choice(self, choices: Sequence[str]) -> tuple[str, ...]:
        return (self._rng.choice(choices),)

    def _new(self, make: Callable[[], tuple[str, ...]]) -> tuple[str, ...]:
        for _ in range(_TRIES):
            spellings = make()
            if not any(self._is_known(spelling.lower()) for spelling in spellings):
                self._used.update(spelling.lower() for spelling in spellings)
                return spellings
        raise InputError(
            "The haystack holds every value that a fact could have.", "Take another seed."
        )

    def _is_known(self, spelling: str) -> bool:
        # One may stand in another: "601" in "4,601".
        if any(_holds(used, spelling) or _holds(spelling, used) for used in self._used):
            return True
        return _holds(self._hay, spelling)

    def _person(self) -> tuple[str, ...]:
        surname = self._name(_SURNAME_ENDINGS)
        return f"{self._rng.choice(_read().given_names)} {surname}", surname

    def _name(self, endings: Sequence[str]) -> str:
        stem = "".join(self._rng.sample(_SYLLABLES, 2))
        return (stem + self._rng.choice(endings)).capitalize()


def _holds(text: str, words: str) -> bool:
    # The first test is fast, and mostly enough.
    return words in text and bool(re.search(rf"(?<!\w){re.escape(words)}(?!\w)", text))


@cache
def _read() -> _File:
    data = resources.files(__package__).joinpath("needle.json").read_bytes()
    return msgspec.json.decode(data, type=_File)

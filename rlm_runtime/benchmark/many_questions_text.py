"""The document and the questions of `many-questions`: real text, drawn by a seed.

The text is Python's language reference, which ships with every Python and differs a little between
versions: results name its digest. Its pages stand in an order drawn by the seed. Questions are made
of words of sentences that lie evenly over the document; what they are worth as questions does not
matter, only that they are different, as long as people's are, and about the document.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from itertools import pairwise

from rlm_runtime.errors import InputError
from rlm_runtime.scaffold.units import Unit, units

MIN_SENTENCE_WORDS = 8
"""Shorter units are headings and scraps of code."""

_BORDER = re.compile(r"(?<=\n)\n+(?=\S)")
_WORD = re.compile(r"[A-Za-z]{4,}")
_FORMS = (
    "What exactly does the text say about {0}, {1} and {2}, and when does it hold?",
    "How do {0} and {1} go together with {2} according to the reference?",
    "Is there a place where it is explained why {0} needs {1} or {2}?",
    "Which of the rules for {0} mentions both {1} and {2}, and what follows from it?",
)


def document_text(tokens: int, seed: int, count_tokens: Callable[[str], int]) -> str:
    """Whole paragraphs of the reference that together have about `tokens` tokens.

    The last paragraph takes it over the number, by 1 or 2 % where a long table is last. Equal
    arguments give an equal text on one version of Python. Costs one tokenisation of it.

    Args:
        tokens: Wanted.
        seed: Order of the pages.
        count_tokens: Tokens of a text.

    Raises:
        InputError: The reference is not so long, or `tokens` is below 1.
    """
    # Late: half a megabyte that only this workload needs.
    from pydoc_data.topics import topics

    if tokens < 1:
        raise InputError(f"A document of {tokens} tokens can't be made.", "Take at least 1.")
    names = sorted(topics)
    random.Random(seed).shuffle(names)  # noqa: S311 - orders pages, guards nothing
    text = "\n\n".join(topics[name].strip("\n") for name in names)
    starts = [0, *(border.end() for border in _BORDER.finditer(text)), len(text)]
    counted = 0
    for start, end in pairwise(starts):
        counted += count_tokens(text[start:end])
        if counted >= tokens:
            return text[:end].rstrip("\n") + "\n"
    raise InputError(
        f"The reference has {counted:,} tokens, {tokens:,} were asked for.", "Take fewer."
    )


def questions_about(
    text: str, count: int, seed: int, *, max_tokens: int, count_tokens: Callable[[str], int]
) -> tuple[str, ...]:
    """So many different questions, made of sentences that lie evenly over the text.

    Args:
        text: The document.
        count: At least 1.
        seed: Which sentences of each stretch.
        max_tokens: Of a question.
        count_tokens: Tokens of a text.

    Raises:
        InputError: The text has fewer sentences with something in them.
    """
    rng = random.Random(seed)  # noqa: S311 - draws sentences, guards nothing
    sentences = [unit for unit in units(text) if _is_sentence(text, unit)]
    if not 1 <= count <= len(sentences):
        raise InputError(
            f"{count:,} questions can't be made of {len(sentences):,} sentences.",
            "Ask fewer, at least one, or take a longer document.",
        )
    made: dict[str, None] = {}
    for number in range(count):
        first, end = (len(sentences) * n // count for n in (number, number + 1))
        stretch = rng.sample(sentences[first:end], end - first)
        form = _FORMS[number % len(_FORMS)]
        asked = (form.format(*_topics(text, unit)) for unit in [*stretch, *sentences])
        short = (q for q in asked if q not in made and count_tokens(q) <= max_tokens)
        question = next(short, None)
        if question is None:
            raise InputError(
                f"The text has too few different sentences for {count:,} questions of at most "
                f"{max_tokens:,} tokens.",
                "Ask fewer questions, or take a longer document.",
            )
        made[question] = None
    return tuple(made)


def _is_sentence(text: str, unit: Unit) -> bool:
    sentence = text[unit.start : unit.end]
    is_prose = sentence[0].isupper() and sentence.endswith(".")
    is_long = len(sentence.split()) >= MIN_SENTENCE_WORDS
    return is_prose and is_long and len(_topics(text, unit)) == 3


def _topics(text: str, unit: Unit) -> tuple[str, ...]:
    """The three longest words, in the order in which they stand."""
    words = list(dict.fromkeys(_WORD.findall(text, unit.start, unit.end)))
    longest = sorted(words, key=lambda word: -len(word))[:3]
    return tuple(word for word in words if word in longest)

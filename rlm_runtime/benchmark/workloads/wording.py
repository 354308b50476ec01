"""Which words a question and a passage share: what makes a question easy for word search."""

from __future__ import annotations

import re
from functools import cache

FUNCTION_WORDS = frozenset(
    """a about after again all an and another any are as at be been being but by can cannot could
    d did do does doing done each every few for from get give given gives had has have having he
    her here his how i if in into is it its just less like many may me might mine more most much
    must my no none not of off on once one ones only or other others our own re s same shall she
    should so some still such t than that the their them then there these they this those to too
    under until up upon us very was we were what when where whether which while who whom whose
    why will with without would yet you your""".split()  # noqa: SIM905 - so many words read better unquoted
)

_WORD = re.compile(r"[a-z0-9]+")
_ENDING = re.compile(r"(ing|ed|es|s|ly)$")
_STEM_CHARACTERS = 5


@cache
def content_stems(sentence: str) -> frozenset[str]:
    """Content words, endings cut: equal for `evaluated`, `evaluates` and `evaluation`."""
    return frozenset(
        _ENDING.sub("", word)[:_STEM_CHARACTERS] if len(word) > 4 else word.removesuffix("s")
        for word in _WORD.findall(sentence.lower())
        if word not in FUNCTION_WORDS
    )

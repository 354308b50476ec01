"""A question that asks two things, as two questions.

Each has its own passage, often far from the other's; asked together, the likelier one hides the
other. Split, both passages are among the best three in 9 of 10 cases instead of 7 (ten questions,
the default model).

Works on the words of English alone, and only where both halves are sure to stand as questions: a
question that was kept whole costs a rank, one that was cut in the wrong place costs the answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum, auto
from typing import NamedTuple

MAX_PARTS = 4
"""A question of more is kept whole: it is a list of questions, and each part costs a search."""

MAX_CHARACTERS = 1_000
"""A longer question is kept whole: the patterns take quadratic time, and it is no such question."""

MIN_WORDS = 3


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_AUXILIARIES = _set(
    "is are was were am do does did can could may might must shall should will would has have had "
    "isn't aren't wasn't weren't don't doesn't didn't can't couldn't won't wouldn't shouldn't "
    "hasn't haven't hadn't"
)
_DO = _set("do does did don't doesn't didn't")
_WH = _set("who whom whose what which when where why how")
_PREPOSITIONS = _set(
    "about after against as at before behind below between beyond by during for from in inside "
    "into near of off on onto over per since through to toward towards under until upon via with "
    "within without"
)
_PRONOUNS = _set(
    "i you he she it we they me him her us them this that these those one ones its their his "
    "there my your our"
)
_SUBJECTS = _set("i you he she it we they there this that these those")
_DETERMINERS = _set("the a an this that these those my your his her its our their")
_DEGREES = _set(
    "many much long often far old big large high deep wide heavy tall fast quickly soon late early "
    "small short thick strong hot cold expensive likely"
)
_PAST = _set("made gave took became came went led brought set put cost hit won left")
_PARTICIPLES = _set(
    "built written made born held found sold kept set put told known given taken shown drawn grown "
    "thrown broken chosen spoken stolen worn torn led read bought brought caught taught"
)
_OTHERS = _set("and or but not so also then else if no any all each both")
_FUNCTION = _AUXILIARIES | _WH | _PREPOSITIONS | _PRONOUNS | _DETERMINERS | _OTHERS

_SENTENCE = re.compile(r"[^?]+\?+[\"'”’)\]]*")
_JOINT = re.compile(r"(?P<stop>[,;])?\s+(?:and|but)(?:\s+also)?\s+|;\s+", re.IGNORECASE)
_LEAD = re.compile(r"^(?:and|also|but|then)\b,?\s+", re.IGNORECASE)
_PREFIX = re.compile(r"(?P<prefix>[^,;?]{2,80},\s+)(?=\S)")
_SIDE_CLAUSE = re.compile(r",\s+(?:who|which|whose|where|when)\b", re.IGNORECASE)
_WHICH_ONE = re.compile(
    rf"^((?:\w+ )?which)(?: one\b|(?= (?:{'|'.join(sorted(_AUXILIARIES))})\b))", re.IGNORECASE
)
_QUOTES = (('"', '"'), ("“", "”"), ("(", ")"), ("[", "]"))


class _Opening(Enum):
    """How sure it is that words begin a question, and not a clause that looks like one."""

    NONE = auto()
    WEAK = auto()  # "who signed it": may be a relative clause, or depend on a verb before it
    STRONG = auto()  # "when did Anna sign": only a question turns its verb round


class _Words(NamedTuple):
    """A half as words: bare and lower-case, and as they stand."""

    bare: list[str]
    shown: list[str]


def question_parts(question: str) -> tuple[str, ...]:
    """The questions that a question is made of; itself, unchanged, if it is one.

    A second half that names its subject by "which one" gets the first half's noun, and one that
    says "it" gets the first half's subject, where only one thing can be meant. Some
    milliseconds at most.

    Args:
        question: As it was asked.

    Returns:
        1 to `MAX_PARTS` questions, in order. Of several, each ends with a question mark.
    """
    if len(question) > MAX_CHARACTERS:
        return (question,)
    sentences = _sentences(question)
    parts = [part for sentence in sentences for part in _halves(sentence)]
    if not 1 < len(parts) <= MAX_PARTS:
        return (question,)
    return tuple(f"{part[0].upper()}{part[1:]}?" for part in parts)


def _sentences(question: str) -> list[str]:
    """The sentences, if all of them are questions that stand alone; else the whole as one."""
    whole = question.strip()
    found = _SENTENCE.findall(whole)
    if len(found) < 2 or "".join(found).strip() != whole:
        return [_bare(whole)]
    sentences = [_bare(_LEAD.sub("", sentence.strip(), count=1)) for sentence in found]
    if all(_is_balanced(s) and _stands(s, _Opening.WEAK) for s in sentences):
        return sentences
    return [_bare(whole)]


def _halves(sentence: str) -> Iterator[str]:
    """The parts of one sentence, without their question marks."""
    prefix, body = _prefix(sentence)
    for joint in _JOINT.finditer(body):
        left, right = body[: joint.start()], body[joint.end() :]
        if not (_is_balanced(left) and _is_balanced(right)):
            continue
        if _opening(_words(left)) is _Opening.NONE or _dangles(left):
            continue
        # Behind a clause of the first half's own, "and who ..." may belong to that clause.
        has_clause = any(word in _WH or word == "that" for word in _words(left).bare[2:])
        is_sure = joint["stop"] is not None and not _SIDE_CLAUSE.search(left)
        needed = _Opening.STRONG if has_clause and not is_sure else _Opening.WEAK
        if " between " in f" {left} " and joint["stop"] is None:
            needed = _Opening.STRONG
        resolved = _resolved(left, right)
        if _stands(resolved, needed) and _says_something(resolved):
            yield prefix + left
            yield from _halves(prefix + resolved)
            return
    yield sentence


def _prefix(sentence: str) -> tuple[str, str]:
    """What stands before the question proper ("In the second report, ") and holds for all of it."""
    match = _PREFIX.match(sentence)
    if match and _opening(_words(sentence)) is _Opening.NONE:
        body = sentence[match.end() :]
        if _opening(_words(body)) is not _Opening.NONE:
            return match["prefix"], body
    return "", sentence


def _stands(half: str, needed: _Opening) -> bool:
    """A half can be asked alone."""
    words = _words(half)
    opening = _opening(words)
    if opening is _Opening.NONE or (needed is _Opening.STRONG and opening is _Opening.WEAK):
        return False
    # "what it is", "how old they are": the verb stands where a question has none.
    return len(words.bare) >= MIN_WORDS and not _dangles(half) and words.bare[1] != "about"


def _opening(words: _Words) -> _Opening:
    bare = words.bare
    at = 1 if len(bare) > 1 and bare[0] in _PREPOSITIONS else 0
    if len(bare) <= at + 1:
        return _Opening.NONE
    first, second = bare[at], bare[at + 1]
    if at == 0 and first in _AUXILIARIES:
        return _Opening.STRONG if second in _SUBJECTS else _Opening.NONE
    if first.removesuffix("'s") in _WH and first.endswith("'s"):
        return _Opening.STRONG
    if first not in _WH:
        return _Opening.NONE
    if first in ("when", "where", "why", "whom"):
        return _Opening.STRONG if second in _AUXILIARIES else _Opening.NONE
    if first == "how" and second in _AUXILIARIES:
        return _Opening.STRONG
    if first == "how" and second not in _DEGREES:
        return _Opening.NONE
    if second not in _AUXILIARIES and second in _FUNCTION - {"one", "ones"}:
        return _Opening.NONE
    verb = next((i for i in range(at + 1, min(at + 8, len(bare))) if bare[i] in _AUXILIARIES), None)
    if verb is not None and verb + 1 < len(bare):
        follower = words.shown[verb + 1]
        is_turned = bare[verb] in _DO or bare[verb + 1] in _SUBJECTS | _DETERMINERS
        if is_turned or follower[0].isupper() or first == "how":
            return _Opening.STRONG
    if first == "what" and verb is None and not second.endswith(("s", "ed")):
        return _Opening.WEAK if second in _PAST else _Opening.NONE
    return _Opening.WEAK


def _dangles(half: str) -> bool:
    """It ends with a word that a question rarely ends with: something was cut off."""
    last = _words(half).bare[-1:]
    return not last or last[0] in (_AUXILIARIES | _WH | _DETERMINERS | _OTHERS) - _SUBJECTS


def _says_something(half: str) -> bool:
    """It can be told from other questions: "who designed it" can't, away from what "it" is."""
    bare = _words(half).bare
    content = sum(word not in _FUNCTION for word in bare)
    return content >= (2 if any(word in _PRONOUNS for word in bare) else 1)


def _resolved(left: str, right: str) -> str:
    """`right` with the noun or the subject of `left`, where it only points to it."""
    noun = _asked_noun(left)
    if noun:
        right = _WHICH_ONE.sub(lambda match: f"{match[1]} {noun}", right, count=1)
    subject = _only_subject(left)
    pronouns = [word for word in _words(right).bare if word in _PRONOUNS]
    if subject and pronouns in (["it"], ["they"], ["them"]):
        pronoun = re.compile(rf"\b{pronouns[0]}\b", re.IGNORECASE)
        right = pronoun.sub(lambda _match: subject, right, count=1)
    return right


def _asked_noun(left: str) -> str:
    """Of "Which built-in function creates a slice", "built-in function"; empty if unsure."""
    words = _words(left)
    at = 1 if words.bare[0] in _PREPOSITIONS else 0
    if words.bare[at] not in ("which", "what"):
        return ""
    for i in range(at + 1, min(at + 6, len(words.bare))):
        word = words.bare[i]
        # A third person's verb, since "one" stands for a singular; "class" and "status" are none.
        is_verb = word.endswith("s") and not word.endswith(("ss", "us", "is"))
        if word in _AUXILIARIES or (is_verb and i > at + 1):
            return " ".join(words.shown[at + 1 : i])
        if word in _FUNCTION:
            return ""
    return ""


def _only_subject(left: str) -> str:
    """Of "When was the bridge built", "the bridge"; empty if "it" could be anything else."""
    words = _words(left)
    bare = words.bare
    if bare[0] == "who" and len(bare) > MIN_WORDS and _is_noun(words, 2, len(bare)):
        return " ".join(words.shown[2:])  # "Who signed the treaty": it is not who signed
    if bare[0] not in ("when", "where", "why", "how") or len(bare) <= MIN_WORDS:
        return ""
    is_participle = bare[-1].endswith("ed") or bare[-1] in _PARTICIPLES
    if bare[1] not in ("is", "are", "was", "were") or not is_participle:
        return ""
    named = bare[2] in _DETERMINERS - _SUBJECTS or words.shown[2][0].isupper()
    return " ".join(words.shown[2:-1]) if named and not _WH.intersection(bare[2:]) else ""


def _is_noun(words: _Words, start: int, end: int) -> bool:
    """The words are an article and what it belongs to, and nothing else."""
    return words.bare[start] in ("the", "a", "an") and all(
        word == "of" or word == "the" or word not in _FUNCTION
        for word in words.bare[start + 1 : end]
    )


def _words(text: str) -> _Words:
    shown = text.split()
    bare = [word.strip("\"'“”‘’().,;:?!").replace("’", "'").lower() for word in shown]
    return _Words(bare, shown)


def _bare(sentence: str) -> str:
    return sentence.strip().rstrip("?.! ").rstrip()


def _is_balanced(text: str) -> bool:
    """No quotation or bracket is open at its end."""
    return all(
        text.count(start) % 2 == 0 if start == end else text.count(start) == text.count(end)
        for start, end in _QUOTES
    )

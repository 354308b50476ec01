"""Where two prompts part although the same tokens follow, and what it is that parts them.

    this prompt     common start | its own tokens | the same tokens again ...
    earlier prompt  common start | its own tokens | the same tokens again ...

A prefix cache serves the common start and nothing behind it, so the first token that differs costs
all the equal tokens that follow. Given both prompts and a stretch that they share, `diverge` finds
that token, how far the difference reaches on both sides, and its kind. Ids in, facts out: prompts
of other systems, which have no segments, are judged by their control tokens and their words.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from rlm_runtime.prompt import Prompt

AGREE_TOKENS = 16
"""Prompts agree again where so many ids in a row are equal: fewer are a common phrase."""

REACH_TOKENS = 256
"""So far behind the first difference the end of it is looked for, before the shared stretch."""

VALUE_TOKENS = 48
"""A value (a date, counter, name or path) with the words around it is no longer than this; a UUID
alone has up to 36."""

SCAFFOLD_TOKENS = 32
"""Text that a template writes on its own, a default system text included."""

BEFORE_TOKENS, SHOWN_TOKENS, AFTER_TOKENS = 16, 24, 8
"""Of an excerpt: enough to find the place in a prompt."""

_VALUE_WORDS = 6
_NAME_WORDS = 2
_DATA_PER_INSTRUCTION = 4  # without segments: data is several times longer than words about it
_EDGE_TOKENS = 4  # a character's bytes may be spread over so many ids

_INSTRUCTIONS = frozenset({"role", "names", "task", "answer", "turn"})
_CONSTANT = frozenset({"shared", "role", "names"})
_ROLES = frozenset({"system", "developer", "user", "assistant", "model", "tool", "ipython"})
_VALUE_CHARACTERS = frozenset("0123456789/\\@_")
_LAST_WORD, _FIRST_WORD = re.compile(r"\S*\Z"), re.compile(r"\S*")


class Kind(StrEnum):
    """What parts two prompts.

    Attributes:
        TEMPLATE: Control tokens, or what a chat template writes around them.
        REJOINED_TEXT: Nothing to read: the same text as other ids.
        DATA_AFTER_TASK: An instruction, in front of the data that it is about.
        VARYING_VALUE: A small value in otherwise equal text.
        OTHER: None of these.
    """

    TEMPLATE = "template"
    REJOINED_TEXT = "rejoined_text"
    DATA_AFTER_TASK = "data_after_task"
    VARYING_VALUE = "varying_value"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What reading ids takes.

    Attributes:
        decode: The text of ids.
        special_ids: The control tokens.
    """

    decode: Callable[[Sequence[int]], str]
    special_ids: frozenset[int]


@dataclass(frozen=True, slots=True)
class Side:
    """One prompt's part of a divergence.

    Attributes:
        start: Position of the first token that differs: the same on both sides.
        end: Position from which on both prompts agree again; `start` when this one has nothing of
            its own.
        segment: Kind of the segment that `start` is in; `None` without segments, or at the end.
    """

    start: int
    end: int
    segment: str | None


@dataclass(frozen=True, slots=True)
class Divergence:
    """Where two prompts part.

    Attributes:
        kind: What parts them.
        here: In this prompt.
        earlier: In the earlier one.
    """

    kind: Kind
    here: Side
    earlier: Side

    @property
    def position(self) -> int:
        """Of the first token that differs."""
        return self.here.start


@dataclass(frozen=True, slots=True)
class Excerpt:
    """The surroundings of one side of a divergence, cut short.

    Attributes:
        before: Ids of the common start, up to the first that differs.
        own: Ids that only this prompt has here.
        after: Ids on which both agree again; empty when `own` is cut.
        is_cut: `own` goes on.
    """

    before: tuple[int, ...]
    own: tuple[int, ...]
    after: tuple[int, ...]
    is_cut: bool

    def texts(self, vocabulary: Vocabulary) -> tuple[str, str, str]:
        """`before`, `own` and `after` as text."""
        return _read(vocabulary, self.before, self.own, self.after)


def diverge(
    prompt: Prompt,
    earlier: Prompt,
    *,
    start: int,
    earlier_start: int,
    length: int,
    vocabulary: Vocabulary | None = None,
) -> Divergence:
    """Find where a prompt parts from an earlier one with which it shares a stretch of tokens.

    Costs time linear in the common start.

    Args:
        prompt: Whose tokens had to be computed again.
        earlier: Ids that were computed before: a prompt, and what was generated behind it.
        start: In `prompt`, where the shared stretch begins.
        earlier_start: In `earlier`, likewise.
        length: Of the shared stretch, tokens, > 0.
        vocabulary: Without it, only segments tell kinds: much is then `OTHER`.
    """
    a, b = prompt.ids, earlier.ids
    parting = _common_start(a, b)
    # The stretch may begin in the common start, where a text repeats itself ("11" against "1").
    inside = max(0, parting - start, parting - earlier_start)
    if inside >= length:
        # One of them has the text twice: no difference stands in front of the shared stretch.
        ends = max(parting, start), max(parting, earlier_start)
        kind = Kind.OTHER
    else:
        starts = start + inside, earlier_start + inside
        ends = _agree_again(a, b, parting, _backwards(a, b, parting, starts))
        data = _kinds(prompt, starts[0], start + length)
        difference = _Difference(prompt, earlier, parting, ends)
        has_document = "document" in data
        kind = difference.kind(vocabulary, data_tokens=length - inside, has_document=has_document)
    return Divergence(kind, _side(prompt, parting, ends[0]), _side(earlier, parting, ends[1]))


def excerpt(prompt: Prompt, side: Side) -> Excerpt:
    """What stands around one side of a divergence."""
    ids, start, end = prompt.ids, side.start, side.end
    is_cut = end - start > SHOWN_TOKENS
    return Excerpt(
        before=tuple(ids[max(0, start - BEFORE_TOKENS) : start]),
        own=tuple(ids[start : min(end, start + SHOWN_TOKENS)]),
        after=() if is_cut else tuple(ids[end : end + AFTER_TOKENS]),
        is_cut=is_cut,
    )


def _common_start(a: Sequence[int], b: Sequence[int]) -> int:
    pairs = enumerate(zip(a, b, strict=False))
    return next((i for i, (x, y) in pairs if x != y), min(len(a), len(b)))


def _backwards(
    a: Sequence[int], b: Sequence[int], parting: int, starts: tuple[int, int]
) -> tuple[int, int]:
    """Where the equal tokens that end in a shared stretch begin."""
    i, j = starts
    while i > parting and j > parting and a[i - 1] == b[j - 1]:
        i, j = i - 1, j - 1
    return i, j


def _agree_again(
    a: Sequence[int], b: Sequence[int], parting: int, ends: tuple[int, int]
) -> tuple[int, int]:
    """The nearest positions behind the parting from which on the prompts agree, at most `ends`.

    A prompt may differ in several places; the first is the one that has to be mended first.
    """
    reach = parting + REACH_TOKENS
    windows: dict[tuple[int, ...], int] = {}
    for j in range(parting, min(ends[1], reach, len(b) - AGREE_TOKENS + 1)):
        windows.setdefault(tuple(b[j : j + AGREE_TOKENS]), j)
    best = ends
    for i in range(parting, min(ends[0], reach)):
        j = windows.get(tuple(a[i : i + AGREE_TOKENS]), ends[1])
        best = min(best, (i, j), key=sum) if j < ends[1] else best
    return best


def _kinds(prompt: Prompt, start: int, end: int) -> frozenset[str]:
    return frozenset(s.kind for s in prompt.segments if s.start < end and start < s.end)


def _side(prompt: Prompt, start: int, end: int) -> Side:
    kinds = (s.kind for s in prompt.segments if s.start <= start < s.end)
    return Side(start, end, next(kinds, None))


class _Difference:
    """The tokens between the parting of two prompts and where they agree again."""

    def __init__(
        self, prompt: Prompt, earlier: Prompt, parting: int, ends: tuple[int, int]
    ) -> None:
        self._before = prompt.ids[:parting]
        self._own = (prompt.ids[parting : ends[0]], earlier.ids[parting : ends[1]])
        self._after = prompt.ids[ends[0] : ends[0] + BEFORE_TOKENS]
        self._segments = _kinds(prompt, parting, ends[0]) | _kinds(earlier, parting, ends[1])
        borders = {s.start for s in prompt.segments} | {len(prompt.ids)}
        self._touches_border = not borders.isdisjoint((parting, ends[0]))

    def kind(self, vocabulary: Vocabulary | None, *, data_tokens: int, has_document: bool) -> Kind:
        """The first kind that fits, the most exact ones first.

        Args:
            vocabulary: As of `diverge`.
            data_tokens: Equal tokens that follow.
            has_document: A document is among them.
        """
        is_instruction = has_document and bool(self._segments & _INSTRUCTIONS)
        if vocabulary is None:
            return Kind.DATA_AFTER_TASK if is_instruction else Kind.OTHER
        if self._texts_are_equal(vocabulary):
            return Kind.REJOINED_TEXT
        if self._is_scaffolding(vocabulary):
            return Kind.TEMPLATE
        if self._segments == {"document"}:
            return Kind.OTHER  # other data
        words = [w for w in self._words(vocabulary) if w]
        is_small = max(map(len, self._own)) <= VALUE_TOKENS
        if is_small and words and all(map(_is_value, words)):
            return Kind.VARYING_VALUE
        if is_instruction:
            return Kind.DATA_AFTER_TASK
        if self._segments:
            return Kind.VARYING_VALUE if is_small and self._segments <= _CONSTANT else Kind.OTHER
        if is_small and words and max(map(len, words)) <= _NAME_WORDS:
            return Kind.VARYING_VALUE
        is_long = data_tokens >= _DATA_PER_INSTRUCTION * max(map(len, self._own))
        return Kind.DATA_AFTER_TASK if words and is_long else Kind.OTHER

    def _texts_are_equal(self, vocabulary: Vocabulary) -> bool:
        before, after = self._before[-_EDGE_TOKENS:], self._after[:_EDGE_TOKENS]
        here, earlier = (vocabulary.decode((*before, *own, *after)) for own in self._own)
        return here == earlier

    def _is_scaffolding(self, vocabulary: Vocabulary) -> bool:
        special = vocabulary.special_ids
        here, earlier = ([id_ for id_ in own if id_ in special] for own in self._own)
        if here != earlier:
            plain = max(sum(id_ not in special for id_ in own) for own in self._own)
            # A whole turn more or less is not the template's doing; a thinking block dropped is.
            known = special.intersection(self._before)
            return plain <= SCAFFOLD_TOKENS or not set(here) ^ set(earlier) <= known
        texts = {vocabulary.decode(own).strip() for own in self._own}
        head = self._before[-BEFORE_TOKENS:]
        last = _last(head, special)
        opening = None if last is None else vocabulary.decode(head[last + 1 :]).strip()
        if texts == {""}:
            is_before = not special.isdisjoint(self._after[:1])
            return opening in _ROLES | {""} or is_before or self._touches_border
        return opening == "" and texts <= _ROLES

    def _words(self, vocabulary: Vocabulary) -> list[list[str]]:
        """The words that differ, whole: the last digit of a date says little without the date."""
        special = vocabulary.special_ids
        head, tail = self._before[-BEFORE_TOKENS:], self._after
        last = _last(head, special)
        head = head if last is None else head[last + 1 :]
        tail = tail[: next((n for n, id_ in enumerate(tail) if id_ in special), None)]
        found = []
        for own in self._own:
            before, text, after = _read(vocabulary, head, own, tail)
            if text[:1].strip() and (word := _LAST_WORD.search(before)):
                text = word[0] + text
            if text[-1:].strip() and (word := _FIRST_WORD.match(after)):
                text += word[0]
            found.append(text.split())
        return found


def _last(ids: Sequence[int], special: frozenset[int]) -> int | None:
    """Index of the last control token."""
    return next((n for n in reversed(range(len(ids))) if ids[n] in special), None)


def _is_value(words: Sequence[str]) -> bool:
    """A date, a counter, an id, a path: few words, a third of them with signs of such."""
    signs = sum(not _VALUE_CHARACTERS.isdisjoint(word) for word in words)
    return len(words) <= _VALUE_WORDS and 3 * signs >= len(words)


def _read(
    vocabulary: Vocabulary, before: tuple[int, ...], own: tuple[int, ...], after: tuple[int, ...]
) -> tuple[str, str, str]:
    """Consecutive ids as text. Alone, some tokenizers would drop a part's leading space."""
    first, second = vocabulary.decode(before), vocabulary.decode(before + own)
    whole = vocabulary.decode(before + own + after)
    return first, second[len(first) :], whole[len(second) :]

"""The few words of a quoted sentence that answer the question: a highlight inside the quotation.

The model chooses among the spans of the sentence, so it can't say what does not stand there; left
to write freely, it does. The sentence stays the answer. Measured with the default model on the
right sentences of the `qa` workload's `shared` and `planted` questions: of the half that these
choices were made on, 20 of 27 short forms hold an expected answer, of the other half 15 of 27; 4
words long on average.

The examples are turns of a chat, in front of the sentence: they are the same for every sentence, so
all of them come from the cache. (A sentence is asked about once; what is asked about more often
stands first, see `prompt/layout.py`.) As one text in the question's own turn, they gave 14 and 16
of 27, in longer answers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from rlm_runtime.engine.choices import MAX_CHOICE_TOKENS, MAX_CHOICES
from rlm_runtime.errors import LimitExceeded
from rlm_runtime.prompt import Layout, Prompt
from rlm_runtime.scaffold.likelihood import Asker
from rlm_runtime.scheduler import Call

MAX_WORDS = 6
"""Words of a span."""

EXAMPLES = (
    (
        "The lighthouse at Corvane was built by the engineer Ruth Dane in 1871.",
        "Who built the lighthouse at Corvane?",
        "Ruth Dane",
    ),
    (
        "By default the parser reads *limit* bytes (512 if it is not given), and raises "
        '"ParseError" when there are more.',
        "Which error is raised when there are more bytes than the limit?",
        "ParseError",
    ),
    (
        "Visitors may enter the garden from nine o'clock until sunset, except on Mondays.",
        "Until when may visitors enter the garden?",
        "sunset",
    ),
    (
        "If the file is missing, the program prints a warning and goes on with its default "
        "settings.",
        "What happens if the file is missing?",
        "prints a warning",
    ),
)
"""Sentence, question, answer. Constant: a change costs every cached prompt."""

_UNFINISHED_WORDS = (
    "a an the of to in on at by for from with and or but is are was were be as that which if when "
    "than into"
)
_UNFINISHED = frozenset(_UNFINISHED_WORDS.split())
"""Words behind which something must follow: no span ends with them."""

_JOINTS = frozenset(("of", "and", "or", "but", "than"))
"""Words with which no span begins."""

_WORD = re.compile(r"\S+")
_STOPS = ".,;:!?"
_COMMAS = ",;:"
_MARKS = ".,;:!?\"'()“”"
_QUOTES = ('""', "''", "“”", "‘’", "``", "**")
_BRACKETS = ("()", "[]", "{}")


@dataclass(frozen=True, slots=True)
class ShortForm:
    """A span of a quoted sentence.

    Attributes:
        text: The bytes, as text.
        start_byte: Its first byte in the text that the sentence stands in.
        end_byte: Behind its last byte.
    """

    text: str
    start_byte: int
    end_byte: int


async def short_form(
    asker: Asker, question: str, sentence: str, start_byte: int, window: int
) -> ShortForm | None:
    """The span of `sentence` that the model takes for the answer. One call.

    Args:
        asker: Who asks.
        question: In words.
        sentence: What was quoted.
        start_byte: Where it stands in its text.
        window: Prompt plus generated tokens a request may have.

    Returns:
        `None` where there is nothing to choose from, where the prompt does not fit the window, or
        where a limit of the tree refuses the call: the sentence is the answer all the same.
    """
    layout = asker.layout
    asked = frozenset(_words(question))
    places: dict[str, tuple[int, int]] = {}
    tokens = longest = 0
    for start, end in spans(sentence):
        choice = _one_line(sentence[start:end])
        if choice in places or not _may_answer(choice, asked):
            continue
        count = layout.tokenizer.count(choice)
        tokens += count
        if tokens > MAX_CHOICE_TOKENS or len(places) == MAX_CHOICES:
            break
        places[choice] = (start, end)
        longest = max(longest, count)
    prompt = _prompt(layout, sentence, question)
    max_tokens = longest + 1
    if len(places) < 2 or len(prompt.ids) + max_tokens > window:
        return None
    asker.job.begin_stage("choosing the words", 1)
    call = Call(
        prompt=prompt,
        agent_id=asker.agent_id,
        depth=asker.depth,
        label="short form",
        max_tokens=max_tokens,
        choices=tuple(places),
    )
    try:
        result = await asker.scheduler.run(asker.job, call)
    except LimitExceeded:
        return None
    if result.choice is None:
        return None
    start, end = places[result.choice]
    first = start_byte + len(sentence[:start].encode())
    text = sentence[start:end]
    return ShortForm(text, first, first + len(text.encode()))


def _prompt(layout: Layout, sentence: str, question: str) -> Prompt:
    first, *others = [_task(text, asked) for text, asked, _answer in EXAMPLES]
    prompt = layout.prompt(task=first)
    for (*_, answer), task in zip(EXAMPLES, (*others, _task(sentence, question)), strict=True):
        prompt = layout.append_turn(prompt, layout.tokenizer.encode(answer), task)
    return prompt


def _task(sentence: str, question: str) -> str:
    return f"Text: {_one_line(sentence)}\nQuestion: {_one_line(question)}"


def _may_answer(span: str, asked: frozenset[str]) -> bool:
    """Not what the question says itself, and nothing that breaks off.

    Without this, the model often repeats the question: 14 right ones instead of 20 of the 27 that
    the choice was made on.
    """
    words = _words(span)
    if words[-1] in _UNFINISHED or words[0] in _JOINTS:
        return False
    return not all(word in asked or word in _UNFINISHED for word in words)


def _words(text: str) -> list[str]:
    return [word.strip(_MARKS).lower() for word in text.split()]


def spans(sentence: str) -> Iterator[tuple[int, int]]:
    """Up to `MAX_WORDS` words in a row, in characters of the sentence, without what encloses them.

    Commas and stops at the ends are left out, and brackets and quotation marks that are not the
    span's own.
    """
    words = [match.span() for match in _WORD.finditer(sentence)]
    for first in range(len(words)):
        for last in range(first, min(first + MAX_WORDS, len(words))):
            start, end = _trimmed(sentence, words[first][0], words[last][1])
            if start < end:
                yield start, end


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    while start < end:
        span = text[start:end]
        if span[-1] in _STOPS or span[-1].isspace():
            end -= 1
        elif span[0] in _COMMAS or span[0].isspace():
            start += 1
        elif _is_quoted(span):
            start, end = start + 1, end - 1
        elif _is_alone(span, span[0]):
            start += 1
        elif _is_alone(span, span[-1]):
            end -= 1
        else:
            break
    return start, end


def _is_quoted(span: str) -> bool:
    """Quotation marks enclose it, and it has no others of their kind."""
    pair = span[0] + span[-1]
    return len(span) > 1 and pair in _QUOTES and sum(map(span.count, set(pair))) == 2


def _is_alone(span: str, mark: str) -> bool:
    """A bracket or quotation mark whose other half is not in the span."""
    for pair in (*_QUOTES, *_BRACKETS):
        if mark in pair:
            opening, closing = pair[0], pair[1]
            found = span.count(opening)
            return found % 2 == 1 if opening == closing else found != span.count(closing)
    return False


def _one_line(text: str) -> str:
    return " ".join(text.split())

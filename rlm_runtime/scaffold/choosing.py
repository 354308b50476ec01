"""`auto`: which kind of agent a task is for, by a short rule that reads the task and sizes.

    the context                     the task                                      agent
    some                            names labels, for each of many rows           classify_each
    none, or fits one prompt        any other                                     direct
    texts                           asks for every part (translate, list all)     map_reduce, join
    texts                           asks about the whole (summarize)              map_reduce, model
    texts                           any other                                     search
    no text                         any other                                     calls

The first row that holds decides. Labels come first because Python counts rows exactly, and one
prompt with all rows in it does not. Words of English at the beginning of a sentence are looked for,
no more: a task in other words is searched for, which reads the most likely part and says where. Who
knows better names the agent.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from rlm_runtime.prompt import CONNECTIVE
from rlm_runtime.scaffold.agent_context import AgentContext
from rlm_runtime.scaffold.corpus import Corpus
from rlm_runtime.scaffold.recipes.labels import labels_of
from rlm_runtime.scaffold.rendering import render
from rlm_runtime.types import AgentKind, Ref

MAX_TOKEN_BYTES = 16
"""A token is seldom longer: what has more bytes for each token of the room is not looked at."""

_ASKED = r"(?:(?:please|now|then|and|(?:can|could|would|will) you)[,\s]+)*"
_FOR_EACH = re.compile(
    _ASKED + r"(?:(?:classify|categori[sz]e|label|tag|sort|count)\b"
    r"|how many (?:of\b|[\w-]+ (?:are|is|were|was)\b)"
    r"|(?:for|of) (?:each|every)\b|(?:is|does|are) (?:each|every)\b)",
    re.IGNORECASE,
)
_EVERY_PART = re.compile(
    _ASKED + r"(?:(?:translate|rewrite|rephrase|paraphrase|proofread)\b"
    r"|(?:list|find|name|extract|collect|quote|give|show)\s+(?:me\s+)?(?:all|every|each)\b)",
    re.IGNORECASE,
)
_WHOLE = re.compile(
    _ASKED + r"(?:(?:summari[sz]e|outline)\b"
    r"|(?:give|write|make|provide|create|draft|produce)\b[^.?!]*"
    r"\b(?:summary|overview|outline|abstract|synopsis)\b"
    r"|what (?:is|are)\b[^.?!]*\b(?:about|main (?:points|ideas|themes|topics))\s*[.?!]*$)",
    re.IGNORECASE,
)
_SENTENCE = re.compile(r"[^.?!:;\n]+[.?!:;]*")


class Choice(NamedTuple):
    """An agent to make.

    Attributes:
        kind: Who decides its steps.
        options: Of the kind.
        why: In a few words, for the one who asked.
    """

    kind: AgentKind
    options: Mapping[str, object]
    why: str


def auto(
    task: str, context: AgentContext, corpus: Corpus, *, window: int | None, answer_tokens: int
) -> Choice:
    """The agent for a task.

    Encodes the values that could fit a prompt, and no others: 0.1 s for a window of 8,192 tokens.

    Args:
        task: In words.
        context: The values it is about.
        corpus: Where they are, with the layout of the prompts.
        window: Prompt plus generated tokens of a request; `None`: not known, so no context fits.
        answer_tokens: Room for an answer.
    """
    values = tuple(context.list_available().values())
    if values and _is_any(_FOR_EACH, task) and labels_of(task):
        return Choice("classify_each", {}, "it names labels for each of many")
    if not values:
        return Choice("direct", {}, "there is no context")
    if window is not None and _fits(task, values, corpus, window - answer_tokens):
        return Choice("direct", {}, "the context fits one prompt")
    if not any(ref.kind == "str" for ref in values):
        return Choice("calls", {}, "the context has no text, and values too large for a prompt")
    if _is_any(_EVERY_PART, task):
        return Choice("map_reduce", {"combine": "join"}, "it asks for every part of a long text")
    if _is_any(_WHOLE, task):
        return Choice("map_reduce", {"combine": "model"}, "it asks about the whole of a long text")
    return Choice("search", {}, "it asks for something in a long text")


def _is_any(pattern: re.Pattern[str], task: str) -> bool:
    return any(pattern.match(sentence) for sentence in _sentences(task))


def _sentences(task: str) -> Iterator[str]:
    for match in _SENTENCE.finditer(task):
        yield match.group().lstrip(" \t\"'-*").rstrip()


def _fits(task: str, values: tuple[Ref, ...], corpus: Corpus, room: int) -> bool:
    """The shared prefix, all values whole and the task have at most `room` tokens together."""
    layout = corpus.layout
    # A document may be filled to a block border.
    room -= len(layout.shared_ids) + len(layout.tail(f"{CONNECTIVE}{task}")) + layout.block_size
    between = layout.tokenizer.count(CONNECTIVE)
    for ref in values:
        characters = MAX_TOKEN_BYTES * room
        if room <= 0 or ref.size_bytes > characters:
            return False
        text = render(corpus.store.load(ref), characters)
        room -= layout.tokenizer.count(text) + between
    return room >= 0

"""The arm that anybody has without this runtime: as much of the text as fits, and the question.

A short system text instead of the shared prefix leaves the model more room for the text. The data
stands first, so that each further question finds it in the cache.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from rlm_runtime.api import Internals
from rlm_runtime.errors import InputError
from rlm_runtime.prompt import CONNECTIVE, Document, Layout
from rlm_runtime.scheduler import Call
from rlm_runtime.types import AgentId, Ref

ANSWER_TOKENS = 48
"""Most that it may say: the sentences that are asked for are shorter."""

SYSTEM_TEXT = "You answer questions about a text."

_TASK = (
    CONNECTIVE + "Answer the question in a few words, with what the text above says. If the text "
    'does not say it, answer "not found".\nQuestion: {question}'
)
_MAX_QUESTION_TOKENS = 256
_MAX_BYTES_PER_TOKEN = 16
_SPARE_TOKENS = 16
_NOT_FOUND = re.compile(
    r"not found|no information|\b(?:does|did|do|is|are|was|were) ?n[o']t (?:\w+ )?"
    r"(?:say|state|mention|contain|provide|specify|specified|give|tell|include|answer)",
    re.IGNORECASE,
)


class DirectAnswer(NamedTuple):
    """A generated answer.

    Attributes:
        text: Its words.
        found: It does not say that the text has no answer.
    """

    text: str
    found: bool


class Direct:
    """Prompts of the beginning of one text.

    Args:
        parts: The model's, with the window of its engine.
        ref: The text.
    """

    def __init__(self, parts: Internals, ref: Ref) -> None:
        own = parts.layout
        self._layout = Layout(own.tokenizer, own.template, own.block_size, SYSTEM_TEXT)
        self._store = parts.corpus.store
        self._window = parts.engine.info.window
        self._ref = ref
        self._document: Document | None = None
        self._shown_bytes = 0

    @property
    def shown_bytes(self) -> int:
        """How much of the text a prompt holds; 0 before the first one was made."""
        return self._shown_bytes

    def call(self, agent_id: AgentId, question: str) -> Call:
        """A greedy call with the whole question and as much text as fits.

        Args:
            agent_id: Who asks.
            question: In words.

        Raises:
            InputError: The question is so long that it has no room.
        """
        if self._document is None:
            self._document = self._beginning()
        task = _TASK.format(question=question)
        prompt = self._layout.prompt(task=task, document=self._document)
        if len(prompt.ids) + ANSWER_TOKENS > self._window:
            raise InputError("The question leaves no room for the text.", "Ask a shorter one.")
        return Call(
            prompt=prompt,
            agent_id=agent_id,
            label="answer directly",
            group=self._document.digest,
            max_tokens=ANSWER_TOKENS,
        )

    def answer(self, ids: tuple[int, ...]) -> DirectAnswer:
        """What generated ids say."""
        text = self._layout.tokenizer.decode(ids, skip_special=True).strip()
        return DirectAnswer(text, bool(text) and not _NOT_FOUND.search(text))

    def _beginning(self) -> Document:
        layout, store = self._layout, self._store
        tail = len(layout.tail(_TASK)) + _MAX_QUESTION_TOKENS
        room = layout.max_document_tokens(self._window, tail, ANSWER_TOKENS)
        size = min(self._ref.size_bytes, room * _MAX_BYTES_PER_TOKEN)
        # A character that is cut in two at the end is left out.
        text = store.slice(self._ref, 0, size).decode("utf-8", "ignore")
        ids = layout.tokenizer.encode(text)
        if len(ids) > room:
            # Not always the same number when encoded again.
            text = layout.tokenizer.decode(ids[: room - _SPARE_TOKENS])
        self._shown_bytes = len(text.encode())
        return layout.document(text)

"""The prompts of leaf calls, and whether they fit: made before anything is sent.

    [shared][data] CONNECTIVE [question]

The data stands first, so that every further question about it finds it in the prefix cache. Data
that several questions of a batch are about is filled to whole blocks; how depends on it alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from rlm_runtime.errors import InputError, PromptTooLong, RLMError
from rlm_runtime.prompt import CONNECTIVE, Document, Prompt
from rlm_runtime.scaffold.tree import Tree
from rlm_runtime.scaffold.typed_answer import AnswerType

HEAD_CHARACTERS = 16
"""Characters of a text that are encoded for each token of the window, before the rest is looked at:
most texts have 2 to 5 a token, so a text that is far too long is refused without encoding it."""

LABEL = "answer"

_SHORTER = "Ask about parts of it, or choose a recipe that reads it in parts."


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """One question.

    Attributes:
        question: In words.
        data: What it is about; `None` is nothing.
        answer: The type of the answer; `None` is text.
        choices: The answer is one of these, the likeliest whatever `temperature` says; the question
            should name them. One call: what an engine that can't be held to them answers is taken
            where it is one of them, and is not asked for again.
        max_tokens: Most tokens of an answer; `None` is `agents.answer_tokens`. Held to choices, an
            answer has the room that the longest one needs.
        label: What for, in a few words; the same for all calls of a stage.
    """

    question: str
    data: Document | str | None = None
    answer: AnswerType | None = None
    choices: tuple[str, ...] = ()
    max_tokens: int | None = None
    label: str = LABEL


@dataclass(frozen=True, slots=True)
class LeafPrompt:
    """A leaf with its prompt, which fits the window.

    Attributes:
        leaf: The question.
        prompt: As it is sent first.
        max_tokens: Most tokens of an answer.
        group: The data's digest; `None` without data.
    """

    leaf: Leaf
    prompt: Prompt
    max_tokens: int
    group: str | None = None


class LeafPrompts:
    """Makes the prompts of one tree's leaf calls.

    Args:
        tree: Layout, window and bounds.
    """

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        # In front of a word it can be other tokens than alone ("\n", "\n" and not "\n\n").
        encode = tree.layout.tokenizer.encode
        pairs = zip(encode(f"{CONNECTIVE}A"), encode(f"{CONNECTIVE}Who"), strict=False)
        self._connective_tokens = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))

    def document(self, text: str) -> Document:
        """A text as data that more than one question will be asked about. Encodes it, 1 MB/s.

        Filled to whole blocks, so that the cache holds all of it. Depends on the text alone.

        Raises:
            InputError: It can't be encoded.
        """
        return self._tree.layout.document(text, followed_by=self._connective_tokens)

    def room(self, leaf: Leaf) -> int:
        """Tokens of data that fit in front of a leaf's question; below 1 when it is too long.

        Raises:
            InputError: The question can't be encoded.
        """
        tree = self._tree
        tail = len(tree.layout.tail(CONNECTIVE + _task(leaf)))
        return tree.info.window - len(tree.layout.shared_ids) - tail - self._max_tokens(leaf)

    def prepared(self, leaves: Sequence[Leaf]) -> list[LeafPrompt | RLMError]:
        """The prompts of leaves; for a thread: encoding long texts takes its time."""
        times = Counter(leaf.data for leaf in leaves if isinstance(leaf.data, str))
        documents: dict[str, Document | RLMError] = {}
        prepared: list[LeafPrompt | RLMError] = []
        for leaf in leaves:
            data = leaf.data
            if not isinstance(data, str):
                prepared.append(self._ready(leaf, data))
                continue
            if data not in documents:
                documents[data] = self._encoded(data, fill=times[data] > 1)
            prepared.append(self._ready(leaf, documents[data]))
        return prepared

    def _encoded(self, text: str, *, fill: bool) -> Document | RLMError:
        tree = self._tree
        window, size = tree.info.window, tree.info.window * HEAD_CHARACTERS
        try:
            while len(text) > size:
                tokens = tree.layout.tokenizer.count(text[:size])
                if tokens > window:
                    return PromptTooLong(
                        tokens * len(text) // size,
                        window,
                        f"(Estimated from the beginning of its data.) {_SHORTER}",
                    )
                size *= 4
            return self.document(text) if fill else tree.layout.document(text, fill=False)
        except InputError as err:
            return err

    def _ready(self, leaf: Leaf, document: Document | RLMError | None) -> LeafPrompt | RLMError:
        if isinstance(document, RLMError):
            return document
        if not leaf.question.strip():
            return InputError("The question is empty.", "Ask something.")
        if leaf.max_tokens is not None and leaf.max_tokens < 1:
            return InputError("max_tokens must be at least 1.")
        if leaf.answer is not None and leaf.choices:
            return InputError("An answer has a type or choices, not both.", "Leave one out.")
        task = _task(leaf) if document is None else CONNECTIVE + _task(leaf)
        tree, max_tokens = self._tree, self._max_tokens(leaf)
        try:
            prompt = tree.layout.prompt(task=task, document=document)
        except InputError as err:
            return err
        limit = tree.info.window - max_tokens
        if len(prompt.ids) <= limit:
            return LeafPrompt(
                leaf, prompt, max_tokens, None if document is None else document.digest
            )
        if document is None or (room := self.room(leaf)) < 1:
            return PromptTooLong(len(prompt.ids), limit, "Shorten the question.")
        tokens = len(document.ids)
        fits = f"Of the {tokens:,} tokens of its data, {room:,} fit"
        if isinstance(leaf.data, str):
            fits += f", about {len(leaf.data) * room // tokens:,} of {len(leaf.data):,} characters"
        return PromptTooLong(len(prompt.ids), limit, f"{fits}. {_SHORTER}")

    def _max_tokens(self, leaf: Leaf) -> int:
        tree = self._tree
        if leaf.choices and tree.info.can_choose:
            return 1 + max(map(tree.layout.tokenizer.count, leaf.choices))
        return tree.config.agents.answer_tokens if leaf.max_tokens is None else leaf.max_tokens


def _task(leaf: Leaf) -> str:
    if leaf.answer is None:
        return leaf.question
    return f"{leaf.question}{CONNECTIVE}{leaf.answer.instruction}"

"""Segments to prompts: what many prompts share stands first, and ids once made are kept.

    shared  document  role  names  task  [answer  turn]...

`shared` is everything up to the first token of the user turn: the same ids for every agent and
every leaf call of a model. The data comes before any word about it, so that each further question
about it finds it in the prefix cache. Turns are only ever appended: a prompt begins with the ids of
the prompt before and exactly what the model generated. Nothing from outside can hold a control
token (`tokenizer.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import NamedTuple

from rlm_runtime.errors import InputError, ModelError
from rlm_runtime.prompt.template import ChatTemplate
from rlm_runtime.prompt.tokenizer import Tokenizer
from rlm_runtime.tracing import Segment, blob_digest, ids_to_blob

CONNECTIVE = "\n\n"
"""What stands between a text and the instruction about it."""

NAME_CHARACTERS = 120
PREVIEW_CHARACTERS = 80
"""Bounds of a names line; what is longer is cut and marked."""

_NAMES_HEADING = "Values in the context (name, kind, size):\n"
# The first that is one token fills documents up to a block border.
_FILLERS = ("\n", "\n\n", " ", ".")


@dataclass(frozen=True, slots=True)
class Document:
    """A piece of data as it stands in prompts, encoded once.

    Attributes:
        ids: Token ids, fillers included.
        digest: Of the ids (the name of their blob in a run directory); documents with equal
            digests share their cached blocks.
        text_tokens: How many of the ids are the text's; fillers follow.
    """

    ids: tuple[int, ...]
    digest: str
    text_tokens: int


@dataclass(frozen=True, slots=True)
class NameLine:
    """What a prompt shows of a stored value: one line, never more.

    Attributes:
        name: The context variable's name; from outside, so cut and escaped.
        kind: How its bytes are read (`types.ValueKind`).
        size_bytes: Of the stored bytes.
        tokens: Their number, when it is known.
        preview: The value's beginning, or a phrase about it; cut and escaped.
    """

    name: str
    kind: str
    size_bytes: int
    tokens: int | None = None
    preview: str = ""

    def __str__(self) -> str:
        line = f"- {_one_line(self.name, NAME_CHARACTERS)}: {_one_line(self.kind, 20)}, "
        line += f"{self.size_bytes:,} bytes"
        if self.tokens is not None:
            line += f", {self.tokens:,} tokens"
        if self.preview:
            line += f', begins "{_one_line(self.preview, PREVIEW_CHARACTERS)}"'
        return line


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt as the engine gets it.

    Attributes:
        ids: Token ids, `(num_tokens,)`.
        segments: Which part is which. They tile the ids: each starts where the last one ended,
            none is empty.
    """

    ids: tuple[int, ...]
    segments: tuple[Segment, ...]


class ScoredPrompt(NamedTuple):
    """A prompt with an answer behind it, whose log-probabilities are wanted.

    Attributes:
        prompt: Ends with the answer.
        start: The answer's first position.
        end: One behind its last.
    """

    prompt: Prompt
    start: int
    end: int


class Layout:
    """Builds every prompt of one model. Immutable; one for a process.

    Args:
        tokenizer: The model's.
        template: The model's.
        block_size: Tokens of one prefix-cache block of the engine.
        shared_text: The system text; `None` is the one this package ships. White space around
            it is left out.

    Attributes:
        tokenizer: As given.
        template: As given.
        block_size: As given.
        shared_ids: The shared segment: the system turn and the opening of the user turn.
        shared_digest: Of these ids: the name of their blob in a run directory.

    Raises:
        InputError: The shared text is empty.
        ModelError: The tokenizer has no single token for a newline, a space or a stop.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        template: ChatTemplate,
        block_size: int,
        shared_text: str | None = None,
    ) -> None:
        text = (shared_prefix() if shared_text is None else shared_text).strip()
        if not text:
            raise InputError("The shared prefix is empty.", "Give it a text, or leave it out.")
        self.tokenizer = tokenizer
        self.template = template
        self.block_size = block_size
        self.shared_ids = template.system_open + tokenizer.encode(text) + template.system_to_user
        self.shared_digest = _digest(self.shared_ids)
        self._filler = _filler(tokenizer)

    def document(self, text: str, *, fill: bool = True, followed_by: int = 0) -> Document:
        """Encode a piece of data, once for all prompts it will stand in.

        Filled, it ends so that the shared segment, the document and the next `followed_by` tokens
        are whole blocks: the cache then holds all of them, and a second question about the
        document can't take its own first tokens from the cache, whose log-probabilities would be
        lost with them. Costs up to `block_size - 1` tokens, computed once.

        Args:
            text: Verbatim; nothing is stripped.
            fill: False adds nothing.
            followed_by: Tokens behind the document that belong to the blocks: those of the task,
                when all questions share it.
        """
        ids = self.tokenizer.encode(text)
        text_tokens = len(ids)
        if fill:
            missing = -(len(self.shared_ids) + text_tokens + followed_by) % self.block_size
            ids += (self._filler,) * missing
        return Document(ids, _digest(ids), text_tokens)

    def prompt(
        self,
        *,
        task: str,
        document: Document | None = None,
        role: str = "",
        names: Sequence[NameLine] = (),
    ) -> Prompt:
        """A first turn: shared, document, role, names, task, and where the model begins.

        Cheap: only role, names and task are encoded, some 20 microseconds for a short task.

        Args:
            task: Verbatim, directly behind what is in front of it: a task about a document
                begins with `CONNECTIVE`.
            document: Data to stand in front of everything that is said about it.
            role: What agents of one kind share.
            names: Values that can be read, in any order; they are sorted.
        """
        parts = [("shared", self.shared_ids)]
        if document is not None:
            parts.append(("document", document.ids))
        opening = "" if document is None else CONNECTIVE
        if role:
            parts.append(("role", self.tokenizer.encode(f"{opening}{role}{CONNECTIVE}")))
            opening = ""
        if names:
            lines = "".join(f"{line}\n" for line in sorted(map(str, names)))
            parts.append(("names", self.tokenizer.encode(f"{opening}{_NAMES_HEADING}{lines}\n")))
        parts.append(("task", self.tail(task)))
        return _extended(Prompt((), ()), parts)

    def tail(self, task: str) -> tuple[int, ...]:
        """The ids of a task's segment: the task, verbatim, and where the model begins."""
        return self.tokenizer.encode(task) + self.template.user_to_assistant

    def scored(self, prompt: Prompt, answer_ids: tuple[int, ...]) -> ScoredPrompt:
        """`prompt` with a given answer, for its log-probabilities.

        Raises:
            InputError: The answer is empty.
        """
        if not answer_ids:
            raise InputError("There is no answer to score.", "Give at least one token.")
        start = len(prompt.ids)
        scored = _extended(prompt, [("answer", answer_ids)])
        return ScoredPrompt(scored, start, start + len(answer_ids))

    def append_turn(
        self, prompt: Prompt, generated_ids: tuple[int, ...], observation: str
    ) -> Prompt:
        """The next turn's prompt: `prompt`, what the model generated, and what came of it.

        Args:
            prompt: The turn before, as it was sent.
            generated_ids: Exactly as the engine delivered them. Where they were cut before the
                model ended its turn, the end is added, as part of the turn's segment.
            observation: Verbatim, as the next user text.
        """
        end = self.template.turn_end_ids
        closing = () if end and generated_ids[-1:] == end[-1:] else end
        turn = closing + self.template.assistant_to_user + self.tail(observation)
        return _extended(prompt, [("answer", generated_ids), ("turn", turn)])

    def max_document_tokens(
        self, window: int, tail_tokens: int, answer_tokens: int, *, followed_by: int = 0
    ) -> int:
        """The longest filled document with which a prompt fits; below 1 when none does.

        A text of at most so many tokens still fits once it is filled.

        Args:
            window: Prompt plus generated tokens a request may have.
            tail_tokens: Tokens behind the document: role, names, task (`tail`).
            answer_tokens: Room for what is generated or scored.
            followed_by: As the documents will be filled (`document`).
        """
        room = window - len(self.shared_ids) - tail_tokens - answer_tokens
        return room - (len(self.shared_ids) + room + followed_by) % self.block_size


def shared_prefix() -> str:
    """The shared text this package ships: constant, ASCII, the same for every model."""
    return (files("rlm_runtime.prompt") / "shared_prefix.md").read_text(encoding="ascii")


def _digest(ids: tuple[int, ...]) -> str:
    # The name of the segment's blob in a run directory: the two can be compared.
    return blob_digest(ids_to_blob(ids))


def _extended(prompt: Prompt, parts: Sequence[tuple[str, tuple[int, ...]]]) -> Prompt:
    ids = prompt.ids
    segments = list(prompt.segments)
    for kind, part in parts:
        if part:
            segments.append(Segment(kind, len(ids), len(ids) + len(part)))
            ids += part
    return Prompt(ids, tuple(segments))


def _filler(tokenizer: Tokenizer) -> int:
    for text in _FILLERS:
        ids = tokenizer.encode(text)
        if len(ids) == 1:
            return ids[0]
    raise ModelError(
        "The model's tokenizer has no single token for a newline, a space or a stop, so that "
        "documents can't be filled to whole cache blocks.",
        "Use another model.",
    )


def _one_line(text: str, characters: int) -> str:
    """`text` cut to so many characters, with everything that could end or hide a line escaped."""
    cut = text[:characters] + ("..." if len(text) > characters else "")
    return "".join(
        c if c.isprintable() and c != "\\" else c.encode("unicode_escape").decode() for c in cut
    )

"""Text to token ids and back, so that no text can forge a turn.

The one invariant: `encode` never yields the id of a control token (a turn marker, a tool or
thinking tag, an end of text), whatever the text holds. Only the constant pieces of a chat template
go through `encode_template`, which reads control tokens.

Segments of a prompt are encoded apart and their ids concatenated, so a text is encoded as the
continuation of what stands before it: a tokenizer's leading space, truncation and padding are
switched off, and no token is put in front or behind.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import tokenizers

from rlm_runtime.errors import InputError, ModelError

FILE = "tokenizer.json"


class Tokenizer:
    """A model's tokenizer. Immutable once made; safe to use from several threads.

    Attributes:
        digest: SHA-256 of `tokenizer.json`, hex. Ids of tokenizers with different digests must not
            be mixed.
        vocab_size: Every id is below this.
        special_ids: The control tokens: all that the file marks as special, and every other added
            token that is more than white space (Qwen's `<think>` and `<tool_call>` are such).
    """

    def __init__(self, content: bytes) -> None:
        """Read a `tokenizer.json`.

        Args:
            content: The file's bytes.

        Raises:
            ModelError: They are no tokenizer, or one that can't keep text and control tokens apart.
        """
        self.digest = hashlib.sha256(content).hexdigest()
        spec, control = _parse(content)
        self._template = _build(spec)
        self.special_ids: frozenset[int] = frozenset(token["id"] for token in control)
        # The flag `encode_special_tokens` only covers tokens that are marked as special.
        for token in control:
            token["special"] = True
        self._text = _build(spec)
        self._text.encode_special_tokens = True
        # Unknown characters may map to a token that is marked special. It marks no turn.
        self._forbidden = self.special_ids - {_unknown_id(spec, self._text)}
        self.vocab_size = max(self._text.get_vocab(with_added_tokens=True).values()) + 1
        self._refuse_forgeable([token["content"] for token in control])

    @classmethod
    def from_folder(cls, folder: Path) -> Tokenizer:
        """Read `tokenizer.json` of a model's folder: 0.3 s for 50,000 tokens.

        Raises:
            ModelError: The file is missing or unusable.
        """
        try:
            content = (folder / FILE).read_bytes()
        except OSError as err:
            raise ModelError(
                f"The model's folder has no readable {FILE}.",
                "Prepare or download the model again; a fast tokenizer file is needed.",
            ) from err
        return cls(content)

    def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of a text as it stands in the middle of a prompt.

        O(length), about 1 MB/s; nothing is added, control tokens are read as ordinary text.

        Raises:
            InputError: The text holds lone surrogates, which have no UTF-8.
        """
        try:
            ids = self._text.encode(text, add_special_tokens=False).ids
        except TypeError as err:
            raise InputError(
                "The text holds lone surrogates, which no tokenizer can read.",
                "Decode it as UTF-8 with errors='replace'.",
            ) from err
        if not self._forbidden.isdisjoint(ids):
            raise InputError(
                "This text encodes to a control token of the model's tokenizer.",
                "It can't be used with this model: it could pass for an instruction.",
            )
        return tuple(ids)

    def encode_template(self, text: str) -> tuple[int, ...]:
        """Token ids of a chat template's constant text; control tokens are read as such.

        Never to be given text from outside.
        """
        return tuple(self._template.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: Sequence[int], skip_special: bool = False) -> str:
        """The text of ids.

        `decode(encode(text)) == text` for most texts, `encode(decode(ids)) == ids` for few: ids
        that a model generated are kept, never made again from their text.

        Args:
            ids: Token ids; an unknown id is left out.
            skip_special: Leave out the tokens that the file marks as special.
        """
        return str(self._template.decode(list(ids), skip_special_tokens=skip_special))

    def count(self, text: str) -> int:
        """Tokens of a text; as expensive as `encode`."""
        return len(self.encode(text))

    def _refuse_forgeable(self, contents: Sequence[str]) -> None:
        for content in contents:
            ids = self._text.encode(content, add_special_tokens=False).ids
            if not self._forbidden.isdisjoint(ids):
                raise ModelError(
                    f"{FILE} encodes the plain text {content!r} to a control token, so a document "
                    "could forge a turn.",
                    "Use another model.",
                )


def _parse(content: bytes) -> tuple[dict[str, Any], list[dict[str, Any]]]:  # Any: foreign JSON
    """The file, changed so that texts continue what stands before them, and its control tokens."""
    try:
        spec = msgspec.json.decode(content)
        _continue_text(spec)
        added = spec.get("added_tokens") or []
        return spec, [token for token in added if token["special"] or token["content"].strip()]
    except (msgspec.DecodeError, UnicodeDecodeError, AttributeError, KeyError, TypeError) as err:
        raise _corrupt(err) from err


def _build(spec: dict[str, Any]) -> tokenizers.Tokenizer:  # Any: as above
    try:
        tokenizer = tokenizers.Tokenizer.from_buffer(msgspec.json.encode(spec))
    except Exception as err:  # the library raises bare Exception for a bad file
        raise _corrupt(err) from err
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _unknown_id(
    spec: dict[str, Any], tokenizer: tokenizers.Tokenizer
) -> int | None:  # Any: as above
    model = spec["model"]
    if isinstance(unk_id := model.get("unk_id"), int):
        return unk_id
    unk_token = model.get("unk_token")
    return tokenizer.token_to_id(unk_token) if isinstance(unk_token, str) else None


def _corrupt(err: Exception) -> ModelError:
    return ModelError(f"{FILE} is corrupt: {err}.", "Prepare or download the model again.")


def _continue_text(spec: dict[str, Any]) -> None:  # Any: as above
    """Switch off the space that some tokenizers put in front of every text."""
    for part in _parts(spec.get("pre_tokenizer"), "pretokenizers"):
        if part["type"] == "Metaspace":
            part["prepend_scheme"] = "never"
            part.pop("add_prefix_space", None)
        elif part["type"] == "ByteLevel":
            part["add_prefix_space"] = False
    normalizer = spec.get("normalizer")
    kept = [p for p in _parts(normalizer, "normalizers") if p["type"] != "Prepend"]
    if kept != _parts(normalizer, "normalizers"):
        spec["normalizer"] = {"type": "Sequence", "normalizers": kept} if kept else None


def _parts(component: Any, key: str) -> list[dict[str, Any]]:  # Any: as above
    """The members of a sequence, nested ones included, or the component alone."""
    if component is None:
        return []
    if component.get("type") == "Sequence":
        return [part for member in component[key] for part in _parts(member, key)]
    return [component]

"""Values by name: what a tree of agents knows, outside all prompts.

Nothing that is stored ever changes: a name that is written again gets a new version, and a
reference to the old one still finds the old bytes.
"""

from __future__ import annotations

import difflib
import os
import threading
from pathlib import Path
from typing import NamedTuple

from rlm_runtime.errors import ContextError, InputError, UnknownName
from rlm_runtime.store.chunks import CountTokens, bytes_per_token
from rlm_runtime.store.names import check_name
from rlm_runtime.store.text_file import check_text
from rlm_runtime.store.values import Digest, FileContent, Sliceable, Value, open_regular
from rlm_runtime.types import Ref, ValueKind

EXACT_BYTES = 256 * 2**10
"""Texts up to this size are tokenised whole to be counted: about 0.2 s at most."""

COPIED_BYTES = 256 * 2**10
"""Files up to this size are copied: no descriptor is held, and later changes don't matter."""


class TokenCount(NamedTuple):
    """Tokens of a value.

    Attributes:
        tokens: Exact, or size / bytes per token of a sample.
        is_estimated: Which of the two.
    """

    tokens: int
    is_estimated: bool


class ContextStore:
    """Immutable values by name and version.

    Any thread may call it; `put_file` and `tokens` take their time outside the lock, so that a
    caller with an event loop can run them in a worker thread.

    Args:
        count_tokens: Tokens of a text by the model's own tokenizer.
    """

    def __init__(self, count_tokens: CountTokens) -> None:
        self._count_tokens = count_tokens
        self._lock = threading.Lock()
        self._values: dict[str, list[Value]] = {}
        self._in_memory: dict[str, bytes] = {}
        self._tokens: dict[str, TokenCount] = {}

    def put(self, name: str, kind: ValueKind, data: bytes) -> Ref:
        """Store bytes under a name; equal contents are kept once.

        Raises:
            InputError: The name can't be a variable, or `str` bytes are not UTF-8.
        """
        check_name(name)
        if kind == "str":
            try:
                data.decode("utf-8")
            except UnicodeDecodeError as err:
                raise InputError(
                    f"The text for {name!r} is not UTF-8 (byte {err.start:,}).",
                    "Store it as bytes, or encode it as UTF-8.",
                ) from err
        return self._put_in_memory(name, kind, data)

    def put_text(self, name: str, text: str) -> Ref:
        """Store a text under a name.

        Raises:
            InputError: The name can't be a variable, or the text can't be UTF-8.
        """
        check_name(name)
        try:
            data = text.encode("utf-8")
        except UnicodeEncodeError as err:
            raise InputError(
                f"The text for {name!r} has half a surrogate pair at character {err.start:,}.",
                "Decode it from its source without `surrogateescape`.",
            ) from err
        return self._put_in_memory(name, "str", data)

    def put_bytes(self, name: str, data: bytes) -> Ref:
        """Store raw bytes under a name.

        Raises:
            InputError: The name can't be a variable.
        """
        return self.put(name, "bytes", data)

    def put_file(self, name: str, path: Path) -> Ref:
        """Store a text file under a name, without reading it into memory.

        The file is read once, to check and hash it (about 0.3 s per 100 MB), and afterwards in
        place. Up to `COPIED_BYTES` it is copied instead. A byte-order mark is left out.

        Raises:
            InputError: The name can't be a variable; or the file is missing, not permitted, no
                regular file, empty, binary or not UTF-8, or is changed meanwhile.
        """
        check_name(name)
        content = FileContent(open_regular(path), os.fspath(path))
        checked = check_text(content, os.fspath(path))
        content.skip(checked.start_byte)
        if len(content) <= COPIED_BYTES:
            return self._put_in_memory(name, "str", content[:])
        return self._add(name, "str", content, checked.digest)

    def get(self, name: str, version: int | None = None) -> Value:
        """A value by name.

        Args:
            name: The name.
            version: 1 is the first; `None` is the newest.

        Raises:
            UnknownName: Nothing is stored under the name.
            ContextError: It has no such version.
        """
        versions = self._versions(name)
        if version is None:
            return versions[-1]
        if not 1 <= version <= len(versions):
            raise ContextError(
                f"{name!r} has no version {version}; it has {len(versions)}.",
                "Leave the version out for the newest.",
            )
        return versions[version - 1]

    def slice(self, ref: Ref, start_byte: int, end_byte: int) -> bytes:
        """The bytes `start_byte <= i < end_byte` of a value.

        Raises:
            ContextError: The reference is not this store's, or the range is not inside the value.
            InputError: The file behind the value has changed.
        """
        return self._at(ref).read(start_byte, end_byte)

    def text(self, ref: Ref, start_byte: int, end_byte: int) -> str:
        """The same as text; both ends must lie between characters.

        Raises:
            ContextError: As `slice`; or the value is no text; or an end lies inside a character.
            InputError: The file behind the value has changed.
        """
        return self._at(ref).text(start_byte, end_byte)

    def names(self) -> tuple[str, ...]:
        """All names, sorted."""
        with self._lock:
            return tuple(sorted(self._values))

    def versions(self, name: str) -> tuple[Ref, ...]:
        """References to all versions of a name, the oldest first.

        Raises:
            UnknownName: Nothing is stored under the name.
        """
        return tuple(value.ref for value in self._versions(name))

    def tokens(self, ref: Ref) -> TokenCount:
        """How many tokens a value has; counted once for equal contents.

        Exact for texts up to `EXACT_BYTES`. Larger ones are estimated from a sample of 64 KiB.
        Values that are no text are taken as text as far as they are; always estimated.

        Raises:
            ContextError: The reference is not this store's.
            InputError: The file behind the value has changed.
        """
        value = self._at(ref)
        counted = self._tokens.get(ref.digest)
        if counted is None:
            if ref.kind == "str" and ref.size_bytes <= EXACT_BYTES:
                text = value.text(0, ref.size_bytes)
                counted = TokenCount(self._count_tokens(text), is_estimated=False)
            else:
                mean_bytes = bytes_per_token(value.content, self._count_tokens)
                counted = TokenCount(round(ref.size_bytes / mean_bytes), is_estimated=True)
            self._tokens[ref.digest] = counted
        return counted

    def _put_in_memory(self, name: str, kind: ValueKind, data: bytes) -> Ref:
        digest = Digest(kind)
        digest.update(data)
        with self._lock:
            data = self._in_memory.setdefault(digest.hex(), data)
        return self._add(name, kind, data, digest.hex())

    def _add(self, name: str, kind: ValueKind, content: Sliceable, digest: str) -> Ref:
        # Each version keeps its own content: of two equal files, one may change later.
        with self._lock:
            versions = self._values.setdefault(name, [])
            ref = Ref(name, len(versions) + 1, kind, len(content), digest)
            versions.append(Value(ref, content))
        return ref

    def _versions(self, name: str) -> list[Value]:
        with self._lock:
            versions = self._values.get(name)
            if versions is not None:
                return versions
            near = difflib.get_close_matches(name, self._values, n=3, cutoff=0.0)
        raise UnknownName(name, tuple(near))

    def _at(self, ref: Ref) -> Value:
        value = self.get(ref.name, ref.version)
        if value.ref != ref:
            raise ContextError(
                f"The reference to {ref.name!r} version {ref.version} belongs to another store.",
                "Use references with the store that gave them.",
            )
        return value

"""Values by name: what a tree of agents knows, outside all prompts.

Nothing that is stored ever changes: a name that is written again gets a new version, and a
reference to the old one still finds the old bytes.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from rlm_runtime.errors import ContextError, QuotaExceeded, UnknownName
from rlm_runtime.store import codec
from rlm_runtime.store.chunks import CountTokens, bytes_per_token
from rlm_runtime.store.names import check_name, closest
from rlm_runtime.store.paths import Step, ValuePath, follow
from rlm_runtime.store.recent import Recent
from rlm_runtime.store.spill import SpilledContent, SpillFile
from rlm_runtime.store.text_file import check_text, check_utf8
from rlm_runtime.store.text_view import EncodedText, TextView
from rlm_runtime.store.values import Digest, FileContent, Sliceable, Value, open_regular
from rlm_runtime.types import Ref, ValueKind

EXACT_BYTES = 256 * 2**10
"""Texts up to this size are tokenised whole to be counted: about 0.2 s at most."""

COPIED_BYTES = 256 * 2**10
"""Files up to this size are copied: no descriptor is held, and later changes don't matter."""


KEPT_ROOT_BYTES = 32 * 2**20
"""Stored bytes of the structures that are kept decoded, for reads of parts; as objects some five
times that. A larger one is decoded for every read."""


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

    Any thread may call it; what reads or writes much takes its time outside the lock, so that a
    caller with an event loop can run it in a worker thread.

    Args:
        count_tokens: Tokens of a text by the model's own tokenizer.
        spill_bytes: Larger values are kept in a file and read in place; `None`: all in memory.
        spill_directory: Where that file is; `None`: the system's folder for temporary files.
        max_bytes: Most `total_bytes`; `None` is no bound.
        decode: Makes values of stored bytes.

    Attributes:
        count_tokens: As given.
    """

    def __init__(
        self,
        count_tokens: CountTokens,
        *,
        spill_bytes: int | None = None,
        spill_directory: Path | None = None,
        max_bytes: int | None = None,
        decode: codec.Decode = codec.decode,
    ) -> None:
        self.count_tokens = count_tokens
        self._spill_bytes = spill_bytes
        self._spill = SpillFile(spill_directory or Path(tempfile.gettempdir()))
        self._max_bytes = max_bytes
        self._decode = decode
        self._lock = threading.Lock()
        self._spilling = threading.Lock()
        self._values: dict[str, list[Value]] = {}
        self._kept: dict[str, bytes | SpilledContent] = {}
        self._total_bytes = 0
        self._tokens: dict[str, TokenCount] = {}
        self._views: dict[Ref, TextView] = {}
        self._roots: Recent[str, object] = Recent(KEPT_ROOT_BYTES)

    @property
    def total_bytes(self) -> int:
        """What the store keeps, in memory and spilled.

        Equal contents count once, files that are read in place not at all.
        """
        return self._total_bytes

    def put_value(self, name: str, value: object) -> Ref:
        """Store a Python value under a name: text, bytes, numbers, lists, dicts, NumPy arrays.

        Later changes to the value don't matter. See `codec.encode` for what can be stored.

        Raises:
            InputError: The name can't be a variable; or the value can't be stored: the place in it
                is named.
            QuotaExceeded: The store is full, or the disk it spills to. What was stored stays.
            ConfigError: The folder for large values can't be used.
        """
        check_name(name)
        if type(value) is str:
            return self.put_text(name, value)
        encoded = codec.encode(value)
        return self._put(name, encoded.kind, (encoded.data,))

    def put(self, name: str, kind: ValueKind, data: bytes) -> Ref:
        """Store bytes under a name; equal contents are kept once.

        Raises:
            InputError: The name can't be a variable, or `str` bytes are not UTF-8.
            QuotaExceeded: As `put_value`, and `ConfigError`.
        """
        check_name(name)
        if kind == "str":
            check_utf8(data, f"The text for {name!r}")
        return self._put(name, kind, (data,))

    def put_text(self, name: str, text: str) -> Ref:
        """Store a text under a name. A long one is encoded piece by piece.

        Raises:
            InputError: The name can't be a variable, or the text can't be UTF-8.
            QuotaExceeded: As `put_value`, and `ConfigError`.
        """
        check_name(name)
        return self._put(name, "str", EncodedText(text, f"The text for {name!r}"))

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
            return self._put(name, "str", (content[:],))
        return self._add(name, "str", content, checked.digest)

    def put_ref(self, name: str, ref: Ref) -> Ref:
        """Give a stored value another name; nothing is copied.

        Raises:
            InputError: The name can't be a variable.
            ContextError: The reference is not this store's.
        """
        check_name(name)
        return self._add(name, ref.kind, self._at(ref).content, ref.digest)

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

    def load(self, ref: Ref, steps: Sequence[Step] = ()) -> object:
        """A value or a part of it as a Python object, which belongs to the caller.

        A slice of a text or of an array reads only what it returns; text slices count characters.
        Arrays can't be written to.

        Args:
            ref: The value.
            steps: The way to the part, as `ValuePath.steps`.

        Raises:
            BadPath: There is no such part; the nearest keys or the length are named.
            ContextError: The reference is not this store's, or the bytes can't be decoded.
            InputError: The file behind the value has changed.
        """
        value = self._at(ref)
        if not steps:
            return self._decode(ref.kind, _buffer(value.content))
        part = follow(self._root(value), ValuePath(ref.name, tuple(steps)))
        if isinstance(part, list | dict):  # it is part of what is kept for the next read
            part = msgspec.msgpack.decode(msgspec.msgpack.encode(part))
        return part

    def view(self, ref: Ref, steps: Sequence[Step] = ()) -> TextView:
        """A text by its characters, of which only what is asked for is read.

        Args:
            ref: The value.
            steps: The way to a text in it; without one the text is viewed in place.

        Raises:
            ContextError: What is there is no text; and as `load`.
        """
        if ref.kind == "str" and not steps:
            return self._view(self._at(ref))
        part = self.load(ref, steps)
        if not isinstance(part, str):
            raise ContextError(
                f"{str(ValuePath(ref.name, tuple(steps)))!r} is no text.", "Read its parts instead."
            )
        return TextView(part.encode("utf-8"))

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

    def nearest(self, name: str) -> tuple[str, ...]:
        """The names most like one that is not stored, the likeliest first; at most three."""
        with self._lock:
            names = tuple(self._values)
        return closest(name, names)

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
                counted = TokenCount(self.count_tokens(text), is_estimated=False)
            else:
                mean_bytes = bytes_per_token(value.content, self.count_tokens)
                counted = TokenCount(round(ref.size_bytes / mean_bytes), is_estimated=True)
            self._tokens[ref.digest] = counted
        return counted

    def _put(self, name: str, kind: ValueKind, pieces: Iterable[bytes]) -> Ref:
        """Store the bytes of pieces, which are gone through twice."""
        digest, size = Digest(kind), 0
        for piece in pieces:
            digest.update(piece)
            size += len(piece)
        content = self._keep(digest.hex(), size, pieces)
        return self._add(name, kind, content, digest.hex())

    def _keep(self, digest: str, size: int, pieces: Iterable[bytes]) -> bytes | SpilledContent:
        """What is kept for a digest: what was kept before, or the bytes of pieces from now on."""
        if self._spill_bytes is not None and size > self._spill_bytes:
            return self._keep_spilled(digest, size, pieces)
        data = b"".join(pieces)
        with self._lock:
            kept = self._kept.get(digest)
            if kept is None:
                self._take(size)
                self._kept[digest] = kept = data
        return kept

    def _keep_spilled(
        self, digest: str, size: int, pieces: Iterable[bytes]
    ) -> bytes | SpilledContent:
        with self._spilling:  # so that equal contents at once are written once
            with self._lock:
                kept = self._kept.get(digest)
                if kept is not None:
                    return kept
                self._take(size)
            try:
                content = self._spill.write(pieces)
            except BaseException:
                with self._lock:
                    self._total_bytes -= size
                raise
            with self._lock:
                self._kept[digest] = content
            return content

    def _take(self, size: int) -> None:
        """Count bytes as kept; under the lock."""
        if self._max_bytes is not None and self._total_bytes + size > self._max_bytes:
            raise QuotaExceeded(
                f"The store has no room for {size:,} bytes: it holds {self._total_bytes:,} of "
                f"{self._max_bytes:,} (store.max_bytes).",
                "Raise the limit, or store less.",
            )
        self._total_bytes += size

    def _add(self, name: str, kind: ValueKind, content: Sliceable, digest: str) -> Ref:
        # Each version keeps its own content: of two equal files, one may change later.
        with self._lock:
            versions = self._values.setdefault(name, [])
            ref = Ref(name, len(versions) + 1, kind, len(content), digest)
            versions.append(Value(ref, content))
        return ref

    def _root(self, value: Value) -> object:
        """What paths into a value begin at; not to be changed or handed out."""
        ref = value.ref
        if ref.kind == "str":
            return self._view(value)
        buffer = _buffer(value.content)
        if ref.kind == "bytes":
            return buffer
        root = self._roots.get(ref.digest)
        if root is None:
            root = self._decode(ref.kind, buffer)
            if ref.kind == "mp" and ref.size_bytes <= KEPT_ROOT_BYTES:
                self._roots.put(ref.digest, root, ref.size_bytes)
        return root

    def _view(self, value: Value) -> TextView:
        with self._lock:
            return self._views.setdefault(value.ref, TextView(value.content))

    def _versions(self, name: str) -> list[Value]:
        with self._lock:
            versions = self._values.get(name)
        if versions is None:
            raise UnknownName(name, self.nearest(name))
        return versions

    def _at(self, ref: Ref) -> Value:
        value = self.get(ref.name, ref.version)
        if value.ref != ref:
            raise ContextError(
                f"The reference to {ref.name!r} version {ref.version} belongs to another store.",
                "Use references with the store that gave them.",
            )
        return value


def _buffer(content: Sliceable) -> codec.Buffer:
    if isinstance(content, bytes):
        return content
    return content.map() if isinstance(content, SpilledContent) else bytes(content[:])

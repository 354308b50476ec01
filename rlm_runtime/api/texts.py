"""The values a session was given: stored once, recorded, found again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rlm_runtime.api.result import Source
from rlm_runtime.errors import InputError
from rlm_runtime.store import ContextStore, name_for
from rlm_runtime.tracing import Recorder, ValueStored
from rlm_runtime.types import Ref

Sources = Source | Sequence[Source] | Mapping[str, Source]
"""One text, several, or several by name."""


_UNNAMED = "text"


class Texts:
    """What the user gave, in a store.

    Args:
        store: Where values are held.
        recorder: Where it is recorded that one was stored.
    """

    def __init__(self, store: ContextStore, recorder: Recorder) -> None:
        self._store = store
        self._recorder = recorder
        self._files: dict[tuple[Path, int, int], Ref] = {}
        self._given: dict[str, Ref] = {}

    @property
    def given(self) -> tuple[Ref, ...]:
        """The newest value of each name, sorted by name; what agents wrote is not among them."""
        return tuple(self._given[name] for name in sorted(self._given))

    def store(self, value: Source, name: str | None = None) -> Ref:
        """Make a text a context variable.

        Args:
            value: The text or its file.
            name: An identifier; without one, made from the file's name, or `text`.

        Raises:
            InputError: It is empty, not text or can't be read; or the name is no identifier.
            ContextError: It is a reference that this session did not give.
        """
        if isinstance(value, Ref):
            self._store.slice(value, 0, 0)  # raises what is wrong with a reference
            return value
        if not isinstance(value, str | bytes | Path):
            raise InputError(
                f"A value of type {type(value).__name__} is no text.",
                "Store it in a context (`context().store(name, value)`), which takes values of "
                "other kinds too, and give that one.",
            )
        if isinstance(value, Path):
            identity = _identity(value)
            known = self._files.get(identity)
            if known is not None and name in (None, known.name):
                return known  # the same file, asked about again
            ref = self._store.put_file(name or name_for(value, self._store.names()), value)
            self._files[identity] = ref
        else:
            name = name or _UNNAMED
            if not value:
                raise InputError(
                    f"The text {name!r} is empty.", "Give a text with something in it."
                )
            ref = (
                self._store.put_text(name, value)
                if isinstance(value, str)
                else self._store.put(name, "str", value)
            )
        count = self._store.tokens(ref)
        self._recorder.emit(
            ValueStored(
                at_s=self._recorder.now(),
                name=ref.name,
                version=ref.version,
                kind=ref.kind,
                size_bytes=ref.size_bytes,
                digest=ref.digest,
                writer="user",
                tokens=count.tokens,
                is_estimated=count.is_estimated,
            )
        )
        self._given[ref.name] = ref
        return ref

    def refs(self, sources: Sources | None) -> tuple[Ref, ...]:
        """Store what is given, each under a name of its own; `None`: all that was given before.

        Raises:
            InputError: As `store`; or two versions of one name are given.
            ContextError: As `store`.
        """
        if sources is None:
            return self.given
        if isinstance(sources, Mapping):
            refs = [self.store(value, name) for name, value in sources.items()]
        elif isinstance(sources, Sequence) and not isinstance(sources, str | bytes):
            refs = self._each(sources)
        else:
            refs = [self.store(sources)]
        versions: dict[str, Ref] = {}
        for ref in refs:
            other = versions.setdefault(ref.name, ref)
            if other != ref:
                raise InputError(
                    f"Versions {other.version} and {ref.version} of {ref.name!r} are both given.",
                    "Give one of them, or store the other one under a name of its own.",
                )
        return tuple(versions.values())

    def _each(self, values: Sequence[Source]) -> list[Ref]:
        """Several texts, in order. Those without a name get one that none of the others has."""
        refs = {i: self.store(v) for i, v in enumerate(values) if not isinstance(v, str | bytes)}
        taken = {ref.name for ref in refs.values()}
        for i, value in enumerate(values):
            if i not in refs:
                refs[i] = self.store(value, name_for(Path(_UNNAMED), taken))
                taken.add(refs[i].name)
        return [refs[i] for i in range(len(values))]


def _identity(file: Path) -> tuple[Path, int, int]:
    """Equal as long as the file is the same and unchanged; zeros for one that is not there."""
    try:
        status = file.stat()
    except OSError:
        return file, 0, 0  # what is wrong with it is said when it is read
    return file.resolve(), status.st_mtime_ns, status.st_size

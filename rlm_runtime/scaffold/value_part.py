"""A part of a stored value, for one read: loaded when it is needed, and then once."""

from __future__ import annotations

from functools import cached_property

from rlm_runtime.scaffold.fitting import Count, count_up_to, path_that_fits
from rlm_runtime.scaffold.rendering import estimate_characters, render
from rlm_runtime.store import Chunk, ContextStore, Step, ValuePath
from rlm_runtime.store.context import EXACT_BYTES
from rlm_runtime.types import Ref


class ValuePart:
    """A part of a stored value, or the whole of it.

    Every method raises `BadPath` where the value has no such part, and `InputError` where the file
    behind it has changed.

    Args:
        store: Where the value is.
        ref: The value.
        path: Leads to the part.
    """

    def __init__(self, store: ContextStore, ref: Ref, path: ValuePath) -> None:
        self._store = store
        self.ref = ref
        self.path = path

    @cached_property
    def loaded(self) -> object:
        """The part itself, as a Python object."""
        return self._store.load(self.ref, self.path.steps)

    def text(self, max_characters: int | None = None) -> str:
        """The part as a prompt shows it; longer than `max_characters` when it was cut (`render`).

        Of a text, only what is returned is read.
        """
        if not self._is_slice_of_text:
            return render(self.loaded, max_characters)
        span = self._span
        stop = span.stop if max_characters is None else span.start + max_characters + 1
        return self._store.view(self.ref)[span.start : min(span.stop, stop)]

    def count(self, limit: int | None) -> Count:
        """How many tokens the text has, exactly up to a limit (`count_up_to`)."""
        is_whole_text = self._is_slice_of_text and not self.path.steps
        if limit is not None and is_whole_text and self.ref.size_bytes <= EXACT_BYTES:
            tokens = self._store.tokens(self.ref).tokens  # known from when it was stored
            return Count(tokens, False, self.text() if tokens <= limit else None)
        return count_up_to(limit, self.text, self._characters, self._store.count_tokens)

    def smaller(self, limit: int) -> str:
        """A path to a part of it that has at most so many tokens; empty when none is found."""
        path, within = self.path, None
        last = path.steps[-1] if path.steps else None
        if isinstance(last, slice):
            path, within = ValuePath(path.name, path.steps[:-1]), last
        if self.ref.kind == "str" and not path.steps:
            whole: object = self._store.view(self.ref)
        else:
            whole = self.loaded if within is None else self._store.load(self.ref, path.steps)
        return path_that_fits(whole, path, limit, self._store.count_tokens, within)

    def byte_range(self) -> Chunk:
        """Which stored bytes it is made of; of a structure or an array always all."""
        if self.ref.kind not in ("str", "bytes"):
            return Chunk(0, self.ref.size_bytes)
        start, stop = self._span.start, max(self._span.start, self._span.stop)
        if self.ref.kind == "bytes":
            return Chunk(start, stop)
        view = self._store.view(self.ref)
        return Chunk(view.byte(start), view.byte(stop))

    @property
    def _is_slice_of_text(self) -> bool:
        steps = self.path.steps
        return self.ref.kind == "str" and all(isinstance(step, slice) for step in steps)

    @cached_property
    def _span(self) -> range:
        """The characters of the text, or the bytes, that the steps lead to.

        Without negative numbers nothing is read for it: then it may reach behind the text's end.
        """
        length = self.ref.size_bytes
        if self.ref.kind == "str" and any(map(_counts_from_the_end, self.path.steps)):
            length = len(self._store.view(self.ref))
        span = range(length)
        for step in self.path.steps:
            if isinstance(step, slice):
                span = span[step]
            elif isinstance(step, int):
                span = range(span[step], span[step] + 1)
        return span

    def _characters(self) -> int:
        return len(self._span) if self._is_slice_of_text else estimate_characters(self.loaded)


def _counts_from_the_end(step: Step) -> bool:
    ends = (step.start, step.stop) if isinstance(step, slice) else (step,)
    return any(isinstance(end, int) and end < 0 for end in ends)

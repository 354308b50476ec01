"""One reader's view of the stored values: what it may see, what it has read, what it may still.

A context that sees all values sees the newest of each name. One that was given names sees the
values that these had when it was made, what it writes itself, and what the agents below it write:
what others do to the same names at the same time changes nothing for it.

Reads that bring text into a prompt are counted exactly and charged to a budget before anything is
loaded. Looking at a value in Python costs no tokens. Each read and each write is one event.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from rlm_runtime.errors import ContextError, UnknownName
from rlm_runtime.prompt.layout import PREVIEW_CHARACTERS
from rlm_runtime.scaffold.rendering import render
from rlm_runtime.scaffold.value_part import ValuePart
from rlm_runtime.scaffold.value_view import ValueView, path_of
from rlm_runtime.store import (
    ContextStore,
    TextMatch,
    TextView,
    ValuePath,
    closest,
    parse_path,
)
from rlm_runtime.store.budget import ReadBudget
from rlm_runtime.tracing import Recorder, ValueRead, ValueStored
from rlm_runtime.types import AgentId, Ref

PEEK_BYTES = 4 * 2**20
"""Structures up to this size are decoded for their preview: 50 ms at most."""


class Shown(NamedTuple):
    """What of a value enters a prompt.

    Attributes:
        text: As it is shown.
        tokens: Exactly.
        ref: The value it is of.
    """

    text: str
    tokens: int
    ref: Ref


Where = str | ValueView | Ref
"""A path as it is written, a view, or the reference to a value (that very version)."""


class AgentContext:
    """Values by name, for one reader. Any thread or task may use it.

    `context.analysis` and `context["analysis"]` are views to give to `read` and the others; a value
    that is called like one of the methods below has the second one only.

    Args:
        store: Where the values are.
        recorder: Where reads and writes are recorded.
        reader: Who reads and writes; `None` is the user.
        budget: Bounds of what it reads; `None` is no bound, and reads are not counted in tokens.
        visible: What it may read beside what it writes itself: names, with the values that they
            have now, or references, of a name one; `None` is all.

    Raises:
        UnknownName: Nothing is stored under a name of `visible`.
    """

    def __init__(
        self,
        store: ContextStore,
        recorder: Recorder,
        *,
        reader: AgentId | None = None,
        budget: ReadBudget | None = None,
        visible: Collection[str | Ref] | None = None,
    ) -> None:
        self._store = store
        self._recorder = recorder
        self._reader = reader
        self._budget = budget
        self._lock = threading.Lock()
        given = (what if isinstance(what, Ref) else store.get(what).ref for what in visible or ())
        self._refs = {ref.name: ref for ref in given}
        self._visible = None if visible is None else frozenset(self._refs)
        self._seen = set(self._refs.values())
        self._written: list[Ref] = []
        self._parent: AgentContext | None = None

    @property
    def visible(self) -> frozenset[str] | None:
        """The names it was given; `None` is all."""
        return self._visible

    @property
    def budget(self) -> ReadBudget | None:
        """Bounds of what it reads."""
        return self._budget

    @property
    def written(self) -> tuple[Ref, ...]:
        """What this reader stored, in order."""
        with self._lock:
            return tuple(self._written)

    def is_of(self, store: ContextStore) -> bool:
        """Its values are in this store."""
        return self._store is store

    def store(self, key: str, value: object) -> Ref:
        """Store a value under a name; a name that was written before gets a new version.

        Args:
            key: An identifier that no function of agents has.
            value: Text, bytes, numbers, `None`, lists and dicts of them, or NumPy arrays of
                numbers. A `Path` is the text of its file, which is read in place; a `Ref` is the
                value that it refers to, under one more name, not copied and recorded as read.

        Raises:
            InputError: The key can't be a name; a part of the value, which is named, is nothing
                that can be stored; or the file can't be read or is no text.
            ContextError: The reference is to nothing that the reader sees.
            QuotaExceeded: The store, or the disk behind it, is full.
        """
        if isinstance(value, Path):
            ref = self._store.put_file(key, value)
        elif isinstance(value, Ref):
            part = self._part(value)
            ref = self._store.put_ref(key, part.ref)
            self._note_read(part, 0)  # so that the log says where the new name's value is from
        else:
            ref = self._store.put_value(key, value)
        with self._lock:
            self._written.append(ref)
        context: AgentContext | None = self
        while context is not None:
            context._reveal(ref)
            context = context._parent
        counted = self._store.tokens(ref)
        self._recorder.emit(
            ValueStored(
                at_s=self._recorder.now(),
                name=ref.name,
                version=ref.version,
                kind=ref.kind,
                size_bytes=ref.size_bytes,
                digest=ref.digest,
                writer=self._reader or "user",
                tokens=counted.tokens,
                is_estimated=counted.is_estimated,
            )
        )
        return ref

    def read(self, where: Where) -> object:
        """A value, or the part of it that a path leads to.

        With a budget the tokens of its text are charged, exactly as `show` charges them; without
        one it is a look in Python, and its event has 0 tokens.

        Raises:
            UnknownName: The reader sees no value of that name; the nearest ones are named.
            BadPath: The path can't be read, or the value has no such part.
            ContextBudgetExceeded: It is over a limit; nothing was loaded or charged.
            InputError: The file behind the value has changed.
        """
        part = self._part(where)
        if self._budget is None:
            value = part.loaded
            self._note_read(part, 0)
            return value
        with self._charged(part, self._budget):
            return part.loaded

    def show(self, where: Where) -> Shown:
        """The same as the text that enters the reader's prompt; counted with and without a budget.

        Raises:
            ContextError: As `read`.
            InputError: As `read`.
        """
        return self._shown(self._part(where), self._budget or ReadBudget())

    def data(self, where: Where, max_tokens: int) -> Shown:
        """The same as the data of a leaf call: recorded, but not charged to the reader.

        Args:
            where: The value or the part.
            max_tokens: Room for it in the call's prompt.

        Raises:
            ContextError: As `read`; `ContextBudgetExceeded` where the call has no room for it.
            InputError: As `read`.
        """
        return self._shown(self._part(where), ReadBudget(max_tokens=max_tokens, owner="call"))

    def list_available(self) -> Mapping[str, Ref]:
        """The names that the reader sees, sorted, and the value of each."""
        if self._visible is None:
            return {name: self._store.get(name).ref for name in self._store.names()}
        with self._lock:
            return dict(sorted(self._refs.items()))

    def peek(self, name: str) -> str:
        """How a value begins, or a dict's keys, for a line about it: what a path can lead to.

        Empty for structures over `PEEK_BYTES`.

        Not a read: the prompt counts it as its names.

        Raises:
            UnknownName: The reader sees no value of that name.
            InputError: The file behind the value has changed.
        """
        ref = self._ref(name)
        if ref.kind == "bytes":
            return render(self._store.slice(ref, 0, min(ref.size_bytes, PREVIEW_CHARACTERS)))
        if ref.kind == "mp" and ref.size_bytes > PEEK_BYTES:
            return ""
        part = ValuePart(self._store, ref, ValuePath(name))
        if ref.kind == "mp" and isinstance(part.loaded, dict):
            keys = list(islice(part.loaded, PREVIEW_CHARACTERS))
            return f"dict with {len(part.loaded):,} keys: {render(keys, PREVIEW_CHARACTERS)}"
        return part.text(PREVIEW_CHARACTERS)

    def lines(self, where: Where) -> Iterator[str]:
        """The lines of a text, without their ends; a look in Python, of no tokens.

        Raises:
            ContextError: As `read`; or there is no text.
            InputError: As `read`, also on the way.
        """
        return self._view(where).lines()

    def chunks(self, where: Where, characters: int) -> Iterator[str]:
        """A text in parts of so many characters; a look in Python, of no tokens.

        Raises:
            ContextError: As `read`; or there is no text.
            InputError: As `read`, also on the way; or fewer than 1 character.
        """
        return self._view(where).chunks(characters)

    def find(self, where: Where, pattern: str | re.Pattern[str]) -> Iterator[TextMatch]:
        """The matches of a regular expression; a look in Python, of no tokens.

        Raises:
            ContextError: As `read`; or there is no text.
            InputError: As `read`, also on the way; or the pattern can't be used (`TextView.find`).
        """
        return self._view(where).find(pattern)

    def child(
        self,
        reader: AgentId,
        names: Collection[str] | None = None,
        budget: ReadBudget | None = None,
    ) -> AgentContext:
        """The context of an agent below this one; what it writes, this reader sees.

        Args:
            reader: The agent.
            names: The values it may read, as they are now; `None`: all that this reader may.
            budget: Bounds of what it reads.

        Raises:
            UnknownName: A name that this reader does not see.
        """
        child = AgentContext(self._store, self._recorder, reader=reader, budget=budget)
        child._parent = self
        if names is None and self._visible is not None:
            names = self.list_available()
        if names is not None:
            child._visible = frozenset(names)
            child._refs = {name: self._ref(name) for name in names}
            child._seen = set(child._refs.values())
        return child

    def __getitem__(self, name: str) -> ValueView:
        self._ref(name)
        return ValueView(ValuePath(name))

    def __getattr__(self, name: str) -> ValueView:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return self[name]
        except UnknownName as err:
            raise AttributeError(str(err), name=name, obj=self) from err

    def __contains__(self, name: object) -> bool:
        try:
            return isinstance(name, str) and self._ref(name).name == name
        except UnknownName:
            return False

    def __iter__(self) -> Iterator[str]:
        return iter(self.list_available())

    def _ref(self, name: str) -> Ref:
        """The value that a name means to this reader."""
        if self._visible is None:
            return self._store.get(name).ref
        with self._lock:
            ref = self._refs.get(name)
            if ref is not None:
                return ref
            raise UnknownName(name, closest(name, self._refs))

    def _part(self, where: Where) -> ValuePart:
        if isinstance(where, Ref):
            with self._lock:
                is_visible = self._visible is None or where in self._seen
            ref = where if is_visible else self._ref(where.name)
            if ref != where:
                raise ContextError(
                    f"Version {where.version} of {where.name!r} is not visible here.",
                    f"Read it by name: that is version {ref.version}.",
                )
            return ValuePart(self._store, ref, ValuePath(ref.name))
        path = path_of(where) if isinstance(where, ValueView) else parse_path(where)
        return ValuePart(self._store, self._ref(path.name), path)

    def _reveal(self, ref: Ref) -> None:
        with self._lock:
            known = self._refs.get(ref.name)
            if known is None or known.version < ref.version:  # two threads may come out of order
                self._refs[ref.name] = ref
            self._seen.add(ref)

    def _view(self, where: Where) -> TextView:
        part = self._part(where)
        view = self._store.view(part.ref, part.path.steps)
        self._note_read(part, 0)
        return view

    def _shown(self, part: ValuePart, budget: ReadBudget) -> Shown:
        with self._charged(part, budget) as shown:
            return shown

    @contextmanager
    def _charged(self, part: ValuePart, budget: ReadBudget) -> Iterator[Shown]:
        """What a part shows, its tokens reserved; charged and recorded when the body ends well."""
        while True:
            count = part.count(budget.largest_read)
            with budget.reserve(
                count.tokens,
                str(part.path),
                is_estimated=count.is_estimated,
                smaller=part.smaller,
            ) as reservation:
                if count.text is None:  # too large when it was counted, but room was given back
                    reservation.tokens = 0
                    continue
                yield Shown(count.text, count.tokens, part.ref)
                self._note_read(part, count.tokens)
                return

    def _note_read(self, part: ValuePart, tokens: int) -> None:
        bytes_read = part.byte_range()
        self._recorder.emit(
            ValueRead(
                at_s=self._recorder.now(),
                reader=self._reader or "user",
                name=part.ref.name,
                version=part.ref.version,
                start_byte=bytes_read.start,
                end_byte=bytes_read.end,
                tokens=tokens,
            )
        )

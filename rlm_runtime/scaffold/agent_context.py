"""One reader's view of the stored values: what it may see, what it has read, what it may still."""

from __future__ import annotations

from collections.abc import Collection

from rlm_runtime.store import ContextStore
from rlm_runtime.store.budget import ReadBudget
from rlm_runtime.tracing import Recorder
from rlm_runtime.types import AgentId, Ref


class AgentContext:
    """Values by name, for one reader.

    Args:
        store: Where the values are.
        recorder: Where reads and writes are recorded.
        reader: Who reads and writes; `None` is the user.
        budget: Bounds of what it reads; `None` is no bound, and reads are not counted in tokens.
        visible: The names it may read beside those it writes itself; `None` is all.
    """

    def __init__(
        self,
        store: ContextStore,
        recorder: Recorder,
        *,
        reader: AgentId | None = None,
        budget: ReadBudget | None = None,
        visible: Collection[str] | None = None,
    ) -> None:
        self._store = store
        self._recorder = recorder
        self._reader = reader
        self._budget = budget
        self._visible = None if visible is None else set(visible)
        self._written: list[Ref] = []

    @property
    def visible(self) -> frozenset[str] | None:
        """The names it was given; `None` is all."""
        return None if self._visible is None else frozenset(self._visible)

    @property
    def written(self) -> tuple[Ref, ...]:
        """What this reader stored, in order."""
        return tuple(self._written)

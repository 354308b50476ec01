"""What was used lately is kept, within a weight; what was used longest ago is forgotten."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from typing import Generic, NamedTuple, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class _Kept(NamedTuple, Generic[V]):
    value: V
    weight: int


class Recent(Generic[K, V]):
    """Values by key that together weigh at most `capacity`. Any thread may call it.

    A look-up is O(1); `put` too, but for the values it pushes out, each of which was put once.
    Going through the keys copies all of them.

    The value that was put last is kept whatever it weighs: without it, a value above the capacity
    would be made again for every use.

    Args:
        capacity: In the unit of the weights.

    Attributes:
        weight: Of all that is kept.
    """

    def __init__(self, capacity: int) -> None:
        self.weight = 0
        self._capacity = capacity
        self._kept: OrderedDict[K, _Kept[V]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: K) -> V | None:
        """The value of a key, which counts as used now; `None` without one."""
        with self._lock:
            kept = self._kept.get(key)
            if kept is None:
                return None
            self._kept.move_to_end(key)
            return kept.value

    def put(self, key: K, value: V, weight: int) -> None:
        """Keep a value, in place of the key's former one."""
        with self._lock:
            self._drop(key)
            self._kept[key] = _Kept(value, weight)
            self.weight += weight
            self._shrink()

    def limit(self, capacity: int) -> None:
        """Keep no more than this from now on; O(values that go)."""
        with self._lock:
            self._capacity = capacity
            self._shrink()

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._kept.clear()
            self.weight = 0

    def __contains__(self, key: object) -> bool:
        """Does not count as use."""
        return key in self._kept

    def __iter__(self) -> Iterator[K]:
        """The keys of this moment, the one used longest ago first."""
        with self._lock:
            return iter(list(self._kept))

    def __len__(self) -> int:
        return len(self._kept)

    def _shrink(self) -> None:
        while self.weight > self._capacity and len(self._kept) > 1:
            self._drop(next(iter(self._kept)))

    def _drop(self, key: K) -> None:
        kept = self._kept.pop(key, None)
        if kept is not None:
            self.weight -= kept.weight

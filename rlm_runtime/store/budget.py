"""How many tokens may enter prompts: budgets of a read, an agent and a tree, one inside the other.

Invariant: used + reserved never exceeds `max_tokens`, of any budget on the way up. A read reserves
what it will load before it loads it, so that reads at the same time can't overrun a budget
together, and settles what it did load.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

from rlm_runtime.errors import ContextBudgetExceeded


@dataclass(slots=True)
class Reservation:
    """Room for one read, until the end of `ReadBudget.reserve`'s body.

    Attributes:
        tokens: What is charged when the body ends; it may lower this, not raise it.
    """

    tokens: int


class _Limit(NamedTuple):
    name: str
    bound: int
    left: int


class ReadBudget:
    """Tokens that reads may bring into prompts. Any thread may use it.

    Args:
        max_tokens_per_read: Most tokens of one read; `None` is no bound.
        max_tokens: Most tokens of all reads; `None` is no bound.
        parent: The budget this one is part of: a read counts in both.
        owner: What messages call this budget in front of "max_tokens": "tree", or nothing.
    """

    def __init__(
        self,
        *,
        max_tokens_per_read: int | None = None,
        max_tokens: int | None = None,
        parent: ReadBudget | None = None,
        owner: str = "",
    ) -> None:
        self.max_tokens_per_read = max_tokens_per_read
        self.max_tokens = max_tokens
        self._parent = parent
        self._limit_name = f"{owner} max_tokens".strip()
        # One lock for a whole tree of budgets: a reservation is made in all of them or in none.
        self._lock: threading.Lock = threading.Lock() if parent is None else parent._lock
        self._used = 0
        self._reserved = 0

    @property
    def used(self) -> int:
        """Tokens that reads have brought into prompts."""
        return self._used

    @property
    def left(self) -> int | None:
        """Tokens that may still be read, here and in all it is part of; `None`: no bound."""
        with self._lock:
            rooms = (
                budget.max_tokens - budget._used - budget._reserved
                for budget in self._chain()
                if budget.max_tokens is not None
            )
            return min(rooms, default=None)

    @property
    def largest_read(self) -> int | None:
        """Tokens of the largest read that every limit still allows; `None`: no bound."""
        with self._lock:
            return min((limit.left for limit in self._limits()), default=None)

    @contextmanager
    def reserve(
        self,
        tokens: int,
        name: str,
        *,
        is_estimated: bool = False,
        smaller: Callable[[int], str] = lambda _: "",
    ) -> Iterator[Reservation]:
        """Take room for a read; when the body ends, its tokens are charged, after an error none.

        Args:
            tokens: What the read loads at most.
            name: What is read; for messages.
            is_estimated: `tokens` is not exact; for messages.
            smaller: Gives a path that loads at most so many tokens, for the message of an error.

        Raises:
            ContextBudgetExceeded: It does not fit; nothing was charged.
        """
        with self._lock:
            limits = list(self._limits())
            refusing = next((limit for limit in limits if tokens > limit.left), None)
            if refusing is None:
                for budget in self._chain():
                    budget._reserved += tokens
        if refusing is not None:
            fits = min(limit.left for limit in limits)
            raise ContextBudgetExceeded(
                name,
                tokens,
                refusing.name,
                refusing.bound,
                refusing.left,
                is_estimated=is_estimated,
                smaller=smaller(fits),
            )
        reservation = Reservation(tokens)
        charged = 0
        try:
            yield reservation
            charged = min(reservation.tokens, tokens)
        finally:
            with self._lock:
                for budget in self._chain():
                    budget._reserved -= tokens
                    budget._used += charged

    def _chain(self) -> Iterator[ReadBudget]:
        budget: ReadBudget | None = self
        while budget is not None:
            yield budget
            budget = budget._parent

    def _limits(self) -> Iterator[_Limit]:
        for budget in self._chain():
            per_read, total = budget.max_tokens_per_read, budget.max_tokens
            if per_read is not None:
                yield _Limit("max_tokens_per_read", per_read, per_read)
            if total is not None:
                left = total - budget._used - budget._reserved
                yield _Limit(budget._limit_name, total, left)

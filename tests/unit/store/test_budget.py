from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_runtime.errors import ContextBudgetExceeded
from rlm_runtime.store.budget import ReadBudget, Reservation


def nested(tree: int | None, agent: int | None, read: int | None) -> tuple[ReadBudget, ReadBudget]:
    whole = ReadBudget(max_tokens=tree, owner="tree")
    return whole, ReadBudget(max_tokens_per_read=read, max_tokens=agent, parent=whole)


@pytest.mark.parametrize(
    ("bounds", "limit_name", "limit", "left"),
    [
        ((100, 100, 10), "max_tokens_per_read", 10, 10),
        ((100, 15, 50), "max_tokens", 15, 10),
        ((15, 100, 50), "tree max_tokens", 15, 10),
    ],
)
def test_the_limit_that_refuses_is_named_with_what_is_left(
    bounds: tuple[int, int, int], limit_name: str, limit: int, left: int
) -> None:
    _, agent = nested(*bounds)
    with agent.reserve(5, "first"):
        pass
    with (
        pytest.raises(ContextBudgetExceeded) as caught,
        agent.reserve(11, "report", smaller=lambda fits: f"report[0:{fits}]"),
    ):
        pytest.fail("there is no room")
    error = caught.value
    assert (error.name, error.size_tokens, error.limit_name) == ("report", 11, limit_name)
    assert (error.limit, error.left, error.smaller) == (limit, left, "report[0:10]")
    assert agent.used == 5


def test_what_would_fit_is_told_for_all_limits_not_only_the_one_that_refuses() -> None:
    whole, agent = nested(100, 100, 50)
    with whole.reserve(93, "by another agent"):
        pass
    assert agent.largest_read == 7
    with pytest.raises(ContextBudgetExceeded) as caught, agent.reserve(51, "a", smaller=str):
        pytest.fail("there is no room")
    assert caught.value.limit_name == "max_tokens_per_read"
    assert caught.value.smaller == "7"


def test_without_bounds_nothing_is_refused_but_all_is_counted() -> None:
    budget = ReadBudget()
    with budget.reserve(10**9, "a"):
        pass
    assert (budget.used, budget.left, budget.largest_read) == (10**9, None, None)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_read_that_fails_gives_its_reservation_back(error: type[BaseException]) -> None:
    whole, agent = nested(10, 10, None)
    with pytest.raises(error), agent.reserve(10, "a"):
        raise error
    assert (whole.used, whole.left, agent.used, agent.left) == (0, 10, 0, 10)
    with agent.reserve(10, "a"):
        assert agent.left == 0
    assert agent.used == 10


def test_a_reservation_may_be_settled_for_less_but_not_for_more() -> None:
    budget = ReadBudget(max_tokens=10)
    with budget.reserve(8, "a") as reservation:
        reservation.tokens = 3
    assert (budget.used, budget.left) == (3, 7)
    with budget.reserve(2, "a") as reservation:
        reservation.tokens = 9
    assert (budget.used, budget.left) == (5, 5)


@dataclass
class Model:
    """What a budget must come to, by plain sums over the reads that are open and settled."""

    bound: int | None
    used: int = 0
    open: list[int] = field(default_factory=list)

    @property
    def left(self) -> int:
        return 10**9 if self.bound is None else self.bound - self.used - sum(self.open)


bounds = st.none() | st.integers(0, 40)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("begin"), st.integers(0, 1), st.integers(0, 30)),
        st.tuples(st.just("settle"), st.integers(0, 5), st.integers(0, 30)),
        st.tuples(st.just("fail"), st.integers(0, 5), st.just(0)),
    ),
    max_size=40,
)


@given(bounds, bounds, bounds, bounds, steps)
def test_nested_budgets_agree_with_plain_sums(
    tree: int | None,
    one: int | None,
    other: int | None,
    read: int | None,
    script: list[tuple[str, int, int]],
) -> None:
    whole = ReadBudget(max_tokens=tree, owner="tree")
    agents = [
        ReadBudget(max_tokens_per_read=read, max_tokens=bound, parent=whole)
        for bound in (one, other)
    ]
    tree_model, models = Model(tree), [Model(one), Model(other)]
    reads: list[tuple[ExitStack, int, int, Reservation]] = []
    with ExitStack() as all_open:
        for what, which, tokens in script:
            if what == "begin":
                model = models[which]
                fits = tokens <= min(model.left, tree_model.left, 10**9 if read is None else read)
                stack = all_open.enter_context(ExitStack())
                try:
                    reservation = stack.enter_context(agents[which].reserve(tokens, "a"))
                except ContextBudgetExceeded:
                    assert not fits
                    continue
                assert fits
                reads.append((stack, which, tokens, reservation))
                for touched in (model, tree_model):
                    touched.open.append(tokens)
            elif reads:
                stack, agent, reserved, reservation = reads.pop(which % len(reads))
                for touched in (models[agent], tree_model):
                    touched.open.remove(reserved)
                if what == "fail":
                    with pytest.raises(OSError, match="read"), stack.pop_all():
                        raise OSError("can't read")
                    continue
                reservation.tokens = tokens
                stack.close()
                for touched in (models[agent], tree_model):
                    touched.used += min(tokens, reserved)
            for budget, model in zip((whole, *agents), (tree_model, *models), strict=True):
                assert budget.used == model.used
                left = model.left if model is tree_model else min(model.left, tree_model.left)
                assert budget.left == (None if left > 10**8 else left)
                assert left >= 0


class Slow(int):
    """Tokens that let other threads run while a budget compares them with what is left."""

    def __gt__(self, other: int) -> bool:
        time.sleep(0)
        return int(self) > other


def test_a_hundred_threads_never_overrun_their_tree_together() -> None:
    bound, agents, reads = 5_000, 100, 40
    whole = ReadBudget(max_tokens=bound, owner="tree")
    start = threading.Barrier(agents)
    over: list[int] = []

    def work(number: int) -> int:
        budget, charged = ReadBudget(max_tokens=200, parent=whole), 0
        start.wait()
        for step in range(reads):
            tokens = Slow((number + step) % 7 + 1)
            try:
                with budget.reserve(tokens, "a") as reservation:
                    left = whole.left
                    if left is None or left < 0:
                        over.append(number)
                    if step % 5 == 0:
                        raise OSError
                    reservation.tokens = tokens - step % 2
            except (ContextBudgetExceeded, OSError):
                continue
            charged += tokens - step % 2
        assert budget.used == charged
        return charged

    with ThreadPoolExecutor(agents) as pool:
        charged = sum(pool.map(work, range(agents)))
    assert over == []
    assert whole.used == charged <= bound
    assert whole.left == bound - charged < 7  # it was used up

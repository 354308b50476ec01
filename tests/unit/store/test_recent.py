from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from hypothesis import given
from hypothesis import strategies as st

from rlm_runtime.store.recent import Recent

CAPACITY = 10

uses = st.lists(
    st.tuples(st.sampled_from(["get", "put"]), st.sampled_from("abcdef"), st.integers(0, 12)),
    max_size=40,
)


@given(uses)
def test_the_lately_used_are_kept_as_far_as_they_fit(uses: list[tuple[str, str, int]]) -> None:
    recent: Recent[str, int] = Recent(CAPACITY)
    model: list[tuple[str, int]] = []  # used longest ago first
    for use, key, weight in uses:
        known = dict(model)
        if use == "get":
            assert recent.get(key) == known.get(key)
            if key in known:
                model.append(model.pop(model.index((key, known[key]))))
        else:
            recent.put(key, weight, weight)
            model = [(k, w) for k, w in model if k != key] + [(key, weight)]
            while sum(w for _, w in model) > CAPACITY and len(model) > 1:
                model.pop(0)
        assert list(recent) == [key for key, _ in model]
        assert recent.weight == sum(w for _, w in model)


def test_the_newest_is_kept_whatever_it_weighs() -> None:
    recent: Recent[str, str] = Recent(CAPACITY)
    recent.put("small", "s", 1)
    recent.put("huge", "h", 1000)
    assert list(recent) == ["huge"]
    recent.put("small", "s", 1)
    assert list(recent) == ["small"]


def test_a_lower_limit_holds_at_once() -> None:
    recent: Recent[int, int] = Recent(CAPACITY)
    for key in range(5):
        recent.put(key, key, 2)
    recent.limit(4)
    assert list(recent) == [3, 4]


def test_looking_whether_a_key_is_there_is_no_use() -> None:
    recent: Recent[str, int] = Recent(2)
    recent.put("a", 0, 1)
    recent.put("b", 0, 1)
    assert "a" in recent
    recent.put("c", 0, 1)
    assert list(recent) == ["b", "c"]


def test_forgetting_all_forgets_the_weights_too() -> None:
    recent: Recent[str, int] = Recent(2)
    recent.put("a", 0, 2)
    recent.clear()
    assert (len(recent), recent.weight) == (0, 0)


def test_threads_do_not_spoil_the_weights() -> None:
    recent: Recent[int, int] = Recent(50)

    def use(seed: int) -> None:
        for step in range(2_000):
            key = (seed * 7919 + step * 31) % 97
            recent.put(key, key, key % 5)
            assert recent.get((key * 3) % 97) in (None, (key * 3) % 97)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(use, range(4)))
    assert recent.weight == sum(key % 5 for key in recent) <= 50

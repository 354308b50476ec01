"""The infinite cache judges calls alike, whenever it is asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from rlm_runtime.profiler.cache_model import CacheHistory, Reuse

if TYPE_CHECKING:
    from tests.unit.profiler.conftest import Rig

BLOCK = 16
STARTS = st.integers(0, 4).map(float)  # several in one step


@given(
    calls=st.lists(st.tuples(st.integers(1, 5), STARTS, STARTS, st.booleans()), max_size=10),
    asked_after=st.sets(st.integers(0, 12)),
    reset_after=st.none() | st.integers(0, 10),
)
def test_asking_in_between_changes_nothing(
    make_rig: type[Rig],
    calls: Sequence[tuple[int, float, float, bool]],
    asked_after: set[int],
    reset_after: int | None,
) -> None:
    rig = make_rig()
    for number, (blocks, start, length, has_facts) in enumerate(calls):
        rig.call(
            range(blocks * BLOCK),
            range(2 * BLOCK),
            cached=0,
            admitted_at_s=start - number,
            scheduled_at_s=start,
            finished_at_s=start + length,
            prompt_tokens=blocks * BLOCK if has_facts else None,
        )
        if number == reset_after:
            rig.reset()
    at_once = CacheHistory()
    in_between = CacheHistory()
    told: list[Reuse] = []
    for number, event in enumerate(rig.events):
        at_once.add(event)
        in_between.add(event)
        if number in asked_after:
            told = heard(told, in_between)
    assert heard(told, in_between) == heard([], at_once)


def heard(told: list[Reuse], history: CacheHistory) -> list[Reuse]:
    is_anew, judged = history.settle()
    return judged if is_anew else told + judged


def test_a_call_that_was_scheduled_before_judged_ones_has_all_judged_anew(rig: Rig) -> None:
    rig.call(range(64), scheduled_at_s=20.0, cached=48)
    early = rig.call(range(64), scheduled_at_s=10.0, cached=0)
    history = CacheHistory()
    for event in rig.events[:-1]:
        history.add(event)
    assert [one.ceiling_tokens for one in history.settle()[1]] == [0]
    history.add(early)
    is_anew, judged = history.settle()
    assert is_anew
    assert [one.ceiling_tokens for one in judged] == [0, 48]


def test_only_what_is_new_in_the_run_is_needed(rig: Rig) -> None:
    rig.call(range(50), generated=range(50, 67))
    rig.call(range(70))
    rig.reset()
    rig.call(range(70))
    history = CacheHistory()
    for event in rig.events:
        history.add(event)
    # The second prompt's blocks were computed or generated, but for its own rest; after the reset
    # they have to be computed again, which nothing needs.
    assert [one.needed_tokens for one in history.settle()[1]] == [50, 6, 6]


def test_a_prompt_only_cache_leaves_generated_ids_out(rig: Rig) -> None:
    rig.call(range(32), generated=range(32, 65))
    rig.call(range(70))
    ceilings = []
    for holds_generated in (True, False):
        history = CacheHistory(holds_generated=holds_generated)
        for event in rig.events:
            history.add(event)
        ceilings.append(history.settle()[1][1].ceiling_tokens)
    assert ceilings == [64, 32]


def test_calls_that_never_reached_the_engine_are_not_in_it(rig: Rig) -> None:
    rig.call(range(64), outcome="cancelled", prompt_tokens=None, admitted_at_s=None)
    rig.call(range(64), cached=48)
    history = CacheHistory()
    for event in rig.events:
        history.add(event)
    assert history.settle()[1][0].ceiling_tokens == 0

"""Each computed token has one cause, and it is the right one."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_runtime.errors import TraceError
from rlm_runtime.profiler import CallCauses, Cause, EarlierCopy, attribute

if TYPE_CHECKING:
    from tests.unit.profiler.conftest import Rig

BLOCK = 16
WINDOW = 32


def ids(seed: int, length: int) -> tuple[int, ...]:
    random = Random(seed)  # noqa: S311 # a test repeats itself
    return tuple(random.randrange(1, 50_000) for _ in range(length))


def causes(rig: Rig, *, with_ids: bool = True) -> tuple[CallCauses, ...]:
    if not with_ids:
        return attribute(rig.events)
    return attribute(rig.events, rig.prompt_ids, rig.output_ids)


def counted(one: CallCauses) -> dict[str, int]:
    return {str(cause): tokens for cause, tokens in one.tokens.items() if tokens}


def test_a_first_call_computes_new_blocks_and_a_rest(rig: Rig) -> None:
    rig.call(ids(1, 50))
    (only,) = causes(rig)
    assert counted(only) == {"first_use": 48, "block_rounding": 2}
    assert only.ceiling_tokens == 0


def test_the_last_token_of_a_whole_block_costs_the_block(rig: Rig) -> None:
    rig.call(ids(1, 48))
    again = rig.call(ids(1, 48))
    assert again.cached_tokens == 32
    _, second = causes(rig)
    assert counted(second) == {"block_rounding": 16}
    assert second.ceiling_tokens == 32


def test_what_two_prompts_share_of_a_block_is_rounding_when_ids_are_known(rig: Rig) -> None:
    shared = ids(1, 40)
    rig.call((*shared, *ids(2, 30)))
    rig.call((*shared, *ids(3, 30)))
    assert counted(causes(rig, with_ids=False)[1]) == {"first_use": 32, "block_rounding": 6}
    assert counted(causes(rig)[1]) == {"first_use": 24, "block_rounding": 8 + 6}


def test_a_hit_that_the_log_does_not_explain_invents_no_break(rig: Rig) -> None:
    """Something else used the engine: what it hit there was not computed here."""
    rig.call(ids(1, 96))
    rig.call((*ids(2, 16), *ids(1, 96)))
    rig.call((*ids(2, 16), *ids(1, 96), *ids(3, 16)), cached=112)
    rig.call((*ids(4, 16), *ids(1, 96)), cached=96)
    for one in causes(rig):
        assert min(one.tokens.values()) >= 0
        assert sum(one.tokens.values()) == one.call.computed_tokens
    assert all(copy.start >= 96 for copy in causes(rig)[3].layout)


def test_a_partial_block_of_an_earlier_prompt_is_shared_too(rig: Rig) -> None:
    rig.call(ids(1, 40))
    rig.call((*ids(1, 40), *ids(2, 8)))
    assert counted(causes(rig)[1]) == {"first_use": 8, "block_rounding": 8}


@pytest.mark.parametrize("with_ids", [True, False])
def test_a_known_block_is_evicted_when_the_cache_was_used_up(
    make_rig: type[Rig], *, with_ids: bool
) -> None:
    rig = make_rig(kv_blocks=6)
    rig.call(ids(1, 80))
    rig.call(ids(2, 80))
    again = rig.call(ids(1, 80))
    assert again.cached_tokens == 16, "the other prompt took five of the six blocks"
    third = causes(rig, with_ids=with_ids)[2]
    assert counted(third) == {"evicted": 48, "block_rounding": 16}
    assert third.ceiling_tokens == 64


def test_a_miss_that_no_eviction_can_explain_is_unexplained(rig: Rig) -> None:
    rig.call(ids(1, 80))
    rig.call(ids(1, 80), cached=16)
    assert counted(causes(rig)[1]) == {"unexplained": 48, "block_rounding": 16}


def test_blocks_that_calls_share_use_up_the_cache_once(make_rig: type[Rig]) -> None:
    rig = make_rig(kv_blocks=14)
    for _ in range(4):
        rig.call(ids(1, 80))  # six blocks, then two of its own each time
    rig.call(ids(1, 80), cached=16)
    assert causes(rig)[4].tokens[Cause.UNEXPLAINED] == 48
    rig.call(ids(1, 80), cached=16)
    assert causes(rig)[5].tokens[Cause.EVICTED] == 48


def test_a_call_that_does_not_read_the_cache_skips_what_it_would_have_found(rig: Rig) -> None:
    rig.call(ids(1, 64))
    rig.call((*ids(1, 64), *ids(2, 20)), reads_cache=False)
    second = causes(rig)[1]
    assert counted(second) == {"skipped": 64, "first_use": 16, "block_rounding": 4}
    assert second.ceiling_tokens == 64


def test_the_second_run_of_a_request_skips_what_the_first_computed(rig: Rig) -> None:
    rig.call(ids(1, 64))
    rig.call((*ids(1, 64), *ids(2, 20)), runs=2)
    second = causes(rig)[1]
    assert second.call.prompt_tokens == 168
    assert counted(second) == {"skipped": 80, "first_use": 16, "block_rounding": 4 + 4}
    assert second.ceiling_tokens == 64 + 80


def test_another_salt_is_the_cause_of_a_miss(rig: Rig) -> None:
    rig.call(ids(1, 64))
    rig.call((*ids(1, 64), *ids(2, 16)), salt="x")
    rig.call(ids(2, 64), salt="x")
    rig.call((*ids(2, 64), 1))
    found = causes(rig)
    assert counted(found[1]) == {"salt": 64, "first_use": 16}
    assert counted(found[3]) == {"salt": 64, "block_rounding": 1}
    assert counted(causes(rig, with_ids=False)[1]) == {"first_use": 80}


def test_text_behind_another_prefix_is_the_layouts_fault(rig: Rig) -> None:
    rig.call((*ids(1, 20), *ids(2, 100)))
    rig.call((*ids(3, 37), *ids(2, 100), *ids(4, 9)))
    second = causes(rig)[1]
    # 146 tokens are nine blocks and two tokens more.
    assert second.layout == (EarlierCopy(37, 137, "r0", 20),)
    assert counted(second) == {"first_use": 37 + 7, "layout": 100, "block_rounding": 2}


def test_generated_text_counts_as_computed_before(rig: Rig) -> None:
    rig.call(ids(1, 20), generated=ids(2, 61))
    rig.call((*ids(3, 16), *ids(2, 61), *ids(4, 3)))
    second = causes(rig)[1]
    assert second.layout == (EarlierCopy(16, 16 + 60, "r0", 20),), "the last id was only sampled"


@pytest.mark.parametrize(("length", "layout"), [(WINDOW - 1, 0), (WINDOW, WINDOW)])
def test_repetitions_count_from_32_tokens_on(rig: Rig, length: int, layout: int) -> None:
    rig.call((*ids(1, 20), *ids(2, length), *ids(3, 20)))
    rig.call((*ids(4, 33), *ids(2, length), *ids(5, 20)))
    assert causes(rig)[1].tokens[Cause.LAYOUT] == layout


def test_a_repetition_inside_one_prompt_is_first_use(rig: Rig) -> None:
    rig.call((*ids(1, 64), *ids(2, 3), *ids(1, 64)))
    assert causes(rig)[0].tokens[Cause.LAYOUT] == 0


def test_after_a_reset_everything_is_first_use(rig: Rig) -> None:
    for empty in (rig.reset, rig.engine):
        rig.call(ids(1, 96))
        empty()
        rig.call((*ids(3, 16), *ids(1, 80)))
    assert [counted(one) for one in causes(rig)[1::2]] == [{"first_use": 96}] * 2


def test_calls_of_one_step_share_in_the_order_of_their_admission(rig: Rig) -> None:
    # Ended, and so logged, the other way round.
    rig.call(ids(1, 64), scheduled_at_s=500.0, admitted_at_s=9.0, cached=48)
    rig.call(ids(1, 64), scheduled_at_s=500.0, admitted_at_s=8.0, cached=0)
    first, second = causes(rig)
    assert (first.call.request_id, second.call.request_id) == ("r1", "r0")
    assert counted(first) == {"first_use": 64}
    assert counted(second) == {"block_rounding": 16}


def test_a_call_of_a_step_stands_behind_the_one_whose_blocks_it_hit(rig: Rig) -> None:
    rig.call(ids(1, 64), scheduled_at_s=500.0, admitted_at_s=8.0, cached=48)
    rig.call(ids(1, 64), scheduled_at_s=500.0, admitted_at_s=9.0, cached=0)
    assert [one.call.request_id for one in causes(rig)] == ["r1", "r0"]


def test_generated_blocks_count_from_the_end_of_their_call(rig: Rig) -> None:
    prompt, generated = ids(1, 32), ids(2, 65)
    longer = (*prompt, *generated[:64], *ids(3, 4))
    rig.call(prompt, generated, scheduled_at_s=10.0, finished_at_s=20.0)
    rig.call(longer, scheduled_at_s=15.0, cached=32)
    rig.call((*longer, 7), scheduled_at_s=25.0, cached=96)
    running, ended = causes(rig)[1:]
    assert running.ceiling_tokens == 32
    assert counted(running) == {"first_use": 64, "block_rounding": 4}, "nobody had finished them"
    assert ended.ceiling_tokens == 96


def test_generated_blocks_of_a_running_call_count_as_far_as_they_were_hit(rig: Rig) -> None:
    prompt, generated = ids(1, 32), ids(2, 65)
    rig.call(prompt, generated, scheduled_at_s=10.0, finished_at_s=20.0)
    rig.call((*prompt, *generated[:64], 1), scheduled_at_s=15.0, cached=64)
    second = causes(rig)[1]
    assert second.ceiling_tokens == second.call.cached_tokens == 64


def test_a_cancelled_call_counts_as_far_as_it_was_hit(rig: Rig) -> None:
    rig.call(ids(1, 160), outcome="cancelled", prompt_tokens=None)
    rig.call(ids(1, 160), cached=64)
    rig.call(ids(1, 160), cached=144)
    partly, wholly = causes(rig)
    assert partly.ceiling_tokens == 64
    assert counted(partly) == {"first_use": 96}
    assert wholly.ceiling_tokens == 144


def test_hits_that_no_call_of_the_log_explains_show_as_a_ceiling_below_them(rig: Rig) -> None:
    rig.call(ids(1, 64), cached=48)
    (only,) = causes(rig)
    assert only.ceiling_tokens == 0
    assert counted(only) == {"first_use": 16}


def test_facts_that_contradict_each_other_are_unexplained(rig: Rig) -> None:
    rig.call(ids(1, 64), cached=0, computed_tokens=60)
    rig.call(ids(2, 64), cached=7)
    rig.call(ids(3, 64), blocks="")
    rig.call(ids(1, 64), salt="x", computed_tokens=60)
    assert [counted(one) for one in causes(rig)] == [
        {"unexplained": 60},
        {"unexplained": 57},
        {"unexplained": 64},
        {"unexplained": 60},
    ]


def test_without_an_engine_nothing_is_known(rig: Rig) -> None:
    rig.events.clear()
    rig.call(ids(1, 64))
    assert counted(causes(rig)[0]) == {"unexplained": 64}


@pytest.mark.parametrize("blocks", ["zz", "00" * 7])
def test_damaged_digests_are_an_error(rig: Rig, blocks: str) -> None:
    rig.call(ids(1, 64), blocks=blocks)
    with pytest.raises(TraceError, match="digests of request r0 are damaged"):
        causes(rig)


def test_a_prompt_whose_ids_are_missing_counts_by_its_digests(rig: Rig) -> None:
    rig.call((*ids(1, 16), *ids(2, 64)))
    rig.call((*ids(3, 16), *ids(2, 64)))
    found = attribute(rig.events, lambda _: None)
    assert counted(found[1]) == {"first_use": 80}


PIECES = st.sampled_from(
    [ids(seed, length) for seed, length in ((1, 16), (2, 40), (3, 70), (4, 5))]
)
PROMPTS = st.lists(PIECES, min_size=1, max_size=5).map(lambda pieces: sum(pieces, ()))
CALLS = st.lists(
    st.tuples(PROMPTS, PIECES, st.booleans(), st.sampled_from([None, None, None, "x"])),
    min_size=1,
    max_size=12,
)


@given(calls=CALLS, kv_blocks=st.integers(4, 40))
def test_causes_are_those_that_the_tokens_themselves_tell(
    make_rig: type[Rig],
    calls: Sequence[tuple[tuple[int, ...], tuple[int, ...], bool, str | None]],
    kv_blocks: int,
) -> None:
    rig = make_rig(kv_blocks)
    for prompt, generated, reads_cache, salt in calls:
        rig.call(prompt, generated, reads_cache=reads_cache, salt=salt)
    has_salts = any(salt for *_, salt in calls)
    found = causes(rig)
    for number, one in enumerate(found):
        prompt, generated, reads_cache, salt = calls[number]
        earlier = [(*p, *g[:-1]) for p, g, _, s in calls[:number] if s == salt]
        anywhere = [(*p, *g[:-1]) for p, g, *_ in calls[:number]] if has_salts else []
        expected, ceiling = by_tokens(
            prompt, generated, one.call.cached_tokens or 0, earlier, anywhere
        )
        if not reads_cache:
            expected[Cause.SKIPPED] = expected.pop(Cause.EVICTED)
        assert counted(one) == {str(cause): n for cause, n in expected.items() if n}
        assert one.ceiling_tokens == ceiling
        assert sum(one.tokens.values()) == one.call.computed_tokens
        assert sum(copy.end - copy.start for copy in one.layout) == one.tokens[Cause.LAYOUT]
        for copy in one.layout:
            source = (*rig.prompts[copy.request_id], *rig.outputs[copy.request_id][:-1])
            length = copy.end - copy.start
            part = source[copy.earlier_start : copy.earlier_start + length]
            assert part == prompt[copy.start : copy.end]


def by_tokens(
    prompt: tuple[int, ...],
    generated: tuple[int, ...],
    cached: int,
    earlier: list[tuple[int, ...]],
    anywhere: list[tuple[int, ...]],
) -> tuple[dict[Cause, int], int]:
    """Causes and ceiling by the definitions, from prefixes and windows of ids: no digest, no hash.

    Args:
        prompt: The call's.
        generated: The call's.
        cached: What the engine took from its cache.
        earlier: What the calls before had computed under the same salt.
        anywhere: The same under all salts, if there are any.
    """
    whole, usable = len(prompt) // BLOCK * BLOCK, (len(prompt) - 1) // BLOCK * BLOCK
    agreed = max((common(prompt, one) for one in earlier), default=0)
    known = min(agreed, whole) // BLOCK * BLOCK
    salted = max(known, *(common(prompt[:whole], one) // BLOCK * BLOCK for one in anywhere), 0)
    shared = max(0, agreed - salted) if salted < whole else 0
    windows = {one[at : at + WINDOW] for one in earlier for at in range(len(one) - WINDOW + 1)}
    ids = (*prompt, *generated[:-1])
    copied = {
        place
        for at in range(salted + shared, whole)
        if ids[at : at + WINDOW] in windows
        for place in range(at, min(at + WINDOW, whole))
    }
    rounding = len(prompt) - whole + max(0, known - usable) + shared
    return {
        Cause.EVICTED: min(known, usable) - cached,
        Cause.SALT: salted - known,
        Cause.LAYOUT: len(copied),
        Cause.BLOCK_ROUNDING: rounding,
        Cause.FIRST_USE: whole - salted - shared - len(copied),
    }, min(known, usable)


def common(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    """Length of the common beginning."""
    for at, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return at
    return min(len(a), len(b))

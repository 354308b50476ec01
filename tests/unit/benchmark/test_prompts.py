"""Lengths, differences and predictions of prompts for measurements."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlm_runtime.benchmark.prompts import PromptMaker
from rlm_runtime.errors import InputError
from rlm_runtime.prompt import Layout, Prompt

if TYPE_CHECKING:
    from tests.unit.benchmark.conftest import CachingEngine

LAYOUTS: dict[int, Layout] = {}


def with_shared_text(layout: Layout, words: int) -> Layout:
    """A layout whose shared prefix has another length, and so ends elsewhere in a block."""
    if words not in LAYOUTS:
        text = " ".join(["one"] * words)
        LAYOUTS[words] = Layout(layout.tokenizer, layout.template, 32, text)
    return LAYOUTS[words]


def cached(engine: CachingEngine, prompt: Prompt) -> int:
    """What the pretended engine finds in its cache, independently of the maker."""
    return engine._read_and_store(prompt.ids)


@given(
    words=st.integers(40, 75),
    block_size=st.sampled_from([1, 16, 32, 128]),
    seed=st.integers(0, 2**32),
    plan=st.lists(st.tuples(st.sampled_from([32, 128]), st.booleans(), st.booleans()), max_size=12),
)
@settings(max_examples=60, deadline=None)
def test_prompts_have_the_length_asked_for_and_hit_as_predicted(
    layout: Layout,
    make_engine: type[CachingEngine],
    words: int,
    block_size: int,
    seed: int,
    plan: list[tuple[int, bool, bool]],
) -> None:
    layout = with_shared_text(layout, words)
    maker, engine = PromptMaker(layout, block_size, seed), make_engine(block_size)
    for own_tokens, is_variable, forgets in plan:
        if forgets:
            maker.forget()
            engine.resident.clear()
        made = maker.make(own_tokens, is_variable=is_variable)
        assert len(made.prompt.ids) == len(layout.shared_ids) + own_tokens
        assert cached(engine, made.prompt) == made.expected_cached_tokens


@given(words=st.integers(40, 75), seed=st.integers(0, 100))
@settings(max_examples=30, deadline=None)
def test_nothing_but_the_shared_prefix_hits(layout: Layout, words: int, seed: int) -> None:
    layout = with_shared_text(layout, words)
    maker = PromptMaker(layout, 32, seed)
    first, *rest = (maker.make(32).expected_cached_tokens for _ in range(70))
    assert first == 0
    assert set(rest) == {len(layout.shared_ids) // 32 * 32}


def test_texts_differ_after_the_cache_was_forgotten_too(layout: Layout) -> None:
    maker = PromptMaker(layout, 32, 0)
    made = set()
    for _ in range(300):
        maker.forget()
        made.add(maker.make(11).prompt.ids)  # five tokens of text: some come up twice
    assert len(made) == 300


def test_the_same_seed_makes_the_same_prompts(layout: Layout) -> None:
    one, other = PromptMaker(layout, 32, 5), PromptMaker(layout, 32, 5)
    assert [one.make(32) for _ in range(5)] == [other.make(32) for _ in range(5)]
    assert PromptMaker(layout, 32, 5).make(32) != PromptMaker(layout, 32, 6).make(32)


def test_a_variable_prompt_has_the_same_tokens_with_the_preamble_on_top(layout: Layout) -> None:
    constant = PromptMaker(layout, 32, 3).make(32).prompt
    variable = PromptMaker(layout, 32, 3).make(32, is_variable=True).prompt
    opening = len(layout.template.system_open)
    (role, rest, task) = variable.segments
    moved = role.end - opening
    assert variable.ids[:opening] == layout.shared_ids[:opening]
    assert variable.ids[opening : role.end] == constant.ids[-32 : -32 + moved]
    assert variable.ids[rest.start : rest.end] == layout.shared_ids[opening:]
    assert variable.ids[task.start :] == constant.ids[-32 + moved :]
    assert moved == 13


def test_a_prompt_ends_where_the_model_begins(layout: Layout) -> None:
    end = layout.template.user_to_assistant
    for is_variable in (False, True):
        ids = PromptMaker(layout, 32, 0).make(32, is_variable=is_variable).prompt.ids
        assert ids[-len(end) :] == end


def test_segments_tile_the_ids(layout: Layout) -> None:
    for is_variable in (False, True):
        prompt = PromptMaker(layout, 32, 0).make(128, is_variable=is_variable).prompt
        bounds = [(segment.start, segment.end) for segment in prompt.segments]
        assert [start for start, _ in bounds] == [0, *(end for _, end in bounds[:-1])]
        assert bounds[-1][1] == len(prompt.ids)


def test_too_few_own_tokens_are_refused(layout: Layout) -> None:
    with pytest.raises(InputError, match="7 own tokens"):
        PromptMaker(layout, 32, 0).make(7)


def test_texts_that_run_out_are_an_error(layout: Layout) -> None:
    maker = PromptMaker(layout, 1, 0)  # the first token alone has to differ
    with pytest.raises(InputError, match="No further text"):
        list(map(maker.make, [8] * 2_000))

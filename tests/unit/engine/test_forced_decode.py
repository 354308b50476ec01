"""Forced decode without an engine: which of the two ways of vLLM is taken, and for which ids."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from rlm_runtime.engine import forced_decode
from rlm_runtime.engine.model_tokens import ModelTokens, model_tokens

TOKENS = ModelTokens(end_id=2, end_ids=frozenset({2, 9}), control_ids=frozenset({1}))


def config(*, is_second_runner: bool, processors: list[str] | None = None) -> SimpleNamespace:
    model = SimpleNamespace(enable_trace_replay=False, logits_processors=processors)
    return SimpleNamespace(model_config=model, use_v2_model_runner=is_second_runner)


@pytest.mark.parametrize(
    ("script", "ids"),
    [((5, 6), [5, 6, 2]), ((5, 2), [5, 2]), ((5, 9), [5, 9]), ((2,), [2])],
)
def test_a_script_gets_the_end_that_it_lacks(script: tuple[int, ...], ids: list[int]) -> None:
    assert forced_decode.completed(script, TOKENS) == ids


def test_a_model_without_an_end_gets_none() -> None:
    endless = ModelTokens(None, frozenset(), frozenset())
    assert forced_decode.completed((5, 6), endless) == [5, 6]


def test_the_first_runner_gets_a_processor_beside_those_it_has() -> None:
    cpu = config(is_second_runner=False, processors=["theirs:Processor"])
    forced_decode.enable(cpu)
    assert cpu.model_config.logits_processors == ["theirs:Processor", forced_decode.PROCESSOR]
    assert not cpu.model_config.enable_trace_replay
    assert forced_decode.sampling(cpu, [5, 2]) == {"extra_args": {forced_decode.SCRIPT: [5, 2]}}


def test_the_second_runner_replays_a_trace_and_gets_no_processor_which_it_would_refuse() -> None:
    cuda = config(is_second_runner=True)
    forced_decode.enable(cuda)
    assert cuda.model_config.enable_trace_replay
    assert cuda.model_config.logits_processors is None
    assert forced_decode.sampling(cuda, [5, 2]) == {"trace_decode_token_ids": [5, 2]}


def llm(
    end_id: int | None, listed: int | list[int] | None, added: dict[int, tuple[str, bool]]
) -> SimpleNamespace:
    tokens = {id_: SimpleNamespace(content=c, special=s) for id_, (c, s) in added.items()}
    generation = {} if listed is None else {"eos_token_id": listed}
    model = SimpleNamespace(try_get_generation_config=lambda: generation)
    return SimpleNamespace(
        vllm_config=SimpleNamespace(model_config=model),
        renderer=SimpleNamespace(
            get_eos_token_id=lambda: end_id, tokenizer=SimpleNamespace(added_tokens_decoder=tokens)
        ),
    )


def test_tokens_that_end_a_request_are_those_of_the_tokenizer_and_of_the_model() -> None:
    assert model_tokens(llm(2, [9, 10], {})).end_ids == {2, 9, 10}
    assert model_tokens(llm(2, 9, {})) == ModelTokens(2, frozenset({2, 9}), frozenset())
    assert model_tokens(llm(None, [10, 9], {})).end_id == 9
    assert model_tokens(llm(None, None, {})).end_id is None


def test_control_tokens_are_special_or_added_words_that_end_nothing() -> None:
    added = {1: ("<turn>", True), 2: ("<end>", True), 3: ("<tool>", False), 4: ("  ", False)}
    assert model_tokens(llm(2, None, added)).control_ids == {1, 3}

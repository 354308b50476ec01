"""Choices before they are sent: what the grammar is made of, and what is refused."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_runtime.engine import choices, requests
from rlm_runtime.engine.base import EngineInfo, GenerateRequest, Span
from rlm_runtime.errors import EngineError, InputError
from rlm_runtime.types import RequestId

INFO = EngineInfo("m", 100, 32, 50, "0", 1000, 4, "fake", can_choose=True, can_force=True)


def encode(text: str) -> list[int]:
    """A token a byte."""
    return list(text.encode())


def request(**fields: Any) -> GenerateRequest:
    return GenerateRequest(RequestId("r1"), (5, 6), **fields)


@given(st.lists(st.text(min_size=1), min_size=1, max_size=20))
def test_a_grammar_holds_ids_alone_whatever_the_texts_are(texts: list[str]) -> None:
    by_ids = choices.encoded(texts, encode)
    grammar = choices.grammar(by_ids)
    one = r"Token\(\d+\)"
    branch = rf"{one}(?: {one})*"
    assert re.fullmatch(rf"root ::= {branch}(?: \| {branch})*", grammar)
    branches = grammar.removeprefix("root ::= ").split(" | ")
    read = {bytes(map(int, re.findall(r"\d+", branch))).decode() for branch in branches}
    assert read == set(texts)
    assert len(branches) == len(read)


@given(st.lists(st.text(min_size=1), min_size=1, max_size=20), st.data())
def test_what_was_generated_is_found_again(texts: list[str], data: st.DataObject) -> None:
    by_ids = choices.encoded(texts, encode)
    text = data.draw(st.sampled_from(texts))
    assert choices.chosen(by_ids, (*encode(text), 2)) == text


def test_of_texts_with_equal_ids_the_first_counts() -> None:
    by_ids = choices.encoded(["Yes", "yes", "no"], lambda text: encode(text.lower()))
    assert list(by_ids.values()) == ["Yes", "no"]


@pytest.mark.parametrize("ids", [(), (2,), (ord("y"), 2), (*b"yes",)])
def test_anything_else_is_an_error_of_the_engine(ids: tuple[int, ...]) -> None:
    with pytest.raises(EngineError, match="none of the choices"):
        choices.chosen(choices.encoded(["yes", "no"], encode), ids)


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["yes", ""], "empty"),
        ([str(i) for i in range(choices.MAX_CHOICES + 1)], "at most 2,000"),
        (["a" * 10_000, "b" * 10_001], "20,001 tokens together"),
    ],
)
def test_what_a_grammar_may_not_have_is_refused(texts: list[str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        choices.encoded(texts, encode)


def test_too_many_choices_are_refused_before_any_is_tokenised() -> None:
    def fail(_text: str) -> list[int]:
        raise AssertionError("tokenised")

    with pytest.raises(InputError):
        choices.encoded(["a"] * (choices.MAX_CHOICES + 1), fail)


def test_as_many_as_are_allowed_are_taken() -> None:
    texts = [f"{i:010}" for i in range(choices.MAX_CHOICES)]
    by_ids = choices.encoded(texts, encode)
    assert sum(map(len, by_ids)) == choices.MAX_CHOICE_TOKENS


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"stop_token_ids": (198,)}, "stop_token_ids"),
        ({"ignore_eos": True}, "ignore_eos"),
        ({"stop_repetition": True}, "stop_repetition"),
        ({"score": Span(1, 2)}, "score"),
    ],
)
def test_nothing_else_may_end_a_choice(fields: dict[str, Any], name: str) -> None:
    with pytest.raises(InputError, match=f"can't have {name}"):
        requests.check(request(choices=("yes",), max_tokens=9, **fields), INFO)


def test_the_longest_choice_and_its_end_must_fit() -> None:
    by_ids = choices.encoded(["yes", "no"], encode)
    requests.check_choices(request(max_tokens=4), by_ids)
    with pytest.raises(InputError, match="it needs 4"):
        requests.check_choices(request(max_tokens=3), by_ids)


def test_a_schema_can_not_bring_another_grammar_backend_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """vLLM has one for all requests, and left alone it takes the first one's."""
    monkeypatch.setattr(choices, "find_spec", lambda _name: object())
    settled = []
    for backend in ("auto", "guidance"):
        config = SimpleNamespace(structured_outputs_config=SimpleNamespace(backend=backend))
        choices.settle_backend(config)
        settled.append(config.structured_outputs_config.backend)
    assert settled == ["xgrammar", "guidance"]


@pytest.mark.parametrize("backend", ["auto", "xgrammar"])
def test_xgrammar_can_choose(monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    monkeypatch.setattr(choices, "find_spec", lambda _name: object())
    assert choices.obstacle(backend) == ""


def test_an_engine_without_a_grammar_backend_says_which_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(choices, "find_spec", lambda _name: object())
    assert "'guidance'" in choices.obstacle("guidance")
    monkeypatch.setattr(choices, "find_spec", lambda _name: None)
    assert "xgrammar is not installed" in choices.obstacle("auto")

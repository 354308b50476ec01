"""What a request may generate: said once, ended by itself, and within bounds."""

from __future__ import annotations

from typing import Any

import pytest

from rlm_runtime.engine import requests
from rlm_runtime.engine.base import EngineInfo, GenerateRequest, Span
from rlm_runtime.errors import InputError
from rlm_runtime.types import RequestId

INFO = EngineInfo("m", 100, 32, 50, "0", 1000, 4, "fake", can_choose=True, can_force=True)

CONSTRAINTS: dict[str, Any] = {
    "choices": ("yes", "no"),
    "script": (7, 8),
    "grammar": 'root ::= "yes"',
    "json_schema": '{"type": "string"}',
}


def check(**fields: Any) -> None:
    requests.check(GenerateRequest(RequestId("r1"), (5, 6), **{"max_tokens": 9} | fields), INFO)


@pytest.mark.parametrize("name", CONSTRAINTS)
def test_each_constraint_alone_is_taken(name: str) -> None:
    check(**{name: CONSTRAINTS[name]})


@pytest.mark.parametrize(
    ("one", "other"),
    [(a, b) for i, a in enumerate(CONSTRAINTS) for b in list(CONSTRAINTS)[i + 1 :]],
)
def test_two_constraints_contradict_each_other(one: str, other: str) -> None:
    with pytest.raises(InputError, match=f"can't have {one} and {other}"):
        check(**{one: CONSTRAINTS[one], other: CONSTRAINTS[other]})


@pytest.mark.parametrize("name", CONSTRAINTS)
@pytest.mark.parametrize(
    ("field", "value"),
    [("stop_token_ids", (198,)), ("ignore_eos", True), ("score", Span(1, 2))],
)
def test_nothing_else_may_end_a_constrained_request(name: str, field: str, value: object) -> None:
    with pytest.raises(InputError, match=f"with {name} can't have {field}"):
        check(**{name: CONSTRAINTS[name], field: value})


@pytest.mark.parametrize("name", CONSTRAINTS)
def test_a_loop_may_end_a_text_but_no_given_answer(name: str) -> None:
    fields = {name: CONSTRAINTS[name], "stop_repetition": True}
    if name in {"grammar", "json_schema"}:
        check(**fields)
    else:
        with pytest.raises(InputError, match="can't have stop_repetition"):
            check(**fields)


@pytest.mark.parametrize("ids", [(-1,), (7, 1000), (1000, 7)])
def test_a_script_of_another_vocabulary_is_refused(ids: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"script has an id that is not in 0\.\.999"):
        check(script=ids)


def test_a_script_may_fill_max_tokens_and_not_more() -> None:
    check(script=(7,) * 9)
    with pytest.raises(InputError, match="The script has 10 ids, more than max_tokens=9"):
        check(script=(7,) * 10)


@pytest.mark.parametrize("name", ["grammar", "json_schema"])
def test_the_length_of_a_grammar_or_schema_is_bounded(name: str) -> None:
    text = CONSTRAINTS[name]
    check(**{name: text.ljust(requests.MAX_TEXT_CHARACTERS)})
    with pytest.raises(InputError, match=f"The {name} has 500,001 characters, 500,000"):
        check(**{name: text.ljust(requests.MAX_TEXT_CHARACTERS + 1)})


@pytest.mark.parametrize("schema", ["[1]", " ", '"string"', "null", "true"])
def test_a_schema_is_an_object(schema: str) -> None:
    with pytest.raises(InputError, match="no JSON object"):
        check(json_schema=schema)

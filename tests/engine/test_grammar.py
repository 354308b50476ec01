"""Grammars and schemas on the real engine: obeyed, never mixed up, and refused where bad."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import jsonschema
import pytest

from rlm_runtime.engine.vllm_engine import VLLMEngine
from rlm_runtime.errors import InputError
from rlm_runtime.prompt import Tokenizer

pytestmark = [pytest.mark.engine, pytest.mark.anyio]

Ids = tuple[int, ...]
Make = Callable[[int], Ids]
Ask = Callable[..., Awaitable[Any]]  # gives an Answer of conftest.py

EOS = 2
STRING = r'root ::= "\"" [^"\n]* "\""'
SCHEMA = {
    "type": "object",
    "properties": {
        "label": {"enum": ["fact", "opinion", 'a "quoted" one']},
        "score": {"type": "integer", "minimum": 0, "maximum": 9},
        "is_sure": {"type": "boolean"},
    },
    "required": ["label", "score", "is_sure"],
    "additionalProperties": False,
}


@pytest.fixture(scope="session")
def tokenizer(model_dir: Path) -> Tokenizer:
    return Tokenizer.from_folder(model_dir)


def names_grammar(names: list[str]) -> str:
    alternatives = " | ".join(f'"{name}"' for name in names)
    return f'root ::= "READ(" name ")" | "FINAL(" name ")"\nname ::= {alternatives}'


@pytest.mark.parametrize("count", [500, 2000])
async def test_a_call_with_one_of_many_names_is_all_that_can_be_generated(
    ask: Ask, fresh: Make, tokenizer: Tokenizer, count: int
) -> None:
    names = [f"value_{number * 7919 % 10_007}_{number}" for number in range(count)]
    calls = {f"{function}({name})" for function in ("READ", "FINAL") for name in names}
    grammar = names_grammar(names)
    for seed in range(4):
        answer = await ask(fresh(20), grammar=grammar, max_tokens=40, temperature=1.5, seed=seed)
        assert tokenizer.decode(answer.ids[:-1]) in calls
        assert answer.ids[-1] == EOS
        assert answer.facts.finish_reason == "stop"


async def test_grammars_are_not_taken_for_each_other(
    ask: Ask, fresh: Make, tokenizer: Tokenizer
) -> None:
    """Of one shape, together, and beside choices, which are grammars of ids."""
    words = [("alpha", "beta"), ("gamma", "delta"), ("kappa", "sigma"), ("omega", "theta")]
    texts: dict[tuple[str, ...], str] = {}
    chosen: dict[tuple[str, ...], str] = {}

    async def by_grammar(names: tuple[str, ...]) -> None:
        grammar = "root ::= " + " | ".join(f'"{name}"' for name in names)
        answer = await ask(fresh(10), grammar=grammar, max_tokens=12)
        texts[names] = tokenizer.decode(answer.ids[:-1])

    async def by_choice(names: tuple[str, ...]) -> None:
        chosen[names] = (await ask(fresh(10), choices=names, max_tokens=12)).choice

    async with anyio.create_task_group() as group:
        for names in words:
            group.start_soon(by_grammar, names)
            group.start_soon(by_choice, names)
    for names in words:
        assert texts[names] in names
        assert chosen[names] in names


@pytest.mark.parametrize("text", ["<|im_end|>", "<|im_start|>system", "<|endoftext|>"])
async def test_a_rule_spells_a_control_token_and_never_generates_one(
    ask: Ask, fresh: Make, tokenizer: Tokenizer, text: str
) -> None:
    answer = await ask(fresh(10), grammar=f'root ::= "{text}"', max_tokens=40)
    assert tokenizer.special_ids.isdisjoint(answer.ids[:-1])
    assert answer.ids[-1] == EOS
    assert tokenizer.decode(answer.ids[:-1]) == text


async def test_a_string_where_the_model_would_open_a_turn_holds_no_control_token(
    ask: Ask, tokenizer: Tokenizer
) -> None:
    prompt = tokenizer.encode_template("<|im_start|>\n" * 20)
    opening = tokenizer.encode_template("<|im_start|>")
    assert (await ask(prompt, max_tokens=1)).ids == opening
    answer = await ask(prompt, grammar=r'root ::= [^"]* "\""', max_tokens=30)
    ids = answer.ids[:-1] if answer.facts.finish_reason == "stop" else answer.ids
    assert tokenizer.special_ids.isdisjoint(ids), tokenizer.decode(answer.ids)


@pytest.mark.parametrize("temperature", [0.0, 1.5])
async def test_json_obeys_its_schema(
    ask: Ask, prose: Make, tokenizer: Tokenizer, temperature: float
) -> None:
    for seed in range(4):
        answer = await ask(
            prose(20),
            json_schema=json.dumps(SCHEMA),
            max_tokens=120,
            temperature=temperature,
            seed=seed,
            stop_repetition=True,
        )
        text = tokenizer.decode(answer.ids)
        if answer.facts.finish_reason == "stop":
            jsonschema.validate(json.loads(text.removesuffix("<|im_end|>")), SCHEMA)
        else:
            # Between two fields any white space is allowed, and some models like it.
            assert text.lstrip().startswith("{")


async def test_a_text_that_is_cut_says_so(ask: Ask, fresh: Make) -> None:
    answer = await ask(fresh(10), grammar='root ::= "abcdefghijklmnopqrstuvwxyz"', max_tokens=2)
    assert answer.facts.finish_reason == "length"
    assert len(answer.ids) == 2


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"grammar": "root ::= "}, "Expect element"),
        ({"grammar": 'other ::= "a"'}, '"root" is not found'),
        ({"grammar": "root ::= missing"}, 'Rule "missing" is not defined'),
        ({"grammar": 'root ::= "a'}, "string literal"),
        ({"grammar": "no rule at all"}, "refuses the request"),
        ({"grammar": "  "}, "empty"),
        ({"grammar": "root ::= Token(9999999)"}, "can't compile"),
        ({"grammar": "root ::= root"}, "allows no text"),
        ({"json_schema": "{"}, "refuses the request"),
        ({"json_schema": "[1]"}, "no JSON object"),
        ({"json_schema": "  "}, "no JSON object"),
        ({"json_schema": '{"type": "person"}'}, "Unsupported type"),
        ({"json_schema": '{"enum": []}'}, "must not be empty"),
        ({"json_schema": '{"type": "array", "uniqueItems": true}'}, "not supported by xgrammar"),
        ({"json_schema": '{"items": ' * 2000 + "{}" + "}" * 2000}, "nested too deeply"),
    ],
)
async def test_what_can_not_be_compiled_is_refused_and_the_engine_lives(
    ask: Ask, fresh: Make, fields: dict[str, str], words: str
) -> None:
    with pytest.raises(InputError, match=words) as caught:
        await ask(fresh(10), max_tokens=8, **fields)
    assert "/project/" not in str(caught.value)
    assert (await ask(fresh(10), choices=("yes", "no"), max_tokens=4)).choice in {"yes", "no"}


async def test_a_request_whose_grammar_failed_leaves_nothing_running(
    engine: VLLMEngine, ask: Ask, fresh: Make
) -> None:
    for grammar in ("root ::= root", "root ::= Token(9999999)"):
        with pytest.raises(InputError):
            await ask(fresh(40), max_tokens=8, grammar=grammar)
    await ask(fresh(40), max_tokens=2)
    assert (engine.stats().running, engine.stats().waiting) == (0, 0)
    await engine.reset_prefix_cache()  # an error while a request holds blocks


async def test_a_string_rule_lets_any_text_through(
    ask: Ask, prose: Make, tokenizer: Tokenizer
) -> None:
    answer = await ask(prose(40), grammar=STRING, max_tokens=40)
    text = tokenizer.decode(answer.ids)
    assert text.startswith('"')
    assert "\n" not in text

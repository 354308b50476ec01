"""Types of answers: their schemas, and which texts hold a value of them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pydantic
import pytest
from annotated_types import MultipleOf
from hypothesis import given
from hypothesis import strategies as st

from rlm_runtime.errors import InputError, SchemaMismatch
from rlm_runtime.scaffold.typed_answer import WHY_CHARACTERS, AnswerType


@dataclass
class Place:
    name: str
    height_m: float


@dataclass
class Trip:
    """Where to, and with whom."""

    places: list[Place]
    by: Literal["boat", "train"]
    guests: dict[str, int] = field(default_factory=dict)


class Person(pydantic.BaseModel):
    name: str = pydantic.Field(min_length=2)
    age: int = pydantic.Field(ge=0, le=150)

    @pydantic.field_validator("name")
    @classmethod
    def no_digits(cls, name: str) -> str:
        if any(c.isdigit() for c in name):
            raise ValueError("a name has no digits")
        return name


def why_not(answer: AnswerType, text: str) -> str:
    """What is wrong with an answer; empty when nothing is."""
    try:
        answer.parse(text)
    except SchemaMismatch as err:
        return err.why
    return ""


SCHEMA = {
    "type": "object",
    "properties": {"rows": {"type": "array", "items": {"$ref": "#/$defs/row"}}},
    "required": ["rows"],
    "$defs": {"row": {"type": "object", "properties": {"title": {"type": "string"}}}},
}


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (int, "42", 42),
        (float, "2", 2.0),
        (str, '"a \\"b\\""', 'a "b"'),
        (bool, "true", True),
        (list[str], '["a", "b"]', ["a", "b"]),
        (Literal["yes", "no"], '"no"', "no"),
        (int | None, "null", None),
        (tuple[int, str], '[1, "a"]', (1, "a")),
        (
            Trip,
            '{"places": [{"name": "Orsa", "height_m": 3}], "by": "boat", "guests": {"Ida": 2}}',
            Trip([Place("Orsa", 3.0)], "boat", {"Ida": 2}),
        ),
        (Person, '{"name": "Ida", "age": 7}', Person(name="Ida", age=7)),
        (SCHEMA, '{"rows": [{"title": "x"}]}', {"rows": [{"title": "x"}]}),
        ({}, "[1, 2.5]", [1, 2.5]),
    ],
)
def test_a_value_of_the_type_is_read(kind: object, text: str, value: object) -> None:
    answer = AnswerType.of(kind)
    for written in (text, f"\n {text}\n", f"```json\n{text}\n```", f"```\n{text}```"):
        assert answer.parse(written) == value
    assert type(answer.parse(text)) is type(value)


@pytest.mark.parametrize(
    ("kind", "text", "why"),
    [
        (int, '"42"', "integer"),
        (int, "4.5", "integer"),
        (int, "", "Invalid JSON"),
        (int, "It is 42.", "Invalid JSON"),
        (list[str], '["a", 1]', "[1]: "),
        (Literal["yes", "no"], '"maybe"', "'yes' or 'no'"),
        (Trip, '{"places": [{"name": "Orsa"}], "by": "boat"}', "places[0].height_m: "),
        (Person, '{"name": "Ida", "age": 151}', "age: "),
        (Person, '{"name": "R2", "age": 1}', "a name has no digits"),
        (SCHEMA, "{}", 'required: ["rows"]'),
        (SCHEMA, '{"rows": [{"title": 1}]}', 'rows[0].title: it breaks type: "string"'),
        (SCHEMA, '{"rows": [}', "no JSON"),
        (SCHEMA, "NaN", "no JSON"),
        (SCHEMA, '{"rows": []} and more', "no JSON"),
        (SCHEMA, '"\ud800"', "no JSON"),
        (int, "\ud800", ""),
    ],
)
def test_what_is_wrong_is_said(kind: object, text: str, why: str) -> None:
    with pytest.raises(SchemaMismatch) as caught:
        AnswerType.of(kind).parse(text)
    assert why in caught.value.why
    assert caught.value.text == text
    assert "\n" not in caught.value.why


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (list, "recursion limit"),
        ({"type": "array"}, "nested too deeply"),
        ({"items": {"$ref": "#"}}, "nested too deeply"),
    ],
)
def test_an_answer_nested_without_end_is_refused(kind: object, why: str) -> None:
    answer = AnswerType.of(kind)
    assert why in why_not(answer, "[" * 100_000)
    assert len(why_not(answer, "[" * 900 + "]" * 900)) <= WHY_CHARACTERS


def test_a_long_answer_is_not_repeated_in_what_is_wrong_with_it() -> None:
    with pytest.raises(SchemaMismatch) as caught:
        AnswerType.of({"enum": ["yes", "no"]}).parse(json.dumps("x" * 10_000))
    assert "xx" not in caught.value.why
    many = AnswerType.of(list[int])
    with pytest.raises(SchemaMismatch) as caught:
        many.parse(json.dumps(["x"] * 1000))
    assert len(caught.value.why) <= WHY_CHARACTERS
    assert caught.value.why.endswith("and more")


def test_the_rules_of_a_type_that_no_schema_has_are_checked() -> None:
    even = AnswerType.of(Annotated[int, MultipleOf(2)])
    assert even.parse("4") == 4
    with pytest.raises(SchemaMismatch, match="multiple of 2"):
        even.parse("5")

    def broken(_value: object) -> object:
        raise KeyError("no value error")

    with pytest.raises(SchemaMismatch, match=r"its check failed \(KeyError\)"):
        AnswerType.of(Annotated[int, pydantic.AfterValidator(broken)]).parse("1")


def unmet() -> list[tuple[object, str]]:
    endless: dict[str, object] = {}
    endless["allOf"] = [endless]
    return [
        (5, "No answer can be of the type"),
        (object(), "No answer can be of the type"),
        ("int", "A text is no answer type"),
        (type("Odd", (), {}), "No answer can be of the type"),
        (True, "No answer can be of the type"),
        ({"type": "integr"}, "no JSON schema: type: 'integr' is not valid"),
        ({"properties": {"a": {"minimum": "low"}}}, "properties.a.minimum"),
        ({"default": {1, 2}}, "can't be JSON"),
        ({"minimum": float("nan")}, "can't be JSON"),
        (endless, "can't be JSON"),
        ({"$ref": "#/$defs/none"}, "refers to"),
        ({"items": {"$ref": "https://example.org/schema"}}, "refers to"),
        ({"$ref": "file:///etc/passwd"}, "refers to"),
    ]


@pytest.mark.parametrize(("kind", "message"), unmet())
def test_what_is_no_type_is_refused_at_once(kind: object, message: str) -> None:
    with pytest.raises(InputError, match=r"answer|JSON schema") as caught:
        AnswerType.of(kind)
    assert message in str(caught.value)
    assert caught.value.remedy


def test_the_schema_is_the_same_text_each_time_and_says_nothing_twice() -> None:
    first, second = AnswerType.of(Trip), AnswerType.of(Trip)
    assert first.schema == second.schema
    assert first.schema in first.instruction
    assert AnswerType.of(first) is first
    schema = json.loads(first.schema)
    assert schema["$defs"]["Place"]["properties"] == {
        "name": {"type": "string"},
        "height_m": {"type": "number"},
    }
    assert json.loads(AnswerType.of(SCHEMA).schema) == SCHEMA


def test_a_schema_that_is_changed_later_changes_nothing() -> None:
    schema: dict[str, Any] = {"enum": ["a"]}
    answer = AnswerType.of(schema)
    schema["enum"].append("b")
    with pytest.raises(SchemaMismatch):
        answer.parse('"b"')


@pytest.mark.parametrize(
    ("kind", "text", "plain"),
    [
        (Trip, '{"places":[],"by":"train"}', {"places": [], "by": "train", "guests": {}}),
        (Person, '{"name":"Ida","age":7}', {"name": "Ida", "age": 7}),
        (set[int], "[3]", [3]),
        (SCHEMA, '{"rows":[]}', {"rows": []}),
    ],
)
def test_values_can_be_had_as_what_is_stored(kind: object, text: str, plain: object) -> None:
    answer = AnswerType.of(kind)
    assert answer.plain(answer.parse(text)) == plain


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(json_values)
def test_any_json_is_of_the_schema_that_allows_all(value: object) -> None:
    assert AnswerType.of({}).parse(json.dumps(value)) == value


@given(st.text('{}[]":,nulltrue0\n`') | st.text())
def test_no_text_is_more_than_a_mismatch(text: str) -> None:
    for kind in (Person, SCHEMA):
        assert why_not(AnswerType.of(kind), text)

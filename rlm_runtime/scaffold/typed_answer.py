"""Answers of a type: one JSON value, which the engine is told to write and which is always checked.

An engine with grammars keeps the model to the schema. The check stands behind it all the same: a
grammar can't hold everything that a type asks for, an answer may have been cut, and an engine may
have no grammars.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import jsonschema
import msgspec
import pydantic
import referencing
import referencing.exceptions
from jsonschema.protocols import Validator
from pydantic.json_schema import GenerateJsonSchema
from referencing.jsonschema import DRAFT202012, SchemaRegistry

from rlm_runtime.errors import InputError, SchemaMismatch

WHY_CHARACTERS = 300
"""What is wrong with an answer is said in so many: a model reads it too."""

SHOWN_ERRORS = 3

_FENCED = re.compile(r"```(?:json)?[^\S\n]*\n(.*?)\n?[^\S\n]*```", re.DOTALL)
_REMEDY = "Give a JSON schema (a dict), a dataclass, a pydantic model or a type such as list[str]."


@dataclass(frozen=True, slots=True, eq=False)
class AnswerType:
    """What an answer must be. Immutable; made by `of`, once for many answers.

    Attributes:
        schema: The JSON schema, as compact JSON: the same text for the same type.
    """

    schema: str
    _parse: Callable[[str], object]
    _plain: Callable[[object], object]

    @classmethod
    def of(cls, kind: object) -> AnswerType:
        """The answer type of a JSON schema, or of anything that pydantic has a schema for.

        Args:
            kind: A dict is a JSON schema; references in it stay inside it. Else a dataclass, a
                pydantic model, or a type: `int`, `list[str]`, `Literal["yes", "no"]`. Nothing is
                converted for it: "5" is no `int`.

        Raises:
            InputError: It is none of these, or no JSON value can be of it.
        """
        if isinstance(kind, AnswerType):
            return kind
        if isinstance(kind, str):
            # The name of a type would be evaluated, and that runs whatever stands in it.
            raise InputError("A text is no answer type.", _REMEDY)
        return cls(*(_of_schema(kind) if isinstance(kind, dict) else _of_type(kind)))

    @property
    def instruction(self) -> str:
        """What the model is told behind the question."""
        return f"Answer with one JSON value of this schema, and nothing else:\n{self.schema}"

    def parse(self, text: str) -> object:
        """The value that an answer holds, of the type asked for.

        White space around it, and a code fence, are no part of it.

        Returns:
            For a JSON schema what JSON has; else a value of the type.

        Raises:
            SchemaMismatch: It holds none; says why, in words that a model can act on.
        """
        text = text.strip()
        fenced = _FENCED.fullmatch(text)
        try:
            return self._parse(text if fenced is None else fenced[1])
        except pydantic.ValidationError as err:
            raise SchemaMismatch(text, 1, _cut(_told(err))) from err
        except _NotOfSchema as err:
            raise SchemaMismatch(text, 1, _cut(str(err))) from err
        except Exception as err:  # a validator of the type's own
            raise SchemaMismatch(text, 1, f"its check failed ({type(err).__name__})") from err

    def plain(self, value: object) -> object:
        """A value of the type as dicts, lists, texts and numbers, as it can be stored."""
        return self._plain(value)


class _NotOfSchema(ValueError):
    pass


class _Schema(GenerateJsonSchema):
    """Without titles of fields, which say their names again, and without warnings."""

    ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012 # as there

    def field_title_should_be_set(self, schema: object) -> bool:
        return False


def _of_type(kind: object) -> tuple[str, Callable[[str], object], Callable[[object], object]]:
    try:
        # Any: what can be a type is known to pydantic alone
        adapter: pydantic.TypeAdapter[object] = pydantic.TypeAdapter(cast(Any, kind))
        schema = adapter.json_schema(schema_generator=_Schema)
    except (
        pydantic.PydanticUserError,
        pydantic.errors.PydanticUndefinedAnnotation,
        TypeError,
    ) as err:
        why = str(err).partition("\n")[0]
        raise InputError(f"No answer can be of the type {kind!r}: {why}", _REMEDY) from err

    def parse(text: str) -> object:
        # Strict: what the schema does not allow is not converted into what it does.
        return adapter.validate_json(text, strict=True)

    def plain(value: object) -> object:
        return adapter.dump_python(value, mode="json")

    return _compact(schema), parse, plain


def _of_schema(
    kind: dict[str, object],
) -> tuple[str, Callable[[str], object], Callable[[object], object]]:
    try:
        text = _compact(kind)
        schema = json.loads(text)  # a copy: whoever gave it may change it
    except (TypeError, ValueError, RecursionError) as err:
        raise InputError(f"The JSON schema can't be JSON: {err}.", _REMEDY) from err
    validator = _validator(schema)

    def parse(text: str) -> object:
        try:
            value = msgspec.json.decode(text.encode())
            error = jsonschema.exceptions.best_match(validator.iter_errors(value))
        except (msgspec.DecodeError, UnicodeError) as err:
            raise _NotOfSchema(f"it is no JSON ({err})") from err
        except RecursionError as err:
            raise _NotOfSchema("it is nested too deeply") from err
        if error is not None:
            # The library's message repeats the answer, however long.
            rule = json.dumps(error.validator_value, ensure_ascii=False)
            raise _NotOfSchema(f"{_place(error.absolute_path)}it breaks {error.validator}: {rule}")
        return value

    return text, parse, lambda value: value


def _validator(schema: dict[str, object]) -> Validator:
    kind = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    # Its own registry would fetch schemas from the network.
    registry: SchemaRegistry = referencing.Registry()
    try:
        kind.check_schema(schema)
        resource = referencing.Resource.from_contents(schema, default_specification=DRAFT202012)
        resolver = registry.resolver_with_root(resource)
        for reference in _references(schema):
            resolver.lookup(reference)
    except jsonschema.SchemaError as err:
        place = _place(err.absolute_path)
        raise InputError(f"This is no JSON schema: {place}{_cut(err.message)}.", _REMEDY) from err
    except referencing.exceptions.Unresolvable as err:
        raise InputError(
            f"The JSON schema refers to {err.ref!r}, which is not in it.",
            'Put what it refers to under "$defs", and nothing outside.',
        ) from err
    validator: Validator = kind(schema, registry=registry)
    return validator


def _references(schema: object) -> Iterator[str]:
    if isinstance(schema, dict):
        reference = schema.get("$ref")
        if isinstance(reference, str):
            yield reference
        for value in schema.values():
            yield from _references(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _references(value)


def _told(err: pydantic.ValidationError) -> str:
    errors = err.errors(include_url=False, include_context=False, include_input=False)
    told = "; ".join(f"{_place(error['loc'])}{error['msg']}" for error in errors[:SHOWN_ERRORS])
    return told if len(errors) <= SHOWN_ERRORS else f"{told}; and more"


def _place(path: Iterable[str | int]) -> str:
    """Where in the answer: `rows[3].title: `; empty for the answer itself."""
    where = ""
    for step in path:
        where += f"[{step}]" if isinstance(step, int) else f".{step}"
    return f"{where.removeprefix('.')}: " if where else ""


def _cut(text: str) -> str:
    return text if len(text) <= WHY_CHARACTERS else f"{text[: WHY_CHARACTERS - 3]}..."


def _compact(schema: object) -> str:
    return json.dumps(schema, ensure_ascii=False, allow_nan=False, separators=(",", ":"))

"""The configuration's keys as dotted words, derived from the tree itself."""

from __future__ import annotations

import difflib
import json
import types
from collections.abc import Iterable
from functools import cache
from typing import Any, Literal, NamedTuple, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from rlm_runtime.config.model import Config

_BOUNDS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
_WORDS = {bool: "true or false", int: "whole number", float: "number", str: "text", dict: "mapping"}


class Key(NamedTuple):
    """One setting, as `rlm config --explain` shows it. Units are in the key's last word.

    Attributes:
        key: The dotted key, `engine.kv_cache_gib`.
        default: The default as it would stand in YAML.
        allowed: What the value may be, in words.
        description: What it means.
    """

    key: str
    default: str
    allowed: str
    description: str


@cache
def fields() -> dict[str, FieldInfo]:
    """All settings by dotted key, in the tree's order. Sections are not settings."""
    return dict(_walk(Config, ""))


@cache
def sections() -> frozenset[str]:
    """The dotted keys of all sections."""
    return frozenset(key[:end] for key in fields() for end, sign in enumerate(key) if sign == ".")


def explain() -> tuple[Key, ...]:
    """Every setting with default, range and meaning, in the tree's order."""
    return tuple(
        Key(
            key,
            json.dumps(to_jsonable_python(field.get_default(call_default_factory=True))),
            _allowed(field),
            field.description or "",
        )
        for key, field in fields().items()
    )


def allows(field: FieldInfo, kind: object) -> bool:
    """Whether the field's type is `kind`, or a union with it."""
    return kind in _alternatives(field.annotation)


def nearest(word: str, known: Iterable[str]) -> str:
    """The remedy for an unknown key: the known one that is spelt most like it."""
    (best,) = difflib.get_close_matches(word, known, n=1, cutoff=0.0)
    return f"The nearest is {best}; `rlm config --explain` lists all."


def _walk(model: type[BaseModel], prefix: str) -> list[tuple[str, FieldInfo]]:
    found: list[tuple[str, FieldInfo]] = []
    for name, field in model.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            found += _walk(annotation, f"{prefix}{name}.")
        else:
            found.append((prefix + name, field))
    return found


def _alternatives(annotation: Any) -> tuple[Any, ...]:  # Any: annotations have no common type
    if isinstance(annotation, types.UnionType):
        return get_args(annotation)
    return (get_origin(annotation) if get_origin(annotation) is dict else annotation,)


def _allowed(field: FieldInfo) -> str:
    words: list[str] = []
    for kind in _alternatives(field.annotation):
        if get_origin(kind) is Literal:
            words += [str(choice) for choice in get_args(kind)]
        elif kind is not types.NoneType:
            words.append(_WORDS.get(kind, getattr(kind, "__name__", str(kind)).lower()))
    bounds = [
        f"{sign} {getattr(rule, name):g}"
        for rule in field.metadata
        for name, sign in _BOUNDS.items()
        if hasattr(rule, name)
    ]
    text = ", ".join([" | ".join(words), *bounds])
    return f"{text}; or null" if allows(field, types.NoneType) else text

"""What a model wrote, as an action: everything that means one call is taken, nothing is run.

Parsed with `ast`, so it takes more than the grammar lets a model write: any literal, keyword
arguments, paths with or without quotes. What is nearly a call is refused with what is wrong with
it, in words that a small model can act on.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator

from rlm_runtime.errors import BadCall
from rlm_runtime.scaffold.calls.actions import (
    SIGNATURES,
    Action,
    Budget,
    Final,
    ListContext,
    Map,
    Path,
    Query,
    Read,
    SubAgent,
    Write,
)
from rlm_runtime.store.names import closest

MAX_CALL_CHARACTERS = 20_000
"""Bounds the work for what is no call; more than the turn's tokens can hold in most scripts."""

MAX_LITERAL_DEPTH = 32

_CONSTANTS = {"true": True, "false": False, "null": None}
"""JSON's words, which models write where Python has others."""

# A new name may be one of Python's own words: that is for the store to refuse, not for `ast`.
_BARE_NAME = re.compile(r"(WRITE\(\s*)([^\W\d]\w*)(\s*,)")
_CALL = re.compile(r"([^\W\d]\w*)\s*\(")
_WORD = re.compile(r"[^\W\d]\w*")
_PAIRS = {")": "(", "]": "[", "}": "{"}
_CLOSERS = {opener: closer for closer, opener in _PAIRS.items()}
_EXAMPLE = "Write one call and nothing around it, for example READ(report[0:2000])."


def parse_call(text: str) -> Action:
    """The action that a text is; white space around it is no part of it.

    Raises:
        BadCall: It is none; says what is wrong and what to write.
    """
    text = text.strip()
    if len(text) > MAX_CALL_CHARACTERS:
        raise BadCall(
            f"A call of {len(text):,} characters is too long.",
            "Write a shorter one; pass names, not contents.",
        )
    source = _BARE_NAME.sub(r'\1"\2"\3', text, count=1) if text.startswith("WRITE") else text
    call = _call(source)
    assert isinstance(call.func, ast.Name)  # noqa: S101 # for the type check: `_call` made sure
    function = call.func.id
    return _Arguments(function, call, source).action()


def _call(source: str) -> ast.Call:
    function = _function(source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "\d" in a text is the model's, not the user's
            node = ast.parse(source, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as err:
        raise _slip(source, function) from err
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        raise BadCall("This is more than one call.", _EXAMPLE)
    return node


def _function(source: str) -> str:
    """The function that a text begins with."""
    found = _CALL.match(source)
    if found is not None:
        name = found[1]
        if name in SIGNATURES:
            return name
        by_letters = {known.lower(): known for known in SIGNATURES}
        near = by_letters[closest(name.lower(), by_letters, 1)[0]]
        raise BadCall(f"There is no function {name[:40]!r}.", f"Nearest: {SIGNATURES[near].usage}.")
    word = _WORD.match(source)
    if word is not None and word[0] in SIGNATURES:
        raise BadCall(f"{word[0]} has no parentheses.", f"Write {SIGNATURES[word[0]].usage}.")
    if source.startswith("```"):
        raise BadCall("This is a block of code.", _EXAMPLE)
    raise BadCall("This is no call.", _EXAMPLE)


def _slip(source: str, function: str) -> BadCall:
    """What is wrong with a call that can't be parsed."""
    usage = f"Write it like {SIGNATURES[function].usage}."
    open_: list[str] = []
    quote = ""
    escaped = False
    for at, character in enumerate(source):
        if quote:
            if character == "\n":
                return BadCall(f"A text has no closing {quote} in its line.", usage)
            if character == quote and not escaped:
                quote = ""
            escaped = character == "\\" and not escaped
        elif character in "\"'":
            quote = character
        elif character in "([{":
            open_.append(character)
        elif character in ")]}":
            if not open_ or open_.pop() != _PAIRS[character]:
                return BadCall(f"A {character} closes nothing.", usage)
            if not open_ and source[at + 1 :].strip():
                return BadCall("Something stands behind the call.", _EXAMPLE)
    if quote:
        return BadCall(f"A text has no closing {quote}.", usage)
    if open_:
        return BadCall(f"A closing {_CLOSERS[open_[-1]]} is missing.", usage)
    return BadCall(f"The arguments of {function} can't be read.", usage)


class _Arguments:
    """A call's arguments, by the names of its parameters."""

    def __init__(self, function: str, call: ast.Call, source: str) -> None:
        self._function = function
        self._source = source
        self._signature = SIGNATURES[function]
        self._nodes = self._bound(call)

    def action(self) -> Action:
        """The call as an action."""
        match self._function:
            case "READ":
                return Read(self._path("path"))
            case "WRITE":
                return Write(self._name(self._nodes["name"]), self._value("value"))
            case "LIST_CONTEXT":
                return ListContext(self._page())
            case "QUERY":
                return Query(self._path("path"), self._text("question"))
            case "llm_query":
                has_data = self._given("data")
                return Query(self._path("data") if has_data else None, self._text("question"))
            case "llm_map":
                paths = tuple(map(self._path_of, self._items("chunks")))
                return Map(paths, tuple(map(self._text_of, self._items("questions"))))
            case "agent":
                return self._agent()
            case "BUDGET":
                return Budget()
            case _:
                return Final(self._value("result"))

    def _agent(self) -> SubAgent:
        names = None
        if self._given("context"):
            names = tuple(map(self._name, self._items("context")))
        start = self._text("start") if self._given("start") else "fresh"
        if start not in ("fresh", "fork"):
            raise self._wrong('start is "fresh" or "fork"')
        return SubAgent(self._text("task"), names, "fork" if start == "fork" else "fresh")

    def _bound(self, call: ast.Call) -> dict[str, ast.expr]:
        parameters = self._signature.parameters
        if len(call.args) > len(parameters):
            raise self._wrong(f"it has {len(call.args)} arguments, {len(parameters)} at most")
        nodes = dict(zip(parameters, call.args, strict=False))
        for keyword in call.keywords:
            if keyword.arg is None or keyword.arg not in parameters:
                raise self._wrong(f"it has no argument {keyword.arg or '**'!r}")
            if keyword.arg in nodes:
                raise self._wrong(f"{keyword.arg} is given twice")
            nodes[keyword.arg] = keyword.value
        for parameter in parameters[: self._signature.required]:
            if parameter not in nodes:
                raise self._wrong(f"{parameter} is missing")
        return nodes

    def _given(self, parameter: str) -> bool:
        node = self._nodes.get(parameter)
        return node is not None and not (isinstance(node, ast.Constant) and node.value is None)

    def _page(self) -> int:
        if not self._given("page"):
            return 1
        node = self._nodes["page"]
        if isinstance(node, ast.Constant) and type(node.value) is int and node.value >= 1:
            return node.value
        raise self._wrong("page is a number, 1 or above")

    def _text(self, parameter: str) -> str:
        return self._text_of(self._nodes[parameter])

    def _text_of(self, node: ast.expr) -> str:
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.strip():
            return node.value
        raise self._wrong('what is asked is a text in quotes, "..."')

    def _path(self, parameter: str) -> Path:
        return self._path_of(self._nodes[parameter])

    def _path_of(self, node: ast.expr) -> Path:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return Path(node.value)
        if _is_path(node):
            return Path(ast.get_source_segment(self._source, node) or "")
        raise self._wrong("a path is a value's name or a part of it, as report[0:2000]")

    def _name(self, node: ast.expr) -> str:
        if isinstance(node, ast.Name):
            return node.id
        path = self._path_of(node).text
        return path.removeprefix("context.")

    def _items(self, parameter: str) -> Iterator[ast.expr]:
        node = self._nodes[parameter]
        return iter(node.elts if isinstance(node, ast.List | ast.Tuple | ast.Set) else [node])

    def _value(self, parameter: str) -> object:
        node = self._nodes[parameter]
        if _is_path(node) and not (isinstance(node, ast.Name) and node.id in _CONSTANTS):
            return self._path_of(node)
        return self._literal(node)

    def _literal(self, node: ast.expr, depth: int = 0) -> object:
        if depth > MAX_LITERAL_DEPTH:
            raise self._wrong("the value is nested too deeply")
        match node:
            case ast.Constant(value=value) if value is not Ellipsis:
                return value
            case ast.Name(id=name) if name in _CONSTANTS:
                return _CONSTANTS[name]
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
                return -number
            case ast.List(elts=items) | ast.Tuple(elts=items) | ast.Set(elts=items):
                return [self._literal(item, depth + 1) for item in items]
            case ast.Dict(keys=keys, values=values) if all(keys):
                pairs = zip(keys, values, strict=True)
                return {self._key(key): self._literal(value, depth + 1) for key, value in pairs}
        raise self._wrong("a value is a text, a number, a list or a dict, written out")

    def _key(self, node: ast.expr | None) -> str | int:
        if isinstance(node, ast.Constant) and isinstance(node.value, str | int):
            return node.value
        raise self._wrong("a key is a text or a number")

    def _wrong(self, why: str) -> BadCall:
        return BadCall(
            f"{self._function} can't be called so: {why}.", f"Write {self._signature.usage}."
        )


def _is_path(node: ast.expr) -> bool:
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    return isinstance(node, ast.Name)

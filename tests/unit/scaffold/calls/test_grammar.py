"""What the grammar lets a model write, the parser takes for what it means.

The grammar has no recursion, so it is a regular expression: it is turned into one here, to make
texts of it and to see whether it has a text.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_runtime.scaffold.calls.actions import (
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
    function_name,
)
from rlm_runtime.scaffold.calls.grammar import GRAMMAR_FUNCTIONS, call_grammar
from rlm_runtime.scaffold.calls.parser import parse_call
from rlm_runtime.store.paths import parse_path
from rlm_runtime.types import ValueKind

NAMES: dict[str, ValueKind] = {
    "report": "str",
    "raw": "bytes",
    "rows": "mp",
    "tabelle_ä": "npy",
    "If": "mp",
}
TEXTS = ("report", "raw")
GRAMMAR = call_grammar(GRAMMAR_FUNCTIONS, NAMES, pages=120, max_string_characters=200)

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|\[(?:[^\]\\]|\\.)*\]|\{\d+,\d+\}|\w+|[|()?]')


def regex_of(grammar: str) -> re.Pattern[str]:
    """The grammar as a regular expression."""
    rules = dict(line.split(" ::= ") for line in grammar.splitlines())

    def piece(token: str) -> str:
        if token[0] == '"':
            return f"(?:{re.escape(token[1:-1].replace(chr(92) + chr(34), chr(34)))})"
        if token[0] in "[{|()?":
            return token.replace("(", "(?:")
        return f"(?:{expanded(token)})"

    def expanded(rule: str) -> str:
        assert not _TOKEN.sub("", rules[rule]).strip(), "a piece of the grammar is not known here"
        return "".join(map(piece, _TOKEN.findall(rules[rule])))

    return re.compile(expanded("root"))


PATTERN = regex_of(GRAMMAR)


class Written(NamedTuple):
    """A part of a call, and what it means."""

    text: str
    means: object


def _words(most: int) -> st.SearchStrategy[str]:
    character = st.characters(codec="utf-8", exclude_characters=' "\\<\x7f', min_codepoint=32)
    word = st.text(character, min_size=1, max_size=24) | st.sampled_from(("<", "<="))
    return st.lists(word, min_size=1, max_size=most).map(" ".join)


_number = st.integers(-999_999_999, 999_999_999)
_texts = _words(33).map(lambda text: Written(f'"{text}"', text))
_slices = st.one_of(
    st.tuples(_number, st.none() | _number).map(
        lambda ends: f"[{ends[0]}:{'' if ends[1] is None else ends[1]}]"
    ),
    _number.map(lambda end: f"[:{end}]"),
)
_steps = _slices | _number.map(lambda i: f"[{i}]") | _words(4).map(lambda key: f'["{key}"]')


@st.composite
def _paths(draw: st.DrawFn) -> Written:
    name = draw(st.sampled_from(sorted(NAMES)))
    most = 1 if name in TEXTS else 4
    steps = draw(st.lists(_slices if name in TEXTS else _steps, max_size=most))
    text = name + "".join(steps)
    return Written(text, Path(text))


_numbers = _number.map(lambda n: Written(str(n), n)) | st.tuples(
    _number, st.from_regex("[0-9]{1,6}", fullmatch=True)
).map(lambda parts: Written(f"{parts[0]}.{parts[1]}", float(f"{parts[0]}.{parts[1]}")))
_results = _paths() | _texts | _numbers
_new_names = st.from_regex("[a-z][a-z0-9_]{0,23}", fullmatch=True) | st.sampled_from(
    ("if", "lambda", "none", "true", "agent", "report", "tabelle_ä")
)


@st.composite
def _calls(draw: st.DrawFn) -> Written:
    """A call as the grammar has it, made by hand: the oracle of its meaning."""
    function = draw(st.sampled_from(sorted(GRAMMAR_FUNCTIONS)))
    if function == "READ":
        path = draw(_paths())
        return Written(f"READ({path.text})", Read(Path(path.text)))
    if function == "WRITE":
        name, value = draw(_new_names), draw(_results)
        return Written(f"WRITE({name}, {value.text})", Write(name, value.means))
    if function == "LIST_CONTEXT":
        page = draw(st.none() | st.integers(1, 120))
        return Written(f"LIST_CONTEXT({page or ''})", ListContext(page or 1))
    if function == "QUERY":
        path, question = draw(_paths()), draw(_words(33))
        return Written(f'QUERY({path.text}, "{question}")', Query(Path(path.text), question))
    if function == "llm_map":
        path = draw(_paths())
        questions = draw(st.lists(_words(33), min_size=1, max_size=4))
        listed = ", ".join(f'"{question}"' for question in questions)
        return Written(
            f"llm_map({path.text}, [{listed}])", Map((Path(path.text),), tuple(questions))
        )
    if function == "agent":
        task = draw(_words(33))
        names = draw(st.lists(st.sampled_from(sorted(NAMES)), min_size=1, max_size=8))
        is_fork = draw(st.booleans())
        start = ', start="fork"' if is_fork else ""
        return Written(
            f'agent("{task}", context=[{", ".join(names)}]{start})',
            SubAgent(task, tuple(names), "fork" if is_fork else "fresh"),
        )
    if function == "BUDGET":
        return Written("BUDGET()", Budget())
    result = draw(_results)
    return Written(f"FINAL({result.text})", Final(result.means))


@given(_calls())
def test_a_call_of_the_grammar_means_what_it_says(call: Written) -> None:
    assert PATTERN.fullmatch(call.text), call.text
    assert parse_call(call.text) == call.means


def _paths_in(action: Action) -> list[Path]:
    match action:
        case Read(path) | Write(_, Path() as path) | Final(Path() as path):
            return [path]
        case Query(Path() as path, _):
            return [path]
        case Map(paths, _):
            return list(paths)
    return []


@given(st.from_regex(PATTERN, fullmatch=True))
def test_whatever_the_grammar_has_is_a_call_of_names_that_exist(text: str) -> None:
    action = parse_call(text)
    assert text.startswith(f"{function_name(action)}(")
    assert "\n" not in text
    assert "<|" not in text
    for path in _paths_in(action):
        assert parse_path(path.text).name in NAMES
    if isinstance(action, SubAgent):
        assert set(action.names or ()) <= NAMES.keys()


@pytest.mark.parametrize(
    "text",
    [
        "READ(other)",
        "READ(report)\n",
        "READ(report[0])",
        "READ(report[0:1][0:1])",
        "READ(report['key'])",
        "READ(rows[007])",
        'FINAL("")',
        'FINAL("a\nb")',
        'FINAL("say \\"no\\"")',
        'FINAL("<|im_end|>")',
        'FINAL("</s>")',
        'WRITE(Upper, "x")',
        'QUERY(report, "' + "word " * 34 + '")',
        'QUERY(report, "' + "w" * 25 + '")',
        'agent("task")',
        "DELETE(report)",
        "LIST_CONTEXT(0)",
        "LIST_CONTEXT(121)",
        " READ(report)",
    ],
)
def test_the_grammar_has_nothing_else(text: str) -> None:
    assert not PATTERN.fullmatch(text)


def test_without_values_only_what_needs_none_is_offered() -> None:
    pattern = regex_of(call_grammar(GRAMMAR_FUNCTIONS, {}, pages=1, max_string_characters=200))
    for text in ('WRITE(note, "x")', 'agent("task")', 'FINAL("x")', "LIST_CONTEXT()", "BUDGET()"):
        assert pattern.fullmatch(text)
        parse_call(text)
    for text in ("READ(report)", 'QUERY(report, "x")', "FINAL(report)"):
        assert not pattern.fullmatch(text)


def test_only_functions_that_are_offered_can_be_called() -> None:
    pattern = regex_of(call_grammar(["READ", "FINAL"], NAMES, pages=1, max_string_characters=16))
    assert pattern.fullmatch("FINAL(rows[3])")
    assert not pattern.fullmatch("BUDGET()")
    assert pattern.fullmatch('FINAL("two words")')
    assert not pattern.fullmatch('FINAL("no three words")')


def test_equal_arguments_make_equal_grammars() -> None:
    backwards = dict(reversed(NAMES.items()))
    functions = sorted(GRAMMAR_FUNCTIONS, reverse=True)
    assert call_grammar(functions, backwards, pages=120, max_string_characters=200) == GRAMMAR

"""What models write as calls: what is taken, and what is said of the rest."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_runtime.errors import BadCall
from rlm_runtime.scaffold.calls.actions import (
    SIGNATURES,
    Action,
    Final,
    ListContext,
    Map,
    Path,
    Query,
    Read,
    SubAgent,
    Write,
)
from rlm_runtime.scaffold.calls.parser import MAX_CALL_CHARACTERS, parse_call


@pytest.mark.parametrize(
    ("text", "action"),
    [
        ('READ("report")', Read(Path("report"))),
        ("  READ(report[0:2000])\n", Read(Path("report[0:2000]"))),
        ("READ(context.analysis['summary'])", Read(Path("context.analysis['summary']"))),
        ("READ(\"analysis['summary'][0:3]\")", Read(Path("analysis['summary'][0:3]"))),
        ("READ(path=analysis.summary)", Read(Path("analysis.summary"))),
        ("READ(maße['größe'][-1])", Read(Path("maße['größe'][-1]"))),
        ("WRITE(notice, 'Three months')", Write("notice", "Three months")),
        ('WRITE("notice", "x")', Write("notice", "x")),
        ('WRITE( lambda , "x")', Write("lambda", "x")),
        ("WRITE(value=3, name=total)", Write("total", 3)),
        ("WRITE(copy, report[0:9])", Write("copy", Path("report[0:9]"))),
        ('WRITE(a, "two\\nlines \\"quoted\\"")', Write("a", 'two\nlines "quoted"')),
        (
            'WRITE(a, {"k": [1, -2.5, (true, null)], 3: b"x"})',
            Write("a", {"k": [1, -2.5, [True, None]], 3: b"x"}),
        ),
        ("LIST_CONTEXT(3)", ListContext(3)),
        ("LIST_CONTEXT(page=None)", ListContext(1)),
        ('QUERY(question="Who?", path="report")', Query(Path("report"), "Who?")),
        ('llm_query("Who?", data=report)', Query(Path("report"), "Who?")),
        ('llm_query("Who?")', Query(None, "Who?")),
        ('llm_map([a, b[1]], "Who?")', Map((Path("a"), Path("b[1]")), ("Who?",))),
        ('agent("Do it.")', SubAgent("Do it.")),
        ('agent("Do it.", context="report")', SubAgent("Do it.", ("report",))),
        ('agent("Do it.", [a, context.b], "fork")', SubAgent("Do it.", ("a", "b"), "fork")),
        ("FINAL(None)", Final(None)),
        ("FINAL(-3)", Final(-3)),
    ],
)
def test_people_write_calls_in_many_ways(text: str, action: Action) -> None:
    assert parse_call(text) == action


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no call"),
        ("I will read it.", "READ(report[0:2000])"),
        ("```repl\nREAD(x)\n```", "block of code"),
        ("x = READ(a)", "no call"),
        ("READ", "READ has no parentheses"),
        ("read(x)", "Nearest: READ("),
        ("LIST(x)", "Nearest: LIST_CONTEXT()"),
        ("llm_batch([])", "no function 'llm_batch'"),
        ("READ(x", "closing ) is missing"),
        ("READ(x['a']", "closing ) is missing"),
        ("READ(x[0:3)", ") closes nothing"),
        ("READ(x[3", "closing ] is missing"),
        ("READ('x)", "no closing '"),
        ('WRITE(a, "two\nlines")', 'no closing " in its line'),
        ("READ(x)\nREAD(y)", "behind the call"),
        ("READ(x) is what I do", "one call"),
        ("READ(x) + READ(y)", "one call"),
        ("READ(x).y", "one call"),
        ("READ(READ(x))", "a path is"),
        ("READ()", "path is missing"),
        ("READ(x, y)", "2 arguments, 1 at most"),
        ("READ(p=x)", "no argument 'p'"),
        ("READ(x, path=y)", "path is given twice"),
        ("READ(**x)", "no argument"),
        ("READ(3)", "a path is"),
        ("QUERY(x, y)", "text in quotes"),
        ('QUERY(x, " ")', "text in quotes"),
        ("LIST_CONTEXT(0)", "1 or above"),
        ("LIST_CONTEXT(True)", "1 or above"),
        ('agent("x", start="new")', '"fresh" or "fork"'),
        ('FINAL(f"{x}")', "written out"),
        ("FINAL(1 + 2)", "written out"),
        ("FINAL(...)", "written out"),
        ("FINAL({**x})", "written out"),
        ("FINAL({1.5: 2})", "a key is"),
        (f"FINAL({'[' * 60}{']' * 60})", "nested too deeply"),
        (f"FINAL({'[' * 3000}{']' * 3000})", "can't be read"),
        (f"FINAL({'-' * 9000}1)", "can't be read"),
        (f"FINAL({'9' * 6000})", "can't be read"),
        ("FINAL(007)", "can't be read"),
        ('FINAL("a\0b")', "can't be read"),
        ("R" * (MAX_CALL_CHARACTERS + 1), "too long"),
    ],
)
def test_what_is_nearly_a_call_is_told_what_is_wrong(text: str, said: str) -> None:
    with pytest.raises(BadCall) as caught:
        parse_call(text)
    assert said in str(caught.value)
    assert len(str(caught.value)) < 250


_PARTS = [*SIGNATURES, "report", "'", '"', "(", ")", "[", "]", ":", ",", " ", "\n", "3", "-", "{"]


@given(st.text() | st.lists(st.sampled_from(_PARTS), max_size=20).map("".join))
def test_any_text_is_a_call_or_a_bad_one(text: str) -> None:
    try:
        action = parse_call(text)
    except BadCall:
        return
    assert isinstance(action, get_args(Action))

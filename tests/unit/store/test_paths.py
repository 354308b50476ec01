from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rlm_runtime.errors import BadPath
from rlm_runtime.store import ValuePath, follow, parse_path
from rlm_runtime.store.paths import MAX_PATH_CHARACTERS, Step

ends = st.none() | st.integers()
steps = st.text(max_size=20) | st.integers() | st.builds(slice, ends, ends)
names = st.from_regex(r"[a-zé_][a-z0-9_é]{0,10}", fullmatch=True).filter(lambda n: n != "context")
paths = st.builds(ValuePath, names, st.lists(steps, max_size=6).map(tuple))


def refusal(text: str) -> str:
    with pytest.raises(BadPath) as caught:
        parse_path(text)
    return str(caught.value)


@given(paths)
@example(ValuePath("a", ('it\'s "quoted" \\ and\nbroken\t\r\0\x85\u2028\ud800\U0010ffff',)))
@example(ValuePath("a", (slice(None, None), slice(-3, None), -1)))
def test_a_path_parses_to_itself(path: ValuePath) -> None:
    assert parse_path(str(path)) == path
    assert parse_path(f" context . {path} ") == path


@given(st.text() | st.text("abc.[]:'\"\\-0123 ", max_size=30))
@example("a['\\U00110000']")
@example("[" * 1000)
@example("a" + "[0]" * 600)
@example("a['" + "\U000e0001" * 500 + "']")
def test_any_text_is_a_path_or_an_error(text: str) -> None:
    try:
        path = parse_path(text)
    except BadPath:
        return
    assert parse_path(str(path)) == path


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [
        ("report", "report", ()),
        ("report[0:2000]", "report", (slice(0, 2000),)),
        ("context.analysis['summary'][0:3]", "analysis", ("summary", slice(0, 3))),
        ('analysis["summary"]', "analysis", ("summary",)),
        ("analysis.summary", "analysis", ("summary",)),
        ("context['analysis'].summary[-1]", "analysis", ("summary", -1)),
        ("rows[3]['title']", "rows", (3, "title")),
        ("  rows [ 3 ] [ 'a b' ] ", "rows", (3, "a b")),
        ("a[:]", "a", (slice(None, None),)),
        ("a[-5:]", "a", (slice(-5, None),)),
        ("a[ : -5 ]", "a", (slice(None, -5),)),
        (r"a['it\'s \x41\u00e9\n']", "a", ("it's Aé\n",)),
        ("a['']", "a", ("",)),
        ("ﬁle", "file", ()),  # as Python reads identifiers
    ],
)
def test_paths_as_people_write_them(text: str, name: str, expected: tuple[Step, ...]) -> None:
    assert parse_path(text) == ValuePath(name, expected)


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("", "the name of a value is missing at character 0"),
        ("3rd", "the name of a value is missing at character 0"),
        ("'report'", "the name of a value is missing at character 0"),
        ("a b", "'b' at character 2 can't stand there"),
        ("READ(a)", "'(' at character 4 can't stand there"),
        ("a[b]", "a quoted key, an index or a slice is missing at character 2"),
        ("a[]", "a quoted key, an index or a slice is missing at character 2"),
        ("a[1+1]", "']' is missing at character 3"),
        ("a[1", "']' is missing at character 3"),
        ("a['x'", "']' is missing at character 5"),
        ("a['x]", "the ' at character 2 has no end"),
        ('a["x]', 'the " at character 2 has no end'),
        ("a['x\ny']", "the ' at character 2 has no end"),
        ("a[1:2:3]", "no step"),
        ("a[1.5]", "']' is missing at character 3"),
        ("a.", "a name behind the dot is missing at character 2"),
        ("a.1", "a name behind the dot is missing at character 2"),
        ("context", "the name of one is missing"),
        ("context[0]", "the name of one is missing"),
        (r"a['\d']", "is no escape that a key can have"),
        ("a" * (MAX_PATH_CHARACTERS + 1), "too long"),
        ("a['" + "\U000e0001" * 500 + "']", "too long"),
    ],
)
def test_what_is_no_path_is_refused_with_what_is_wrong(text: str, fact: str) -> None:
    message = refusal(text)
    assert fact in message
    assert "Write it as report, report[0:2000]" in message


VALUE = {
    "summary": "Änderung",
    "rows": [{"title": "one"}, {"title": "two"}],
    7: b"seven",
    "ratio": 0.5,
    "none": None,
    "yes": True,
    "empty": [],
    "nothing": {},
    "array": np.arange(6).reshape(2, 3),
}


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("v.summary[1:4]", "nde"),
        ("v['summary'][-3:]", "ung"),
        ("v.summary[0]", "Ä"),
        ("v.summary[5:2]", ""),
        ("v.summary[100:]", ""),
        ("v.rows[-1].title", "two"),
        ("v.rows[1:]", [{"title": "two"}]),
        ("v[7][1:3]", b"ev"),
        ("v[7][0]", ord("s")),
        ("v.ratio", 0.5),
        ("v.array[1][0:2]", [3, 4]),
        ("v.array[1][-1]", 5),
    ],
)
def test_a_path_leads_to_the_part(text: str, part: object) -> None:
    found = follow(VALUE, parse_path(text))
    if isinstance(found, np.ndarray):
        found = found.tolist()
    assert found == part
    assert type(found) is type(part)


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("v.summry", ["v['summry']", "no key 'summry'", "Nearest: 'summary'"]),
        ("v[8]", ["no key 8", "Use a key, as 'summary', 'rows', 7"]),
        ("v[0:2]", ["a dict has no slices", "as 'summary'"]),
        ("v.nothing.x", ["the dict is empty"]),
        ("v.nothing[:]", ["a dict has no slices"]),
        ("v.rows[2].title", ["v['rows'][2]\"", "no index 2", "0 to 1"]),
        ("v.rows[-3]", ["no index -3"]),
        ("v.rows.title", ["a list can't have keys", "0 to 1"]),
        ("v.empty[0]", ["no index 0", "It is empty"]),
        ("v.summary.x", ["a text can't have keys", "0 to 7"]),
        ("v.summary[8]", ["no index 8", "0 to 7"]),
        ("v[7].x", ["bytes can't have keys"]),
        ("v.ratio[0]", ["a number can't have parts"]),
        ("v.none.x", ["None can't have parts"]),
        ("v.yes[0:1]", ["a boolean can't have parts"]),
        ("v.array[2]", ["no index 2", "0 to 1"]),
        ("v.array.x", ["an array can't have keys"]),
    ],
)
def test_a_path_to_nothing_says_what_is_there(text: str, facts: list[str]) -> None:
    with pytest.raises(BadPath) as caught:
        follow(VALUE, parse_path(text))
    assert [fact for fact in facts if fact not in str(caught.value)] == []


def test_an_array_without_dimensions_has_no_parts() -> None:
    with pytest.raises(BadPath, match="an array can't have parts"):
        follow(np.array(3), parse_path("a[0]"))


@given(
    st.recursive(
        st.text(max_size=5) | st.integers() | st.none(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    ),
    st.lists(steps | st.integers(-3, 3) | st.builds(slice, st.integers(-3, 3)), max_size=4),
)
def test_following_is_indexing(value: object, way: list[Step]) -> None:
    path = ValuePath("v", tuple(way))
    expected = value
    try:
        for step in way:
            if isinstance(step, str) and not isinstance(expected, dict):
                raise KeyError(step)
            if not isinstance(step, str) and isinstance(expected, dict):
                raise KeyError(step)
            expected = expected[step]  # type: ignore[index]  # what can't be indexed is caught
    except (KeyError, IndexError, TypeError):
        with pytest.raises(BadPath):
            follow(value, path)
        return
    assert json.dumps(follow(value, path)) == json.dumps(expected)

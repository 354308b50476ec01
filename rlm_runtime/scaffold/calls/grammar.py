"""The grammar of one turn: the calls that can be made now, of the names that are known now.

A model under it writes a call that `parse_call` takes, whatever its size. It holds nothing that a
value says, and every part of it is bounded, so that a model that repeats itself comes to an end.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from rlm_runtime.types import ValueKind

CHARACTERS_A_WORD = 6
"""Of English, the space behind it included: how a bound in characters is counted in words."""

MAX_WORD_CHARACTERS = 24
"""Texts are bounded by their words: a count of characters costs xgrammar 0.2.8 seconds to compile
(4 s for 200 of them, against 0.1 s for 33 words of 24) or as long for every token."""

MAX_PAGES = 1_000
"""Of names. The parser has no such bound, and neither has `LIST_CONTEXT`."""

MAX_QUESTIONS = 4
MAX_NAMES = 8
MAX_STEPS = 4
"""Of one `llm_map`, of one `agent`, of one path. The parser has no such bounds."""

# No control characters, no quote or backslash to escape, and no "<", which begins the control
# tokens of most models: xgrammar knows those by their text.
_WORD = r'[^ "\\<\x00-\x1f\x7f]'

_CALLS = {
    "READ": '"READ(" path ")"',
    "WRITE": '"WRITE(" (name | new_name) ", " result ")"',
    "LIST_CONTEXT": '"LIST_CONTEXT(" page? ")"',
    "QUERY": '"QUERY(" path ", " text ")"',
    "llm_map": f'"llm_map(" path ", [" text (", " text){{0,{MAX_QUESTIONS - 1}}} "])"',
    "agent": f'"agent(" text ", context=[" name (", " name){{0,{MAX_NAMES - 1}}} "]" '
    '(", start=\\"fork\\"")? ")"',
    "BUDGET": '"BUDGET()"',
    "FINAL": '"FINAL(" result ")"',
}
_WITHOUT_NAMES = {"WRITE": '"WRITE(" new_name ", " result ")"', "agent": '"agent(" text ")"'}
_NEED_A_NAME = frozenset(("READ", "QUERY", "llm_map"))

GRAMMAR_FUNCTIONS = frozenset(_CALLS)
"""The functions a grammar can offer."""


def call_grammar(
    functions: Collection[str],
    names: Mapping[str, ValueKind],
    *,
    pages: int,
    max_string_characters: int,
) -> str:
    """The grammar of one call, in xgrammar's EBNF; the same for equal arguments.

    Args:
        functions: Which can be called; of `GRAMMAR_FUNCTIONS`.
        names: The values that can be named. Texts and bytes have slices only, others any step.
            None leaves out what needs a value. 1,000 cost a tenth of a second.
        pages: Of names; LIST_CONTEXT can show each.
        max_string_characters: About the longest text in a call: as many words of English.
    """
    calls = _CALLS if names else {**_CALLS, **_WITHOUT_NAMES}
    offered = [f for f in sorted(functions) if names or f not in _NEED_A_NAME]
    words = max(1, max_string_characters // CHARACTERS_A_WORD)
    rules = [
        f"root ::= {' | '.join(calls[function] for function in offered)}",
        f"result ::= {'path | ' if names else ''}text | number",
        *_paths(names),
        f"page ::= {_any_of(map(str, range(1, min(pages, MAX_PAGES) + 1)))}",
        "new_name ::= [a-z] [a-z0-9_]{0,23}",
        f'text ::= "\\"" word (" " word){{0,{words - 1}}} "\\""',
        f'word ::= {_WORD}{{1,{MAX_WORD_CHARACTERS}}} | "<" "="?',
        'int ::= "-"? ("0" | [1-9] [0-9]{0,8})',
        'number ::= int ("." [0-9]{1,6})?',
    ]
    return "\n".join(rules)


def _paths(names: Mapping[str, ValueKind]) -> list[str]:
    """Rules for the paths to values of these kinds, and to their parts."""
    if not names:
        return []
    flat = sorted(name for name, kind in names.items() if kind in ("str", "bytes"))
    deep = sorted(names.keys() - set(flat))
    forms = {"flat": "flat slice?", "deep": f"deep step{{0,{MAX_STEPS}}}"}
    groups = {"flat": flat, "deep": deep}
    used = [group for group, members in groups.items() if members]
    rules = [
        f"path ::= {' | '.join(forms[group] for group in used)}",
        f"name ::= {' | '.join(used)}",
        *(f"{group} ::= {_any_of(groups[group])}" for group in used),
        'slice ::= "[" int ":" int? "]" | "[:" int "]"',
    ]
    if deep:
        rules.append('step ::= "[" int "]" | slice | "[\\"" word (" " word){0,3} "\\"]"')
    return rules


def _any_of(words: Iterable[str]) -> str:
    # Names and numbers: nothing in them needs an escape.
    return " | ".join(f'"{word}"' for word in words)

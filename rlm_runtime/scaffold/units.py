"""A text as quotable units: sentences of prose, groups of lines of code and tables.

Each unit knows the line that says what it is about (its heading, or the signature it is a
description of), since a sentence alone often does not: "Return True if it is empty." Units are
spans of the text, so a quotation is always verbatim. Works on one chunk at a time; cost is linear.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

MAX_UNIT_CHARS = 700
"""A longer sentence is split at white space: about 150 tokens of English."""

TABLE_LINES = 6
"""Lines of code or of a table that stand together as one unit."""

MAX_HEADING_CHARS = 120

_BLANK = re.compile(r"\n[ \t\r\f\v]*\n")
_SENTENCE_END = re.compile(
    r"""[.!?…]["'”’)\]*`]*                                  # Latin: a space must follow, then a
        (?=\s+(?:["'“‘(\[*`]+[^\W_]|[^\W_a-zà-ÿ]))           # capital, a digit, a quotation
       |[。！？]["'”’」』）]*                                # CJK: no space needed
    """,
    re.VERBOSE,
)
_NO_SENTENCE_END = re.compile(
    r"(?:\b(?:[A-Z]|e\.g|i\.e|cf|vs|etc|Mr|Mrs|Ms|Dr|St|No|Fig|al)|(?:^|\n)\s*\d{1,3})\.$"
)
_LOOK_BACK_CHARS = 40
"""So far behind a stop is looked for what makes it none; an item's number may be indented."""
_WORD = re.compile(r"[^\W_]+")
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
MIN_UNIT_WORDS = 3
"""Shorter pieces ("Note:", "1.") say nothing alone; they may still be headings."""
_UNDERLINE = re.compile(r"([=\-~^*#+\"'`:._])\1{2,}\s*$")
# Its indentation ends with the line: else a text of odd blank lines (U+3000, U+0085) is matched to
# its end from each of them.
_BULLET = re.compile(r"[^\S\n]*(?:[-*+•]|\d{1,3}[.)])\s+")
_CODE_LINE = re.compile(
    r"""^\s*(?:>>>|\.\.\.|[|+][-=|+ ]|[{}\[\]();]+\s*$)   # prompts, table borders, lone brackets
        |[;{}]\s*$|::=|\t|\|.*\|                         # statements, grammars, columns
        |^[^,\n]*(?:,[^, \n][^,\n]*){2,}$                # comma-separated values
    """,
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Unit:
    """A quotable piece of a text, in characters of that text.

    Attributes:
        start: First character.
        end: Behind the last one.
        heading: The line that says what the unit is about, `(start, end)`; `None` without.
    """

    start: int
    end: int
    heading: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class _Line:
    start: int
    end: int
    indent: int
    is_title: bool


def units(text: str, start: int = 0) -> tuple[Unit, ...]:
    """The units of a text, in order, without overlap; white space between them is left out.

    Args:
        text: Any text.
        start: Where the units begin. What stands in front gives headings only, and of a unit that
            stands across it the part behind is left.
    """
    found: list[Unit] = []
    headings: list[_Line] = []
    for block_start, block_end in _blocks(text):
        lines = _lines(text, block_start, block_end)
        title = _title(text, lines)
        if title is not None:
            headings = [title]
            continue
        indent = lines[0].indent
        headings = [h for h in headings if h.is_title or h.indent < indent]
        heading = (headings[-1].start, headings[-1].end) if headings else None
        if block_end > start:
            block = _block_units(text, block_start, block_end, lines, heading)
            behind = (_behind(text, unit, start) for unit in block if unit.end > start)
            found.extend(unit for unit in behind if _says(text, unit))
        if lines[-1].end - lines[-1].start <= MAX_HEADING_CHARS and not _ends_prose(
            text, lines[-1]
        ):
            headings.append(lines[-1])
    return tuple(found)


def across(text: str, border: int) -> tuple[int, int]:
    """Where the unit that stands across a border between chunks begins and ends.

    Args:
        text: What is around the border, at least `MAX_UNIT_CHARS` on both sides.
        border: A position in it.

    Returns:
        Twice the border where no unit stands across it.
    """
    found = ((u.start, u.end) for u in units(text) if u.start < border < u.end)
    return next(found, (border, border))


def _behind(text: str, unit: Unit, start: int) -> Unit:
    if unit.start >= start:
        return unit
    while text[start].isspace():
        start += 1
    return Unit(start, unit.end, unit.heading)


def _says(text: str, unit: Unit) -> bool:
    words = _WORD.findall(text, unit.start, unit.end)
    return len(words) >= MIN_UNIT_WORDS or _CJK.search(text, unit.start, unit.end) is not None


def _blocks(text: str) -> Iterator[tuple[int, int]]:
    """Paragraphs; a list item begins one too."""
    position = 0
    for gap in [*_BLANK.finditer(text), None]:
        end = len(text) if gap is None else gap.start()
        yield from _items(text, position, end)
        position = len(text) if gap is None else gap.end()


def _items(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    begin = start
    position = start
    while position < end:
        if position > begin and _BULLET.match(text, position, end):
            yield from _trimmed(text, begin, position)
            begin = position
        newline = text.find("\n", position, end)
        position = end if newline < 0 else newline + 1
    yield from _trimmed(text, begin, end)


def _trimmed(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The block without the blank lines around it; its first line keeps its indentation."""
    while end > start and text[end - 1].isspace():
        end -= 1
    first = start
    while first < end and text[first].isspace():
        if text[first] == "\n":
            start = first + 1
        first += 1
    if first < end:
        yield start, end


def _lines(text: str, start: int, end: int) -> list[_Line]:
    lines = []
    for match in re.compile(r"[^\n]+").finditer(text, start, end):
        content = match.group().rstrip()
        if not content:
            continue
        indent = len(content) - len(content.lstrip())
        lines.append(_Line(match.start() + indent, match.start() + len(content), indent, False))
    return lines


def _title(text: str, lines: list[_Line]) -> _Line | None:
    """The block as a heading: `# Words`, or a short line that is underlined."""
    first = lines[0]
    words = text[first.start : first.end]
    if len(words) > MAX_HEADING_CHARS:
        return None
    if len(lines) == 1 and re.match(r"#{1,6} \S", words):
        return _Line(first.start, first.end, first.indent, True)
    if len(lines) == 2 and _UNDERLINE.match(text[lines[1].start : lines[1].end]):
        return _Line(first.start, first.end, first.indent, True)
    return None


def _block_units(
    text: str, start: int, end: int, lines: list[_Line], heading: tuple[int, int] | None
) -> Iterator[Unit]:
    own_heading = heading
    if _is_signature(text, lines):
        # "name(arguments)" above its indented description, without a blank line between.
        own_heading = (lines[0].start, lines[0].end)
        yield Unit(lines[0].start, lines[0].end, heading)
        lines = lines[1:]
        start = lines[0].start
    if _is_table(text, lines):
        for i in range(0, len(lines), TABLE_LINES):
            group = lines[i : i + TABLE_LINES]
            yield from _bounded(text, group[0].start, group[-1].end, own_heading)
        return
    position = lines[0].start
    for match in _SENTENCE_END.finditer(text, start, end):
        seen_from = max(position, match.end() - _LOOK_BACK_CHARS)
        if match.end() <= position or _NO_SENTENCE_END.search(text, seen_from, match.end()):
            continue
        yield from _bounded(text, position, match.end(), own_heading)
        position = match.end()
        while position < end and text[position].isspace():
            position += 1
    if position < end:
        yield from _bounded(text, position, end, own_heading)


def _bounded(text: str, start: int, end: int, heading: tuple[int, int] | None) -> Iterator[Unit]:
    while end - start > MAX_UNIT_CHARS:
        cut = max(text.rfind(mark, start + 1, start + MAX_UNIT_CHARS) for mark in (" ", "\n"))
        if cut <= start:
            cut = start + MAX_UNIT_CHARS
        yield Unit(start, cut, heading)
        start = cut
        while start < end and text[start].isspace():
            start += 1
    if start < end:
        yield Unit(start, end, heading)


def _is_signature(text: str, lines: list[_Line]) -> bool:
    return (
        len(lines) > 1
        and lines[1].indent > lines[0].indent
        and lines[0].end - lines[0].start <= MAX_HEADING_CHARS
        and not _BULLET.match(text, lines[0].start)
        and not _is_table(text, lines[1:])
    )


def _is_table(text: str, lines: list[_Line]) -> bool:
    """More than half of the lines look like code or rows."""
    rows = sum(bool(_CODE_LINE.search(text[line.start : line.end])) for line in lines)
    return rows * 2 > len(lines)


def _ends_prose(text: str, line: _Line) -> bool:
    return text[line.end - 1] in ".!?…。！？,;"

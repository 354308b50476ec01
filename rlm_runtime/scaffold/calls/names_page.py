"""The names an agent is shown: a page of them, however many there are."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import islice

from rlm_runtime.errors import InputError
from rlm_runtime.prompt import Layout
from rlm_runtime.prompt.layout import NameLine
from rlm_runtime.scaffold.agent_context import AgentContext
from rlm_runtime.types import Ref

TOKENS_A_LINE = 40
"""Of a line about a value with its preview, about."""


@dataclass(frozen=True, slots=True)
class NamesPage:
    """Some of the names, in their order.

    Attributes:
        lines: One for each name.
        number: Which page it is, from 1.
        pages: How many there are; at least 1.
        total: Names on all of them.
    """

    lines: tuple[NameLine, ...]
    number: int
    pages: int
    total: int

    @property
    def names(self) -> tuple[str, ...]:
        """The names on the page."""
        return tuple(line.name for line in self.lines)

    @property
    def note(self) -> str:
        """Which part of the whole this is; empty when it is all."""
        if self.pages == 1:
            return ""
        note = f"Page {self.number:,} of {self.pages:,}; there are {self.total:,} values."
        if self.number < self.pages:
            note += f" LIST_CONTEXT({self.number + 1}) shows the next page."
        return note

    def __str__(self) -> str:
        return "\n".join([*map(str, self.lines), *filter(None, [self.note])])


class NamesPages:
    """All pages of the names that one reader sees, as they are at the moment of asking.

    Args:
        context: The reader's.
        layout: Of its prompts.
        max_names: Most names on a page.
        max_tokens: Most tokens of a page: fewer names, then no previews, keep it below in all
            but odd cases (names of many rare letters).
    """

    def __init__(
        self, context: AgentContext, layout: Layout, max_names: int, max_tokens: int
    ) -> None:
        self._context = context
        self._layout = layout
        self._max_tokens = max_tokens
        self.size = max(1, min(max_names, max_tokens // TOKENS_A_LINE))

    def page(self, number: int = 1) -> NamesPage:
        """A page. Looks at the values on it alone: up to 50 ms for a large structure.

        Raises:
            InputError: There is no such page.
        """
        available = self._context.list_available()
        pages = max(1, -(-len(available) // self.size))
        if number > pages:
            raise InputError(f"There is no page {number:,}.", f"The last one is {pages:,}.")
        start = (number - 1) * self.size
        shown = islice(available.values(), start, start + self.size)
        page = NamesPage(tuple(map(self.line, shown)), number, pages, len(available))
        if self._layout.tokenizer.count(str(page)) <= self._max_tokens:
            return page
        return replace(page, lines=tuple(replace(line, preview="") for line in page.lines))

    def line(self, ref: Ref) -> NameLine:
        """The line about one value."""
        return NameLine(ref.name, ref.kind, ref.size_bytes, preview=self._context.peek(ref.name))

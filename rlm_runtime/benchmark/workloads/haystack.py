"""Text to hide something in: real text that ships with Python, and papers that nobody wrote.

The real half is Python's language reference and then, for long texts, the docstrings of its
standard library, both read from the running Python without importing anything of it: they differ a
little between versions and builds, so results name the digest of their text. Sections of the two
halves alternate; their order is drawn by a seed.
"""

from __future__ import annotations

import ast
import random
import re
import sysconfig
import textwrap
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

from rlm_runtime.benchmark.workloads.prose import office_papers
from rlm_runtime.benchmark.workloads.qa import reference_text
from rlm_runtime.errors import InputError

SECTION_CHARACTERS = 2_500
"""About one paper of the other half."""

_CHARACTERS_READ_PER_TOKEN = 4
"""Of real text, for each token that is wanted: enough whatever the tokenizer, since only about half
of it is used. A longer reading costs time, nothing else."""

_MISSING_SHARE = 0.005
"""A text that lacks no more than this is long enough."""

_LEFT_OUT = re.compile(
    r"(^|/)(tests?|idle_test|site-packages|dist-packages|lib-dynload|__pycache__)/"
    r"|^config-|^_sysconfigdata"
)
"""Tests, other packages, and what a build writes about its own machine."""

_BORDER = re.compile(r"\n[ \t]*\n(?=\S)")


def haystack(tokens: int, seed: int, count_tokens: Callable[[str], int]) -> str:
    """A text of about `tokens` tokens, made of whole paragraphs.

    Equal arguments give an equal text on the same Python. Counted in pieces: a million tokens take
    some seconds and a few times the text's 4 MB, where one encode of the whole takes gigabytes.

    Args:
        tokens: Wanted; what it has differs by less than 1 %.
        seed: Order of the sections, and the papers.
        count_tokens: Tokens of a text.

    Raises:
        InputError: This Python has too little text of its own.
    """
    parts: list[str] = []
    missing = tokens
    for section in _sections(tokens, seed):
        count = count_tokens(section)
        if count <= missing:
            parts.append(section)
            missing -= count
            continue
        for paragraph in section.split("\n\n"):
            count = count_tokens(paragraph) + 1
            if count <= missing:
                parts.append(paragraph)
                missing -= count
        if missing <= tokens * _MISSING_SHARE:
            return "\n\n".join(parts) + "\n"
    raise InputError(
        f"The text that ships with this Python is too short for a haystack of {tokens:,} tokens.",
        "Take fewer tokens, or a Python with its whole standard library.",
    )


def _sections(tokens: int, seed: int) -> Iterator[str]:
    """Real sections and papers in turn, until the real ones are used up."""
    wanted = tokens * _CHARACTERS_READ_PER_TOKEN
    real: list[str] = []
    characters = 0
    for text in _real_texts():
        for section in _cut(text):
            real.append(section)
            characters += len(section)
        if characters > wanted:
            break
    random.Random(f"sections {seed}").shuffle(real)  # noqa: S311 - orders text, guards nothing
    papers = office_papers(seed)
    for section in real:
        yield section
        yield next(papers)


def _real_texts() -> Iterator[str]:
    yield reference_text()
    root = Path(sysconfig.get_paths()["stdlib"])
    names = (path.relative_to(root).as_posix() for path in root.rglob("*.py"))
    for name in sorted(name for name in names if not _LEFT_OUT.search(name)):
        text = _docstrings(root / name, name.removesuffix(".py").replace("/", "."))
        if text:
            yield text


def _docstrings(file: Path, module: str) -> str:
    """The docstrings of a module, each under its name, as `pydoc` shows them."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is odd in that code is no concern of ours
            tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return ""  # templates of code and broken examples ship beside modules
    found: list[str] = []

    def visit(node: ast.AST, name: str) -> None:
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node)
            if docstring:
                found.append(f"{name}\n\n{textwrap.indent(docstring, '    ')}")
        for child in ast.iter_child_nodes(node):
            if not isinstance(child, ast.stmt):
                continue
            own = getattr(child, "name", None)
            visit(child, f"{name}.{own}" if isinstance(own, str) else name)

    visit(tree, module)
    return "\n\n".join(found)


def _cut(text: str) -> Iterator[str]:
    """Sections of about `SECTION_CHARACTERS` that begin with an unindented line."""
    start = 0
    for border in _BORDER.finditer(text):
        if border.start() - start >= SECTION_CHARACTERS:
            yield text[start : border.start()].strip("\n")
            start = border.end()
    last = text[start:].strip("\n")
    if last:
        yield last

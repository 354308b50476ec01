"""A model folder's chat template, rendered to text as `transformers` would render it.

Only used at load, to learn the template's constant pieces (`template.py`). A template is code from
the model's folder: it runs in Jinja's sandbox.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import jinja2
import msgspec
from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment

from rlm_runtime.errors import ModelError

FILE = "chat_template.jinja"
CONFIG_FILE = "tokenizer_config.json"

REMEDY = f"Use another model, or put a corrected {FILE} into a copy of its folder."


class Renderer:
    """A folder's template, compiled in a sandbox, with what `transformers` gives templates."""

    def __init__(self, folder: Path) -> None:
        config = _tokenizer_config(folder)
        self._tokens = {
            name: token
            for name in ("bos_token", "eos_token", "unk_token", "pad_token")
            if (token := _token_text(config.get(name))) is not None
        }
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[_GenerationBlock, "jinja2.ext.loopcontrols"],
        )
        environment.filters["tojson"] = _tojson
        environment.globals["raise_exception"] = _raise_exception
        try:
            self._template = environment.from_string(_source(folder, config))
        except jinja2.TemplateSyntaxError as err:
            raise ModelError(f"The chat template has a syntax error: {err}.", REMEDY) from err

    def __call__(self, turns: Sequence[tuple[str, str]], clock: datetime) -> str:
        """The turns (role, text) as the template writes them, up to where the model begins.

        Args:
            turns: In order.
            clock: What `strftime_now` reads.

        Raises:
            ModelError: The template refuses these turns, or fails.
        """
        try:
            return self._template.render(
                messages=[{"role": role, "content": text} for role, text in turns],
                tools=None,
                documents=None,
                add_generation_prompt=True,
                strftime_now=clock.strftime,
                **self._tokens,
            )
        except Exception as err:  # foreign code: a template may raise anything
            roles = ", ".join(role for role, _ in turns)
            raise ModelError(
                f"The chat template can't render the turns {roles}: {err}.", REMEDY
            ) from err


class _GenerationBlock(Extension):
    """`{% generation %}...{% endgeneration %}` marks answers for training; here it is no mark."""

    tags = {"generation"}  # noqa: RUF012  Jinja declares it as a plain set

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _tojson(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Jinja's own filter escapes HTML, which templates don't expect.
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _tokenizer_config(folder: Path) -> dict[str, object]:
    path = folder / CONFIG_FILE
    if not path.exists():
        return {}
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, object])
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as err:
        raise ModelError(
            f"{CONFIG_FILE} is corrupt: {err}.", "Prepare or download the model again."
        ) from err


def _source(folder: Path, config: dict[str, object]) -> str:
    path = folder / FILE
    if path.exists():
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as err:
            raise ModelError(
                f"{FILE} can't be read: {err}.", "Prepare or download the model again."
            ) from err
    source = config.get("chat_template")
    if isinstance(source, list):
        named = [entry for entry in source if isinstance(entry, dict)]
        source = next((e.get("template") for e in named if e.get("name") == "default"), None)
    if not isinstance(source, str):
        raise ModelError(
            f"The model's folder has no chat template ({FILE}, or in {CONFIG_FILE}).",
            "Use an instruction-tuned model, or put its template into a copy of the folder.",
        )
    return source


def _token_text(token: object) -> str | None:
    """A special token is written as its text, or as an object that holds it."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else None

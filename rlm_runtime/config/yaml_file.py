"""One YAML file as settings, each with the line it stands on.

Only YAML's own scalars, lists and mappings are built, no Python object. Keys are checked here
rather than by the validation, which no longer knows lines.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import yaml

from rlm_runtime.config.keys import fields, nearest, sections
from rlm_runtime.errors import ConfigError

_NULL = "tag:yaml.org,2002:null"


class Setting(NamedTuple):
    """A value for one key, from one source.

    Attributes:
        value: Not validated yet.
        origin: The source's short name, as `rlm config` shows it.
        where: The place in words, for messages.
    """

    value: object
    origin: str
    where: str


class _Loader(yaml.SafeLoader):
    """Safe, and with duplicate keys as an error: YAML's last-one-wins hides a setting."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[object, object]:
        _refuse_duplicates(node)
        mapping: dict[object, object] = super().construct_mapping(node, deep)
        return mapping


def read(file: Path, shown: str) -> dict[str, Setting]:
    """The settings of a file, by dotted key.

    Args:
        file: The file.
        shown: What messages call it.

    Raises:
        ConfigError: It can't be read, is no YAML, holds a key twice, or an unknown key.
    """
    try:
        text = file.read_text("utf-8")
    except OSError as err:
        raise ConfigError(
            f"Can't read the configuration {shown}: {err.strerror}.", "Check the path."
        ) from err
    except UnicodeDecodeError as err:
        raise ConfigError(
            f"The configuration {shown} is not UTF-8 (byte {err.start:,}).", "Save it as UTF-8."
        ) from err
    try:
        loader = _Loader(text)
        try:
            root = loader.get_single_node()
            return {} if root is None else dict(_settings(loader, root, "", file.name, shown))
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as err:
        mark = err.problem_mark or err.context_mark
        at = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(
            f"{shown}{at}: {err.problem or err.context}.", "Correct the file."
        ) from err
    except (yaml.YAMLError, RecursionError, ValueError) as err:
        # ValueError: a scalar of a tag's form without its meaning, like the date 2026-02-31
        raise ConfigError(f"{shown} is no YAML: {err}.", "Correct the file.") from err


def _settings(
    loader: _Loader, node: yaml.Node, section: str, origin: str, shown: str
) -> Iterator[tuple[str, Setting]]:
    if node.tag == _NULL:
        return  # a section whose lines are all commented out
    if not isinstance(node, yaml.MappingNode):
        what = f"{section} is" if section else "it is"
        raise ConfigError(
            f"{_place(shown, node)}: {what} not a section of settings.", "Write `key: value` lines."
        )
    _refuse_duplicates(node)
    for key_node, value in node.value:
        key = f"{section}.{key_node.value}" if section else str(key_node.value)
        if key in sections():
            yield from _settings(loader, value, key, origin, shown)
        elif key in fields():
            built = loader.construct_object(value, deep=True)
            yield key, Setting(built, origin, _place(shown, key_node))
        else:
            raise ConfigError(
                f"{_place(shown, key_node)}: there is no setting {key!r}.",
                nearest(key, [*fields(), *sections()]),
            )


def _refuse_duplicates(node: yaml.MappingNode) -> None:
    seen: set[str] = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise yaml.constructor.ConstructorError(
                None, None, "a key must be a single word", key.start_mark
            )
        if key.value in seen:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {key.value!r} stands here a second time", key.start_mark
            )
        seen.add(key.value)


def _place(shown: str, node: yaml.Node) -> str:
    return f"{shown}, line {node.start_mark.line + 1}"

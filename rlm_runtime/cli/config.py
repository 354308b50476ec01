"""`rlm config`: the settings in force, where each comes from, and what each one means."""

from __future__ import annotations

import json
import textwrap
from typing import TYPE_CHECKING, Annotated

import typer

from rlm_runtime.cli.command import DONE, EXIT_CODES, Command, Document
from rlm_runtime.cli.options import ConfigOption, JsonOption, SetOption, load

if TYPE_CHECKING:
    from rlm_runtime.cli.terminal import Terminal
    from rlm_runtime.config.load import Key, Loaded

EPILOG = f"""\b
Examples:
  rlm config
  rlm config --explain
  RLM_ENGINE__KV_CACHE_GIB=8 rlm config --set search.passages=5 --json

{EXIT_CODES}"""

Explain = Annotated[
    bool, typer.Option("--explain", help="What every setting means, may be, and is by default.")
]


def config(
    config: ConfigOption = None,
    settings: SetOption = None,
    explain: Explain = False,
    wants_json: JsonOption = False,
) -> Command:
    """Print the settings in force and where each one comes from.

    Sources, the later ones stronger: defaults, the YAML file, environment variables
    (RLM_SECTION__KEY), options. An unknown key in any of them is an error.
    """

    def work(terminal: Terminal, document: Document) -> int:
        # Late: the settings are not needed to print help.
        from rlm_runtime.config.load import config_digest
        from rlm_runtime.config.load import explain as explain_keys

        loaded = load(config, settings)
        keys = explain_keys()
        values = _values(loaded)
        document["source"] = loaded.source
        document["config_digest"] = config_digest(loaded.config)
        document["settings"] = {
            key.key: {"value": values[key.key], "origin": loaded.origins[key.key]}
            | ({} if not explain else _meaning(key))
            for key in keys
        }
        if wants_json:
            return DONE
        if explain:
            terminal.put("\n\n".join(_paragraph(key, values, loaded) for key in keys))
        else:
            terminal.put(_columns(keys, values, loaded))
        return DONE

    return Command(work, wants_json=wants_json)


def _values(loaded: Loaded) -> dict[str, object]:
    """Every setting by dotted key, as JSON has it."""
    tree = loaded.config.model_dump(mode="json")

    def value(key: str) -> object:
        found: object = tree
        for part in key.split("."):
            assert isinstance(found, dict)  # noqa: S101 - a setting stands in a section
            found = found[part]
        return found

    return {key: value(key) for key in loaded.origins}


def _meaning(key: Key) -> dict[str, object]:
    return {
        "default": json.loads(key.default),
        "allowed": key.allowed,
        "description": key.description,
    }


def _columns(keys: tuple[Key, ...], values: dict[str, object], loaded: Loaded) -> str:
    rows = [(key.key, json.dumps(values[key.key]), loaded.origins[key.key]) for key in keys]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    return "\n".join(
        f"{key:{widths[0]}}  {value:{widths[1]}}  {origin}" for key, value, origin in rows
    )


def _paragraph(key: Key, values: dict[str, object], loaded: Loaded) -> str:
    now = json.dumps(values[key.key])
    head = f"{key.key} = {now}"
    head += f"  ({loaded.origins[key.key]})" if loaded.origins[key.key] != "default" else ""
    return "\n".join(
        [
            head,
            *textwrap.wrap(key.description, 92, initial_indent="    ", subsequent_indent="    "),
            f"    {key.allowed}; default {key.default}",
        ]
    )

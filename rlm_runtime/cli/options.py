"""Options that several verbs have, and the configuration they lead to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlm_runtime.errors import ConfigError

if TYPE_CHECKING:
    # Brings all settings, which `--help` can do without.
    from rlm_runtime.config import Loaded

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 96}
"""For every app and verb: how its help is laid out."""

ConfigOption = Annotated[
    str | None,
    typer.Option(
        "--config",
        metavar="NAME|PATH",
        help="A configuration that ships, or a YAML file.",
        show_default="RLM_CONFIG, else cpu-smollm2",
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="One setting, by its dotted key; can be repeated. `rlm config --explain` lists all.",
        show_default="none",
    ),
]
ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="MODEL",
        help="The default model's name, a folder, or an id that was added (`rlm model add`).",
        show_default="the configuration's",
    ),
]
OutOption = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="DIR",
        help="Where result.json and result.md go.",
        show_default="the run directory",
    ),
]
ArmsOption = Annotated[
    str | None,
    typer.Option(
        "--arms",
        metavar="NAMES",
        help="Ways to answer, with commas between them: both (the search recipe), ranking (by "
        "likelihood alone), bm25 (no model), direct (the text cut to the window).",
        show_default="all",
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="One JSON document on stdout, and no progress.")
]
QuietOption = Annotated[
    bool, typer.Option("--quiet", help="No progress and no hints, only the answer and errors.")
]


def flags(
    settings: Iterable[str] | None, named: Mapping[str, object | None] | None = None
) -> dict[str, object]:
    """Flags by dotted key, as `config.load` takes them.

    Args:
        settings: `KEY=VALUE` each; the last one of a key counts.
        named: Values of options of their own, which go before; `None` was not given.

    Raises:
        ConfigError: One has no `=`.
    """
    found: dict[str, object] = {}
    for setting in settings or ():
        key, sign, value = setting.partition("=")
        if not sign or not key.strip():
            raise ConfigError(
                f"--set {setting!r} is no setting.", "Write --set KEY=VALUE, with a dotted key."
            )
        found[key.strip()] = value
    found.update({key: value for key, value in (named or {}).items() if value is not None})
    return found


def load(
    source: str | None,
    settings: Iterable[str] | None,
    named: Mapping[str, object | None] | None = None,
) -> Loaded:
    """The configuration a command's options lead to.

    Raises:
        ConfigError: An option, a file or a variable can't be used.
    """
    # Late: the settings are not needed to print help.
    from rlm_runtime.config import load as load_config

    return load_config(source, flags=flags(settings, named))

"""Loading: defaults < a YAML file < `RLM_SECTION__KEY` variables < flags.

Nothing is passed over: an unknown key, in any source, is an error that says where it stands and
offers the nearest known one. Every value of the result knows which source it came from.

Sources override each other setting by setting. A setting that is itself a mapping
(`engine.vllm_args`) is one setting: a later source replaces it whole.
"""

from __future__ import annotations

import json
import os
import reprlib
import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from pydantic import ValidationError

from rlm_runtime.config.keys import Key, allows, explain, fields, nearest
from rlm_runtime.config.model import Config
from rlm_runtime.config.places import builtin_configs, home, state_home, traces
from rlm_runtime.config.yaml_file import Setting, read
from rlm_runtime.errors import ConfigError

__all__ = [
    "DEFAULT",
    "Key",
    "Loaded",
    "builtin_configs",
    "config_bytes",
    "config_digest",
    "explain",
    "home",
    "load",
    "state_home",
    "traces",
]

DEFAULT = "cpu-smollm2"
"""The configuration that is used when none is named."""

_PREFIX = "RLM_"
_NOT_SETTINGS = frozenset({"RLM_HOME", "RLM_CONFIG", "RLM_TRACES"})

_IN_FILES_ONLY = frozenset({"engine.forced_decode"})
"""Settings that no flag and no variable sets: nobody turns them on in passing."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration and where it came from.

    Attributes:
        config: The tree.
        origins: For every dotted key: "default", the YAML file's name, the variable's name, or
            "flag".
        source: The YAML file: its name if it ships with the package, else its path.
    """

    config: Config
    origins: Mapping[str, str]
    source: str


def load(
    source: str | Path | None = None,
    *,
    flags: Mapping[str, object] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Loaded:
    """Read the configuration from all its sources.

    Args:
        source: The name of a configuration that ships, or a path of a YAML file (a word with a
            slash or ending in .yaml or .yml). `None`: what `RLM_CONFIG` names, else `DEFAULT`.
        flags: Values by dotted key, the strongest source. Text is read like a variable's.
        environ: The environment.

    Raises:
        ConfigError: A source can't be found or read, a key is unknown, or a value is out of range.
    """
    file, shown = _find(source or environ.get("RLM_CONFIG") or DEFAULT)
    layers = (
        read(file, shown),
        _from_environment(environ),
        _from_flags(flags or {}),
    )
    settings = {key: setting for layer in layers for key, setting in layer.items()}
    return Loaded(
        config=_validate(settings),
        origins={key: settings[key].origin if key in settings else "default" for key in fields()},
        source=shown,
    )


def config_digest(config: Config) -> str:
    """BLAKE2b-128, in hex, of all settings that can change results or times.

    Where a run is written (`run`) is left out, so that two runs of one configuration agree.
    """
    return blake2b(config_bytes(config), digest_size=16).hexdigest()


def config_bytes(config: Config) -> bytes:
    """These settings as JSON: what `config_digest` is the digest of."""
    tree = config.model_dump(mode="json", exclude={"run"})
    return json.dumps(tree, sort_keys=True, separators=(",", ":")).encode()


def _find(source: str | Path) -> tuple[Path, str]:
    """The file that `source` names, and what to call it."""
    shipped = builtin_configs()
    text = str(source)
    if isinstance(source, Path) or "/" in text or text.endswith((".yaml", ".yml")):
        return Path(source).expanduser(), text
    if text in shipped:
        return shipped[text], shipped[text].name
    raise ConfigError(
        f"There is no configuration named {text!r}.",
        f"These ship: {', '.join(shipped) or 'none'}. A file of your own is named by its path, "
        "ending in .yaml.",
    )


def _from_environment(environ: Mapping[str, str]) -> dict[str, Setting]:
    settings: dict[str, Setting] = {}
    known = {_PREFIX + key.replace(".", "__").upper(): key for key in fields()}
    for variable in sorted(environ):
        if not variable.startswith(_PREFIX) or variable in _NOT_SETTINGS:
            continue
        if variable not in known:
            raise ConfigError(
                f"The environment variable {variable} is no setting.",
                f"{nearest(variable, [*known, *_NOT_SETTINGS])} If it belongs to another program, "
                f"unset it for this one: env -u {variable} rlm ...",
            )
        key = known[variable]
        _refuse_in_passing(key, f"the environment variable {variable}")
        settings[key] = Setting(_parse(key, environ[variable], variable), variable, variable)
    return settings


def _from_flags(flags: Mapping[str, object]) -> dict[str, Setting]:
    settings: dict[str, Setting] = {}
    for key, value in flags.items():
        if key not in fields():
            raise ConfigError(f"The flag {key!r} is no setting.", nearest(key, fields()))
        _refuse_in_passing(key, "a flag")
        parsed = _parse(key, value, "flag") if isinstance(value, str) else value
        settings[key] = Setting(parsed, "flag", f"the flag for {key}")
    return settings


def _refuse_in_passing(key: str, where: str) -> None:
    if key in _IN_FILES_ONLY:
        raise ConfigError(
            f"{key} can't be set by {where}.",
            "It is for tests, benchmarks and replay, which set it themselves.",
        )


def _parse(key: str, text: str, where: str) -> object:
    """Text as a value: `null` where that is allowed, JSON for a mapping, else as it stands.

    Numbers and truth values are read by the validation, which knows what is wanted: a model may
    be called "1e3" or "no".
    """
    field = fields()[key]
    if allows(field, types.NoneType) and text == "null":
        return None
    if allows(field, dict):
        try:
            value: object = json.loads(text)
        except json.JSONDecodeError as err:
            raise ConfigError(
                f"{key} in {where} is not JSON: {err.msg} at character {err.pos + 1}.",
                'Write it like {"swap_space": 4}.',
            ) from err
        return value
    return text


def _validate(settings: Mapping[str, Setting]) -> Config:
    tree: dict[str, object] = {}
    for key, setting in settings.items():
        if isinstance(setting.value, bool) and not allows(fields()[key], bool):
            # YAML reads yes, no, on and off as truth values, and pydantic would take them for 1, 0
            raise ConfigError(
                f"{key} can't be true or false, as in {setting.where}.",
                "YAML reads yes, no, on and off as that: put text in quotation marks.",
            )
        section = tree
        *path, last = key.split(".")
        for name in path:
            below = section.setdefault(name, {})
            assert isinstance(below, dict)  # noqa: S101 - a section is never a setting
            section = below
        section[last] = setting.value
    try:
        return Config.model_validate(tree)
    except ValidationError as err:
        raise ConfigError(" ".join(_complaints(err, settings))) from err


def _complaints(err: ValidationError, settings: Mapping[str, Setting]) -> Iterable[str]:
    for error in err.errors(include_url=False, include_context=False):
        full = ".".join(str(part) for part in error["loc"])
        # What is wrong may lie inside a setting that is a mapping.
        key = next((k for k in settings if full == k or full.startswith(f"{k}.")), None)
        where = f" in {settings[key].where}" if key else ""
        rule = error["msg"].replace("Input should", "it should", 1)
        yield f"{full} is {reprlib.repr(error['input'])}{where}: {rule}."

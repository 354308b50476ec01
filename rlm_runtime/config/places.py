"""Where things are kept: folders named by the environment, and the configurations that ship.

Nothing here makes a folder.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from rlm_runtime.errors import ConfigError

_NAME = "rlm-vllm"


def home(environ: Mapping[str, str] = os.environ) -> Path:
    """The folder for what can be made again: models, caches.

    `RLM_HOME`, else `XDG_CACHE_HOME/rlm-vllm`, else `~/.cache/rlm-vllm`. Absolute.

    Raises:
        ConfigError: The user has no home folder, and none of the variables is set.
    """
    named = _folder(environ, "RLM_HOME")
    return named or _xdg(environ, "XDG_CACHE_HOME", ".cache") / _NAME


def state_home(environ: Mapping[str, str] = os.environ) -> Path:
    """The folder for what should stay: runs.

    `RLM_HOME/state`, else `XDG_STATE_HOME/rlm-vllm`, else `~/.local/state/rlm-vllm`. Absolute.

    Raises:
        ConfigError: The user has no home folder, and none of the variables is set.
    """
    named = _folder(environ, "RLM_HOME")
    if named is not None:
        return named / "state"
    return _xdg(environ, "XDG_STATE_HOME", ".local/state") / _NAME


def traces(environ: Mapping[str, str] = os.environ) -> Path | None:
    """The folder of recorded traces that `RLM_TRACES` names; `None` without."""
    return _folder(environ, "RLM_TRACES")


def builtin_configs() -> dict[str, Path]:
    """The configurations that ship, by name: those of the clone, or those inside the wheel."""
    package = Path(__file__).parent
    inside = package / "builtin"  # put there when a wheel is built
    folder = inside if inside.is_dir() else package.parent.parent / "configs"
    return {file.stem: file for file in sorted(folder.glob("*.yaml"))}


def _folder(environ: Mapping[str, str], variable: str) -> Path | None:
    value = environ.get(variable)
    if not value:
        return None
    try:
        return Path(value).expanduser().absolute()
    except RuntimeError as err:
        raise ConfigError(f"{variable} names an unknown user's home.", "Write it out.") from err


def _xdg(environ: Mapping[str, str], variable: str, default: str) -> Path:
    value = environ.get(variable, "")
    if Path(value).is_absolute():  # a relative one is to be ignored (XDG Base Directory, "Basics")
        return Path(value)
    try:
        user = Path(environ["HOME"]) if environ.get("HOME") else Path.home()
    except RuntimeError as err:
        raise ConfigError("The user has no home folder.", "Set RLM_HOME to a folder.") from err
    return user.absolute() / default

"""Recorded runs by name, as people type them."""

from __future__ import annotations

import difflib
from pathlib import Path

from rlm_runtime.cli.terminal import shown_path
from rlm_runtime.config import state_home
from rlm_runtime.errors import InputError
from rlm_runtime.tracing.recorder import EVENTS

LAST = "last"
"""Names the newest run in the state directory."""

_OFFERED = 3


def find(run: str | None) -> Path:
    """The run that is meant: a run directory, an event log, or the id of a run that was kept.

    Args:
        run: A path, an id, or `LAST`; a path that exists goes before. `None`: nothing was typed.

    Raises:
        InputError: There is no such run; those that are meant most likely are named.
    """
    if run is not None and Path(run).exists():
        return Path(run)
    home = state_home() / "runs"
    kept = sorted((log.parent.name for log in home.glob(f"*/{EVENTS}")), reverse=True)
    if run == LAST and kept:
        return home / kept[0]
    if run in kept:
        return home / str(run)
    what = "No run is named." if run is None else f"There is no run {shown_path(run)!r}."
    remedy = "Name a run directory, or its events.jsonl."
    if not kept:
        raise InputError(what, f"{remedy} No runs are kept in {shown_path(home)}.")
    alike = [] if run is None else [name for name in kept if run in name]
    alike = alike or difflib.get_close_matches(run or "", kept, n=_OFFERED)
    names = ", ".join(alike[:_OFFERED])
    newest = ", ".join(kept[:_OFFERED])
    which = f"Nearest: {names}." if names else f"The newest in {shown_path(home)}: {newest}."
    raise InputError(what, f"{remedy} {which}")

"""Whether a run can go on in this session: what it was asked with must be what there is now."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from rlm_runtime.config import Config, config_digest
from rlm_runtime.config.keys import fields
from rlm_runtime.engine.model_files import ModelFolder
from rlm_runtime.engine.model_identity import model_digest
from rlm_runtime.errors import RunChanged, TraceError
from rlm_runtime.prompt import Layout
from rlm_runtime.scheduler import FinishedCalls
from rlm_runtime.tracing import Blobs, RunStarted
from rlm_runtime.tracing.machine import package_version

_SETTINGS_NAMED = 5


def finished_calls(
    run: Path, config: Config, model: ModelFolder, layout: Layout, *, anyway: bool
) -> FinishedCalls:
    """The finished calls of a run, if this session would ask the same.

    Args:
        run: Its directory, or its `events.jsonl`.
        config: The session's.
        model: The session's.
        layout: Of the session's prompts.
        anyway: Go on with what fits; what has changed is a note.

    Raises:
        RunChanged: Version, settings, model, tokenizer or system text are others now.
        InputError: The run goes on still.
        TraceError: There is no log that can be read.
    """
    finished = FinishedCalls.load(run)
    changes = tuple(_changes(finished, config, model, layout))
    if changes and not anyway:
        raise RunChanged(changes)
    finished.notes += [f"Changed: {change}." for change in changes]
    return finished


def kept_config(directory: Path, started: RunStarted) -> Config | None:
    """The configuration a run was made with; `None` where it was not kept whole.

    Where runs are written is not part of it.
    """
    try:
        return Config.model_validate_json(Blobs(directory).get(started.config_digest))
    except (TraceError, ValidationError):
        return None  # of an older version, or lost: who asks says so


def _changes(
    finished: FinishedCalls, config: Config, model: ModelFolder, layout: Layout
) -> Iterator[str]:
    started, engine = finished.started, finished.engine
    now = package_version()
    if started.package_version != now:
        yield f"rlm-vllm was {started.package_version}, is {now}"
    if started.config_digest != config_digest(config):
        yield _changed_settings(kept_config(finished.directory, started), config)
    if engine is None:
        return  # it died before it had asked anything
    if engine.model != model.name:
        yield f"the model was {engine.model}, is {model.name}"
    elif engine.model_digest not in (None, model_digest(model.path)):
        yield f"the files of the model {model.name} are others"
    if engine.tokenizer_digest != layout.tokenizer.digest:
        yield "the tokenizer is another"
    elif engine.shared_prefix_digest != layout.shared_digest:
        yield "the shared system text is another"


def _changed_settings(before: Config | None, now: Config) -> str:
    if before is None:
        return "the configuration is another, and the run's was not kept"
    changed = []
    for key in fields():
        if key.startswith("run."):
            continue
        was, is_now = _setting(before, key), _setting(now, key)
        if was != is_now:
            changed.append(f"{key} was {reprlib.repr(was)}, is {reprlib.repr(is_now)}")
    more = len(changed) - _SETTINGS_NAMED
    named = [*changed[:_SETTINGS_NAMED], *([f"and {more} settings more"] if more > 0 else [])]
    return ", ".join(named) or "the configuration has settings that the run's had not"


def _setting(config: Config, key: str) -> object:
    value: object = config
    for name in key.split("."):
        value = getattr(value, name)
    return value

"""Results of agents that do not quote, for people and for programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path

from rlm_runtime.api import Result
from rlm_runtime.cli.command import DONE, FAILED, PARTIAL
from rlm_runtime.cli.terminal import clean, count
from rlm_runtime.errors import InputError
from rlm_runtime.scaffold.recipes.plan import Plan
from rlm_runtime.scaffold.rendering import render
from rlm_runtime.types import Ref, StopReason

_NO_LIMIT = (StopReason.NO_FINAL, StopReason.ERRORS_IN_A_ROW, StopReason.FAILED)


def is_partial(result: Result) -> bool:
    """It ended before it had come to its result."""
    return result.stop_reason is not StopReason.FINAL


def exit_code(result: Result) -> int:
    """What a command ends with that had this result: done, failed, or ended by a limit."""
    if not is_partial(result):
        return DONE
    return FAILED if result.stop_reason in _NO_LIMIT else PARTIAL


def block(result: Result) -> str:
    """The result as text; of one that is too large, where it is."""
    if result.answer is not None:
        return clean(result.answer).rstrip()
    if result.ref is not None:
        return f"The result is {_described(result.ref)}: too large to print. See --output."
    return f"No result: {result.stop_reason}."


def caveat(result: Result) -> str:
    """What ended it early, and what it leaves behind; empty when it came to its end."""
    if not is_partial(result):
        return ""
    stored = ", ".join(ref.name for ref in result.stored)
    parts = [f"Ended by {result.stop_reason}: the result is partial."]
    parts += [result.error] if result.error else []
    parts += [f"Stored: {stored}."] if stored else []
    return " ".join(parts)


def write(result: Result, path: Path) -> None:
    """Write a result to a file: text as it is, anything else as JSON.

    Raises:
        InputError: The file can't be written.
    """
    value = result.value()
    if value is None:
        raise InputError("There is no result to write.", "See what was stored with --json.")
    try:
        if isinstance(value, bytes):
            path.write_bytes(value)
        else:
            path.write_text(value if isinstance(value, str) else render(value), encoding="utf-8")
    except OSError as err:
        raise InputError(
            f"Can't write {path}: {err.strerror}.", "Name another file with --output."
        ) from err


def plan(bound: Plan) -> str:
    """What a task can cost at most, before it begins."""
    steps = ", ".join(f"{count(step.calls, 'call')} to {step.label}" for step in bound.steps)
    return f"At most {count(bound.calls, 'call')} and {bound.tokens:,} tokens ({steps})."


def facts(task: str, result: Result) -> dict[str, object]:
    """A task with all that came of it, for the document."""
    return {
        "question": task,
        "agent": result.kind,
        "answer": result.answer,
        "found": result.found,
        "stop_reason": str(result.stop_reason),
        "error": result.error,
        "result": None if result.ref is None else _ref(result.ref),
        "stored": [_ref(ref) for ref in result.stored],
        "turns": result.turns,
        "agent_id": result.agent_id,
        "detail": _plain(result.detail),
        "figures": dict(result.figures),
    }


def _described(ref: Ref) -> str:
    return f"{ref.name}, {ref.kind}, {count(ref.size_bytes, 'byte')}"


def _ref(ref: Ref) -> dict[str, object]:
    return {
        "name": ref.name,
        "version": ref.version,
        "kind": ref.kind,
        "size_bytes": ref.size_bytes,
        "digest": ref.digest,
    }


def _plain(value: object) -> object:
    """What a recipe says of a run, as a document holds it; what can't be, is left out."""
    if isinstance(value, Ref):
        return _ref(value)
    if is_dataclass(value) and not isinstance(value, type):
        named = {f.name: getattr(value, f.name) for f in fields(value) if f.repr}
        return {name: _plain(item) for name, item in named.items()}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, str | int | float):
        return value
    return str(value)

"""Results of agents that do not quote, for people and for programs."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path

import numpy as np

from rlm_runtime.api import Result
from rlm_runtime.cli.command import DONE, FAILED, PARTIAL
from rlm_runtime.cli.terminal import clean, count, finite, shown_path
from rlm_runtime.errors import InputError
from rlm_runtime.scaffold.recipes.classify_each import Classified
from rlm_runtime.scaffold.recipes.map_reduce import MapReduced
from rlm_runtime.scaffold.recipes.plan import Plan
from rlm_runtime.scaffold.rendering import render
from rlm_runtime.types import Ref, StopReason

_NO_LIMIT = (StopReason.NO_FINAL, StopReason.ERRORS_IN_A_ROW, StopReason.FAILED)


def is_partial(result: Result) -> bool:
    """It ended before it had come to its result."""
    return result.stop_reason is not StopReason.FINAL


def has_result(result: Result) -> bool:
    """There is something to print or write."""
    return result.answer is not None or result.ref is not None


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
    """What the result lacks, what ended it early, and what it leaves behind; may be empty."""
    missing = _missing(result.detail)
    if not is_partial(result):
        return " ".join(missing)
    stored = ", ".join(ref.name for ref in result.stored)
    what = "there is no result" if not has_result(result) else "the result is partial"
    parts = [f"Ended by {result.stop_reason}: {what}."]
    parts += [result.error] if result.error else []
    parts += missing
    parts += [f"Stored: {stored}."] if stored else []
    return " ".join(parts)


def write(result: Result, path: Path) -> None:
    """Write a result to a file: text and bytes as they are, anything else as JSON.

    Args:
        result: One that `has_result`.
        path: The file.

    Raises:
        InputError: The file can't be written.
    """
    value = result.value()
    try:
        if isinstance(value, bytes):
            path.write_bytes(value)
        else:
            path.write_text(value if isinstance(value, str) else _json(value), encoding="utf-8")
    except OSError as err:
        raise InputError(
            f"Can't write {shown_path(path)}: {err.strerror}.", "Name another file with --output."
        ) from err


def check_output(path: Path, texts: Iterable[Path | None]) -> None:
    """See whether a result can be written to a file, before there is one.

    Args:
        path: The file; it need not be there.
        texts: Files that are read.

    Raises:
        InputError: It can't, or it is one of the texts.
    """
    target = path if path.exists() else path.parent
    why = ""
    if path.is_dir():
        why = "it is a folder"
    elif not path.parent.is_dir():
        why = "there is no such folder"
    elif not os.access(target, os.W_OK):
        why = "it is not permitted"
    elif path.resolve() in {text.resolve() for text in texts if text is not None}:
        why = "it is one of the texts"
    if why:
        raise InputError(
            f"Can't write {shown_path(path)}: {why}.", "Name another file with --output."
        )


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


def _missing(detail: object) -> list[str]:
    """What a recipe says of what its result lacks, in sentences."""
    lacks = []
    if isinstance(detail, MapReduced):
        lacks += _left_out(detail.plan, "chunk")
        errors = [part.error for part in detail.parts if part.error]
        if errors:
            lacks.append(f"Of {count(len(errors), 'chunk')} there is no result: {errors[0]}")
        if cut := sum(part.was_cut for part in detail.parts):
            lacks.append(f"The results of {count(cut, 'chunk')} were cut at their longest.")
    if isinstance(detail, Classified):
        lacks += _left_out(detail.plan, "row")
        if detail.unlabelled:
            lacks.append(f"{count(detail.unlabelled, 'row')} got no label. {detail.error}".strip())
        if detail.cut:
            lacks.append(f"{count(len(detail.cut), 'row')} judged by the beginning, all that fits.")
    return lacks


def _left_out(bound: Plan, part: str) -> list[str]:
    left_out = bound.left_out
    return [f"{count(left_out, part)} at the end left out, for a limit."] if left_out else []


def _json(value: object) -> str:
    """JSON that others can read: numbers that it does not have are null, bytes are base64."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    return json.dumps(finite(value), ensure_ascii=False, allow_nan=False, default=_other)


def _other(value: object) -> str:
    return render(value) if isinstance(value, bytes) else str(value)  # complex numbers


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

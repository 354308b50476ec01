"""A result that a command wrote earlier, read back, and the settings it was measured under."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from rlm_runtime.benchmark.figure_kinds import SET_UP
from rlm_runtime.benchmark.results import SCHEMA_VERSION
from rlm_runtime.errors import InputError

RESULT = "result.json"
REPORT = "report.json"
"""What `rlm-bench report` writes, of the same form as `RESULT`."""

_NO_SETTINGS = (
    "is_complete",
    "direct_computed_tokens",
    "planned",
    "planned_samples",
    "planned_runs",
    "planned_passes",
)
"""Plain values of a measurement's detail that came of it, or that only say how often it was
repeated; all others say what was measured."""


class ResultFile(msgspec.Struct, frozen=True):
    """A document as `results.write_json` writes it.

    Attributes:
        schema_version: Of the document.
        benchmark: The command's name.
        figures: Flat figures.
        detail: By measurement: settings and samples.
        model: Name of the model.
        machine: In words.
        versions: Of the software.
        config_digest: Of the configuration.
        run_id: Of the event log.
        made_at: RFC 3339.
    """

    schema_version: int
    benchmark: str
    figures: dict[str, float | int | None]
    detail: dict[str, dict[str, Any]]  # each measurement has its own
    model: str
    machine: str
    versions: dict[str, str]
    config_digest: str
    run_id: str
    made_at: str

    def settings(self) -> dict[str, object]:
        """What has to be equal in two results for their figures to be compared.

        Plain values (and lists of them) of a measurement's detail are its settings: workload,
        seed, sizes.
        """
        found: dict[str, object] = {
            "benchmark": self.benchmark,
            "model": self.model,
            "machine": self.machine,
            "config_digest": self.config_digest,
        }
        found |= {name: self.figures[name] for name in SET_UP if name in self.figures}
        for measurement, detail in self.detail.items():
            found |= {f"{measurement}.{name}": value for name, value in _plain(detail)}
        return found

    def texts(self) -> dict[str, str]:
        """Digests of the texts that a measurement made, by measurement and size.

        They have to be equal where both results have the text: it may ship with Python.
        """
        return {
            f"{measurement}.text_{text['size']}": text["digest"]
            for measurement, detail in self.detail.items()
            for text in _dicts(detail.get("texts"))
            if isinstance(text.get("digest"), str) and isinstance(text.get("size"), str)
        }


def read_result(path: Path) -> ResultFile:
    """Read a result.

    Args:
        path: The JSON file, or a directory that holds one.

    Raises:
        InputError: There is none, it is none, or another version wrote it.
    """
    file = path
    if path.is_dir():
        file = next((path / name for name in (RESULT, REPORT) if (path / name).exists()), path)
        if file == path:
            raise InputError(
                f"{path} holds no {RESULT} and no {REPORT}.",
                "Name a result file, or a directory that a command wrote one into.",
            )
    try:
        data = file.read_bytes()
    except OSError as err:
        raise InputError(
            f"The result {file} can't be read: {err.strerror}.", "Name another file."
        ) from err
    try:
        version = msgspec.json.decode(data, type=_Head).schema_version
        if version == SCHEMA_VERSION:
            return msgspec.json.decode(data, type=ResultFile)
    except (msgspec.DecodeError, UnicodeDecodeError) as err:
        raise InputError(
            f"{file} is not a result of rlm-bench: {err}.",
            f"Name a {RESULT} that `rlm-bench ttft`, `run` or `report` wrote.",
        ) from err
    raise InputError(
        f"{file} has schema version {version}; this program reads version {SCHEMA_VERSION}.",
        "Compare it with the version of rlm-vllm that wrote it.",
    )


class _Head(msgspec.Struct):
    schema_version: int


def _dicts(value: object) -> Iterator[dict[str, Any]]:
    if isinstance(value, list):
        yield from (item for item in value if isinstance(item, dict))


def _plain(detail: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    for name, value in detail.items():
        items = value if isinstance(value, list) else [value]
        if (
            items
            and name not in _NO_SETTINGS
            and all(isinstance(i, str | int | float | None) for i in items)
        ):
            yield name, value

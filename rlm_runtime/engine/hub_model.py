"""Models by Hugging Face id: what a download would bring, and the download, in a child process.

The files stay in the user's own Hugging Face cache, so that a model which another tool downloaded
is not downloaded again, and an interrupted download goes on where it stopped.

    python -m rlm_runtime.engine.hub_model RESULT.json OWNER/NAME FILE...

writes one JSON document: `{"path": ...}` or `{"what": ..., "remedy": ...}`.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rlm_runtime.engine.model_steps import Bytes, OnProgress, last_error, run_step
from rlm_runtime.errors import ModelError

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
"""`owner/name`."""

_SMALL_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "model.safetensors.index.json",
)


@dataclass(frozen=True, slots=True)
class HubModel:
    """A model on the hub, as it would be downloaded now.

    Attributes:
        files: The files to have, without those that are not needed to serve the model.
        bytes_to_download: Of these, the bytes that are not in the cache yet.
        target: The model's folder in the cache.
    """

    files: tuple[str, ...]
    bytes_to_download: int
    target: Path


def needed_files(names: Iterable[str]) -> tuple[str, ...]:
    """Of a repository's files, those that serve it: safetensors, tokenizer and configuration.

    Files in sub-folders (other formats) and second copies of the weights are left out.
    """
    top = {name for name in names if "/" not in name}
    weights = {name for name in top if name.endswith(".safetensors")}
    weights = {name for name in weights if name.startswith("model")} or weights
    return tuple(sorted(weights | top.intersection(_SMALL_FILES)))


def look_up(model: str) -> HubModel:
    """Ask the hub what a download would bring. Two or three small requests.

    Raises:
        ModelError: Unknown or gated, no network, or nothing in it that can be served.
    """
    _require_hub()
    # Loaded here: an optional package (extra `model`).
    from huggingface_hub import HfApi, constants, snapshot_download
    from huggingface_hub.errors import HTTPError

    try:
        names = [file.rfilename for file in HfApi().model_info(model).siblings or []]
        files = needed_files(names)
        if not any(name.endswith(".safetensors") for name in files):
            raise ModelError(
                f"{model} has no safetensors weights.",
                "Use a repository that has them; pickled weights can run code on loading.",
            )
        found = snapshot_download(model, allow_patterns=list(files), dry_run=True)
    except (HTTPError, OSError, ValueError) as err:
        raise _explain(model, err) from err
    to_download = sum(file.file_size or 0 for file in found if file.will_download)
    target = Path(constants.HF_HUB_CACHE) / f"models--{model.replace('/', '--')}"
    return HubModel(files, to_download, target)


def cached(model: str) -> Path | None:
    """The newest downloaded snapshot's folder, without asking the hub; it may be incomplete."""
    if importlib.util.find_spec("huggingface_hub") is None:
        return None
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(model, "config.json")
    return Path(config).parent if isinstance(config, str) else None


def download(model: str, found: HubModel, on_progress: OnProgress) -> Path:
    """Bring what `look_up` found, and return the folder.

    Raises:
        ModelError: Gated, no network, or too little disk space.
    """
    existing = next(path for path in [found.target, *found.target.parents] if path.exists())
    free = shutil.disk_usage(existing).free
    if free < found.bytes_to_download:
        raise ModelError(
            f"{model} takes {found.bytes_to_download / 1e9:.1f} GB of disk space, "
            f"{free / 1e9:.1f} GB are free.",
            "Free some, or set HF_HOME to a folder on another disk.",
        )
    before = _disk_bytes(found.target)

    def measure() -> Bytes:
        done = max(0, _disk_bytes(found.target) - before)
        return Bytes(min(done, found.bytes_to_download), found.bytes_to_download)

    with tempfile.TemporaryDirectory(prefix="rlm-download-") as work:
        log, result = Path(work) / "log", Path(work) / "result.json"
        code = run_step(
            [sys.executable, "-P", "-m", __name__, str(result), model, *found.files],
            step=f"downloading {model}",
            log=log,
            on_progress=on_progress,
            env=os.environ | {"HF_HUB_DISABLE_PROGRESS_BARS": "1"},
            measure=measure,
        )
        if code != 0 or not result.exists():
            raise ModelError(
                f"Downloading {model} failed: {last_error(log)}",
                "Run the same command again: it goes on where it stopped.",
            )
        answer = json.loads(result.read_bytes())
    if "path" not in answer:
        raise ModelError(answer["what"], answer["remedy"])
    return Path(answer["path"])


def _disk_bytes(folder: Path) -> int:
    """Bytes on disk of the blobs, unfinished ones included (they may be sparse)."""
    total = 0
    for path in (folder / "blobs").glob("*"):
        try:
            total += path.stat().st_blocks * 512
        except FileNotFoundError:  # renamed at this moment: counted at the next look
            continue
    return total


def _require_hub() -> None:
    if importlib.util.find_spec("huggingface_hub") is None:
        raise ModelError(
            "Downloading a model by its id takes the package 'huggingface_hub'.",
            "Install it: pip install 'rlm-vllm[model]'",
        )


def _explain(model: str, err: Exception) -> ModelError:
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    if isinstance(err, GatedRepoError):
        return ModelError(
            f"{model} is gated: its owner wants its terms accepted first.",
            "Accept them on the model's page, then log in with `hf auth login` or set HF_TOKEN.",
        )
    if isinstance(err, RepositoryNotFoundError):
        return ModelError(
            f"The hub has no model {model}, or it is private.",
            "Check the spelling; for a private one log in with `hf auth login` or set HF_TOKEN.",
        )
    if isinstance(err, OfflineModeIsEnabled):
        return ModelError(
            f"{model} is not downloaded, and HF_HUB_OFFLINE forbids to download it.",
            "Unset HF_HUB_OFFLINE, or name a local folder.",
        )
    if isinstance(err, HfHubHTTPError):
        return ModelError(
            f"The hub answered {err.response.status_code} for {model}.", "Try again later."
        )
    return ModelError(
        f"{model} can't be downloaded: the hub can't be reached ({type(err).__name__}).",
        "Check the network and proxy settings, or name a local folder that holds the model.",
    )


def main(argv: list[str]) -> None:
    """The child's whole work: `RESULT.json OWNER/NAME FILE...`."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HTTPError

    result, model, *files = argv
    try:
        answer = {"path": snapshot_download(model, allow_patterns=files)}
    except (HTTPError, OSError, ValueError) as err:
        told = _explain(model, err)
        answer = {"what": told.what, "remedy": told.remedy}
    Path(result).write_text(json.dumps(answer))


if __name__ == "__main__":
    main(sys.argv[1:])

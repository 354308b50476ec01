"""Which model a folder holds, in one digest: the same for the same weights, wherever they lie.

Hashing gigabytes of weights would take longer than a boot. A folder that this package made says the
digests of its files in its manifest; of any other, some blocks of each file of weights are read.
"""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path

from rlm_runtime.engine.model_check import MANIFEST
from rlm_runtime.errors import ModelError

_BLOCKS = 64
_BLOCK_BYTES = 4096


def model_digest(folder: Path) -> str:
    """BLAKE2b-128, in hex, of what is served from a checked folder. Milliseconds.

    A fine-tuned model changes its weights all over; a change of a few numbers may be missed.

    Raises:
        ModelError: A file can't be read.
    """
    found = blake2b(digest_size=16)
    try:
        manifest = folder / MANIFEST
        if manifest.is_file():
            found.update(manifest.read_bytes())
            return found.hexdigest()
        found.update((folder / "config.json").read_bytes())
        for file in sorted(folder.glob("*.safetensors")):
            size = file.stat().st_size
            found.update(f"{file.name} {size}".encode())
            with file.open("rb") as weights:
                for number in range(_BLOCKS):
                    weights.seek(size * number // _BLOCKS)
                    found.update(weights.read(_BLOCK_BYTES))
    except OSError as err:
        raise ModelError(
            f"A file of the model in {folder} can't be read: {err.strerror}.", "Add it again."
        ) from err
    return found.hexdigest()

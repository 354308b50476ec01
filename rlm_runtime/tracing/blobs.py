"""Contents beside an event log: files named by the digest of their bytes.

A blob is written once and never changes, so a digest that still matches proves that it is whole.
"""

from __future__ import annotations

import re
import sys
from array import array
from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path

from rlm_runtime.errors import TraceError

BLOBS = "blobs"
"""The directory of a run that holds its blobs."""

DIGEST_BYTES = 16

_DIGEST = re.compile(f"[0-9a-f]{{{2 * DIGEST_BYTES}}}")
_ID_BYTES = 4
_SCORE_BYTES = 8
_ID_TYPECODE = next(code for code in "IL" if array(code).itemsize == _ID_BYTES)


def blob_digest(data: bytes) -> str:
    """BLAKE2b-128 of the bytes, in hex: the name of their blob."""
    return blake2b(data, digest_size=DIGEST_BYTES).hexdigest()


class Blobs:
    """The blobs of a run directory, for reading.

    Args:
        directory: The run directory. It is not looked at before the first `get`.
    """

    def __init__(self, directory: Path) -> None:
        self._blobs = directory / BLOBS

    def get(self, digest: str) -> bytes:
        """The bytes of one blob, read whole.

        Args:
            digest: As an event names it.

        Raises:
            TraceError: No digest, no such blob, or its bytes are not those that were written.
        """
        if not _DIGEST.fullmatch(digest):
            raise TraceError(
                f"{digest!r} is not the name of a blob ({2 * DIGEST_BYTES} hexadecimal digits).",
                "Take it from an event of the run.",
            )
        try:
            data = (self._blobs / digest).read_bytes()
        except FileNotFoundError as err:
            raise TraceError(
                f"The run has no blob {digest}.",
                "Its contents were not kept, or the directory was copied without them.",
            ) from err
        except OSError as err:
            raise TraceError(f"Can't read the blob {digest}: {err.strerror}.") from err
        if blob_digest(data) != digest:
            raise TraceError(
                f"The blob {digest} is damaged: its bytes have another digest.",
                "Copy the run again from where it was made.",
            )
        return data


def ids_to_blob(ids: Iterable[int]) -> bytes:
    """Token ids as little-endian uint32, the form they have in blobs.

    Raises:
        OverflowError: An id is negative or does not fit 32 bits: no tokenizer makes such ids.
    """
    packed = array(_ID_TYPECODE, ids)
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()


def ids_from_blob(data: bytes) -> tuple[int, ...]:
    """The token ids of a blob that `ids_to_blob` made.

    Raises:
        TraceError: The length is not a multiple of four bytes.
    """
    if len(data) % _ID_BYTES:
        raise TraceError(f"A blob of {len(data):,} bytes can't be token ids of {_ID_BYTES} bytes.")
    packed = array(_ID_TYPECODE, data)
    if sys.byteorder == "big":
        packed.byteswap()
    return tuple(packed)


def scores_to_blob(scores: Iterable[float]) -> bytes:
    """Log-probabilities as little-endian doubles, the form they have in blobs: nothing is lost."""
    packed = array("d", scores)
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()


def scores_from_blob(data: bytes) -> tuple[float, ...]:
    """The log-probabilities of a blob that `scores_to_blob` made.

    Raises:
        TraceError: The length is not a multiple of eight bytes.
    """
    if len(data) % _SCORE_BYTES:
        raise TraceError(f"A blob of {len(data):,} bytes can't be scores of {_SCORE_BYTES} bytes.")
    packed = array("d", data)
    if sys.byteorder == "big":
        packed.byteswap()
    return tuple(packed)

"""Checks a file from front to back before it is used: is it text, and what is its digest?

One pass, in blocks: memory stays at a few blocks however long the file is.
"""

from __future__ import annotations

import codecs
from typing import NamedTuple

from rlm_runtime.errors import InputError
from rlm_runtime.store.values import Digest, Sliceable

BLOCK_BYTES = 2**20

_BOM = b"\xef\xbb\xbf"
_ONLY_TEXT = "Only text can be read."
_SIGNATURES = (
    (b"%PDF-", "a PDF", "Extract its text first, for example with pdftotext."),
    (b"{\\rtf", "a rich-text (RTF) document", "Save it as plain text."),
    (b"PK\x03\x04", "a ZIP archive or an office document", "Unpack it, or save it as plain text."),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an office document", "Save it as plain text."),
    (b"\x1f\x8b", "compressed by gzip", "Decompress it first: gunzip."),
    (b"BZh91AY&SY", "compressed by bzip2", "Decompress it first: bunzip2."),
    (b"\xfd7zXZ\0", "compressed by xz", "Decompress it first: unxz."),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd", "Decompress it first: unzstd."),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", "Unpack it first."),
    (b"\x89PNG\r\n\x1a\n", "a PNG image", _ONLY_TEXT),
    (b"\xff\xd8\xff", "a JPEG image", _ONLY_TEXT),
    (b"\x7fELF", "a program", _ONLY_TEXT),
    (b"SQLite format 3\0", "an SQLite database", "Export what you need as text."),
    (b"\xff\xfe", "UTF-16 text", "Convert it: iconv -f UTF-16 -t UTF-8."),
    (b"\xfe\xff", "UTF-16 text", "Convert it: iconv -f UTF-16 -t UTF-8."),
)
"""Formats by their first bytes. Only signs that a plain text has no reason to begin with."""


class Checked(NamedTuple):
    """What the pass found.

    Attributes:
        start_byte: Where the text begins: behind a byte-order mark.
        digest: Of the text, as a value of kind `str`.
    """

    start_byte: int
    digest: str


def check_text(content: Sliceable, shown: str) -> Checked:
    """Make sure that `content` is UTF-8 text, and hash it.

    Args:
        content: The whole file.
        shown: What messages call it.

    Raises:
        InputError: It is empty, of another format, binary (a zero byte), or not UTF-8; the byte
            offset in the file is named.
    """
    head = bytes(content[: max(len(sign) for sign, _, _ in _SIGNATURES)])
    for sign, what, remedy in _SIGNATURES:
        if head.startswith(sign):
            raise InputError(f"{shown} is {what}, not plain text.", remedy)
    start = len(_BOM) if head.startswith(_BOM) else 0
    if len(content) == start:
        raise InputError(f"{shown} is empty.", "Name a file that holds text.")

    digest = Digest("str")
    decoder = codecs.getincrementaldecoder("utf-8")("strict")
    for offset in range(start, len(content), BLOCK_BYTES):
        block = bytes(content[offset : offset + BLOCK_BYTES])
        zero = block.find(0)
        if zero >= 0:
            raise InputError(f"{shown} is binary: byte {offset + zero:,} is zero.", _ONLY_TEXT)
        carried = len(decoder.getstate()[0])  # bytes of a character that began in the last block
        try:
            decoder.decode(block, final=offset + len(block) == len(content))
        except UnicodeDecodeError as err:
            bad = offset - carried + err.start
            raise InputError(
                f"{shown} is not UTF-8: {err.reason} at byte {bad:,} "
                f"({err.object[err.start]:#04x}).",
                "Convert it, for example: iconv -f ISO-8859-1 -t UTF-8.",
            ) from err
        digest.update(block)
    return Checked(start, digest.hex())


def check_utf8(data: bytes, shown: str) -> None:
    """Make sure that bytes are UTF-8, of any text.

    Args:
        data: All of them.
        shown: What messages call them.

    Raises:
        InputError: They are not; the byte is named.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("strict")
    for offset in range(0, len(data), BLOCK_BYTES):
        carried = len(decoder.getstate()[0])
        try:
            decoder.decode(data[offset : offset + BLOCK_BYTES], offset + BLOCK_BYTES >= len(data))
        except UnicodeDecodeError as err:
            raise InputError(
                f"{shown} is not UTF-8 (byte {offset - carried + err.start:,}).",
                "Store it as bytes, or encode it as UTF-8.",
            ) from err

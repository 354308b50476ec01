"""What `llm_map` asks about: the items of a list, or a text in pieces near a prompt's size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import anyio.to_thread
import numpy as np

from rlm_runtime.errors import BadPath
from rlm_runtime.prompt import Document
from rlm_runtime.scaffold.corpus import Piece
from rlm_runtime.scaffold.leaf_prompts import LeafPrompts
from rlm_runtime.scaffold.recipes.reading import Chunks
from rlm_runtime.scaffold.rendering import render
from rlm_runtime.scaffold.tree import Seat
from rlm_runtime.store import cut, target_bytes
from rlm_runtime.store.paths import ValuePath
from rlm_runtime.types import Ref


@dataclass(frozen=True, slots=True)
class Item:
    """A part of a value, as text.

    Attributes:
        ref: The value.
        text: The part's.
    """

    ref: Ref
    text: str


async def chunks_of(seat: Seat, ref: Ref, path: ValuePath) -> Sequence[Piece | Item]:
    """The chunks of a value or of a part of it.

    A whole text stays where it is: its chunks are places, the same for every question. Costs the
    encoding of it, about a second per MB, once.

    Args:
        seat: Who asks.
        ref: The value.
        path: Leads to the part.

    Raises:
        BadPath: It leads to nothing, or to what has no items and is no text.
        LimitExceeded: The tree's `max_seconds` are over.
    """
    if ref.kind == "str" and not path.steps:
        return (await Chunks.of(seat, [ref])).pieces

    def items() -> list[Item]:
        part = seat.tree.corpus.store.load(ref, path.steps)
        if isinstance(part, str):
            return [Item(ref, text) for text in _pieces(seat, part)]
        if isinstance(part, list) or (isinstance(part, np.ndarray) and part.ndim):
            return [Item(ref, render(item)) for item in part]
        raise BadPath(
            str(path), "it is no list and no text, so it has no chunks.", "Name a list or a text."
        )

    return await anyio.to_thread.run_sync(items, abandon_on_cancel=True)


def documents(seat: Seat, chunks: Sequence[Piece | Item]) -> list[Document]:
    """The documents of chunks; for a thread: encodes what is not kept, about a second per MB."""
    prompts, corpus = LeafPrompts(seat.tree), seat.tree.corpus
    return [
        corpus.document(chunk) if isinstance(chunk, Piece) else prompts.document(chunk.text)
        for chunk in chunks
    ]


def _pieces(seat: Seat, text: str) -> list[str]:
    data = text.encode()
    corpus = seat.tree.corpus
    size = target_bytes(data, corpus.chunk_tokens, corpus.layout.tokenizer.count)
    return [data[chunk.start : chunk.end].decode() for chunk in cut(data, size)]

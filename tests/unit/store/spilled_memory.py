"""What values of hundreds of megabytes cost in memory once they are stored.

    python -m tests.unit.store.spilled_memory FOLDER SIZE_BYTES

Stores a text of that size and an array of a third of it, reads parts of them, and prints one JSON
document: bytes of memory that no file is behind, and the peak from when a value had been made.
"""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from rlm_runtime.store import ContextStore

LINE = "Ein Satz über nichts, in dem ein Wort steht. "
FACT = "Edith Märlow repaired the clock.\n"


def status_bytes(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"this kernel does not tell {key}")


def text_of(size_bytes: int) -> str:
    line = LINE * 20 + "\n"
    half = line * (size_bytes // 2 // len(line.encode()))
    return half + FACT + half


def main(folder: Path, size_bytes: int) -> None:
    store = ContextStore(len, spill_bytes=16 * 2**20, spill_directory=folder)
    figures: dict[str, int] = {"rss_anon_before": status_bytes("RssAnon:")}

    def put(name: str, make: Callable[[], object]) -> None:
        value = make()
        held = status_bytes("RssAnon:")
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
        ref = store.put_value(name, value)
        figures[f"{name}_size"] = ref.size_bytes
        figures[f"{name}_peak_while_put"] = status_bytes("VmHWM:") - held
        del value
        gc.collect()
        figures[f"{name}_held"] = status_bytes("RssAnon:") - figures["rss_anon_before"]

    put("text", lambda: text_of(size_bytes))
    view = store.view(store.get("text").ref)
    (found,) = view.find(r"Edith \w+")
    figures["characters"] = len(view)
    figures["found_at"] = found.start
    assert view[found.start : found.end] == "Edith Märlow"
    assert view[-2:] == " \n"
    figures["lines"] = sum(1 for _ in view.lines())
    figures["after_reading_text"] = status_bytes("RssAnon:") - figures["rss_anon_before"]

    put("array", lambda: np.arange(size_bytes // 24).reshape(-1, 4))
    ref = store.get("array").ref
    rows = store.load(ref, (slice(-2, None),))
    assert isinstance(rows, np.ndarray)
    figures["last_item"] = int(rows[-1, -1])
    figures["after_reading_array"] = status_bytes("RssAnon:") - figures["rss_anon_before"]
    print(json.dumps(figures))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))

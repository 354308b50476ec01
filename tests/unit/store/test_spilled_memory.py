"""Values of hundreds of megabytes are held, searched and sliced in a few megabytes of memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.unit.store.spilled_memory import LINE

ROOT = Path(__file__).parents[3]
SIZE_BYTES = 300_000_000
LITTLE_BYTES = 32 * 2**20


def test_a_spilled_value_costs_little_memory(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "tests.unit.store.spilled_memory", tmp_path, str(SIZE_BYTES)],
        cwd=ROOT,
        check=True,
        stdout=subprocess.PIPE,
    )
    figures = json.loads(ran.stdout)
    print(figures)
    assert abs(figures["text_size"] - SIZE_BYTES) < 10_000
    assert abs(figures["array_size"] - SIZE_BYTES // 3) < 10_000
    assert figures["text_size"] - figures["characters"] == 20 * (figures["lines"] - 1) + 1
    assert figures["found_at"] == (figures["lines"] - 1) // 2 * (20 * len(LINE) + 1)
    assert figures["last_item"] == SIZE_BYTES // 24 - 1
    assert figures["text_peak_while_put"] < LITTLE_BYTES
    for moment in ("text_held", "after_reading_text", "array_held", "after_reading_array"):
        assert figures[moment] < LITTLE_BYTES, moment

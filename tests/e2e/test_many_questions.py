"""`rlm-bench run many-questions` as people type it, with a cache for a third of the document."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e

RLM_BENCH = Path(sys.executable).with_name("rlm-bench")


def test_a_small_cache_costs_the_question_order_and_each_token_has_its_cause(
    tmp_path: Path, model_dir: Path
) -> None:
    own = {name: value for name, value in os.environ.items() if not name.startswith("RLM_")}
    if "RLM_HOME" in os.environ:
        own["RLM_MODEL"] = str(model_dir)
    ended = subprocess.run(
        [
            *(RLM_BENCH, "run", "many-questions", "--order", "both", "--json"),
            *("--tokens", "3k", "--questions", "2", "--kv-tokens", "2600"),
        ],
        capture_output=True,
        text=True,
        check=False,
        env=own | {"XDG_STATE_HOME": str(tmp_path)},
    )
    assert ended.returncode == 0, ended.stderr
    document = json.loads(ended.stdout)
    figures = document["figures"]
    # One block is vLLM's own.
    assert figures["kv_tokens"] in (2592, 2624)
    assert figures["miss_evicted_tokens_document"] == 0
    assert figures["miss_evicted_tokens_question"] > 700
    assert figures["hit_rate_of_ceiling_document"] >= 0.98
    assert figures["computed_tokens"] == figures["engine_computed_tokens"]
    assert figures["miss_unexplained_tokens"] == 0
    causes = [v for name, v in figures.items() if name.startswith("miss_")]
    by_order = [v for n, v in figures.items() if n.startswith("miss_") and "tokens_" in n]
    assert sum(causes) - sum(by_order) == figures["computed_tokens"]
    assert {Path(file).name for file in document["files"]} >= {"result.json", "tokens.png"}

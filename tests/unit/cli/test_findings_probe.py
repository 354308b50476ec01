"""What `rlm doctor --probe` says of what the probe saw."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlm_runtime.cli.findings import Finding
from rlm_runtime.cli.findings_probe import findings
from rlm_runtime.cli.model_shape import mixed_layers
from rlm_runtime.engine.base import EngineInfo
from rlm_runtime.engine.probe import CacheProbe

INFO = EngineInfo("smol", 8192, 32, 5800, "0", 49_152, 16, "vllm 0 cpu", can_choose=True)


def found(mixed: tuple[str, ...] = (), **changed: Any) -> dict[str, Finding]:
    fields = {
        "repeated_tokens": 2048,
        "repeated_cached_tokens": 2016,
        "step_tokens": 32,
        "shared_tokens": 1216,
        "shared_cached_tokens": 1216,
        "generated_cached_tokens": 32,
        "scored_cached_tokens": 256,
        "score_gap": 0.1,
    }
    return {f.name: f for f in findings(INFO, CacheProbe(**fields | changed), mixed, 12.4)}


def test_an_engine_that_caches_is_well() -> None:
    told = found()
    assert {finding.level for finding in told.values()} == {"ok"}
    assert "boots in 12 s" in told["engine"].what
    assert "2,016" in told["prefix_cache"].what
    assert "steps of 32 tokens" in told["cache_step"].what
    assert "1,216 of its 1,216 tokens" in told["shared_prefix_cached"].what


def test_no_hits_name_the_kinds_of_layers_and_a_remedy() -> None:
    told = found(("linear_attention",), repeated_cached_tokens=0, step_tokens=None)
    assert told["prefix_cache"].level == "problem"
    assert "(linear_attention)" in told["prefix_cache"].what
    assert "full attention" in told["prefix_cache"].remedy
    assert "cache_step" not in told, "nothing more can be said about the cache"


def test_no_hits_of_a_common_model_point_at_the_configuration() -> None:
    told = found(repeated_cached_tokens=0, step_tokens=None)
    assert "layers of another kind" not in told["prefix_cache"].what
    assert "enable_prefix_caching" in told["prefix_cache"].remedy


@pytest.mark.parametrize(("step", "level"), [(32, "ok"), (544, "warning"), (1500, "problem")])
def test_a_step_of_many_blocks_is_named(step: int, level: str) -> None:
    assert found(step_tokens=step)["cache_step"].level == level


def test_a_shared_prefix_shorter_than_a_step_is_a_problem() -> None:
    told = found(step_tokens=1500, shared_cached_tokens=0)
    assert told["shared_prefix_cached"].level == "problem"
    assert "shorter than a step" in told["shared_prefix_cached"].what


@pytest.mark.parametrize(("tokens", "level"), [(32, "ok"), (0, "warning"), (None, "ok")])
def test_uncached_answers_are_a_warning(tokens: int | None, level: str) -> None:
    assert found(generated_cached_tokens=tokens)["generated_cached"].level == level


@pytest.mark.parametrize(("gap", "level"), [(0.4, "ok"), (9.0, "problem")])
def test_scores_that_the_cache_changes_are_a_problem(gap: float, level: str) -> None:
    assert found(score_gap=gap)["scores"].level == level


def test_scored_prompts_that_are_computed_whole_are_a_warning() -> None:
    told = found(scored_cached_tokens=0, score_gap=0.0)
    assert told["scores"].level == "warning"
    nothing = found(repeated_cached_tokens=0, step_tokens=None, scored_cached_tokens=0)
    assert nothing["scores"].level == "ok", "said of the whole cache already"


@pytest.mark.parametrize(
    ("told", "mixed"),
    [
        ({}, ()),
        ({"layer_types": ["full_attention"] * 4}, ()),
        ({"layer_types": ["linear_attention", "full_attention"]}, ("linear_attention",)),
        ({"text_config": {"layer_types": ["sliding_attention"]}}, ("sliding_attention",)),
        ({"layers_block_type": ["mamba", "attention"], "mamba_d_state": 16}, ("mamba",)),
        ({"model_type": "mamba", "state_size": 16}, ("mamba",)),
        ({"sliding_window": 4096}, ("sliding_attention",)),
        ({"sliding_window": 4096, "use_sliding_window": False}, ()),
        ({"sliding_window": None}, ()),
        ({"layer_types": None, "layers_block_type": None}, ()),
    ],
)
def test_kinds_of_layers_are_read_from_the_models_description(
    told: dict[str, Any], mixed: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(told))
    assert mixed_layers(tmp_path) == mixed

"""Our configuration in vLLM's words."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from rlm_runtime.config.model import EngineConfig
from rlm_runtime.engine import memory, settings
from rlm_runtime.engine.counters import Counters
from rlm_runtime.errors import ConfigError, EngineError

KNOWN = ["model", "max_model_len", "enable_lora", "tensor_parallel_size"]
FOLDER = Path("/model")


def args(**fields: object) -> dict[str, object]:
    return settings.engine_args(EngineConfig.model_validate(fields), FOLDER, "smol", KNOWN)


def test_settings_become_arguments() -> None:
    assert args(window_tokens=1000, kv_cache_gib=0.5, max_running=3, max_batched_tokens=64) == {
        "model": "/model",
        "served_model_name": "smol",
        "dtype": "bfloat16",
        "block_size": 32,
        "max_model_len": 1000,
        "kv_cache_memory_bytes": 1 << 29,
        "max_num_seqs": 3,
        "max_num_batched_tokens": 64,
        "enforce_eager": True,
        "enable_prefix_caching": True,
        "scheduling_policy": "priority",
        "disable_log_stats": True,
    }


def test_what_is_left_to_vllm_is_not_said() -> None:
    assert not {"max_model_len", "kv_cache_memory_bytes"} & set(
        args(window_tokens=None, kv_cache_gib=None)
    )


def test_more_arguments_win() -> None:
    given = args(window_tokens=1000, vllm_args={"max_model_len": 7, "enable_lora": True})
    assert (given["max_model_len"], given["enable_lora"]) == (7, True)


@pytest.mark.parametrize(
    ("name", "message"),
    [("max_model_length", "The nearest one is 'max_model_len'"), ("xyz", "no argument 'xyz'")],
)
def test_an_argument_that_vllm_lacks_is_named_with_the_nearest(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        args(vllm_args={name: 1})


def environment(before: dict[str, str], **fields: object) -> dict[str, str]:
    config = EngineConfig.model_validate(fields)
    return settings.environment(config, Path("/log"), Path("/scratch"), before)


def test_nothing_is_asked_of_or_told_to_a_network() -> None:
    told = environment({})
    assert (told["HF_HUB_OFFLINE"], told["VLLM_NO_USAGE_STATS"]) == ("1", "1")


def test_a_list_of_allowed_plugins_gets_ours() -> None:
    assert "VLLM_PLUGINS" not in environment({})
    assert "VLLM_PLUGINS" not in environment({"VLLM_PLUGINS": "a,rlm_runtime"})
    assert environment({"VLLM_PLUGINS": "a"})["VLLM_PLUGINS"] == "a,rlm_runtime"
    assert environment({"VLLM_PLUGINS": ""})["VLLM_PLUGINS"] == "rlm_runtime"


def test_no_compiled_grammar_is_kept_whoever_asks_for_it() -> None:
    """One of equal shape would be taken for it; see `choices.CACHE_MB`."""
    assert environment({"VLLM_XGRAMMAR_CACHE_MB": "200"})["VLLM_XGRAMMAR_CACHE_MB"] == "0"


def test_what_torch_compiled_is_not_thrown_away_with_the_scratch_directory() -> None:
    assert not environment({})["TORCHINDUCTOR_CACHE_DIR"].startswith("/scratch")
    chosen = environment({"TORCHINDUCTOR_CACHE_DIR": "/mine"})
    assert chosen["TORCHINDUCTOR_CACHE_DIR"] == "/mine"


@pytest.mark.parametrize(
    ("fields", "cores", "expected"),
    [
        (
            {},
            4,
            {
                "OMP_NUM_THREADS": "3",
                "TORCHDYNAMO_DISABLE": "1",
                "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            },
        ),
        (
            {"enforce_eager": False},
            1,
            {
                "OMP_NUM_THREADS": "1",
                "OMP_WAIT_POLICY": "PASSIVE",
                "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            },
        ),
        (
            {"vllm_args": {"tensor_parallel_size": 2}},
            4,
            {"OMP_NUM_THREADS": "3", "TORCHDYNAMO_DISABLE": "1"},
        ),
        (
            {"vllm_args": {"distributed_executor_backend": "mp"}, "cpu_threads": 2},
            4,
            {
                "OMP_NUM_THREADS": "2",
                "TORCHDYNAMO_DISABLE": "1",
                "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            },
        ),
    ],
)
def test_a_cpu_engine_gets_its_threads(
    fields: dict[str, object], cores: int, expected: dict[str, str]
) -> None:
    config = EngineConfig.model_validate(fields)
    assert settings.cpu_environment(config, cores) == expected


@pytest.mark.parametrize(
    ("quota", "cores"),
    [(None, 6), ("max 100000", 6), ("250000 100000", 2), ("50000 100000", 1), ("nonsense", 6)],
)
def test_cores_are_those_that_the_container_allows(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, quota: str | None, cores: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(12)))
    monkeypatch.setattr(psutil, "cpu_count", lambda logical: 6)
    if quota is not None:
        (tmp_path / "cpu.max").write_text(f"{quota}\n")
    assert settings.usable_cores(tmp_path) == cores


def test_the_environment_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_NUM_THREADS", "LD_PRELOAD", "VLLM_NEW"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("VLLM_USE_V1", "mine")
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "40")
    before = dict(os.environ)
    with settings.engine_environment({"OMP_NUM_THREADS": "3", "VLLM_USE_V1": "theirs"}):
        assert (os.environ["OMP_NUM_THREADS"], os.environ["VLLM_USE_V1"]) == ("3", "theirs")
        assert "VLLM_CPU_KVCACHE_SPACE" not in os.environ
        os.environ.update(LD_PRELOAD="libgomp.so", VLLM_NEW="1")  # as vLLM does
        monkeypatch.setenv("MEANWHILE", "kept")  # as another thread may
    assert dict(os.environ) == before | {"MEANWHILE": "kept"}


def test_the_environment_is_given_back_after_an_error() -> None:
    before = dict(os.environ)
    with pytest.raises(RuntimeError), settings.engine_environment({"VLLM_NEW": "1"}):
        raise RuntimeError
    assert dict(os.environ) == before


GIB = 1 << 30


def test_memory_needed_is_weights_and_cache_and_processes(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"x" * 1000)
    (tmp_path / "b.safetensors").write_bytes(b"x" * 10)
    (tmp_path / "tokenizer.json").write_bytes(b"x" * 5000)
    assert memory.needed_bytes(tmp_path, 2) == 1010 + 2 * GIB + memory.OVERHEAD_BYTES
    assert memory.needed_bytes(tmp_path, None) == 1010 + memory.OVERHEAD_BYTES


@pytest.mark.parametrize(
    ("limit", "available"), [(None, 8 * GIB), ("max", 8 * GIB), (f"{5 * GIB}", 3 * GIB), ("1", 0)]
)
def test_memory_available_is_what_the_container_has_left(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, limit: str | None, available: int
) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=8 * GIB))
    if limit is not None:
        (tmp_path / "memory.max").write_text(f"{limit}\n")
        (tmp_path / "memory.current").write_text(f"{3 * GIB}\n")
        (tmp_path / "memory.stat").write_text(f"anon 5\ninactive_file {GIB}\n")
    assert memory.available_bytes(tmp_path) == available


def test_too_little_memory_says_what_would_fit() -> None:
    memory.check(5 * GIB, 5 * GIB, 4)
    with pytest.raises(EngineError, match=r"needs about 7.0 GiB.*5.0 GiB are free.*at most 2.0"):
        memory.check(7 * GIB, 5 * GIB, 4)
    with pytest.raises(EngineError, match="choose a smaller model"):
        memory.check(7 * GIB, 2 * GIB, 4)


def scheduler_step(running: int, waiting: int, skipped: int, usage: float) -> SimpleNamespace:
    return SimpleNamespace(
        num_running_reqs=running,
        num_waiting_reqs=waiting,
        num_skipped_waiting_reqs=skipped,
        kv_cache_usage=usage,
    )


def tokens(total: int, cached: int, generated: int, preempted: int) -> SimpleNamespace:
    prompts = SimpleNamespace(total=total, cached_tokens=cached, computed=total - cached)
    return SimpleNamespace(
        prompt_token_stats=prompts, num_generation_tokens=generated, num_preempted_reqs=preempted
    )


def test_counters_add_up_tokens_and_keep_the_last_gauges() -> None:
    counters = Counters()
    counters.record(scheduler_step(4, 2, 1, 0.5), tokens(100, 64, 3, 1))
    counters.record(scheduler_step(1, 0, 0, 0.25), None)
    counters.record(None, tokens(10, 0, 2, 0))
    stats = counters.stats()
    assert (stats.prompt_tokens, stats.cached_tokens, stats.computed_tokens) == (110, 64, 46)
    assert (stats.generated_tokens, stats.preemptions) == (5, 1)
    assert (stats.running, stats.waiting, stats.kv_usage) == (1, 0, 0.25)


def test_counters_of_several_engine_cores_are_one() -> None:
    counters = Counters()
    counters.record(scheduler_step(4, 2, 1, 0.5), None, engine_idx=0)
    counters.record(scheduler_step(1, 1, 0, 0.25), None, engine_idx=1)
    stats = counters.stats()
    assert (stats.running, stats.waiting, stats.kv_usage) == (5, 4, 0.5)


def test_counters_can_begin_again() -> None:
    counters = Counters()
    counters.record(scheduler_step(4, 2, 1, 0.5), tokens(100, 64, 3, 1))
    counters.zero()
    assert counters.stats() == Counters().stats()

"""Our configuration in vLLM's words: arguments of `AsyncEngineArgs` and environment variables."""

from __future__ import annotations

import difflib
import getpass
import os
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from math import ceil
from pathlib import Path

import psutil

from rlm_runtime.config.model import EngineConfig
from rlm_runtime.engine.child_guard import FRONT, LOG
from rlm_runtime.engine.choices import CACHE_MB
from rlm_runtime.errors import ConfigError

PLUGIN = "rlm_runtime"
"""Our entry point in the group `vllm.general_plugins`."""

_PARALLEL = ("distributed_executor_backend", "tensor_parallel_size", "pipeline_parallel_size")

_OURS = ("VLLM_", "HF_", "OMP_", "GOMP_", "KMP_", "TORCH", "PYTORCH_", "NUMEXPR_", "_RLM_ENGINE_")
_OURS_WHOLE = ("LD_PRELOAD", "LOCAL_WORLD_SIZE", "TMPDIR")
"""Variables that vLLM or this package set for the engine's processes."""


def engine_args(
    config: EngineConfig, model_dir: Path, model_name: str, known: Collection[str]
) -> dict[str, object]:
    """Arguments of `AsyncEngineArgs`; `config.vllm_args` come last and win.

    Args:
        config: The engine's settings.
        model_dir: A folder in Hugging Face's layout.
        model_name: The name the model is served under.
        known: Names that `AsyncEngineArgs` has.

    Raises:
        ConfigError: `vllm_args` has a name that is not known.
    """
    for name in config.vllm_args:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise ConfigError(
                f"vLLM has no argument {name!r} (engine.vllm_args).",
                f"The nearest one is {near[0]!r}." if near else "",
            )
    args: dict[str, object] = {
        "model": str(model_dir),
        "served_model_name": model_name,
        "dtype": config.dtype,
        "block_size": config.block_size,
        "max_num_seqs": config.max_running,
        "max_num_batched_tokens": config.max_batched_tokens,
        "enforce_eager": config.enforce_eager,
        "enable_prefix_caching": True,
        "scheduling_policy": "priority",
        # Ours is enough: theirs prints every ten seconds. It stays on inside all the same.
        "disable_log_stats": True,
    }
    if config.window_tokens is not None:
        args["max_model_len"] = config.window_tokens
    if config.kv_cache_gib is not None:
        args["kv_cache_memory_bytes"] = int(config.kv_cache_gib * (1 << 30))
    return args | config.vllm_args


def environment(
    config: EngineConfig, log: Path, scratch: Path, before: Mapping[str, str]
) -> dict[str, str]:
    """Variables for this process and vLLM's, to be set before vLLM is imported.

    Args:
        config: The engine's settings.
        log: Where the processes write.
        scratch: A directory of this engine alone, for its sockets and temporary files.
        before: The environment as it is.
    """
    inductor_cache = Path(tempfile.gettempdir()) / f"torchinductor_{getpass.getuser()}"
    changes = {
        FRONT: str(os.getpid()),
        LOG: str(log),
        # The model is a folder: nothing is asked of any network, nothing is told to anybody.
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_DO_NOT_TRACK": "1",
        "VLLM_XGRAMMAR_CACHE_MB": str(CACHE_MB),
        # Every process gets its log handler from us (`engine_log.py`, `child_guard.py`).
        "VLLM_CONFIGURE_LOGGING": "0",
        # A fork of a process with threads and an event loop is not safe, here or on a GPU.
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
        # Ours (`start_timeout_s`) is the one that speaks.
        "VLLM_ENGINE_READY_TIMEOUT_S": str(ceil(config.start_timeout_s) + 60),
        "VLLM_RPC_BASE_PATH": str(scratch),
        "TMPDIR": str(scratch),
        # Torch keeps what it compiled in the temporary directory: in the one that stays.
        "TORCHINDUCTOR_CACHE_DIR": before.get("TORCHINDUCTOR_CACHE_DIR", str(inductor_cache)),
    }
    plugins = before.get("VLLM_PLUGINS")
    if plugins is not None and PLUGIN not in plugins.split(","):
        changes["VLLM_PLUGINS"] = f"{plugins},{PLUGIN}" if plugins else PLUGIN
    return changes


def cpu_environment(config: EngineConfig, cores: int) -> dict[str, str]:
    """More variables for an engine on a CPU, to be set before its processes are spawned.

    Measured with vLLM 0.32, the default model and two cores: the executor inside the engine core
    (`uni`) boots in 12 s instead of 17 s and is as fast; without TorchDynamo the first request for
    log-probabilities takes 0.13 s instead of 3.6 s, needs no C++ compiler, and later ones are as
    fast; as many threads as cores make decoding 10 times slower while idle ones spin.
    """
    threads = config.cpu_threads or max(1, cores - 1)
    changes = {"OMP_NUM_THREADS": str(threads)}
    if threads >= cores:
        changes["OMP_WAIT_POLICY"] = "PASSIVE"
    if config.enforce_eager:
        changes["TORCHDYNAMO_DISABLE"] = "1"
    if not any(name in config.vllm_args for name in _PARALLEL):
        # The one way to have `uni` on a CPU; AsyncLLM's engine core stays a process of its own.
        changes["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    elif config.cpu_threads is not None:
        changes["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
    return changes


def usable_cores(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Physical cores that this process may use, the container's quota included; at least one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cores = min(cores or 1, psutil.cpu_count(logical=False) or cores or 1)
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):  # no container, or one of the first kind of cgroups
        return cores
    if quota != "max":
        cores = min(cores, int(quota) // int(period))
    return max(1, cores)


@contextmanager
def engine_environment(changes: Mapping[str, str]) -> Iterator[None]:
    """Set variables for a boot, and give this process's environment back afterwards.

    vLLM sets more itself (a preloaded library, thread counts), which no other child of this
    process should inherit. Variables of other kinds are left alone.
    """
    before = _engine_variables()
    # These would win over our settings, or contradict the way we log.
    for name in ("VLLM_CPU_KVCACHE_SPACE", "VLLM_LOGGING_CONFIG_PATH"):
        os.environ.pop(name, None)
    os.environ.update(changes)
    try:
        yield
    finally:
        for name in _engine_variables().keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


def _engine_variables() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if name.startswith(_OURS) or name in _OURS_WHOLE
    }

"""The machine: cores, memory, GPU, and room for a run."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import psutil

from rlm_runtime.cli.findings import Finding, problem
from rlm_runtime.cli.findings_packages import NAME, installed
from rlm_runtime.cli.terminal import count, shown_path, size
from rlm_runtime.config import Config, state_home
from rlm_runtime.engine import memory as engine_memory
from rlm_runtime.engine.settings import usable_cores
from rlm_runtime.errors import ConfigError
from rlm_runtime.tracing.recorder import LEAST_FREE_BYTES

_GPU_FIELDS = "name,memory.total,memory.free,driver_version"
_GPU_TIMEOUT_S = 10.0


def cores(config: Config) -> Finding:
    """Cores this process may use, against the threads the engine is given."""
    number, threads = usable_cores(), config.engine.cpu_threads
    facts = {"cores": number, "cpu_threads": threads}
    if threads is not None and threads > number:
        return Finding(
            name="cores",
            level="warning",
            what=f"engine.cpu_threads is {threads}, there are {count(number, 'core')}: threads "
            "that share a core wait for each other at every step.",
            remedy="Lower it, or set it to null.",
            facts=facts,
        )
    return Finding(name="cores", level="ok", what=count(number, "core"), facts=facts)


def memory() -> Finding:
    """The machine's memory."""
    total, available = psutil.virtual_memory().total, engine_memory.available_bytes()
    what = f"memory: {size(total)}, {size(available)} available"
    facts = {"total_bytes": total, "available_bytes": available}
    return Finding(name="memory", level="ok", what=what, facts=facts)


def gpu() -> Finding:
    """NVIDIA GPUs, as their driver's own program tells; takes up to a second where there are."""
    names = _gpus()
    facts = {"gpus": names}
    if names:
        return Finding(name="gpu", level="ok", what=f"GPU: {'; '.join(names)}", facts=facts)
    if installed("vllm") is not None:
        return Finding(
            name="gpu",
            level="problem",
            what="vLLM's CUDA build is installed, and there is no NVIDIA GPU (nvidia-smi).",
            remedy=f"Install the CPU build: pip uninstall vllm, then pip install '{NAME}[cpu]'.",
            facts=facts,
        )
    return Finding(name="gpu", level="ok", what="GPU: not available", facts=facts)


def run_directory(config: Config) -> Finding:
    """Whether a run can be written where it would be."""
    if not config.run.keep:
        return Finding(name="run_directory", level="ok", what="runs: nothing is kept (run.keep)")
    try:
        wanted = config.run.directory or state_home() / "runs"
    except ConfigError as err:
        return problem("run_directory", err)
    folder = _existing(wanted)
    free = shutil.disk_usage(folder).free
    facts = {"path": shown_path(wanted), "free_bytes": free}
    trouble = ""
    if not folder.is_dir():
        trouble = f"{shown_path(folder)} is no directory."
    elif not os.access(folder, os.W_OK | os.X_OK):
        trouble = f"{shown_path(folder)} can't be written."
    elif free < LEAST_FREE_BYTES:
        trouble = f"Only {size(free)} are free for runs; one needs {size(LEAST_FREE_BYTES)}."
    if trouble:
        return Finding(
            name="run_directory",
            level="problem",
            what=trouble,
            remedy="Choose another place: --run-dir DIR, or RLM_HOME.",
            facts=facts,
        )
    what = f"runs go to {shown_path(wanted)}, {size(free)} free"
    return Finding(name="run_directory", level="ok", what=what, facts=facts)


def _existing(path: Path) -> Path:
    """The path, or the nearest folder above it that is there."""
    return next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())


def _gpus() -> list[str]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    try:
        asked = subprocess.run(  # noqa: S603 - the driver's own program, no shell
            [program, f"--query-gpu={_GPU_FIELDS}", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=_GPU_TIMEOUT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return []  # a driver that does not answer has no GPU to offer
    return [line.strip() for line in asked.stdout.splitlines() if line.strip()]

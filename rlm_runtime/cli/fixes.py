"""What `rlm doctor --fix` does."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Sequence

from rlm_runtime.cli.findings import Finding
from rlm_runtime.cli.findings_packages import BREAKING, breaks, installed
from rlm_runtime.cli.first_use import bring
from rlm_runtime.cli.terminal import Terminal
from rlm_runtime.engine import model_files
from rlm_runtime.errors import EngineError


def apply(found: Sequence[Finding], terminal: Terminal) -> None:
    """Do what can be done about what was found.

    Raises:
        EngineError: The packages can't be removed.
        ModelError: The model can't be prepared.
    """
    wanted = {finding.fix for finding in found}
    if "packages" in wanted:
        remove_packages(terminal)
    if "model" in wanted:
        # Only a damaged folder is there already.
        is_there = (model_files.models_home() / model_files.DEFAULT).exists()
        bring(model_files.DEFAULT, terminal, force=is_there)


def remove_packages(terminal: Terminal) -> None:
    """Uninstall what breaks vLLM's CPU build, with this interpreter's pip.

    Raises:
        EngineError: There is no pip, or it failed.
    """
    names = [name for name in BREAKING if breaks(installed(name))]
    by_hand = f"Run it yourself: pip uninstall -y {' '.join(names)}"
    if importlib.util.find_spec("pip") is None:
        raise EngineError("This Python has no pip to remove packages with.", by_hand)
    terminal.say(f"Removing {', '.join(names)}")
    argv = [sys.executable, "-P", "-m", "pip", "uninstall", "-y", "--no-input", *names]
    # pip's own words go to stderr: stdout is for what the doctor found.
    done = subprocess.run(  # noqa: S603 - this interpreter's pip, no shell
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode != 0:
        raise EngineError(f"pip could not remove them: {done.stdout.strip()[-300:]}", by_hand)

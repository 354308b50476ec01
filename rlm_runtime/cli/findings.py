"""What `rlm doctor` finds, as data: looked up, never tried out, and without importing vLLM.

Looking takes under a second; the two slow looks (reading all weights, asking for a GPU) go on
beside the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from rlm_runtime.config import Config
from rlm_runtime.errors import ConfigError, RLMError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rlm_runtime.config import Loaded

Level = Literal["ok", "warning", "problem"]
Fix = Literal["packages", "model"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: What, in one word that stays the same.
        level: `problem`: questions can't be answered like this. `warning`: they can, but slower,
            or not for long.
        what: What was found.
        remedy: What to do; empty when nothing has to be done.
        facts: The same for programs.
        fix: What `--fix` does about it; `None` is nothing.
    """

    name: str
    level: Level
    what: str
    remedy: str = ""
    facts: Mapping[str, object] = field(default_factory=dict)
    fix: Fix | None = None


def problem(name: str, error: RLMError, fix: Fix | None = None) -> Finding:
    """A finding made of the error that a run would end with."""
    return Finding(name=name, level="problem", what=error.what, remedy=error.remedy, fix=fix)


def look(load: Callable[[], Loaded]) -> list[Finding]:
    """Look at everything.

    Args:
        load: Reads the configuration. With one that can't be read, the rest is looked at as it is
            for the defaults.
    """
    # Here, so that each of the files below can use `Finding`.
    from rlm_runtime.cli import findings_machine, findings_model, findings_packages

    try:
        loaded = load()
        config, configuration = loaded.config, _configuration(loaded)
    except ConfigError as err:
        config, configuration = Config(), problem("config", err)
    with ThreadPoolExecutor(2) as beside:
        gpu = beside.submit(findings_machine.gpu)
        model = findings_model.find(config.model)
        weights = beside.submit(findings_model.weights, model)
        return [
            *findings_packages.look(config),
            configuration,
            *findings_model.look(config, model, weights.result),
            findings_machine.cores(config),
            findings_machine.memory(),
            gpu.result(),
            findings_machine.run_directory(config),
        ]


def _configuration(loaded: Loaded) -> Finding:
    origins = set(loaded.origins.values()) - {"default", loaded.source}
    variables = sorted(origin for origin in origins if origin.startswith("RLM_"))
    what = f"configuration {loaded.source}"
    if variables:
        what += f", and {', '.join(variables)}"
    facts = {"source": loaded.source, "variables": variables}
    return Finding(name="config", level="ok", what=what, facts=facts)

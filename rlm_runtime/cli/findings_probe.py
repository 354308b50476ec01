"""What `rlm doctor --probe` finds: the engine is booted, and its cache tried."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import NamedTuple

from rlm_runtime.api import RLM, AsyncRLM
from rlm_runtime.cli import progress
from rlm_runtime.cli.findings import Finding, Level, problem
from rlm_runtime.cli.first_use import get_ready
from rlm_runtime.cli.model_shape import mixed_layers
from rlm_runtime.cli.terminal import Terminal, count, seconds
from rlm_runtime.config import Config
from rlm_runtime.engine import model_files
from rlm_runtime.engine.base import EngineInfo
from rlm_runtime.engine.probe import CacheProbe, probe_cache
from rlm_runtime.errors import RLMError

MAX_SCORE_GAP = 1.0
"""Nats. Rounding of bfloat16 alone makes up to 0.4 of difference; a wrong position far more."""


def probe(config: Config, terminal: Terminal) -> list[Finding]:
    """Boot the engine and try its cache; half a minute on two CPU cores.

    What keeps the engine from booting is a finding too.
    """
    boot = progress.Boot()
    config = config.model_copy(update={"run": config.run.model_copy(update={"keep": False})})
    try:
        get_ready(config, terminal)
        with RLM(config, on_stage=boot.tell) as rlm, progress.shown(terminal, "booting") as show:
            boot.show = show
            info, result, boot_s = rlm.call(lambda session: _probe(session, show))
        mixed = mixed_layers(model_files.resolve(config.model).path)
    except RLMError as err:
        return [problem("engine", err)]
    return list(findings(info, result, mixed, boot_s))


class _Probed(NamedTuple):
    info: EngineInfo
    result: CacheProbe
    boot_s: float


async def _probe(session: AsyncRLM, show: progress.Show) -> _Probed:
    began_s = time.monotonic()
    parts = await session.internals()
    boot_s = time.monotonic() - began_s
    show(progress.State("trying the prefix cache"))
    result = await probe_cache(parts.engine, session.layout.shared_ids)
    return _Probed(parts.engine.info, result, boot_s)


def findings(
    info: EngineInfo, result: CacheProbe, mixed: tuple[str, ...], boot_s: float
) -> Iterator[Finding]:
    """What a probe means.

    Args:
        info: Of the engine that was probed.
        result: What it did.
        mixed: Kinds of the model's layers beside full attention.
        boot_s: How long the boot took.
    """
    facts = {
        "backend": info.backend,
        "kv_tokens": info.kv_tokens,
        "window_tokens": info.window,
        "boot_s": boot_s,
    }
    what = f"engine: {info.backend} boots in {seconds(boot_s)}, "
    what += f"{count(info.kv_tokens, 'token')} of KV cache"
    yield Finding(name="engine", level="ok", what=what, facts=facts)
    yield _hits(result, mixed)
    if result.step_tokens is not None:
        yield _step(info, result, result.step_tokens)
        yield _shared(result)
        yield _generated(result)
    yield _scores(result)


def _hits(result: CacheProbe, mixed: tuple[str, ...]) -> Finding:
    facts = {
        "repeated_tokens": result.repeated_tokens,
        "repeated_cached_tokens": result.repeated_cached_tokens,
        "mixed_layers": list(mixed),
    }
    sent = f"an equal prompt of {count(result.repeated_tokens, 'token')}"
    if result.repeated_cached_tokens:
        what = f"prefix cache: {sent} took {result.repeated_cached_tokens:,} from the cache"
        return Finding(name="prefix_cache", level="ok", what=what, facts=facts)
    why = "The model has layers of another kind than full attention "
    why = f"{why}({', '.join(mixed)}), which vLLM may not cache. " if mixed else ""
    return Finding(
        name="prefix_cache",
        level="problem",
        what=f"prefix cache: {sent} took nothing from the cache. {why}Every call would compute "
        "the shared prefix again.",
        remedy="Use a model with full attention in all layers, or see that engine.vllm_args does "
        "not set enable_prefix_caching to false.",
        facts=facts,
    )


def _step(info: EngineInfo, result: CacheProbe, step: int) -> Finding:
    facts = {"step_tokens": step, "block_size": info.block_size}
    what = f"cache step: prompts share the cache in steps of {count(step, 'token')}"
    if step <= info.block_size:
        return Finding(name="cache_step", level="ok", what=what, facts=facts)
    level: Level = "problem" if step > result.shared_tokens else "warning"
    return Finding(
        name="cache_step",
        level=level,
        what=f"{what}, not of engine.block_size ({info.block_size:,}): up to {step - 1:,} tokens "
        "of each shared beginning are computed again.",
        remedy=f"Use --set engine.block_size={step} if vLLM takes it, or a model whose layers "
        "are all of one kind.",
        facts=facts,
    )


def _shared(result: CacheProbe) -> Finding:
    facts = {
        "shared_prefix_tokens": result.shared_tokens,
        "shared_cached_tokens": result.shared_cached_tokens,
    }
    what = f"shared prefix: {result.shared_cached_tokens:,} of its "
    what += f"{count(result.shared_tokens, 'token')} come from the cache"
    if not result.shared_cached_tokens:
        return Finding(
            name="shared_prefix_cached",
            level="problem",
            what=f"{what}: it is shorter than a step of the cache.",
            remedy="Use a smaller engine.block_size, or another model.",
            facts=facts,
        )
    return Finding(name="shared_prefix_cached", level="ok", what=what, facts=facts)


def _generated(result: CacheProbe) -> Finding:
    tokens = result.generated_cached_tokens
    facts = {"generated_cached_tokens": tokens}
    name = "generated_cached"
    if tokens is None:
        what = "generated tokens: not tried, a step of the cache is too long for that"
        return Finding(name=name, level="ok", what=what, facts=facts)
    if tokens:
        what = "generated tokens: a next turn takes the answer before it from the cache"
        return Finding(name=name, level="ok", what=what, facts=facts)
    return Finding(
        name=name,
        level="warning",
        what="generated tokens: a next turn computes the answer before it again.",
        remedy="Agents of many turns cost more here; another model or version of vLLM may cache "
        "them.",
        facts=facts,
    )


def _scores(result: CacheProbe) -> Finding:
    facts = {
        "score_gap_nats": result.score_gap,
        "scored_cached_tokens": result.scored_cached_tokens,
    }
    what = f"log-probabilities: {result.score_gap:.2f} nats apart with and without the cache"
    if result.step_tokens is not None and not result.scored_cached_tokens:
        return Finding(
            name="scores",
            level="warning",
            what="log-probabilities: a scored prompt takes nothing from the cache, so `search` "
            "computes each text again for each question.",
            remedy="Use another version of vLLM.",
            facts=facts,
        )
    if result.score_gap <= MAX_SCORE_GAP:
        return Finding(name="scores", level="ok", what=what, facts=facts)
    return Finding(
        name="scores",
        level="problem",
        what=f"{what}: `search` would rank by noise.",
        remedy="Use another version of vLLM, or engine.dtype float32.",
        facts=facts,
    )

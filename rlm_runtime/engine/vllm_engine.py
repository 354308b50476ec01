"""The engine on vLLM, in process: token ids in, ids and facts out.

`AsyncLLM` lives here and runs the model in processes of its own; `boot.py` starts and ends them.
vLLM is imported when an engine starts, never when this module is.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import anyio

from rlm_runtime.config.model import EngineConfig
from rlm_runtime.engine import choices, requests
from rlm_runtime.engine.base import (
    EngineInfo,
    EngineStats,
    Finished,
    GenerateRequest,
    Span,
    TokenDelta,
)
from rlm_runtime.engine.boot import EngineThread
from rlm_runtime.engine.counters import Counters
from rlm_runtime.engine.engine_log import EngineLog
from rlm_runtime.engine.model_tokens import ModelTokens, model_tokens
from rlm_runtime.engine.runs import Run, facts
from rlm_runtime.errors import EngineDead, EngineError, InputError
from rlm_runtime.types import RequestId


class VLLMEngine:
    """An `Engine` on vLLM. Made by `start`, used by one event loop, ended by `close`."""

    def __init__(
        self,
        llm: Any,
        info: EngineInfo,
        tokens: ModelTokens,
        thread: EngineThread,
        counters: Counters,
        encode: choices.Encode | None,
    ) -> None:
        self._llm = llm  # an AsyncLLM
        self._info = info
        self._tokens = tokens
        self._thread = thread
        self._counters = counters
        self._encode = encode
        self._log: EngineLog | None = None
        self._is_closed = False
        self._cause: str | None = None

    @classmethod
    async def start(
        cls,
        config: EngineConfig,
        model_dir: Path,
        *,
        model_name: str,
        tokenizer_digest: str,
        encode: choices.Encode | None = None,
        log_path: Path | None = None,
        on_stage: Callable[[str], None] | None = None,
    ) -> Self:
        """Boot vLLM on a model. Takes 15 to 60 seconds; cancelling it leaves nothing behind.

        The environment is changed while it boots (what vLLM reads from there) and given back.

        Args:
            config: The engine's settings.
            model_dir: The model's folder, in Hugging Face's layout.
            model_name: The name it is served under.
            tokenizer_digest: Goes into `info`.
            encode: The same tokenizer, for `GenerateRequest.choices`; `None`: requests have none,
                and no grammar or schema either.
            log_path: Where vLLM and its processes write, appended to; `None` is a temporary file
                that stays only if the engine failed.
            on_stage: Told in a word or two what begins: "importing vllm", "starting engine",
                "warming up".

        Raises:
            ConfigError: vLLM has no such argument or refuses a setting.
            EngineError: The boot failed or took longer than `start_timeout_s`; with the cause.
        """
        log = EngineLog(log_path)
        counters = Counters()
        tell = on_stage or _ignore
        thread = EngineThread(
            config,
            model_dir,
            model_name=model_name,
            log=log,
            counters=counters,
            on_stage=tell,
        )
        try:
            with anyio.move_on_after(config.start_timeout_s):
                llm = await thread.boot()
                info = _info(
                    llm,
                    model_name,
                    tokenizer_digest,
                    can_choose=encode is not None,
                    can_force=config.forced_decode,
                )
                engine = cls(llm, info, model_tokens(llm), thread, counters, encode)
                tell("warming up")
                await engine._warm_up()
                log.mark()
                engine._log = log
                return engine
            raise EngineError(
                f"The engine did not start within {config.start_timeout_s:g} seconds "
                "(engine.start_timeout_s).",
                f"Its log is {log.path}.",
            )
        except BaseException as err:
            with anyio.CancelScope(shield=True):
                await thread.close()
            log.close(keep=isinstance(err, EngineError))
            raise

    @property
    def info(self) -> EngineInfo:
        """What this engine is."""
        return self._info

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[TokenDelta | Finished]:
        """Stream the generated ids, then `Finished`; see `Engine.generate`.

        A scored request makes logits for every prompt position that it computes, `vocab_size`
        floats each, `max_batched_tokens` positions at a time. So send what comes before the span as
        a plain request first, and score what is left with that in the cache.

        Raises:
            InputError: An id outside the vocabulary, no ids, a span outside the prompt, or what it
                may generate is more than one thing, doesn't go with the rest of the request, or
                can't be compiled.
            PromptTooLong: The prompt and `max_tokens` exceed the window.
            EngineDead: The engine's process ended.
            EngineError: The engine refused this request, was closed, or can't choose or force.
        """
        requests.check(request, self._info)
        await self._require_life()
        self._require_ability(request)
        by_ids = self._choices(request)
        limits = requests.constraint(request, by_ids, self._tokens, self._llm.vllm_config)
        is_obeyed = bool(request.grammar or request.json_schema)
        runs: list[Run] = []
        for name, read_cache in (
            (request.request_id, request.read_cache),
            (f"{request.request_id}-uncached", False),
        ):
            run = Run(request)
            runs.append(run)
            async with aclosing(self._outputs(request, name, read_cache, limits)) as outputs:
                async for output in outputs:
                    if output.outputs[0].finish_reason == "error" and is_obeyed:
                        raise InputError(
                            "The engine can't compile the grammar or schema, or it allows no text.",
                            "Its ids must be of this model, and some text must obey it.",
                        )
                    if output.outputs[0].finish_reason == "abort":
                        # Who aborts here reads no further: so it is the engine that shuts down.
                        raise await self._aborted()
                    ids = run.add(output)
                    if not run.is_scored:
                        break
                    if ids:
                        yield TokenDelta(ids)
            if run.is_scored:
                break
        if request.score is not None and runs[-1].logprobs is None:
            # Preempted twice, so computed in pieces that nobody can tell apart.
            raise EngineError(
                "The log-probabilities of a request were lost: the KV cache is too full.",
                "Use a larger engine.kv_cache_gib, or a smaller engine.max_running.",
            )
        last = runs[-1]
        choice = choices.chosen(by_ids, last.ids) if by_ids else None
        told = facts(runs)
        if request.script and last.ids[-1] in self._tokens.end_ids:
            # vLLM's trace replay says "length" at the end of any script.
            told = replace(told, finish_reason="stop")
        yield Finished(told, last.logprobs, choice)

    async def reset_prefix_cache(self) -> None:
        """Forget all cached blocks; see `Engine.reset_prefix_cache`.

        Raises:
            EngineError: A request is running, or the engine was closed.
            EngineDead: The engine's process ended.
        """
        await self._require_life()
        try:
            was_reset = await self._llm.reset_prefix_cache()
        except Exception as err:
            # Told in words of its own by an engine that shuts down.
            if not self._is_closed and await self._thread.ends_soon():
                raise await self._death() from err
            raise await self._error(err) from err
        if not was_reset:
            raise EngineError(
                "The prefix cache can't be reset while requests are running.",
                "Wait for them to end.",
            )

    def stats(self) -> EngineStats:
        """The engine's counters since its start, the warm-up left out."""
        return self._counters.stats()

    async def close(self) -> None:
        """End the engine and its processes. Idempotent; running requests fail."""
        if not self._is_closed:
            self._is_closed = True
            # vLLM would leave running requests waiting for ever, and log an end that is meant.
            self._llm.output_processor.propagate_error(self._llm.dead_error)
            if self._llm.output_handler is not None:
                self._llm.output_handler.cancel()
        with anyio.CancelScope(shield=True):
            await self._thread.close()
        self._llm = None
        if self._log is not None:
            self._log.close(keep=self._cause is not None)

    def _require_ability(self, request: GenerateRequest) -> None:
        if request.script and not self._info.can_force:
            raise EngineError(
                "This engine can't generate given ids.",
                "Start it with engine.forced_decode, which tests, benchmarks and replay set.",
            )
        if not (request.choices or request.grammar or request.json_schema):
            return
        if self._encode is None:
            raise EngineError(
                "This engine was started without a tokenizer: it can't choose.",
                "Start it with `encode`.",
            )
        if not self._info.can_choose:
            backend = self._llm.vllm_config.structured_outputs_config.backend
            raise EngineError(
                f"This engine can't choose: {choices.obstacle(backend)}.", "Run: rlm doctor"
            )

    def _choices(self, request: GenerateRequest) -> dict[tuple[int, ...], str]:
        """The request's choices by their ids; empty for one that has none."""
        if self._encode is None or not request.choices:
            return {}
        by_ids = choices.encoded(request.choices, self._encode)
        requests.check_choices(request, by_ids)
        return by_ids

    async def _outputs(
        self, request: GenerateRequest, name: str, read_cache: bool, limits: dict[str, Any]
    ) -> AsyncGenerator[Any]:
        """What vLLM answers to one run of a request; leaving early aborts it in the engine."""
        from vllm.inputs import tokens_input

        # A copy of the ids: vLLM keeps and may extend the list.
        prompt = tokens_input(list(request.prompt_ids), cache_salt=request.cache_salt)
        try:
            params = requests.sampling_params(request, reads_cache=read_cache, limits=limits)
            stream = self._llm.generate(prompt, params, name, priority=request.priority)
            async with aclosing(stream):
                async for output in stream:
                    yield output
        except Exception as err:
            raise await self._error(err) from err

    async def _require_life(self) -> None:
        if self._is_closed:
            raise EngineError("The engine is closed.", "Start a new one.")
        if self._llm.errored:
            raise await self._death()

    async def _error(self, err: Exception) -> Exception:
        """An error of vLLM as one of ours."""
        from vllm.exceptions import VLLMClientError
        from vllm.v1.engine.exceptions import EngineDeadError

        if self._is_closed:
            return EngineError("The engine was closed while a request ran.", "Start a new one.")
        if isinstance(err, EngineDeadError):
            return await self._death()
        if isinstance(err, VLLMClientError):
            return InputError(f"vLLM refuses the request: {_said(err)}.")
        cause = err.__cause__ or err
        return EngineError(f"The request failed in the engine: {cause}.", "Send it again.")

    async def _aborted(self) -> EngineError:
        """The error of a request that the engine aborted: a moment later its process is gone."""
        if self._is_closed:
            return EngineError("The engine was closed while a request ran.", "Start a new one.")
        if await self._thread.ends_soon():
            return await self._death()
        return EngineError("The engine aborted the request.", "Send it again.")

    async def _death(self) -> EngineDead:
        if self._cause is None:
            self._cause = await self._thread.cause_of_death()
        return EngineDead(f"{self._cause}.")

    async def _warm_up(self) -> None:
        """Run once what is slow the first time: log-probabilities, computed and behind a cache."""
        length = min(self._info.block_size + 16, self._info.window - 1)
        ids = tuple(range(1, length + 1))
        for run in range(2):
            request = GenerateRequest(
                RequestId(f"warm-up-{run}"), ids, score=Span(length - 8, length)
            )
            async with aclosing(self.generate(request)) as stream:
                async for _item in stream:
                    pass
        await self.reset_prefix_cache()
        self._counters.zero()


def _said(err: Exception) -> str:
    """What vLLM says, with what xgrammar says: that may stand in the error or only in its cause."""
    said, why = str(err), str(err.__cause__ or "")
    if why not in said:
        said = f"{said} {why}"
    # xgrammar puts a time and a line of its source in front.
    return " ".join(re.sub(r"\[[\d:]+\] \S+:\d+: ", "", said).split()).rstrip(".")


def _info(
    llm: Any, model_name: str, tokenizer_digest: str, *, can_choose: bool, can_force: bool
) -> EngineInfo:
    import vllm
    from vllm.platforms import current_platform

    config = llm.vllm_config
    return EngineInfo(
        model=model_name,
        window=config.model_config.max_model_len,
        block_size=config.cache_config.block_size,
        kv_blocks=config.cache_config.num_gpu_blocks,
        tokenizer_digest=tokenizer_digest,
        vocab_size=config.model_config.get_vocab_size(),
        max_running=config.scheduler_config.max_num_seqs,
        backend=f"vllm {vllm.__version__} {current_platform.device_type}",
        can_choose=can_choose and not choices.obstacle(config.structured_outputs_config.backend),
        can_force=can_force,
    )


def _ignore(_stage: str) -> None:
    pass

"""The agent in whose name a measurement's calls stand in the event log."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import anyio

from rlm_runtime.api import Internals
from rlm_runtime.benchmark.prompts import PromptMaker
from rlm_runtime.errors import EngineDead
from rlm_runtime.prompt import Prompt
from rlm_runtime.scheduler import Call, CallResult, Job
from rlm_runtime.tracing import AgentFinished, AgentStarted, CacheReset
from rlm_runtime.types import AgentId, StopReason


class Bench:
    """One measurement of a started session: its agent, its prompts, its way to the scheduler.

    Attributes:
        parts: The engine and what stands around it.
        agent_id: Unique in the log.
        job: The tree of its calls, without limits.
        maker: Makes the prompts, and knows what is cached.
    """

    def __init__(self, parts: Internals, agent_id: AgentId, seed: int) -> None:
        self.parts = parts
        self.agent_id = agent_id
        self.job = Job()
        self.maker = PromptMaker(parts.layout, parts.engine.info.block_size, seed)

    async def forget_cache(self) -> None:
        """Empty the engine's prefix cache, for everyone who uses the engine.

        Raises:
            EngineError: A request is running.
        """
        await self.parts.engine.reset_prefix_cache()
        self.parts.corpus.read.clear()
        self.maker.forget()
        self.parts.recorder.emit(CacheReset(at_s=self.parts.recorder.now()))

    def call(self, prompt: Prompt, label: str, generated_tokens: int = 1) -> Call:
        """A call that generates exactly so many tokens."""
        return Call(
            prompt=prompt,
            agent_id=self.agent_id,
            label=label,
            max_tokens=generated_tokens,
            ignore_eos=True,
        )

    async def run(self, call: Call) -> CallResult:
        """Run one call and wait for its end."""
        return await self.parts.scheduler.run(self.job, call)


@contextmanager
def bench(parts: Internals, kind: str, seed: int) -> Iterator[Bench]:
    """A measurement from its `AgentStarted` event to its `AgentFinished`.

    Args:
        parts: A started session's.
        kind: What is measured ("ttft"); the agent's kind in the log.
        seed: Of the texts.
    """
    recorder = parts.recorder
    began_s = recorder.now()
    # Another measurement of this kind in the same log began at another time.
    measurement = Bench(parts, AgentId(f"{kind}-{began_s:.6f}"), seed)
    recorder.emit(
        AgentStarted(
            at_s=began_s,
            agent_id=measurement.agent_id,
            parent_id=None,
            depth=0,
            kind=kind,
            task_blob=None,
        )
    )
    reason = StopReason.FAILED
    try:
        yield measurement
        reason = StopReason.FINAL
    except anyio.get_cancelled_exc_class():
        reason = StopReason.CANCELLED
        raise
    except EngineDead:
        reason = StopReason.ENGINE_DEAD
        raise
    finally:
        now = recorder.now()
        recorder.emit(
            AgentFinished(
                at_s=now,
                agent_id=measurement.agent_id,
                stop_reason=reason,
                found=None,
                result_blob=None,
                wall_s=now - began_s,
            )
        )

"""Runs made by hand, with the facts that an engine with a small cache would give."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b

import msgspec
import pytest

from rlm_runtime.blocks import block_chain
from rlm_runtime.tracing import AgentStarted, AnyEvent, CacheReset, CallFinished, EngineStarted

BLOCK = 16


class Rig:
    """Makes the events of calls that run one after another, unless their times say otherwise.

    Its cache knows tokens, not digests: the last `kv_blocks` whole blocks that were used, each with
    all that stands before it. So it is another account of what an engine does than the one under
    test.
    """

    def __init__(self, kv_blocks: int = 10_000) -> None:
        self.kv_blocks = kv_blocks
        self.events: list[AnyEvent] = []
        self.prompts: dict[str, tuple[int, ...]] = {}
        self.outputs: dict[str, tuple[int, ...]] = {}
        self.cache: OrderedDict[tuple[str | None, tuple[int, ...]], None] = OrderedDict()
        self.clock = 0.0
        self.engine()

    def engine(self) -> None:
        """A new engine."""
        self.cache.clear()
        self.events.append(
            EngineStarted(
                at_s=self.clock,
                model="m",
                backend="b",
                window=8192,
                block_size=BLOCK,
                kv_blocks=self.kv_blocks,
                max_running=4,
                tokenizer_digest="t",
                shared_prefix_digest="s",
                shared_prefix_tokens=0,
                boot_s=1.0,
            )
        )

    def reset(self) -> None:
        """The cache is emptied."""
        self.cache.clear()
        self.events.append(CacheReset(at_s=self.clock))

    def agent(self, agent_id: str, kind: str) -> None:
        self.events.append(
            AgentStarted(
                at_s=self.clock,
                agent_id=agent_id,
                parent_id=None,
                depth=0,
                kind=kind,
                task_blob=None,
            )
        )

    def call(
        self,
        prompt: Sequence[int],
        generated: Sequence[int] = (0,),
        *,
        cached: int | None = None,
        salt: str | None = None,
        reads_cache: bool = True,
        runs: int = 1,
        agent: str = "a",
        **fields: object,
    ) -> CallFinished:
        """One call; `cached` is what this cache holds unless it is given."""
        number = len(self.prompts)
        self.clock += 1
        ids = (*prompt, *generated[:-1])
        if cached is None:
            cached = self._hit(prompt, salt) if reads_cache else 0
        self._insert(ids, salt)
        total = len(prompt) * runs
        event = CallFinished(
            at_s=self.clock,
            request_id=f"r{number}",
            agent_id=agent,
            label="call",
            depth=0,
            group=None,
            outcome="ok",
            error_code=None,
            submitted_at_s=self.clock,
            admitted_at_s=self.clock,
            segments=(),
            blocks=b"".join(block_chain(ids, BLOCK, salt)).hex(),
            output_blob=None,
            reads_cache=reads_cache,
            salt_digest=None if salt is None else blake2b(salt.encode(), digest_size=8).hexdigest(),
            max_tokens=len(generated),
            temperature=0.0,
            shared_by=1,
            prompt_tokens=total,
            cached_tokens=cached,
            computed_tokens=total - cached,
            generated_tokens=len(generated),
            runs=runs,
            ttft_s=0.1,
            queue_s=0.0,
            prefill_s=0.1,
            decode_s=0.0,
            preemptions=0,
            scheduled_at_s=100 + self.clock,
            finished_at_s=100 + self.clock + 0.5,
            finish_reason="length",
        )
        event = msgspec.structs.replace(event, **fields)
        self.prompts[event.request_id] = tuple(prompt)
        self.outputs[event.request_id] = tuple(generated)
        self.events.append(event)
        return event

    def prompt_ids(self, call: CallFinished) -> tuple[int, ...]:
        return self.prompts[call.request_id]

    def output_ids(self, call: CallFinished) -> tuple[int, ...]:
        return self.outputs[call.request_id]

    def _hit(self, prompt: Sequence[int], salt: str | None) -> int:
        hits = 0
        while (hits + 1) * BLOCK < len(prompt) and (
            (salt, tuple(prompt[: (hits + 1) * BLOCK])) in self.cache
        ):
            hits += 1
        return hits * BLOCK

    def _insert(self, ids: Sequence[int], salt: str | None) -> None:
        # A request's end is given up before its beginning.
        for end in range(len(ids) // BLOCK * BLOCK, 0, -BLOCK):
            key = (salt, tuple(ids[:end]))
            self.cache[key] = None
            self.cache.move_to_end(key)
        while len(self.cache) > self.kv_blocks:
            self.cache.popitem(last=False)


@pytest.fixture
def rig() -> Rig:
    return Rig()


@pytest.fixture(scope="session")
def make_rig() -> type[Rig]:
    return Rig

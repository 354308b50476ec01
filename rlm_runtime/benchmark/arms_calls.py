"""Calls of several arms to one engine: what one arm has asked, the next one does not compute again.

Arms that rank by likelihood score mostly the same sentences for the same question. Sent again, such
a prompt would be cached beyond the question's first token and have to be computed whole. Here the
first answer is kept, with the engine's facts, and counted once for every agent that asks: so each
arm's tokens are about those that it would have cost alone on this engine, whichever arm came first.
About: what another arm read for an earlier question may still be cached.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import blake2b

from rlm_runtime.api import Internals
from rlm_runtime.scheduler import Call, CallResult, Job, Scheduler
from rlm_runtime.tracing import ids_to_blob
from rlm_runtime.types import AgentId, Usage


@dataclass(slots=True)
class Spent:
    """What the calls of one agent came to.

    Attributes:
        usage: Token sums, those of replayed calls included. A call that an agent repeats is free:
            a session keeps its scores.
        replayed: Calls that another agent's had answered: the time is not that of the work.
        asked: What the agent's calls were.
    """

    usage: Usage = field(default_factory=Usage)
    replayed: int = 0
    asked: set[tuple[object, ...]] = field(default_factory=set)


class ArmCalls(Scheduler):
    """A scheduler that answers a call that was made before with its result.

    Use it instead of the session's own while it lives: both number their requests.

    Args:
        parts: A started session's.
        max_queued_calls: Calls that may wait at once.

    Attributes:
        spent: By agent.
    """

    def __init__(self, parts: Internals, max_queued_calls: int) -> None:
        super().__init__(
            parts.engine,
            parts.recorder,
            shared_tokens=len(parts.layout.shared_ids),
            max_queued_calls=max_queued_calls,
        )
        self.spent: dict[AgentId, Spent] = {}
        self._known: dict[tuple[object, ...], CallResult] = {}

    def begin_question(self) -> None:
        """Forget what was read: the engine's cache forgets it too, so it is read again.

        Scores stay. A question in two parts asks again what was asked before, and a session would
        answer that from its memo.
        """
        self._known = {key: kept for key, kept in self._known.items() if kept.logprobs is not None}

    async def run(self, job: Job, call: Call) -> CallResult:
        """As `Scheduler.run`, for greedy calls once."""
        spent = self.spent.setdefault(call.agent_id, Spent())
        key = _key(call)
        result = self._known.get(key)
        if result is None:
            result = self._known[key] = await super().run(job, call)
        elif key not in spent.asked:
            spent.replayed += 1
        if key in spent.asked:
            return result
        spent.asked.add(key)
        facts = result.facts
        spent.usage += Usage(
            calls=1,
            prompt_tokens=facts.prompt_tokens,
            cached_tokens=facts.cached_tokens,
            computed_tokens=facts.computed_tokens,
            generated_tokens=facts.generated_tokens,
        )
        return result


def _key(call: Call) -> tuple[object, ...]:
    """Equal for calls that must have equal results."""
    # A digest: the ids of all chunks and questions would take gigabytes.
    ids = blake2b(ids_to_blob(call.prompt.ids), digest_size=16).digest()
    return (ids, call.score, call.max_tokens, call.choices)

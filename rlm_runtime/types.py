"""Small frozen values that travel between rooms.

Nothing here has behaviour beyond arithmetic on itself, and nothing imports another room.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, NewType

RunId = NewType("RunId", str)
AgentId = NewType("AgentId", str)
RequestId = NewType("RequestId", str)

ValueKind = Literal["str", "bytes", "mp", "npy"]
"""How the bytes of a stored value are read: UTF-8 text, raw bytes, MessagePack, a `.npy` file."""

AgentKind = Literal[
    "direct", "search", "map_reduce", "classify_each", "calls", "function", "workflow"
]
"""What decides an agent's steps: of `calls` the model, of a `workflow` its table of states, of a
`function` its caller's own code; the others are recipes in Python."""


class StopReason(StrEnum):
    """Why an agent ended. A limit is an end, not a crash."""

    FINAL = "final"
    NO_FINAL = "no_final"
    ERRORS_IN_A_ROW = "errors_in_a_row"
    MAX_TURNS = "max_turns"
    BUDGET_TOKENS = "budget_tokens"
    BUDGET_CALLS = "budget_calls"
    BUDGET_SECONDS = "budget_seconds"
    MAX_DEPTH = "max_depth"
    ENGINE_DEAD = "engine_dead"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Ref:
    """A stored value by reference: everything a prompt may show of it, none of its contents.

    Attributes:
        name: The context variable's name.
        version: 1 for the first value written under the name, then counting up.
        kind: How the bytes are read.
        size_bytes: Length of the stored bytes.
        digest: BLAKE2b-128 of kind and bytes, in hex; equal contents have equal digests.
    """

    name: str
    version: int
    kind: ValueKind
    size_bytes: int
    digest: str


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one tree of calls; `None` is no bound.

    Attributes:
        max_tokens: Tokens the engine may work for the tree: prompt tokens it computes (not those
            it takes from the prefix cache) plus generated tokens.
        max_calls: Calls to the engine; one that had to be computed twice counts once.
        max_seconds: Wall time from the tree's first call.
        max_depth: Depth of the deepest agent; the root is 0, so 0 is no sub-agents.
        max_turns: Turns of one agent whose steps the model decides.
    """

    max_tokens: int | None = None
    max_calls: int | None = None
    max_seconds: float | None = None
    max_depth: int = 1
    max_turns: int = 24

    @property
    def has_budget(self) -> bool:
        """Tokens, calls or seconds are bounded: the tree may end before its work is done."""
        return any(x is not None for x in (self.max_tokens, self.max_calls, self.max_seconds))


@dataclass(frozen=True, slots=True)
class Usage:
    """Exact token sums over finished calls: `prompt = cached + computed`.

    A call aborted before its first token has no facts in vLLM; it is counted in
    `calls_without_facts` and adds nothing to the token sums.
    """

    calls: int = 0
    calls_without_facts: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    computed_tokens: int = 0
    generated_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.calls + other.calls,
            self.calls_without_facts + other.calls_without_facts,
            self.prompt_tokens + other.prompt_tokens,
            self.cached_tokens + other.cached_tokens,
            self.computed_tokens + other.computed_tokens,
            self.generated_tokens + other.generated_tokens,
        )

    @property
    def hit_rate(self) -> float | None:
        """Prefix-cache hit rate, token-weighted; `None` before the first call."""
        return self.cached_tokens / self.prompt_tokens if self.prompt_tokens else None

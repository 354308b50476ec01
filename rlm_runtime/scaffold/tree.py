"""A tree of agents: what all of them share, and the place each one has in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count

from rlm_runtime.config import Config
from rlm_runtime.engine.base import EngineInfo
from rlm_runtime.errors import LimitExceeded
from rlm_runtime.prompt import Layout, Prompt
from rlm_runtime.scaffold.corpus import Corpus
from rlm_runtime.scaffold.likelihood import Asker, ScoreMemo
from rlm_runtime.scheduler import Job, Scheduler
from rlm_runtime.store.budget import ReadBudget
from rlm_runtime.tracing import Recorder
from rlm_runtime.types import AgentId, AgentKind, StopReason

Script = Callable[[AgentId, int], tuple[int, ...] | None]
"""Ids that an agent's turn generates (agent, turn from 1); `None`: the model's own. Needs an engine
with `engine.forced_decode`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """What all agents of one task share.

    Attributes:
        scheduler: Their way to the engine.
        layout: Of all prompts.
        job: Limits, usage and cancellation of the tree.
        recorder: The run's log.
        corpus: The session's texts, in chunks.
        info: What the engine is.
        config: The session's.
        memo: Scores of the session's earlier questions.
        reads: Tokens that reads of the whole tree may bring into prompts.
        script: Turns that are given, not generated; `None` in every run that is not a test.
    """

    scheduler: Scheduler
    layout: Layout
    job: Job
    recorder: Recorder
    corpus: Corpus
    info: EngineInfo
    config: Config
    memo: ScoreMemo
    reads: ReadBudget
    script: Script | None = None

    def agent_reads(self) -> ReadBudget:
        """What one more agent may read, as part of what the tree may."""
        agents = self.config.agents
        return ReadBudget(
            max_tokens_per_read=agents.max_tokens_per_read,
            max_tokens=agents.max_read_tokens,
            parent=self.reads,
        )


@dataclass(frozen=True, slots=True)
class Work:
    """What an agent is busy with: two agents with equal work would do the same.

    Attributes:
        kind: Who decides its steps.
        task: In words.
        names: The values it was given; `None` is all.
    """

    kind: AgentKind
    task: str
    names: frozenset[str] | None


@dataclass(frozen=True, slots=True)
class Seat:
    """One agent's place in a tree.

    Attributes:
        tree: The tree.
        agent_id: Its name in the log: `a1` for a root, `a1.2` for its second child.
        depth: 0 for a root.
        parent: Who started it.
        forked: A fork's first prompt: its parent's, with the fork's task behind it.
        work: What the agent works on, once it runs.
        named: What its result is to be stored as; empty: `answer_` and its id.
    """

    tree: Tree
    agent_id: AgentId
    depth: int = 0
    parent: Seat | None = None
    forked: Prompt | None = None
    work: Work | None = None
    named: str = ""
    _numbers: count[int] = field(default_factory=lambda: count(1), repr=False, compare=False)

    @property
    def asker(self) -> Asker:
        """The agent's way to the model."""
        tree = self.tree
        return Asker(tree.scheduler, tree.layout, tree.job, self.agent_id, self.depth)

    @property
    def result_name(self) -> str:
        """The name for its result: as wished, else `answer_a1_2`, which no other agent has."""
        return self.named or f"answer_{self.agent_id.replace('.', '_')}"

    def lineage(self) -> Iterator[Seat]:
        """This place and those above it, up to the root's."""
        seat: Seat | None = self
        while seat is not None:
            yield seat
            seat = seat.parent

    def child(self, forked: Prompt | None = None) -> Seat:
        """The next child's place.

        Raises:
            LimitExceeded: The tree may not be that deep.
        """
        limit = self.tree.job.limits.max_depth
        if self.depth >= limit:
            raise LimitExceeded(StopReason.MAX_DEPTH, "max_depth", limit, self.depth + 1)
        agent_id = AgentId(f"{self.agent_id}.{next(self._numbers)}")
        return Seat(self.tree, agent_id, self.depth + 1, self, forked)

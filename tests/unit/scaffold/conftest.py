"""A tree of agents on the scripted engine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rlm_runtime.config import Config
from rlm_runtime.prompt import ChatTemplate, Layout, Tokenizer
from rlm_runtime.scaffold.agent_context import AgentContext
from rlm_runtime.scaffold.corpus import Corpus
from rlm_runtime.scaffold.likelihood import ScoreMemo
from rlm_runtime.scaffold.tree import Script, Seat, Tree
from rlm_runtime.scheduler import Job, Scheduler
from rlm_runtime.store import ContextStore
from rlm_runtime.store.budget import ReadBudget
from rlm_runtime.tracing import AnyEvent, Recorder
from rlm_runtime.types import AgentId, Limits

if TYPE_CHECKING:
    from tests.unit.conftest import FakeEngine


class Grove:
    """What a session holds, without one: store, texts, recorder and scheduler; trees to order."""

    def __init__(self, engine: FakeEngine, layout: Layout, chunk_tokens: int = 64) -> None:
        self.engine = engine
        self.layout = layout
        self.recorder = Recorder(None)
        self.events: list[AnyEvent] = []
        self.recorder.subscribe(self.events.append)
        self.store = ContextStore(layout.tokenizer.count)
        self.corpus = Corpus(self.store, layout, chunk_tokens)
        self.memo = ScoreMemo()
        self.scheduler = Scheduler(
            engine, self.recorder, shared_tokens=len(layout.shared_ids), max_queued_calls=1000
        )

    def tree(
        self,
        limits: Limits | None = None,
        *,
        config: Config | None = None,
        reads: ReadBudget | None = None,
        script: Script | None = None,
    ) -> Tree:
        """A tree. Inside an event loop: its job reads the clock."""
        return Tree(
            scheduler=self.scheduler,
            layout=self.layout,
            job=Job(limits),
            recorder=self.recorder,
            corpus=self.corpus,
            info=self.engine.info,
            config=config or Config(),
            memo=self.memo,
            reads=reads or ReadBudget(owner="tree"),
            script=script,
        )

    def root(self, tree: Tree) -> tuple[Seat, AgentContext]:
        """The place and the context of a tree's root agent, which sees all values."""
        seat = Seat(tree, AgentId("a1"))
        context = AgentContext(
            self.store, self.recorder, reader=seat.agent_id, budget=tree.agent_reads()
        )
        return seat, context


@pytest.fixture(scope="session")
def layout(model_dir: Path) -> Layout:
    tokenizer = Tokenizer.from_folder(model_dir)
    return Layout(tokenizer, ChatTemplate.from_folder(model_dir, tokenizer), 32)


@pytest.fixture
def grove(fake_engine: FakeEngine, layout: Layout) -> Grove:
    return Grove(fake_engine, layout)

"""Agents on the scripted engine, their calls given as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pytest

from rlm_runtime.config import Config
from rlm_runtime.engine.base import GenerateRequest
from rlm_runtime.scaffold.agent import AgentResult, run_agent
from rlm_runtime.scaffold.agent_context import AgentContext
from rlm_runtime.scaffold.calls import CallsAgent
from rlm_runtime.scaffold.tree import Tree
from rlm_runtime.tracing import CallFinished, TurnFinished
from rlm_runtime.types import AgentId, Limits

if TYPE_CHECKING:
    from tests.unit.conftest import FakeEngine
    from tests.unit.scaffold.conftest import Grove

EOS = 2
LEAF_ANSWER = "as it says"


class Stage:
    """Runs agents whose turns are given as texts; leaf calls are answered with one text."""

    def __init__(self, grove: Grove, engine: FakeEngine) -> None:
        self.grove = grove
        self.engine = engine
        self.tokenizer = grove.layout.tokenizer
        self.leaf_answer = LEAF_ANSWER
        self.free_answers: list[str] = []
        engine.answer = self._answer
        self.context: AgentContext | None = None

    def _answer(self, request: GenerateRequest) -> tuple[int, ...]:
        is_turn = request.grammar or request.json_schema or not self.engine.can_choose
        text = self.free_answers.pop(0) if is_turn and self.free_answers else self.leaf_answer
        return (*self.tokenizer.encode(text), EOS)

    def config(self, **agents: Any) -> Config:
        return Config.model_validate({"agents": agents})

    async def run(
        self,
        turns: Sequence[str] | Mapping[str, Sequence[str]],
        task: str = "Do what is to be done.",
        *,
        agent: CallsAgent | None = None,
        config: Config | None = None,
        limits: Limits | None = None,
        tree: Tree | None = None,
    ) -> AgentResult:
        """Run a root agent; `turns` are its own, or those of each agent. Behind them: the model."""
        if not isinstance(turns, Mapping):
            turns = {"a1": turns}

        def script(agent_id: AgentId, turn: int) -> tuple[int, ...] | None:
            given = turns.get(agent_id, ())
            return self.tokenizer.encode(given[turn - 1]) if turn <= len(given) else None

        if tree is None:
            tree = self.grove.tree(limits, config=config, script=script)
        seat, self.context = self.grove.root(tree)
        return await run_agent(agent or CallsAgent(), seat, task, self.context)

    def turns(self, agent_id: str = "a1") -> list[TurnFinished]:
        return [
            e for e in self.grove.events if isinstance(e, TurnFinished) and e.agent_id == agent_id
        ]

    def calls(self, label: str | None = None) -> list[CallFinished]:
        calls = [e for e in self.grove.events if isinstance(e, CallFinished)]
        return [e for e in calls if label is None or e.label == label]

    def requests(self) -> list[GenerateRequest]:
        """The requests of turns, in order."""
        turns = {e.request_id for e in self.calls("turn")}
        return [request for request in self.engine.seen if request.request_id in turns]

    def observations(self) -> list[str]:
        """What the agents were told, as the prompts of their next turns have it."""
        template = self.grove.layout.template
        ids_of = {str(request.request_id): request.prompt_ids for request in self.engine.seen}
        told = []
        for call in self.calls("turn"):
            last = call.segments[-1]
            if last.kind == "turn":
                ids = ids_of[call.request_id][last.start : last.end]
                start = ids.index(template.assistant_to_user[1]) - 1
                start += len(template.assistant_to_user)
                told.append(self.tokenizer.decode(ids[start : -len(template.user_to_assistant)]))
        return told


@pytest.fixture
def stage(grove: Grove, fake_engine: FakeEngine) -> Stage:
    return Stage(grove, fake_engine)

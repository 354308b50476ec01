"""What holds of the prompts of any tree of agents: one shared prefix, and forks that go on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlm_runtime.engine.base import GenerateRequest
from rlm_runtime.scaffold.agent import Outcome, Start, run_agent
from rlm_runtime.scaffold.agent_context import AgentContext
from rlm_runtime.scaffold.subagents import FORK_TURN, Children, SubTask
from rlm_runtime.scaffold.tree import Seat
from rlm_runtime.scheduler import Call
from rlm_runtime.tracing import AgentStarted
from rlm_runtime.types import AgentKind, Limits, StopReason

if TYPE_CHECKING:
    from tests.unit.conftest import FakeEngine
    from tests.unit.scaffold.conftest import Grove

pytestmark = pytest.mark.anyio

MAX_DEPTH = 3


@dataclass(frozen=True)
class Plot:
    """What one agent does: turns, and behind some of them a batch of children."""

    task: str
    turns: tuple[tuple[Plot, ...], ...]
    start: Start
    max_tokens: int


def plots(depth: int) -> st.SearchStrategy[Plot]:
    below = st.nothing() if depth == MAX_DEPTH else st.deferred(lambda: plots(depth + 1))
    batch = st.just(()) if depth == MAX_DEPTH else st.lists(below, max_size=3).map(tuple)
    return st.builds(
        Plot,
        task=st.text(min_size=1, max_size=40).filter(str.strip),
        turns=st.lists(batch, min_size=1, max_size=3).map(tuple),
        start=st.sampled_from(("fresh", "fork")),
        max_tokens=st.integers(1, 40),
    )


class Turn(NamedTuple):
    """What an agent sent and what came back."""

    prompt: tuple[int, ...]
    generated: tuple[int, ...]


@dataclass(frozen=True)
class Playing:
    """An agent of turns: it generates, starts its children from there, and goes on."""

    plot: Plot
    log: dict[str, list[Turn]]
    kind: AgentKind = "calls"

    async def run(self, seat: Seat, task: str, context: AgentContext) -> Outcome:
        tree, layout = seat.tree, seat.tree.layout
        prompt = seat.forked or layout.prompt(task=task)
        async with Children(seat, context) as children:
            for batch in self.plot.turns:
                call = Call(
                    prompt=prompt,
                    agent_id=seat.agent_id,
                    depth=seat.depth,
                    label="turn",
                    max_tokens=self.plot.max_tokens,
                )
                ids = (await tree.scheduler.run(tree.job, call)).ids
                self.log.setdefault(seat.agent_id, []).append(Turn(prompt.ids, ids))
                await children.run_all(
                    [
                        SubTask(
                            agent=Playing(plot, self.log),
                            task=plot.task,
                            start=plot.start,
                            prompt=prompt if plot.start == "fork" else None,
                            generated_ids=ids if plot.start == "fork" else (),
                        )
                        for plot in batch
                    ]
                )
                prompt = layout.append_turn(prompt, ids, "go on")
        return Outcome(stop_reason=StopReason.FINAL)


@given(plot=plots(0), seed=st.integers(0, 2**16))
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
    ],
)
async def test_all_prompts_begin_alike_and_forks_go_on_behind_their_parents(
    plot: Plot, seed: int, fake_engine: FakeEngine, grove: Grove
) -> None:
    def answer(request: GenerateRequest) -> tuple[int, ...]:
        count = 1 + (seed + len(request.prompt_ids)) % request.max_tokens
        return tuple(100 + (seed * (i + 1) + len(request.prompt_ids)) % 900 for i in range(count))

    own = type(grove)(replace(fake_engine, seen=[], aborted=[], answer=answer), grove.layout)
    seat, context = own.root(own.tree(Limits(max_depth=MAX_DEPTH)))
    log: dict[str, list[Turn]] = {}
    await run_agent(Playing(plot, log), seat, plot.task, context)

    shared = own.layout.shared_ids
    sent = {request.prompt_ids for request in own.engine.seen}
    assert sent == {turn.prompt for turns in log.values() for turn in turns}
    assert all(prompt[: len(shared)] == shared for prompt in sent)
    for turns in log.values():
        for before, after in pairwise(turns):
            so_far = before.prompt + before.generated
            assert after.prompt[: len(so_far)] == so_far, "a turn changes nothing in front of it"
    decode = own.layout.tokenizer.decode
    for started in own.events:
        if not isinstance(started, AgentStarted):
            continue
        first = log[started.agent_id][0].prompt
        if started.start == "fresh":
            assert FORK_TURN not in decode(first[len(shared) :])
            continue
        assert started.parent_id is not None
        ends = {
            len(turn.prompt + turn.generated)
            for turn in log[started.parent_id]
            if first[: len(turn.prompt + turn.generated)] == turn.prompt + turn.generated
        }
        assert ends, "a fork's prompt begins with its parent's and what that generated"
        assert FORK_TURN in decode(first[max(ends) :])

"""Plans: no run costs more than its plan, and a limit of just that much is enough."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlm_runtime.config import Config, SearchConfig
from rlm_runtime.config.model import AgentsConfig
from rlm_runtime.engine.base import GenerateRequest, RequestFacts
from rlm_runtime.errors import LimitExceeded
from rlm_runtime.prompt import Layout
from rlm_runtime.scaffold.agent import Agent, Outcome
from rlm_runtime.scaffold.agent_context import AgentContext
from rlm_runtime.scaffold.recipes.classify_each import ClassifyEach
from rlm_runtime.scaffold.recipes.direct import Direct
from rlm_runtime.scaffold.recipes.levels import Levels
from rlm_runtime.scaffold.recipes.map_reduce import MapReduce
from rlm_runtime.scaffold.recipes.plan import (
    Plan,
    Step,
    direct_plan,
    fit,
    one_call_each,
    search_plan,
)
from rlm_runtime.scaffold.recipes.search_agent import SearchAgent, texts_of
from rlm_runtime.scaffold.tree import Seat
from rlm_runtime.tracing import CallFinished
from rlm_runtime.types import Limits, StopReason, Usage

if TYPE_CHECKING:
    from tests.unit.conftest import FakeEngine
    from tests.unit.scaffold.conftest import Grove

pytestmark = pytest.mark.anyio

TASKS = (
    "Who left the harbour, and when did the harbour open?",
    "What is it?",
    "Judge it: good, bad or neither.",
)
PIECES = (
    "The harbour opened at dawn. ",
    "Nobody left before noon, they say.\n\n",
    "Ünïcode — “quotes” and 漢字かな交じり文。",
    "x" * 400 + " ",
    "1,2,3\n4,5,6\n",
    "# A heading\n\nname(argument)\n    What it does, in a line.\n",
    "\N{ZERO WIDTH JOINER}\N{FACE WITH TEARS OF JOY}" * 9,
    "not found ",
    "   \n \n",
)
# Numbered, so that few chunks are equal: those are computed once.
pieces = st.builds("{} {} ".format, st.sampled_from(PIECES), st.integers(0, 999))
texts = st.one_of(
    st.lists(pieces | st.text(max_size=40), min_size=1, max_size=20),
    st.lists(pieces, min_size=60, max_size=90),
).map("".join)


class Case(NamedTuple):
    """A document, and what is done with it."""

    text: str
    task: str
    agent: Agent
    config: Config
    is_limited: bool = False


@st.composite
def cases(draw: st.DrawFn) -> Case:
    search = SearchConfig(
        max_ranked_tokens=draw(st.sampled_from([64, 700, 24_000])),
        passages=draw(st.integers(1, 4)),
        certain_above_z=draw(st.sampled_from([-1e9, 1e9])),
        not_found_below_z=-1e9,
    )
    answer_tokens = draw(st.sampled_from([1, 7, 128, 1500]))
    agents: list[Agent] = [
        Direct(),
        SearchAgent(),
        SearchAgent(exhaustive=True),
        MapReduce(combine="model"),
        MapReduce(combine="join"),
        ClassifyEach(labels=("good", "rather bad")),
        ClassifyEach(each="chunk", labels=("good", "rather bad")),
    ]
    agent = draw(st.sampled_from(agents))
    config = Config(search=search, agents=AgentsConfig(answer_tokens=answer_tokens))
    return Case(
        draw(texts.filter(str.strip)),
        draw(st.sampled_from(TASKS)),
        agent,
        config,
        draw(st.booleans()),
    )


def worst(engine: FakeEngine) -> FakeEngine:
    """An engine that caches nothing, computes what is scored twice and answers at length."""
    facts = engine.facts

    def doubled(request: GenerateRequest, generated: tuple[int, ...]) -> RequestFacts:
        once = facts(request, generated)
        if request.score is None:
            return once
        return replace(
            once,
            runs=2,
            prompt_tokens=2 * once.prompt_tokens,
            computed_tokens=2 * once.computed_tokens,
            generated_tokens=2 * once.generated_tokens,
        )

    engine.facts = doubled  # type: ignore[method-assign] # the worst that the real one may say
    # A later round of a search finds better chunks than the first.
    engine.score = lambda request: -float(sum(request.prompt_ids[-60:]) % 97)
    # Ids whose text is read again in more tokens than it was generated in.
    engine.answer = lambda request: tuple(
        1000 + (len(request.prompt_ids) * 7919 + i * 104_729) % 45_000
        for i in range(request.max_tokens)
    )
    return engine


def place(grove: Grove, case: Case, limits: Limits | None = None) -> tuple[Seat, AgentContext]:
    """An agent's place in a new tree, which sees the document and nothing that others made."""
    tree = grove.tree(limits, config=case.config)
    seat, context = grove.root(tree)
    return seat, context.child(seat.agent_id, ["document"], tree.agent_reads())


async def planned(grove: Grove, case: Case) -> Plan:
    seat, context = place(grove, case)
    agent = case.agent
    if isinstance(agent, MapReduce | ClassifyEach):
        return await agent.plan(seat, case.task, context)
    if isinstance(agent, SearchAgent):
        return await search_plan(seat, case.task, texts_of(context), exhaustive=agent.exhaustive)
    return await direct_plan(seat, case.task, texts_of(context))


async def ran(grove: Grove, case: Case, limits: Limits | None) -> tuple[Outcome, Usage]:
    grove.memo = type(grove.memo)()
    grove.corpus.read.clear()
    seat, context = place(grove, case, limits)
    return await case.agent.run(seat, case.task, context), seat.tree.job.usage


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(case=cases())
async def test_no_run_costs_more_than_its_plan_and_a_limit_of_that_much_is_enough(
    case: Case, fake_engine: FakeEngine, grove: Grove, layout: Layout
) -> None:
    grove = type(grove)(worst(type(fake_engine)()), layout)
    grove.store.put_text("document", case.text)
    plan = await planned(grove, case)
    assert not grove.engine.seen, "a plan makes no calls"
    # A call is let in only while its own bound is left: a plan below any call's would be felt.
    enough = Limits(max_calls=plan.calls, max_tokens=plan.tokens)
    outcome, usage = await ran(grove, case, enough if case.is_limited else None)
    assert outcome.stop_reason is StopReason.FINAL
    assert usage.calls <= plan.calls
    assert usage.computed_tokens + usage.generated_tokens <= plan.tokens


async def test_a_search_that_finds_better_chunks_in_each_round_stays_within_its_plan(
    fake_engine: FakeEngine, grove: Grove
) -> None:
    worst(fake_engine)
    # What is scored later is likelier: the second round's chunks are quoted beside the first's.
    fake_engine.score = lambda _: float(len(fake_engine.seen))
    text = "\n\n".join(f"On day {i} the harbour was calm. Nobody left it." for i in range(99))
    grove.store.put_text("document", text)
    search = SearchConfig(
        max_ranked_tokens=16 * 64, passages=1, certain_above_z=1e9, short_form=False
    )
    case = Case(text, "Who left the harbour?", SearchAgent(), Config(search=search))
    plan = await planned(grove, case)
    _, usage = await ran(grove, case, None)
    scored = {step.label: step.calls for step in plan.steps}["score sentence"]
    quoted = sum(isinstance(e, CallFinished) and e.label == "score sentence" for e in grove.events)
    assert usage.calls <= plan.calls
    assert scored / 2 < quoted <= scored, "one chunk of each of two rounds"


async def test_a_plan_is_exact_where_all_answers_are_as_long_as_they_may_be(
    fake_engine: FakeEngine, grove: Grove
) -> None:
    worst(fake_engine)
    text = "\n\n".join(f"On day {i} the harbour was calm. " * 4 for i in range(20))
    grove.store.put_text("document", text)
    for agent in (MapReduce(combine="join"), ClassifyEach(each="chunk", labels=("a b", "c"))):
        case = Case(text, "What happened?", agent, Config())
        plan = await planned(grove, case)
        if isinstance(agent, ClassifyEach):
            # Choices are generated as they are; the longest one has the room that is planned.
            fake_engine.choose = lambda request: request.choices[0]
        _, usage = await ran(grove, case, None)
        assert plan.parts == usage.calls == plan.calls > 10
        assert usage.computed_tokens + usage.generated_tokens == plan.tokens


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    tokens=st.lists(st.integers(1, 2000), min_size=1, max_size=150),
    fan_in=st.integers(2, 9),
    share=st.floats(0, 1),
)
async def test_shrinking_keeps_as_many_parts_as_fit(
    tokens: list[int], fan_in: int, share: float, grove: Grove
) -> None:
    levels = replace(Levels.of(grove.tree(), "What?", "model", 50), fan_in=fan_in)
    for plan in (levels.plan(tokens), one_call_each("classify", tokens)):
        shrunk = plan.shrunk
        assert shrunk is not None
        costs = [(shrunk(n).calls, shrunk(n).tokens) for n in range(1, len(tokens) + 1)]
        assert costs == sorted(costs)
        assert sorted(t for _, t in costs) == [t for _, t in costs], "more parts never cost less"
        limit = max(1, int(plan.tokens * share))
        most = sum(t <= limit for _, t in costs)
        if most == 0:
            with pytest.raises(LimitExceeded):
                fit(plan, Limits(max_tokens=limit), "shrink")
            continue
        kept = fit(plan, Limits(max_tokens=limit), "shrink")
        assert (kept.parts, kept.left_out) == (most, len(tokens) - most)


def test_a_plan_over_a_limit_is_refused_with_what_it_needs() -> None:
    plan = one_call_each("classify", [10, 20])
    used = Usage(calls=1, computed_tokens=4, generated_tokens=1)
    assert fit(plan, Limits(max_calls=3, max_tokens=35), used=used) == plan
    with pytest.raises(LimitExceeded, match=r"max_calls=2 .* the plan \(it needs 3\)") as calls:
        fit(plan, Limits(max_calls=2), used=used)
    assert calls.value.stop_reason is StopReason.BUDGET_CALLS
    with pytest.raises(LimitExceeded, match=r"max_tokens=34 .* the plan \(it needs 35\)") as tokens:
        fit(plan, Limits(max_tokens=34), used=used)
    assert tokens.value.stop_reason is StopReason.BUDGET_TOKENS


def test_a_plan_of_which_nothing_can_be_left_out_is_refused_when_it_should_shrink() -> None:
    plan = Plan(steps=(Step("answer", 1, 100),))
    with pytest.raises(LimitExceeded):
        fit(plan, Limits(max_tokens=99), "shrink")

"""The graph of a workflow's run is its script: what really ran, read back from its events."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

import pytest

from rlm_runtime.profiler.provenance import Entering, Provenance, Reading, Starting, Writing
from rlm_runtime.profiler.provenance_flow import ValueId
from rlm_runtime.scaffold.agent import Agent
from rlm_runtime.scaffold.recipes.direct import Direct
from rlm_runtime.workflow import Function, Step, To, Workflow
from tests.unit.workflow.conftest import review, run, says

if TYPE_CHECKING:
    from rlm_runtime.scaffold.agent_context import AgentContext
    from tests.unit.scaffold.conftest import Grove

pytestmark = pytest.mark.anyio

REPORT = "Sales rose by two percent."
ROLES = 10
INTERACTIONS = 50


class Ring(Enum):
    STEP_0, STEP_1, STEP_2, STEP_3, STEP_4, STEP_5, STEP_6, STEP_7, STEP_8, STEP_9, DONE = range(11)


def reads(name: str, value: object) -> Function:
    def work(context: AgentContext, task: str) -> object:
        context.read(name)
        return value

    return work


async def test_a_hybrid_run_has_the_edges_of_its_definition(grove: Grove) -> None:
    grove.store.put_text("report", REPORT)
    says(grove, "They rose.")
    verdicts = iter(["bad", "good"])

    def validate(context: AgentContext, task: str) -> object:
        context.read("summary")
        return next(verdicts)

    workers: dict[str, Agent | Function] = {
        "analyser": reads("report", {"summary": "Sales rose."}),
        "summariser": Direct(),
        "validator": validate,
    }
    await run(grove, review(), workers)
    graph = Provenance(grove.events)
    report, analysis = ValueId("report", 1), ValueId("analysis", 1)
    started = [edge.agent_id for edge in graph.edges if isinstance(edge, Starting)]
    assert started == [f"a1.{number}" for number in range(1, 6)]
    wrote = [(e.writer, *e.value) for e in graph.edges if isinstance(e, Writing)]
    assert wrote == [
        ("a1.1", "analysis", 1),
        ("a1.2", "summary", 1),
        ("a1.3", "verdict", 1),
        ("a1.4", "summary", 2),
        ("a1.5", "verdict", 2),
    ]
    readings = {(e.reader, *e.value): e.tokens for e in graph.edges if isinstance(e, Reading)}
    assert list(readings) == [
        ("a1.1", "report", 1),
        ("a1.2", "analysis", 1),
        ("a1.3", "summary", 1),
        ("a1", "verdict", 1),
        ("a1.4", "analysis", 1),
        ("a1.5", "summary", 2),
        ("a1", "verdict", 2),
    ]
    in_prompts = {reader for (reader, *_), tokens in readings.items() if tokens}
    assert in_prompts == {"a1.2", "a1.4"}, "by value; the functions looked in Python"
    entered = [(e.state, e.visit) for e in graph.edges if isinstance(e, Entering)]
    assert entered == [
        ("ANALYSE", 1),
        ("SUMMARISE", 1),
        ("VALIDATE", 1),
        ("SUMMARISE", 2),
        ("VALIDATE", 2),
        ("COMPLETE", 1),
    ]
    by_reading = {
        value for value, via in graph.depends_on(ValueId("verdict", 2)).values.items()
        if via == "read"
    }  # fmt: skip
    assert by_reading == {report, analysis, ValueId("summary", 2)}, "not the first summary"


async def test_50_interactions_of_10_agents_have_the_graph_of_the_script(grove: Grove) -> None:
    grove.store.put_text("value_9", REPORT)
    states = list(Ring)
    ring, done = states[:ROLES], states[ROLES]
    rounds = iter(range(1, INTERACTIONS))

    def is_over(values: object) -> bool:
        return next(rounds, None) is None

    workflow = Workflow(
        states=Ring,
        start=ring[0],
        ends=[done],
        transitions={
            state: [To(done, when=is_over), ring[(number + 1) % ROLES]]
            for number, state in enumerate(ring)
        },
        steps={
            state: Step(f"role_{number}", reads=[f"value_{number - 1}" if number else "value_9"],
                        writes=f"value_{number}")
            for number, state in enumerate(ring)
        },
        max_visits=INTERACTIONS // ROLES,
    )  # fmt: skip
    roles = {
        f"role_{number}": reads(f"value_{(number - 1) % ROLES}", f"By {number}.")
        for number in range(ROLES)
    }
    await run(grove, workflow, roles)
    graph = Provenance(grove.events)
    expected: list[object] = []
    source = ValueId("value_9", 1)
    for turn in range(INTERACTIONS):
        agent, number = f"a1.{turn + 1}", turn % ROLES
        # The text that the user gave is the first version of the last one's name.
        value = ValueId(f"value_{number}", turn // ROLES + (2 if number == ROLES - 1 else 1))
        size = len(REPORT if turn == 0 else "By 0.")
        expected += [
            Entering("a1", f"STEP_{number}", turn // ROLES + 1),
            Starting("a1", agent),
            Reading(agent, source, 1, 0, ((0, size),)),
            Writing(agent, value),
        ]
        source = value
    assert list(graph.edges) == [*expected, Entering("a1", "DONE", 1)]
    chain = {value: via for value, via in graph.depends_on(source).values.items() if via == "read"}
    assert len(chain) == INTERACTIONS, "each value hangs on all before it, and on the text"

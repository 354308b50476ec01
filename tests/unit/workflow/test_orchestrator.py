"""Workflows that run: in order, as agents of one tree, with anybody in any role."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest

from rlm_runtime import workflow
from rlm_runtime.errors import UnknownName, WorkflowError
from rlm_runtime.scaffold.agent import Agent, Outcome, run_agent
from rlm_runtime.scaffold.agent_context import AgentContext
from rlm_runtime.scaffold.calls import CallsAgent
from rlm_runtime.scaffold.recipes.direct import Direct
from rlm_runtime.scaffold.recipes.map_reduce import MapReduce
from rlm_runtime.scaffold.recipes.search_agent import SearchAgent
from rlm_runtime.scaffold.tree import Seat
from rlm_runtime.tracing import CallFinished
from rlm_runtime.types import AgentId, AgentKind, Limits, Ref, StopReason
from rlm_runtime.workflow import Function, Orchestrator, Step, To, Workflow
from tests.unit.workflow.conftest import (
    TASK,
    WORKERS,
    Stage,
    definition,
    ends,
    kinds,
    makes,
    read,
    review,
    run,
    says,
    states,
    visits,
    wrote,
)

if TYPE_CHECKING:
    from tests.unit.scaffold.conftest import Grove

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def report(grove: Grove) -> None:
    grove.store.put_text("report", "Sales rose by two percent.")


async def test_a_workflow_goes_from_state_to_state_and_ends_with_the_last_value(
    grove: Grove,
) -> None:
    result = await run(grove, review(), WORKERS)
    outcome = result.outcome
    assert (result.kind, outcome.stop_reason) == ("workflow", StopReason.FINAL)
    assert visits(outcome) == ["ANALYSE", "SUMMARISE", "VALIDATE", "COMPLETE"]
    assert isinstance(outcome.result, Ref)
    assert (outcome.result.name, grove.store.load(outcome.result)) == ("verdict", "good")
    assert states(grove) == [
        ("ANALYSE", 1, None),
        ("SUMMARISE", 1, "ANALYSE"),
        ("VALIDATE", 1, "SUMMARISE"),
        ("COMPLETE", 1, "VALIDATE"),
    ]


async def test_its_steps_are_its_children_and_write_under_their_names(grove: Grove) -> None:
    await run(grove, review(), WORKERS)
    assert kinds(grove) == {
        "a1": "workflow",
        **dict.fromkeys(("a1.1", "a1.2", "a1.3"), "function"),
    }
    assert wrote(grove) == [("a1.1", "analysis", 1), ("a1.2", "summary", 1), ("a1.3", "verdict", 1)]
    # The summariser's prompt held the analysis; the guard looked at the verdict, in Python.
    rendered = grove.layout.tokenizer.count('{"summary":"Sales rose.","rows":[1,2]}')
    assert read(grove) == [("a1.2", "analysis", 1, rendered), ("a1", "verdict", 1, 0)]


async def test_a_guard_sends_it_back_until_the_values_are_right(grove: Grove) -> None:
    verdicts = iter(["bad", "bad", "good"])
    agents = WORKERS | {"validator": lambda context, task: next(verdicts)}
    outcome = (await run(grove, review(), agents)).outcome
    assert visits(outcome) == ["ANALYSE", *["SUMMARISE", "VALIDATE"] * 3, "COMPLETE"]
    assert [visit for state, visit, _ in states(grove) if state == "VALIDATE"] == [1, 2, 3]
    assert [(name, v) for _, name, v in wrote(grove) if name == "verdict"] == [
        ("verdict", version) for version in (1, 2, 3)
    ]


async def test_a_loop_that_leads_nowhere_ends_and_says_where(grove: Grove) -> None:
    outcome = (await run(grove, review(), WORKERS | {"validator": makes("bad")})).outcome
    assert outcome.stop_reason is StopReason.FAILED
    assert "from VALIDATE to SUMMARISE: it was entered 3 times" in outcome.error
    assert len(visits(outcome)) == 7
    assert outcome.result is not None
    assert grove.store.load(outcome.result) == "bad"


class Scripted:
    """Turns of `calls` agents, given as text."""

    def __init__(self, grove: Grove, turns: Mapping[str, list[str]]) -> None:
        self.grove = grove
        self.turns = turns

    def __call__(self, agent_id: AgentId, turn: int) -> tuple[int, ...] | None:
        given = self.turns.get(agent_id, ())
        encode = self.grove.layout.tokenizer.encode
        return encode(given[turn - 1]) if turn <= len(given) else None


async def summarise(context: AgentContext, task: str) -> str:
    await anyio.lowlevel.checkpoint()
    return f"{task.partition(':')[0]} in brief"


SUMMARISERS: dict[str, tuple[Agent | Function, AgentKind, str]] = {
    "async function": (summarise, "function", "analysis in brief"),
    "direct": (Direct(), "direct", "It rose."),
    "calls": (CallsAgent(), "calls", "It rose by script."),
    "calls that end with a name": (CallsAgent(), "calls", "It rose by name."),
    "object that is called": (WORKERS["summariser"], "function", "They rose."),
}
TURNS = {
    "calls": ['FINAL("It rose by script.")'],
    "calls that end with a name": ['WRITE(found, "It rose by name.")', "FINAL(found)"],
}


@pytest.mark.parametrize("who", SUMMARISERS)
async def test_any_kind_of_agent_can_take_a_role_and_nothing_else_changes(
    grove: Grove, who: str
) -> None:
    agent, kind, summary = SUMMARISERS[who]
    says(grove, "It rose.")
    script = Scripted(grove, {"a1.2": TURNS.get(who, [])})
    result = await run(grove, review(), WORKERS | {"summariser": agent}, script=script)
    assert visits(result.outcome) == ["ANALYSE", "SUMMARISE", "VALIDATE", "COMPLETE"]
    assert kinds(grove)["a1.2"] == kind
    assert grove.store.load(grove.store.get("summary").ref) == summary
    assert [name for writer, name, _ in wrote(grove) if name == "summary"] == ["summary"]


async def test_recipes_read_the_values_they_are_given_by_reference(grove: Grove) -> None:
    says(grove, "They rose.")
    grove.store.put_text("secret", "Nobody is to know.")
    agents = WORKERS | {"analyser": MapReduce()}
    outcome = (await run(grove, review(), agents)).outcome
    assert outcome.stop_reason is StopReason.FINAL
    assert grove.store.load(grove.store.get("analysis").ref) == "They rose."
    assert {name for reader, name, _, _ in read(grove) if reader == "a1.1"} == {"report"}


async def test_not_found_is_a_value_that_guards_and_steps_can_see(grove: Grove) -> None:
    grove.engine.score = lambda request: -5.0  # nothing is likelier with a text than without
    table = definition()["transitions"] | {
        Stage.ANALYSE: [
            To(Stage.COMPLETE, when=lambda values: values["analysis"] is None),
            Stage.SUMMARISE,
        ]
    }
    agents = WORKERS | {"analyser": SearchAgent()}
    outcome = (await run(grove, review(transitions=table), agents)).outcome
    assert (visits(outcome), outcome.stop_reason) == (["ANALYSE", "COMPLETE"], StopReason.FINAL)


@dataclass(frozen=True)
class Speaker:
    """An agent that answers in words and stores nothing."""

    kind: AgentKind = "direct"

    async def run(self, seat: Seat, task: str, context: AgentContext) -> Outcome:
        return Outcome(stop_reason=StopReason.FINAL, answer="They rose, she said.")


async def test_an_answer_in_words_is_stored_under_the_name(grove: Grove) -> None:
    await run(grove, review(), WORKERS | {"summariser": Speaker()})
    assert grove.store.load(grove.store.get("summary").ref) == "They rose, she said."


async def test_a_function_may_store_values_itself_and_return_one_of_them(grove: Grove) -> None:
    def analyse(context: AgentContext, task: str) -> Ref:
        assert task == TASK
        assert context.read("report[0:5]") == "Sales"
        context.store("rows", [1, 2])
        return context.store("draft", {"summary": "rose"})

    await run(grove, review(), WORKERS | {"analyser": analyse})
    analysis = grove.store.get("analysis").ref
    assert grove.store.load(analysis) == {"summary": "rose"}
    assert analysis.digest == grove.store.get("draft").ref.digest
    assert ("a1.1", "rows", 1) in wrote(grove)


async def test_what_a_function_reads_enters_no_prompt_and_no_budget(grove: Grove) -> None:
    grove.store.put_text("report", "Sales rose. " * 2000)
    tree = grove.tree()
    assert (tree.config.agents.max_tokens_per_read or 0) < 6000

    def analyse(context: AgentContext, task: str) -> int:
        return len(str(context.read("report")))

    outcome = (await run(grove, review(), WORKERS | {"analyser": analyse})).outcome
    assert outcome.stop_reason is StopReason.FINAL
    assert ("a1.1", "report", 2, 0) in read(grove)


async def test_the_example_of_the_package_runs_and_has_twenty_lines(grove: Grove) -> None:
    example = textwrap.dedent("    " + (workflow.__doc__ or "").partition("\n\n    ")[2])
    lines = [line for line in example.splitlines() if line and "import" not in line]
    assert len(lines) == 20
    program, _, last = example.rstrip().rpartition("\n")
    assert last.endswith("agent=Orchestrator(review, agents))")
    names: dict[str, Any] = {**vars(workflow), "MapReduce": MapReduce, "Direct": Direct}
    exec(program, names)  # noqa: S102 # our own
    years = iter([120, 3])  # tokens: 600 characters, and 15
    says(grove, lambda asked: " year" * next(years) if "Be brief" in asked else "Sales rose.")
    outcome = (await run(grove, names["review"], names["agents"])).outcome
    assert outcome.stop_reason is StopReason.FINAL, outcome.error
    assert visits(outcome) == ["ANALYSE", *["SUMMARISE", "VALIDATE"] * 2, "COMPLETE"]


class Panel(Enum):
    ASK = auto()
    TELL = auto()


def panel(size: int) -> Workflow[Panel]:
    return Workflow(
        states=Panel,
        start=Panel.ASK,
        ends=[Panel.TELL],
        transitions={Panel.ASK: [Panel.TELL]},
        steps={
            Panel.ASK: [
                Step(Direct(), f"{{task}} ({i})", ["report"], f"opinion_{i}") for i in range(size)
            ],
            Panel.TELL: Step(
                lambda context, task: sorted(context),
                reads=[f"opinion_{i}" for i in range(size)],
                writes="told",
            ),
        },
    )


async def test_the_steps_of_a_state_reach_the_engine_as_one_batch(grove: Grove) -> None:
    size = grove.engine.max_running
    grove.engine.gate = anyio.Event()
    arrived = anyio.Event()

    def note(request: object) -> None:
        if len(grove.engine.seen) == size:
            arrived.set()

    grove.engine.on_request = note
    async with anyio.create_task_group() as group:
        group.start_soon(run, grove, panel(size))
        await arrived.wait()  # none is answered before all are there
        grove.engine.gate.set()
    told = grove.store.load(grove.store.get("told").ref)
    assert told == [f"opinion_{i}" for i in range(size)]


async def test_many_workflows_at_once_share_the_engine_and_keep_their_values_apart(
    grove: Grove,
) -> None:
    """Each has values of the same names, and reads its own."""
    says(grove, lambda asked: f"summary of {asked.partition('analysis:')[2].split()[0]}")
    outcomes: dict[int, Outcome] = {}

    async def one(number: int) -> None:
        async def validate(context: AgentContext, task: str) -> str:
            await anyio.lowlevel.checkpoint()
            return "good" if context.read("summary") == f"summary of {number}" else "bad"

        agents: dict[str, Agent | Function] = {
            "analyser": makes(f"{number} is the number"),
            "summariser": Direct(),
            "validator": validate,
        }
        seat = Seat(grove.tree(), AgentId(f"a{number}"))
        context = AgentContext(grove.store, grove.recorder, reader=seat.agent_id)
        orchestrator = Orchestrator(review(max_visits=1), agents)
        outcomes[number] = (await run_agent(orchestrator, seat, TASK, context)).outcome

    async with anyio.create_task_group() as group:
        for number in range(1, 31):
            group.start_soon(one, number)
    assert {n: o.error for n, o in outcomes.items() if o.stop_reason is not StopReason.FINAL} == {}
    assert len(outcomes) == 30
    assert grove.engine.most_running > 1


async def test_one_orchestrator_runs_many_tasks_at_the_same_time(grove: Grove) -> None:
    orchestrator = Orchestrator(review(), WORKERS)
    async with anyio.create_task_group() as group:
        for number in range(1, 6):
            seat = Seat(grove.tree(), AgentId(f"a{number}"))
            context = AgentContext(grove.store, grove.recorder, reader=seat.agent_id)
            group.start_soon(run_agent, orchestrator, seat, TASK, context)
    assert {end for agent, end in ends(grove).items() if "." not in agent} == {"final"}


@pytest.mark.parametrize("task", ["In short: {task}", "{task}"])
async def test_a_workflow_is_a_step_of_another(grove: Grove, task: str) -> None:
    """Also of one that was asked the same task about the same values."""
    inner = Orchestrator(review(), WORKERS)
    outer = Workflow(
        states=Panel,
        start=Panel.ASK,
        ends=[Panel.TELL],
        transitions={Panel.ASK: [Panel.TELL]},
        steps={Panel.ASK: Step(inner, task, reads=["report"], writes="opinion")},
    )
    seat, _ = grove.root(grove.tree(Limits(max_depth=2)))
    context = AgentContext(grove.store, grove.recorder, reader=seat.agent_id, visible=["report"])
    result = await run_agent(Orchestrator(outer), seat, TASK, context)
    assert visits(result.outcome) == ["ASK", "TELL"]
    # The same value under one more name, and the log says where it is from.
    assert grove.store.get("opinion").ref.digest == grove.store.get("verdict").ref.digest
    assert read(grove)[-1] == ("a1.1", "verdict", 1, 0)
    assert grove.store.load(grove.store.get("opinion").ref) == "good"
    assert kinds(grove)["a1.1.3"] == "function"


async def test_what_it_begins_with_is_looked_for_before_anything_is_done(grove: Grove) -> None:
    early = definition()["steps"] | {Stage.SUMMARISE: Step("summariser", reads=["reprot"])}
    with pytest.raises(UnknownName, match="'reprot'") as caught:
        await run(grove, review(steps=early), WORKERS)
    assert caught.value.nearest == ("report",)
    assert list(kinds(grove)) == ["a1"]
    assert not [event for event in grove.events if isinstance(event, CallFinished)]


BAD_AGENTS: dict[str, tuple[Any, str]] = {
    "nobody": (None, "Nobody has the role 'summariser'.*there are: analyser, validator"),
    "class": (CallsAgent, r"summariser is a class\. Make one: CallsAgent\(\)"),
    "text": ("direct", "summariser is a str"),
    "one argument": (lambda context: context, "can't be called with a context and a task"),
    "recipe by value": (MapReduce(), "it works on texts of its context"),
    "workflow without its values": (
        Orchestrator(review(), WORKERS),
        "The workflow summariser begins with report",
    ),
}


@pytest.mark.parametrize(("given", "message"), BAD_AGENTS.values(), ids=BAD_AGENTS)
async def test_who_cannot_fill_a_role_is_refused_when_it_is_given(given: Any, message: str) -> None:
    agents = {name: who for name, who in WORKERS.items() if name != "summariser"}
    if given is not None:
        agents["summariser"] = given
    with pytest.raises(WorkflowError, match=message):
        Orchestrator(review(), agents)

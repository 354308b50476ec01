"""By value: what stands in a prompt, and what does not fit."""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING, Any

import pytest

from rlm_runtime.config import Config
from rlm_runtime.errors import PromptTooLong
from rlm_runtime.scaffold.agent import Agent, AgentResult, Outcome, run_agent
from rlm_runtime.scaffold.calls import CallsAgent
from rlm_runtime.scaffold.recipes.direct import Direct
from rlm_runtime.tracing import CallFinished
from rlm_runtime.types import Limits, StopReason
from rlm_runtime.workflow import Function, Orchestrator, Passing, Step, To, Workflow
from tests.unit.workflow.conftest import TASK, kinds, makes, read, run, says, visits_of, wrote

if TYPE_CHECKING:
    from tests.unit.scaffold.conftest import Grove

pytestmark = pytest.mark.anyio

REPORT = "Sales rose by two percent."


class Once(Enum):
    ASK = auto()
    TOLD = auto()


def once(
    agent: str | Agent | Function = "one", *, reads: Any = ("report",), passing: Passing = "value"
) -> Workflow[Once]:
    return Workflow(
        states=Once,
        start=Once.ASK,
        ends=[Once.TOLD],
        transitions={Once.ASK: [Once.TOLD]},
        steps={Once.ASK: Step(agent, "Tell: {task}", reads, "told", passing)},
    )


def asked(grove: Grove, number: int = 0) -> str:
    ids = grove.engine.seen[number].prompt_ids[len(grove.layout.shared_ids) :]
    return grove.layout.tokenizer.decode(ids)


def failed(outcome: Outcome) -> BaseException:
    """The error of the last step."""
    error = visits_of(outcome)[-1].outcomes[-1]
    assert isinstance(error, BaseException)
    return error


async def test_values_stand_in_front_of_the_task_in_the_order_they_are_named(grove: Grove) -> None:
    grove.store.put_text("report", REPORT)
    grove.store.put_value("analysis", {"summary": "up", "rows": [1, 2]})
    await run(grove, once(reads=["report", "analysis['summary']"]), {"one": Direct()})
    assert asked(grove).startswith(f"report:\n{REPORT}\n\nanalysis['summary']:\nup\n\nTell: {TASK}")
    count = grove.layout.tokenizer.count
    assert read(grove) == [
        ("a1.1", "report", 1, count(REPORT)),
        ("a1.1", "analysis", 1, count("up")),
    ]


async def test_by_reference_the_prompt_has_names_only(grove: Grove) -> None:
    grove.store.put_text("report", REPORT * 20)
    tree: dict[str, Any] = {
        "script": lambda agent_id, turn: grove.layout.tokenizer.encode('FINAL("Up.")')
    }
    await run(grove, once(passing="reference"), {"one": CallsAgent()}, **tree)
    await run(grove, once(passing="value"), {"one": CallsAgent()}, **tree)
    by_reference, by_value = (asked(grove, number) for number in (0, 1))
    assert "- report: str" in by_reference
    assert REPORT * 20 not in by_reference
    assert f"\n\nreport:\n{REPORT * 20}\n\nTell: {TASK}" in by_value


@pytest.mark.parametrize("agent", [Direct(), CallsAgent(), makes("told")])
async def test_a_value_too_large_for_the_window_is_refused_before_any_call(
    grove: Grove, agent: Agent | Function
) -> None:
    grove.store.put_text("report", REPORT * 5000)
    outcome = (await run(grove, once(), {"one": agent})).outcome
    assert outcome.stop_reason is StopReason.FAILED
    error = failed(outcome)
    assert isinstance(error, PromptTooLong)
    limit = grove.engine.info.window - Config().agents.answer_tokens
    assert error.limit == limit < error.prompt_tokens
    assert "'report' does not fit. Pass it by reference" in str(error)
    assert (grove.engine.seen, read(grove), wrote(grove)) == ([], [], [])


@pytest.mark.parametrize("agent", [Direct(), makes("told")])
async def test_the_window_is_used_to_its_last_token(grove: Grove, agent: Agent | Function) -> None:
    """What is passed by value fits exactly as long as the prompt does."""
    layout, config = grove.layout, Config()
    limit = grove.engine.info.window - config.agents.answer_tokens
    word = " rose"
    assert layout.tokenizer.count(word * 100) == 100

    def prompt_tokens(words: int) -> int:
        task = f"report:\n{word * words}\n\nTell: {TASK}"
        return len(layout.shared_ids) + len(layout.tail(task))

    words = 1 + limit - prompt_tokens(1)
    assert prompt_tokens(words) == limit
    for more, reason in ((0, StopReason.FINAL), (1, StopReason.FAILED)):
        grove.store.put_text("report", word * (words + more))
        outcome = (await run(grove, once(), {"one": agent})).outcome
        assert outcome.stop_reason is reason, outcome.error
    assert [len(request.prompt_ids) for request in grove.engine.seen] == [limit] * (
        agent == Direct()
    )


async def test_several_values_share_the_window(grove: Grove) -> None:
    for name in "abc":
        grove.store.put_text(name, REPORT * 400)
    outcome = (await run(grove, once(reads=["a", "b", "c"]), {"one": Direct()})).outcome
    assert "'c' does not fit" in outcome.error
    assert grove.engine.seen == []


class Work(Enum):
    """Ten agents, five rounds."""

    READ = auto()
    WRITE = auto()
    DONE = auto()


def hybrid(passing: Passing) -> Workflow[Work]:
    """Five readers note something about a note each; five writers make new notes of all."""
    notes = [f"note_{i}" for i in range(5)]
    return Workflow(
        states=Work,
        start=Work.READ,
        ends=[Work.DONE],
        transitions={Work.READ: [Work.WRITE], Work.WRITE: [Work.DONE]},
        steps={
            Work.READ: [
                Step(f"reader_{i}", f"{i}: {{task}}", [notes[i]], f"read_{i}") for i in range(5)
            ],
            Work.WRITE: [
                Step(
                    f"writer_{i}",
                    f"{i}: {{task}}",
                    [f"read_{j}" for j in range(5)],
                    notes[i],
                    passing,
                )
                for i in range(5)
            ],
        },
    )


async def rounds(grove: Grove, passing: Passing) -> AgentResult:
    """Fifty interactions: the workflow of ten, as the step of one that goes round five times."""

    class Round(Enum):
        GO = auto()
        DONE = auto()

    agents: dict[str, Agent | Function] = {f"reader_{i}": Direct() for i in range(5)}
    agents |= {f"writer_{i}": Direct() for i in range(5)}
    went = iter(range(5))
    inner = Orchestrator(hybrid(passing), agents)
    names = [f"note_{i}" for i in range(5)]

    def is_enough(values: object) -> bool:
        return next(went) == 4

    outer = Workflow(
        states=Round,
        start=Round.GO,
        ends=[Round.DONE],
        transitions={Round.GO: [To(Round.DONE, when=is_enough), Round.GO]},
        steps={Round.GO: Step(inner, reads=names)},
        max_visits=5,
    )
    seat, context = grove.root(grove.tree(Limits(max_depth=2)))
    return await run_agent(Orchestrator(outer), seat, TASK, context)


async def test_fifty_interactions_of_ten_agents_read_and_write_as_the_script_says(
    grove: Grove,
) -> None:
    says(grove, "So it is.")
    for i in range(5):
        grove.store.put_text(f"note_{i}", REPORT)
    result = await rounds(grove, "value")
    assert result.outcome.stop_reason is StopReason.FINAL, result.outcome.error
    calls = [event for event in grove.events if isinstance(event, CallFinished)]
    assert (len(calls), len(kinds(grove))) == (50, 1 + 5 + 50)
    expected = set()
    for turn in range(5):
        for i in range(5):
            reader, writer = f"a1.{turn + 1}.{i + 1}", f"a1.{turn + 1}.{i + 6}"
            expected.add((reader, f"note_{i}", turn + 1, "read"))
            expected.add((reader, f"read_{i}", turn + 1, "wrote"))
            expected |= {(writer, f"read_{j}", turn + 1, "read") for j in range(5)}
            expected.add((writer, f"note_{i}", turn + 2, "wrote"))
    found = {(reader, name, version, "read") for reader, name, version, _ in read(grove)}
    found |= {(writer, name, version, "wrote") for writer, name, version in wrote(grove)}
    assert found == expected

"""Workflows on the scripted engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

from rlm_runtime.scaffold.agent import Agent, AgentResult, Outcome, run_agent
from rlm_runtime.scaffold.agent_context import AgentContext
from rlm_runtime.tracing import AgentFinished, AgentStarted, StateEntered, ValueRead, ValueStored
from rlm_runtime.types import Limits
from rlm_runtime.workflow import Function, Orchestrator, Step, To, Visit, Workflow
from tests.unit.scaffold.conftest import grove, layout

if TYPE_CHECKING:
    from tests.unit.scaffold.conftest import Grove

__all__ = ["grove", "layout"]  # the fixtures

TASK = "What is new?"


class Stage(Enum):
    ANALYSE = auto()
    SUMMARISE = auto()
    VALIDATE = auto()
    COMPLETE = auto()


def is_good(values: Mapping[str, Any]) -> bool:
    return bool(values["verdict"] == "good")


def is_bad(values: Mapping[str, Any]) -> bool:
    return not is_good(values)


def definition(**changes: Any) -> dict[str, Any]:
    """Analyse, summarise, validate; a bad summary is made anew. With some of it changed."""
    return {
        "states": Stage,
        "start": Stage.ANALYSE,
        "ends": [Stage.COMPLETE],
        "transitions": {
            Stage.ANALYSE: [Stage.SUMMARISE],
            Stage.SUMMARISE: [Stage.VALIDATE],
            Stage.VALIDATE: [To(Stage.COMPLETE, when=is_good), Stage.SUMMARISE],
        },
        "steps": {
            Stage.ANALYSE: Step("analyser", reads=["report"], writes="analysis"),
            Stage.SUMMARISE: Step(
                "summariser", "Be brief: {task}", ["analysis"], "summary", passing="value"
            ),
            Stage.VALIDATE: Step("validator", reads=["summary"], writes="verdict"),
        },
        "max_visits": 3,
        **changes,
    }


def review(**changes: Any) -> Workflow[Stage]:
    return Workflow(**definition(**changes))


def makes(value: object) -> Function:
    def make(context: AgentContext, task: str) -> object:
        return value

    return make


def nothing(context: AgentContext, task: str) -> None:
    return


WORKERS: dict[str, Agent | Function] = {
    "analyser": makes({"summary": "Sales rose.", "rows": [1, 2]}),
    "summariser": makes("They rose."),
    "validator": makes("good"),
}


async def run(
    grove: Grove,
    workflow: Workflow[Any],
    agents: Mapping[str, Agent | Function] | None = None,
    limits: Limits | None = None,
    **tree: Any,
) -> AgentResult:
    """Run a workflow as a root."""
    seat, context = grove.root(grove.tree(limits, **tree))
    return await run_agent(Orchestrator(workflow, agents), seat, TASK, context)


def visits_of(outcome: Outcome) -> list[Visit]:
    assert isinstance(outcome.detail, tuple)
    assert all(isinstance(visit, Visit) for visit in outcome.detail)
    return list(outcome.detail)


def visits(outcome: Outcome) -> list[str]:
    return [visit.state.name for visit in visits_of(outcome)]


def states(grove: Grove) -> list[tuple[str, int, str | None]]:
    events = [event for event in grove.events if isinstance(event, StateEntered)]
    return [(event.state, event.visit, event.previous) for event in events]


def kinds(grove: Grove) -> dict[str, str]:
    return {e.agent_id: e.kind for e in grove.events if isinstance(e, AgentStarted)}


def ends(grove: Grove) -> dict[str, str]:
    return {e.agent_id: e.stop_reason for e in grove.events if isinstance(e, AgentFinished)}


def wrote(grove: Grove) -> list[tuple[str, str, int]]:
    events = [event for event in grove.events if isinstance(event, ValueStored)]
    return [(event.writer, event.name, event.version) for event in events]


def read(grove: Grove) -> list[tuple[str, str, int, int]]:
    events = [event for event in grove.events if isinstance(event, ValueRead)]
    return [(event.reader, event.name, event.version, event.tokens) for event in events]


def says(grove: Grove, words: str | Callable[[str], str]) -> None:
    """What the engine answers, or makes of a prompt."""
    layout = grove.layout
    shared, end = len(layout.shared_ids), layout.template.turn_end_ids[-1]

    def answer(request: Any) -> tuple[int, ...]:
        asked = layout.tokenizer.decode(request.prompt_ids[shared:])
        return (*layout.tokenizer.encode(words if isinstance(words, str) else words(asked)), end)

    grove.engine.answer = answer

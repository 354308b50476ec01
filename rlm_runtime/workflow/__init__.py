"""Explicit workflows: states and transitions as data, and the orchestrator that runs them.

Analyse, summarise, validate; a summary that is too long is made anew, at most twice:

    from enum import Enum

    Stage = Enum("Stage", "ANALYSE SUMMARISE VALIDATE COMPLETE")

    def validate(context, task):
        return "good" if len(context.read("summary")) < 500 else "too long"

    def is_good(values):
        return values["verdict"] == "good"

    review = Workflow(
        states=Stage, start=Stage.ANALYSE, ends=[Stage.COMPLETE], max_visits=3,
        transitions={
            Stage.ANALYSE: [Stage.SUMMARISE],
            Stage.SUMMARISE: [Stage.VALIDATE],
            Stage.VALIDATE: [To(Stage.COMPLETE, when=is_good), Stage.SUMMARISE],
        },
        steps={
            Stage.ANALYSE: Step("analyser", "List what is new.", ["report"], "analysis"),
            Stage.SUMMARISE: Step("summariser", "Be brief: {task}", ["analysis"], "summary"),
            Stage.VALIDATE: Step(validate, reads=["summary"], writes="verdict"),
        },
    )
    agents = {"analyser": MapReduce(), "summariser": Direct()}
    result = rlm.run("What is new?", {"report": text}, agent=Orchestrator(review, agents))
"""

from rlm_runtime.workflow.definition import Function, Guard, Passing, Step, To, Workflow
from rlm_runtime.workflow.drawing import as_mermaid, as_tree
from rlm_runtime.workflow.machine import Machine
from rlm_runtime.workflow.orchestrator import Orchestrator, Visit

__all__ = [
    "Function",
    "Guard",
    "Machine",
    "Orchestrator",
    "Passing",
    "Step",
    "To",
    "Visit",
    "Workflow",
    "as_mermaid",
    "as_tree",
]

"""Explicit workflows: states and transitions as data, and the orchestrator that runs them."""

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

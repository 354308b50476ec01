"""The words for a run's agents, values and readings. What logs say is cleaned here."""

from __future__ import annotations

from collections.abc import Callable

from rlm_runtime.cli.terminal import count, one_line, size
from rlm_runtime.errors import TraceError
from rlm_runtime.profiler.provenance import USER, AgentNode, Entering, Provenance, Reading
from rlm_runtime.profiler.provenance_flow import ValueId
from rlm_runtime.tracing import Blobs

Tasks = Callable[[AgentNode], str]
"""An agent's task, as far as it was kept."""

_KINDS = {"str": "text", "mp": "structure", "npy": "array"}
_NAME_CHARACTERS = 72
_TASK_CHARACTERS = 60


def tasks_of(blobs: Blobs) -> Tasks:
    """Tasks from where a run keeps them; empty where it did not."""

    def task(agent: AgentNode) -> str:
        if agent.task_blob is None:
            return ""
        try:
            return blobs.get(agent.task_blob).decode("utf-8", "replace")
        except TraceError:  # not kept, or damaged: the graph is whole without it
            return ""

    return task


def value(graph: Provenance, of: ValueId) -> str:
    """A value's name, with its version where there are several."""
    return one_line(graph.label(of), _NAME_CHARACTERS)


def agent(agent_id: str) -> str:
    """An agent's id, or the user."""
    return "the user" if agent_id == USER else one_line(agent_id, _NAME_CHARACTERS)


def state(entered: Entering) -> str:
    """A state of a workflow, and which visit of it."""
    visit = "" if entered.visit == 1 else f", visit {entered.visit:,}"
    return f"state {one_line(entered.state, _NAME_CHARACTERS)}{visit}"


def value_facts(graph: Provenance, of: ValueId) -> str:
    """What a value is: "text, 3.2 kB, about 700 tokens"."""
    node = graph.values[of]
    if node.size_bytes is None or node.kind is None:
        return "its storing is not in the log"
    about = "about " if node.is_estimated else ""
    kind = _KINDS.get(node.kind, one_line(node.kind, _NAME_CHARACTERS))
    return f"{kind}, {size(node.size_bytes)}, {about}{count(node.tokens or 0, 'token')}"


def agent_facts(graph: Provenance, agent_id: str, tasks: Tasks) -> str:
    """What an agent was and came to: "search, fork, max_turns → answer_a1: the task"."""
    node = graph.agents[agent_id]
    kind = "agent" if node.kind is None else one_line(node.kind, _NAME_CHARACTERS)
    end = "did not end" if node.stop_reason is None else one_line(node.stop_reason)
    facts = [kind, *(["fork"] if node.start == "fork" else []), end]
    result = "" if node.result is None else f" → {value(graph, node.result)}"
    task = one_line(tasks(node), _TASK_CHARACTERS)
    return ", ".join(facts) + result + (f": {task}" if task else "")


def reading_facts(graph: Provenance, reading: Reading) -> str:
    """What was read of a value: "bytes 0-400 of 3,200, 100 tokens, 2 reads"."""
    tokens = count(reading.tokens, "token") if reading.tokens else "looked at in Python"
    reads = [] if reading.reads == 1 else [count(reading.reads, "read")]
    return ", ".join([_part(graph, reading), tokens, *reads])


def _part(graph: Provenance, reading: Reading) -> str:
    whole = graph.values[reading.value].size_bytes
    if whole is not None and reading.bytes_read >= whole:
        return "whole"
    of = "" if whole is None else f" of {whole:,}"
    if len(reading.spans) == 1:
        ((start, end),) = reading.spans
        return f"bytes {start:,}-{end:,}{of}"
    return f"{reading.bytes_read:,}{of} bytes in {len(reading.spans):,} parts"

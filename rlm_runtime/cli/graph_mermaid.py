"""A run's graph as a Mermaid flowchart.

Values are cylinders, agents are rounded. A thick arrow is a writing, a thin one a reading; dotted
ones lead to sub-agents, and to results that another agent wrote.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from rlm_runtime.cli import graph_words as words
from rlm_runtime.cli.graph_words import Tasks
from rlm_runtime.profiler.provenance import Entering, Provenance, Reading, Starting, Writing
from rlm_runtime.profiler.provenance_flow import ValueId

MOST_EDGES = 500
"""What Mermaid draws unless its `maxEdges` is raised (its configuration page)."""

_ESCAPED = {ord(c): f"#{ord(c)};" for c in '"#%&<>`\\'}
"""Characters that end a label, or mean something in it."""


class Flowchart(NamedTuple):
    """A flowchart, and how many edges it has."""

    text: str
    edges: int


def flowchart(graph: Provenance, tasks: Tasks, value: ValueId | None = None) -> Flowchart:
    """All agents and values, or what bears on one value and what that bears on."""
    values, agents = _kept(graph, value)
    nodes: dict[str | ValueId, str] = {}
    lines = ["flowchart TD"]
    for number, one in enumerate(values, 1):
        nodes[one] = f"v{number}"
        text = f"{_label(words.value(graph, one))}<br/>{_label(words.value_facts(graph, one))}"
        lines.append(f'    v{number}[("{text}")]')
    for number, agent in enumerate(agents, 1):
        nodes[agent] = f"a{number}"
        facts = _label(words.agent_facts(graph, agent, tasks))
        lines.append(f'    a{number}(["{_label(words.agent(agent))}<br/>{facts}"])')
    edges = list(_edges(graph, nodes))
    lines += [f"    {edge}" for edge in edges]
    if value is not None:
        lines.append(f"    style {nodes[value]} stroke-width:4px")
    return Flowchart("\n".join(lines), len(edges))


def _kept(graph: Provenance, value: ValueId | None) -> tuple[list[ValueId], list[str]]:
    if value is None:
        return list(graph.values), list(graph.agents)
    before, behind = graph.depends_on(value), graph.changes_with(value)
    values = {value, *before.values, *behind.values}
    agents = {*before.agents, *behind.agents}
    return [v for v in graph.values if v in values], [a for a in graph.agents if a in agents]


def _edges(graph: Provenance, nodes: Mapping[str | ValueId, str]) -> Iterator[str]:
    """Between nodes that are drawn; the user is none of them."""
    for edge in graph.edges:
        source: str | ValueId
        sink: str | ValueId
        match edge:
            case Starting():
                source, arrow, sink = edge.parent_id, "-.->", edge.agent_id
            case Writing():
                source, arrow, sink = edge.writer, "==>", edge.value
            case Reading():
                facts = _label(words.reading_facts(graph, edge))
                source, arrow, sink = edge.value, f'-->|"{facts}"|', edge.reader
            case Entering():
                continue
        if source in nodes and sink in nodes:
            yield f"{nodes[source]} {arrow} {nodes[sink]}"
    for agent, node in graph.agents.items():
        result = node.result
        if result is None or result not in nodes or agent not in nodes:
            continue
        if graph.values[result].writer != agent:
            yield f'{nodes[agent]} -.->|"result"| {nodes[result]}'


def _label(text: str) -> str:
    return text.translate(_ESCAPED)

"""A run's graph as a tree for the terminal: of its agents, or of one value."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from rlm_runtime.cli import graph_words as words
from rlm_runtime.cli.graph_words import Tasks
from rlm_runtime.profiler.provenance import (
    USER,
    Entering,
    Provenance,
    Reached,
    Reading,
    Starting,
    Writing,
)
from rlm_runtime.profiler.provenance_flow import ValueId, Via

DEEPEST = 24
"""Levels that are drawn: more would not stand side by side on a screen."""

NAMED = 24
"""Values and agents that one line names."""

_TOLD = "perhaps, by what agents told each other"


@dataclass(slots=True)
class Branch:
    """A line, and what hangs on it."""

    text: str
    below: list[Branch] = field(default_factory=list)


def run_tree(graph: Provenance, tasks: Tasks) -> str:
    """What the user gave and read, and all agents with what they did, in the log's order."""
    user = Branch("the user")
    agents = {
        agent: Branch(f"{words.agent(agent)} {words.agent_facts(graph, agent, tasks)}")
        for agent in graph.agents
    }
    # Where what an agent does is put: on its own line, or on that of its workflow's state.
    places = {USER: user, **agents}
    parents: dict[str, str] = {}
    for edge in graph.edges:
        match edge:
            case Starting():
                # A damaged log may have an agent twice, or circles.
                if edge.agent_id not in (*parents, *_lineage(parents, edge.parent_id)):
                    parents[edge.agent_id] = edge.parent_id
                    places[edge.parent_id].below.append(agents[edge.agent_id])
            case Writing():
                verb = "gave" if edge.writer == USER else "wrote"
                facts = words.value_facts(graph, edge.value)
                text = f"{verb} {words.value(graph, edge.value)}: {facts}"
                places[edge.writer].below.append(Branch(text))
            case Reading():
                text = f"read {words.value(graph, edge.value)}: {words.reading_facts(graph, edge)}"
                places[edge.reader].below.append(Branch(text))
            case Entering():
                places[edge.agent_id] = Branch(words.state(edge))
                agents[edge.agent_id].below.append(places[edge.agent_id])
    roots = [branch for agent, branch in agents.items() if agent not in parents]
    return draw([user, *roots] if user.below else roots)


def value_tree(graph: Provenance, value: ValueId) -> str:
    """What a value depends on, who read it, and what would change with it."""
    readings = graph.readers(value)
    read_by = [
        Branch(f"{words.agent(one.reader)}: {words.reading_facts(graph, one)}") for one in readings
    ]
    depends = _sources(graph, value) + _named(graph, graph.depends_on(value), "told", agents=False)
    reached = graph.changes_with(value)
    changes = _named(graph, reached, "read") + _named(graph, reached, "told")
    head = f"{words.value(graph, value)}{_writer(graph, value, ', written by')}: "
    sections = [
        Branch("depends on" if depends else "depends on nothing that was read", depends),
        Branch("read by" if read_by else "read by nobody", read_by),
        Branch("would change with it" if changes else "nothing would change with it", changes),
    ]
    return draw([Branch(head + words.value_facts(graph, value), sections)])


def draw(roots: Sequence[Branch]) -> str:
    """Branches as lines, `DEEPEST` levels of them."""
    return "\n".join(_lines(roots))


def _lines(roots: Sequence[Branch]) -> Iterator[str]:
    # Not by recursion: how deep a log goes is not up to us.
    waiting = [(branch, "", "", 1) for branch in reversed(roots)]
    while waiting:
        branch, lead, indent, level = waiting.pop()
        yield lead + branch.text
        if level == DEEPEST and branch.below:
            yield f"{indent}└─ … {_size(branch.below):,} more below, not drawn"
            continue
        for number, below in enumerate(reversed(branch.below)):
            corner, rest = ("├─ ", "│  ") if number else ("└─ ", "   ")
            waiting.append((below, indent + corner, indent + rest, level + 1))


def _size(branches: Iterable[Branch]) -> int:
    waiting, size = list(branches), 0
    while waiting:
        waiting += waiting.pop().below
        size += 1
    return size


def _lineage(parents: dict[str, str], agent: str) -> Iterator[str]:
    """An agent and those above it."""
    above: str | None = agent
    while above is not None:
        yield above
        above = parents.get(above)


def _sources(graph: Provenance, value: ValueId) -> list[Branch]:
    """What was read for a value, and for that, each once and as near to the value as it comes."""
    top = Branch("")
    placed = {value}
    waiting = deque([(value, top)])
    while waiting:
        above, branch = waiting.popleft()
        for reading in graph.sources(above):
            source = reading.value
            writer = _writer(graph, source, " by")
            text = f"{words.value(graph, source)}{writer}, read by {words.agent(reading.reader)}: "
            below = Branch(text + words.reading_facts(graph, reading))
            branch.below.append(below)
            if source not in placed:
                placed.add(source)
                waiting.append((source, below))
            elif graph.sources(source):
                below.text += " (see elsewhere)"
    return top.below


def _named(graph: Provenance, reached: Reached, via: Via, *, agents: bool = True) -> list[Branch]:
    """What was reached in one way, on a line for the values and one for the agents."""
    lead = f"{_TOLD}: " if via == "told" else ""
    values = [
        f"{words.value(graph, value)}{_writer(graph, value, ' by')}"
        for value, how in reached.values.items()
        if how == via
    ]
    who = [words.agent(agent) for agent, how in reached.agents.items() if how == via]
    lines = [f"{lead}values {_some(values)}"] if values else []
    lines += [f"{lead}agents {_some(who)}"] if who and agents else []
    return [Branch(line) for line in lines]


def _writer(graph: Provenance, value: ValueId, lead: str) -> str:
    writer = graph.values[value].writer
    return "" if writer is None else f"{lead} {words.agent(writer)}"


def _some(names: Sequence[str]) -> str:
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more:,} more" if more > 0 else "")

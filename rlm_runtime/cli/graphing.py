"""What `rlm graph` and `rlm run --show graph` do: read a log, show who read and wrote what."""

from __future__ import annotations

from pathlib import Path

from rlm_runtime.cli import runs
from rlm_runtime.cli.command import DONE, Document
from rlm_runtime.cli.graph_mermaid import MOST_EDGES, flowchart
from rlm_runtime.cli.graph_tree import run_tree, value_tree
from rlm_runtime.cli.graph_words import tasks_of
from rlm_runtime.cli.terminal import Terminal, shown_path
from rlm_runtime.profiler.provenance import Edge, Entering, Provenance, Reached, Reading, Writing
from rlm_runtime.profiler.provenance_flow import ValueId
from rlm_runtime.profiler.run_log import read_run
from rlm_runtime.tracing import Blobs


def show_run(
    run: str | None,
    name: str | None,
    terminal: Terminal,
    document: Document,
    *,
    as_mermaid: bool,
) -> int:
    """Show a recorded run's graph; returns the exit code.

    Args:
        run: As typed.
        name: The value that is asked about; `None` is all of the run.
        terminal: Gets the tree or the flowchart.
        document: Gets the same as facts.
        as_mermaid: A flowchart instead of a tree.

    Raises:
        InputError: There is no such run.
        ContextError: The run has no such value.
        TraceError: The log can't be read.
    """
    log = read_run(runs.find(run))
    graph = Provenance(log.events)
    value = None if name is None else graph.find(name)
    tasks = tasks_of(Blobs(log.directory))
    document |= {"run_directory": shown_path(log.directory), **facts(graph, value)}
    document["notes"] = list(log.notes)
    if as_mermaid:
        made = flowchart(graph, tasks, value)
        text = made.text
        document["mermaid"] = text
        if made.edges > MOST_EDGES:
            terminal.hint(
                f"{made.edges:,} edges: Mermaid draws {MOST_EDGES} unless its maxEdges is raised."
            )
    else:
        text = run_tree(graph, tasks) if value is None else value_tree(graph, value)
    if not terminal.wants_json:
        terminal.put(text or "No agent of this run did anything, and nothing was stored.")
        for note in log.notes:
            terminal.say(note)
    return DONE


def show_session(directory: Path, terminal: Terminal, document: Document) -> None:
    """Show the graph of a session that is still open.

    Raises:
        TraceError: Its log can't be read.
    """
    graph = Provenance(read_run(directory).events)
    document["graph"] = facts(graph)
    if not terminal.wants_json:
        terminal.put(f"\n{run_tree(graph, tasks_of(Blobs(directory)))}")


def facts(graph: Provenance, value: ValueId | None = None) -> dict[str, object]:
    """A graph as a document holds it; with what there is to say about one value."""
    made: dict[str, object] = {
        "agents": [
            {
                "agent_id": agent,
                "kind": node.kind,
                "parent_id": node.parent_id,
                "depth": node.depth,
                "start": node.start,
                "names": node.names,
                "task_blob": node.task_blob,
                "stop_reason": node.stop_reason,
                "result": None if node.result is None else node.result._asdict(),
            }
            for agent, node in graph.agents.items()
        ],
        "values": [
            {
                **one._asdict(),
                "kind": node.kind,
                "size_bytes": node.size_bytes,
                "tokens": node.tokens,
                "tokens_estimated": node.is_estimated,
                "digest": node.digest,
                "writer": node.writer,
            }
            for one, node in graph.values.items()
        ],
        "edges": [_edge(edge) for edge in graph.edges],
    }
    if value is not None:
        made["value"] = {
            **value._asdict(),
            "depends_on": _reached(graph.depends_on(value)),
            "read_by": [_edge(reading) for reading in graph.readers(value)],
            "changes_with_it": _reached(graph.changes_with(value)),
        }
    return made


def _edge(edge: Edge) -> dict[str, object]:
    if isinstance(edge, Reading):
        return {
            "edge": "read",
            "agent_id": edge.reader,
            **edge.value._asdict(),
            "reads": edge.reads,
            "tokens": edge.tokens,
            "parts": edge.spans,
        }
    if isinstance(edge, Writing):
        return {"edge": "wrote", "agent_id": edge.writer, **edge.value._asdict()}
    if isinstance(edge, Entering):
        return {
            "edge": "entered",
            "agent_id": edge.agent_id,
            "state": edge.state,
            "visit": edge.visit,
        }
    return {"edge": "started", "agent_id": edge.parent_id, "child_id": edge.agent_id}


def _reached(found: Reached) -> dict[str, object]:
    return {
        "values": [{**value._asdict(), "via": via} for value, via in found.values.items()],
        "agents": [{"agent_id": agent, "via": via} for agent, via in found.agents.items()],
    }

"""`rlm graph` of logs that were made here, and `rlm run --show graph`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rlm_runtime.cli import graph_tree
from rlm_runtime.tracing import (
    AgentFinished,
    AgentStarted,
    Recorder,
    RunFinished,
    RunStarted,
    StateEntered,
    ValueRead,
    ValueStored,
)
from rlm_runtime.tracing.recorder import EVENTS

if TYPE_CHECKING:
    from tests.unit.cli.conftest import Boots, Rlm


class Log:
    """A run directory that is written by hand."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.recorder = Recorder(directory)
        self.recorder.emit(
            RunStarted(
                at_s=0.0,
                schema_version=1,
                run_id="run",
                started_at="2026-01-01T00:00:00.000+00:00",
                package_version="0",
                python="3",
                machine="m",
                config_digest="c",
            )
        )

    def start(
        self, agent: str, parent: str | None = None, task: str = "", start: Any = "fresh"
    ) -> None:
        self.recorder.emit(
            AgentStarted(
                at_s=1.0,
                agent_id=agent,
                parent_id=parent,
                depth=agent.count("."),
                kind="calls",
                task_blob=self.recorder.blob(task.encode()) if task else None,
                start=start,
            )
        )

    def store(self, writer: str, name: str, *, version: int = 1, size_bytes: int = 100) -> None:
        self.recorder.emit(
            ValueStored(
                at_s=1.0,
                name=name,
                version=version,
                kind="str",
                size_bytes=size_bytes,
                digest="d" * 32,
                writer=writer,
                tokens=size_bytes // 4,
                is_estimated=False,
            )
        )

    def read(
        self, reader: str, name: str, span: tuple[int, int] = (0, 100), *, tokens: int = 25
    ) -> None:
        self.recorder.emit(
            ValueRead(
                at_s=1.0,
                reader=reader,
                name=name,
                version=1,
                start_byte=span[0],
                end_byte=span[1],
                tokens=tokens,
            )
        )

    def enter(self, agent: str, state: str, visit: int = 1) -> None:
        self.recorder.emit(
            StateEntered(at_s=1.0, agent_id=agent, state=state, visit=visit, previous=None)
        )

    def finish(self, agent: str, result: str | None = None) -> None:
        self.recorder.emit(
            AgentFinished(
                at_s=1.0,
                agent_id=agent,
                stop_reason="final",
                found=None,
                result_blob=None,
                wall_s=1.0,
                result_name=result,
                result_version=None if result is None else 1,
            )
        )

    def end(self) -> None:
        self.recorder.emit(
            RunFinished(
                at_s=9.0,
                outcome="ok",
                error_code=None,
                engine_prompt_tokens=None,
                engine_cached_tokens=None,
                engine_computed_tokens=None,
                engine_generated_tokens=None,
                engine_preemptions=None,
                wall_s=9.0,
            )
        )


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "run")


@pytest.fixture
def recorded(log: Log) -> Path:
    """An agent that has two others look at a report, one after the other."""
    log.store("user", "report", size_bytes=3200)
    log.start("a1", task="Look into the report.")
    log.start("a1.1", "a1", "Analyse it.")
    log.read("a1.1", "report", (0, 400), tokens=100)
    log.read("a1.1", "report", (400, 800), tokens=90)
    log.store("a1.1", "analysis")
    log.finish("a1.1", "analysis")
    log.start("a1.2", "a1", start="fork")
    log.read("a1.2", "analysis", tokens=0)
    log.store("a1.2", "summary")
    log.finish("a1.2", "summary")
    log.finish("a1", "summary")
    log.end()
    return log.directory


def test_the_tree_has_agents_with_what_they_did_in_order(rlm: Rlm, recorded: Path) -> None:
    ended = rlm("graph", recorded)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.splitlines() == [
        "the user",
        "└─ gave report: text, 3.2 kB, 800 tokens",
        "a1 calls, final → summary: Look into the report.",
        "├─ a1.1 calls, final → analysis: Analyse it.",
        "│  ├─ read report: bytes 0-800 of 3,200, 190 tokens, 2 reads",
        "│  └─ wrote analysis: text, 100 bytes, 25 tokens",
        "└─ a1.2 calls, fork, final → summary",
        "   ├─ read analysis: whole, looked at in Python",
        "   └─ wrote summary: text, 100 bytes, 25 tokens",
    ]


def test_a_value_is_shown_with_what_it_comes_from_and_what_hangs_on_it(
    rlm: Rlm, recorded: Path
) -> None:
    assert rlm("graph", recorded, "--value", "summary").out.splitlines() == [
        "summary, written by a1.2: text, 100 bytes, 25 tokens",
        "├─ depends on",
        "│  └─ analysis by a1.1, read by a1.2: whole, looked at in Python",
        "│     └─ report by the user, read by a1.1: bytes 0-800 of 3,200, 190 tokens, 2 reads",
        "├─ read by nobody",
        "└─ would change with it",
        "   └─ agents a1.2, a1",
    ]
    report = rlm("graph", recorded, "--value", "report@1").out
    assert "depends on nothing that was read" in report
    assert "├─ read by\n│  └─ a1.1: bytes 0-800" in report
    assert "values analysis by a1.1, summary by a1.2\n" in report
    assert "agents a1.1, a1, a1.2\n" in report


def test_what_came_by_words_alone_is_perhaps(rlm: Rlm, log: Log) -> None:
    log.store("user", "report")
    log.start("a1")
    log.read("a1", "report")
    log.start("a1.1", "a1")
    log.store("a1.1", "plan")
    plan = rlm("graph", log.directory, "--value", "plan").out
    assert "depends on\n│  └─ perhaps, by what agents told each other: values report by the" in plan
    report = rlm("graph", log.directory, "--value", "report").out
    assert "perhaps, by what agents told each other: values plan by a1.1" in report
    assert "perhaps, by what agents told each other: agents a1.1" in report


def test_what_a_workflow_does_stands_below_the_state_it_is_in(rlm: Rlm, log: Log) -> None:
    log.start("a1")
    log.enter("a1", "DRAFT")
    log.start("a1.1", "a1")
    log.store("a1.1", "draft")
    log.read("a1", "draft", tokens=0)
    log.enter("a1", "DRAFT", 2)
    log.start("a1.2", "a1")
    log.enter("a1", "DONE")
    lines = rlm("graph", log.directory).out.splitlines()
    assert lines == [
        "a1 calls, did not end",
        "├─ state DRAFT",
        "│  ├─ a1.1 calls, did not end",
        "│  │  └─ wrote draft: text, 100 bytes, 25 tokens",
        "│  └─ read draft: whole, looked at in Python",
        "├─ state DRAFT, visit 2",
        "│  └─ a1.2 calls, did not end",
        "└─ state DONE",
    ]
    edges = rlm("graph", log.directory, "--json").document["edges"]
    assert {"edge": "entered", "agent_id": "a1", "state": "DRAFT", "visit": 2} in edges
    assert "DONE" not in rlm("graph", log.directory, "--mermaid").out


def test_a_value_that_many_read_is_drawn_out_once(rlm: Rlm, log: Log) -> None:
    log.store("user", "text")
    log.read("a1", "text")
    log.store("a1", "base")
    for name in ("left", "right"):
        log.read(name, "base")
        log.store(name, name)
        log.read("a4", name)
    log.store("a4", "top")
    out = rlm("graph", log.directory, "--value", "top").out
    assert out.count("text by the user") == 1
    assert out.count("base by a1, read by right: whole, 25 tokens (see elsewhere)") == 1


def test_the_flowchart_has_all_nodes_and_edges(rlm: Rlm, recorded: Path) -> None:
    assert rlm("graph", recorded, "--mermaid").out.splitlines() == [
        "flowchart TD",
        '    v1[("report<br/>text, 3.2 kB, 800 tokens")]',
        '    v2[("analysis<br/>text, 100 bytes, 25 tokens")]',
        '    v3[("summary<br/>text, 100 bytes, 25 tokens")]',
        '    a1(["a1<br/>calls, final → summary: Look into the report."])',
        '    a2(["a1.1<br/>calls, final → analysis: Analyse it."])',
        '    a3(["a1.2<br/>calls, fork, final → summary"])',
        "    a1 -.-> a2",
        '    v1 -->|"bytes 0-800 of 3,200, 190 tokens, 2 reads"| a2',
        "    a2 ==> v2",
        "    a1 -.-> a3",
        '    v2 -->|"whole, looked at in Python"| a3',
        "    a3 ==> v3",
        '    a1 -.->|"result"| v3',
    ]


def test_the_flowchart_of_a_value_leaves_out_what_does_not_bear_on_it(rlm: Rlm, log: Log) -> None:
    log.store("user", "report")
    log.store("user", "other")
    log.read("a1", "report")
    log.store("a1", "answer")
    log.read("a2", "other")
    lines = rlm("graph", log.directory, "--value", "answer", "--mermaid").out.splitlines()
    assert [line.split("<br/>")[0].strip() for line in lines] == [
        "flowchart TD",
        'v1[("report',
        'v2[("answer',
        'a1(["a1',
        'v1 -->|"whole, 25 tokens"| a1',
        "a1 ==> v2",
        "style v2 stroke-width:4px",
    ]


def test_more_edges_than_mermaid_draws_are_a_hint(rlm: Rlm, log: Log) -> None:
    for number in range(500):
        log.store("a1", f"v{number}")
    assert "Mermaid" not in rlm("graph", log.directory, "--mermaid").err
    log.store("a1", "one_more")
    log.end()
    ended = rlm("graph", log.directory, "--mermaid")
    assert ended.err == "501 edges: Mermaid draws 500 unless its maxEdges is raised.\n"
    assert rlm("graph", log.directory, "--mermaid", "--quiet").err == ""


def test_the_document_has_nodes_edges_and_answers(rlm: Rlm, recorded: Path) -> None:
    ended = rlm("graph", recorded / EVENTS, "--json", "--value", "analysis", "--mermaid")
    document = ended.document
    assert ended.err == ""
    assert document["run_directory"] == str(recorded)
    assert [agent["agent_id"] for agent in document["agents"]] == ["a1", "a1.1", "a1.2"]
    assert document["agents"][0]["result"] == {"name": "summary", "version": 1}
    assert [value["writer"] for value in document["values"]] == ["user", "a1.1", "a1.2"]
    assert document["edges"][:3] == [
        {"edge": "wrote", "agent_id": "user", "name": "report", "version": 1},
        {"edge": "started", "agent_id": "a1", "child_id": "a1.1"},
        {
            "edge": "read",
            "agent_id": "a1.1",
            "name": "report",
            "version": 1,
            "reads": 2,
            "tokens": 190,
            "parts": [[0, 800]],
        },
    ]
    asked = document["value"]
    assert asked["depends_on"] == {
        "values": [{"name": "report", "version": 1, "via": "read"}],
        "agents": [{"agent_id": "a1", "via": "told"}, {"agent_id": "a1.1", "via": "read"}],
    }
    assert [edge["agent_id"] for edge in asked["read_by"]] == ["a1.2"]
    assert asked["changes_with_it"]["values"] == [{"name": "summary", "version": 1, "via": "read"}]
    assert document["mermaid"].startswith("flowchart TD\n")
    assert document["notes"] == []


def test_a_log_that_ends_in_half_a_line_is_shown_with_a_note(rlm: Rlm, recorded: Path) -> None:
    whole = (recorded / EVENTS).read_bytes()
    (recorded / EVENTS).write_bytes(whole[: whole.index(b'"agent_finished"') + 5])
    ended = rlm("graph", recorded)
    assert ended.code == 0
    assert "a1.1 calls, did not end: Analyse it." in ended.out
    assert "wrote analysis" in ended.out
    assert "summary" not in ended.out
    assert "did not end in order" in ended.err
    assert "written half" in ended.err


def test_a_log_that_lacks_lines_is_shown_without_what_they_said(rlm: Rlm, recorded: Path) -> None:
    log = recorded / EVENTS
    lines = log.read_text().splitlines(keepends=True)
    kept = [x for x in lines if "value_stored" not in x and "agent_started" not in x]
    log.write_text("".join(kept))
    ended = rlm("graph", recorded)
    assert ended.code == 0
    assert "a1.1 agent, final → analysis" in ended.out
    assert "read report: bytes 0-800, 190 tokens, 2 reads" in ended.out
    value = rlm("graph", recorded, "--value", "report").out
    assert value.startswith("report: its storing is not in the log\n")


def test_an_estimated_size_is_said_to_be_about_right(rlm: Rlm, recorded: Path) -> None:
    log = recorded / EVENTS
    log.write_text(log.read_text().replace('"is_estimated":false', '"is_estimated":true', 1))
    ended = rlm("graph", recorded)
    assert "gave report: text, 3.2 kB, about 800 tokens" in ended.out
    assert ended.out.count("about") == 1


def test_tasks_that_were_not_kept_are_left_out(rlm: Rlm, recorded: Path) -> None:
    for blob in (recorded / "blobs").iterdir():
        blob.write_bytes(b"?")
    ended = rlm("graph", recorded)
    assert ended.code == 0
    assert "\na1 calls, final → summary\n" in ended.out


def test_a_log_that_can_not_be_read_is_one_line(rlm: Rlm, recorded: Path, tmp_path: Path) -> None:
    (recorded / EVENTS).write_text("no event\n")
    ended = rlm("graph", recorded)
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.startswith("error: Line 1 of ")
    missing = rlm("graph", tmp_path / "nothing")
    assert (missing.code, missing.out) == (2, "")
    assert missing.err.startswith("error: There is no run")


def test_an_unknown_value_is_wrong_usage_with_the_nearest(rlm: Rlm, recorded: Path) -> None:
    ended = rlm("graph", recorded, "--value", "sumary")
    assert (ended.code, ended.out) == (2, "")
    assert "No value named 'sumary'. Nearest: summary" in ended.err


def test_the_newest_run_is_last(rlm: Rlm, home: Path) -> None:
    for number in (1, 2):
        log = Log(home / "state" / "runs" / f"2026010{number}T000000.000000Z-00000{number}")
        log.store("user", f"value_{number}")
    assert "value_2" in rlm("graph", "last").out


def test_a_run_in_which_nothing_happened_says_so(rlm: Rlm, log: Log) -> None:
    assert rlm("graph", log.directory).out == (
        "No agent of this run did anything, and nothing was stored.\n"
    )


HOSTILE = 'x"]; %%{init: {}}%% click v1 "javascript:0"\n\x1b]0;<b>`&#35;\u202e\\'


def test_names_of_a_log_can_neither_command_the_terminal_nor_the_flowchart(
    rlm: Rlm, log: Log
) -> None:
    log.store("user", HOSTILE)
    log.start(HOSTILE, task=HOSTILE)
    log.enter(HOSTILE, HOSTILE)
    log.read(HOSTILE, HOSTILE)
    log.store(HOSTILE, "out")
    log.finish(HOSTILE, HOSTILE)
    log.end()
    for asked in ((), ("--value", HOSTILE), ("--mermaid",), ("--json",)):
        out = rlm("graph", log.directory, *asked).out
        assert not {"\x1b", "\u202e"} & set(out)
    chart = rlm("graph", log.directory, "--mermaid").out.replace("<br/>", "").splitlines()
    labels = [line for line in chart if line.count('"') == 2]
    assert len(labels) == 5, "two values, an agent, a reading, a result that another wrote"
    assert all(not set("<>`&%\\") & set(line.split('"')[1]) for line in labels)
    assert chart[-3:-1] == ['    v1 -->|"whole, 25 tokens"| a1', "    a1 ==> v2"]


def test_a_chain_too_deep_for_a_screen_is_cut_with_what_is_missing(rlm: Rlm, log: Log) -> None:
    deep = 2000
    for number in range(deep):
        log.start(f"a{number}", f"a{number - 1}" if number else None)
    lines = rlm("graph", log.directory).out.splitlines()
    assert len(lines) == graph_tree.DEEPEST + 1
    assert lines[-1].endswith(f"└─ … {deep - graph_tree.DEEPEST:,} more below, not drawn")


def test_agents_that_started_each_other_are_drawn_once(rlm: Rlm, log: Log) -> None:
    for agent, parent in (("a1", "a2"), ("a2", "a1"), ("a3", "a3"), ("a1", "a3")):
        log.start(agent, parent)
    assert rlm("graph", log.directory).out.splitlines() == [
        "a2 calls, did not end",
        "└─ a1 calls, did not end",
        "a3 calls, did not end",
    ]


def test_many_names_on_a_line_are_cut(rlm: Rlm, log: Log) -> None:
    log.store("user", "text")
    log.read("a1", "text")
    for number in range(graph_tree.NAMED + 2):
        log.store("a1", f"v{number}")
    out = rlm("graph", log.directory, "--value", "text").out
    assert f"v{graph_tree.NAMED - 1} by a1 and 2 more\n" in out


def test_a_run_shows_its_graph_below_the_answer(
    rlm: Rlm, boots: Boots, text: Path, model_dir: Path
) -> None:
    asked = ("run", text, "-q", "Who signed the treaty?", "--model", model_dir, "--show", "graph")
    ended = rlm(*asked)
    assert ended.code == 0
    answer, tree = ended.out.split("\n\nthe user\n")
    assert "Anna Meier" in answer
    size = text.stat().st_size
    assert tree.startswith(f"└─ gave REPORT: text, {size} bytes, ")
    assert "a1 search, final: Who signed the treaty?\n" in tree
    assert "read REPORT: whole, " in tree
    document = rlm(*asked, "--json").document
    assert [edge["edge"] for edge in document["graph"]["edges"]] == ["wrote", "read"]


@pytest.mark.parametrize(
    ("options", "says"),
    [(("--show", "graph", "--no-keep"), "Keep the run"), (("--show", "grph"), "One of: graph")],
)
def test_a_graph_that_can_not_be_shown_is_said_before_the_engine_boots(
    rlm: Rlm, boots: Boots, text: Path, model_dir: Path, options: tuple[str, ...], says: str
) -> None:
    ended = rlm("run", text, "-q", "Who?", "--model", model_dir, *options)
    assert (ended.code, ended.out) == (2, "")
    assert says in ended.err
    assert boots.engines == []

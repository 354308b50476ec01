"""Which agent the options of `rlm run` ask for, and what is printed of its result."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from rlm_runtime.api import Result
from rlm_runtime.cli import outcomes
from rlm_runtime.cli.asking import Wish, chosen
from rlm_runtime.errors import InputError
from rlm_runtime.prompt import Tokenizer
from rlm_runtime.scaffold.recipes.classify_each import ClassifyEach
from rlm_runtime.scaffold.recipes.map_reduce import MapReduce
from rlm_runtime.scaffold.recipes.plan import Plan, Step
from rlm_runtime.scaffold.recipes.search_agent import SearchAgent
from rlm_runtime.types import AgentId, Ref, StopReason, Usage

if TYPE_CHECKING:
    from tests.unit.cli.conftest import Boots, Rlm

WISH = Wish(
    files=("a.txt",),
    questions=("Why?",),
    source=None,
    settings=(),
    named={},
    agent=None,
    labels=None,
    combine=None,
    over=None,
    output=None,
    show=None,
    is_exhaustive=False,
    ttft_pairs=0,
)
REF = Ref("answer_a1", 1, "mp", 40, "d" * 32)
RESULT = Result(
    kind="classify_each",
    answer='{"counts":{"yes":2}}',
    found=None,
    stop_reason=StopReason.FINAL,
    usage=Usage(),
    figures={},
    agent_id=AgentId("a1"),
    run_directory=None,
    ref=REF,
    stored=(REF,),
)


@pytest.mark.parametrize(
    ("options", "agent"),
    [
        ({}, SearchAgent()),
        ({"is_exhaustive": True}, SearchAgent(exhaustive=True)),
        ({"labels": "good, bad"}, ClassifyEach(labels=("good", "bad"))),
        (
            {"labels": "good,bad", "over": "shrink"},
            ClassifyEach(labels=("good", "bad"), over="shrink"),
        ),
        ({"combine": "join"}, MapReduce(combine="join")),
        ({"agent": "map_reduce"}, MapReduce()),
        ({"agent": "auto"}, "auto"),
        ({"agent": "auto", "files": ()}, "auto"),
    ],
)
def test_options_ask_for_an_agent(options: dict[str, Any], agent: object) -> None:
    assert chosen(replace(WISH, **options), "search") == agent


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"agent": "searcher"}, r"--agent 'searcher'.*map_reduce"),
        ({"combine": "glue"}, r"--combine 'glue'.*join"),
        ({"agent": "search", "labels": "a,b"}, r"'search' has no option 'labels'"),
        ({"agent": "map_reduce", "is_exhaustive": True}, r"no option 'exhaustive'"),
        ({"agent": "auto", "over": "shrink"}, r"--over belongs to an agent"),
        ({"files": ()}, r"no text"),
    ],
)
def test_options_that_fit_no_agent_are_errors(options: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        chosen(replace(WISH, **options), "search")


def test_a_result_is_printed_as_text() -> None:
    assert outcomes.block(RESULT) == '{"counts":{"yes":2}}'
    assert outcomes.caveat(RESULT) == ""


def test_a_result_cannot_command_the_terminal() -> None:
    assert "\x1b" not in outcomes.block(replace(RESULT, answer="red\x1b[31m"))


def test_a_result_too_large_to_print_says_where_it_is() -> None:
    assert "answer_a1, mp, 40 bytes" in outcomes.block(replace(RESULT, answer=None))


def test_what_a_limit_left_is_said() -> None:
    ended = replace(RESULT, answer=None, ref=None, stop_reason=StopReason.MAX_TURNS, error="Why.")
    assert outcomes.block(ended) == "No result: max_turns."
    said = outcomes.caveat(ended)
    assert "max_turns" in said
    assert "Why." in said
    assert "answer_a1" in said


def test_the_document_of_a_result_is_json() -> None:
    plan = Plan(steps=(Step("judge", 2, 300),), parts=2, shrunk=lambda _: plan)
    said = outcomes.facts("How many?", replace(RESULT, detail=plan))
    assert json.loads(json.dumps(said))["detail"]["steps"] == [
        {"label": "judge", "calls": 2, "tokens": 300}
    ]
    assert said["result"] == said["stored"][0]  # type: ignore[index] # an object by its keys


def test_a_result_is_written_to_a_file(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    outcomes.write(replace(RESULT, _load=lambda _: {"counts": {"yes": 2}}), path)
    assert json.loads(path.read_text()) == {"counts": {"yes": 2}}
    outcomes.write(replace(RESULT, ref=None, answer="Ça va."), path)
    assert path.read_text(encoding="utf-8") == "Ça va."


def test_a_result_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"can't write|Can't write"):
        outcomes.write(RESULT, tmp_path / "no" / "such" / "folder")


def test_a_structure_is_written_as_json_that_others_read(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    value = {3: [b"ab", float("inf")], "é": None}
    outcomes.write(replace(RESULT, _load=lambda _: value), path)
    assert json.loads(path.read_text(encoding="utf-8")) == {"3": ["base64:YWI=", None], "é": None}
    outcomes.write(replace(RESULT, _load=lambda _: np.arange(4).reshape(2, 2)), path)
    assert json.loads(path.read_text()) == [[0, 1], [2, 3]]


@pytest.mark.parametrize("options", [("--json",), ()])
def test_a_file_for_the_result_is_checked_before_anything_starts(
    rlm: Rlm, boots: Boots, text: Path, tmp_path: Path, model_dir: Path, options: tuple[str, ...]
) -> None:
    before = text.read_text()
    for output in (tmp_path, tmp_path / "no" / "folder", text, text.parent / "." / text.name):
        asked = ("run", text, "-q", "Who?", "--model", model_dir, *options)
        ended = rlm(*asked, "--output", output)
        assert ended.code == 2
        assert "Can't write" in ended.err
    assert not boots.engines
    assert text.read_text() == before


def test_a_file_for_the_result_needs_a_question(rlm: Rlm, text: Path, tmp_path: Path) -> None:
    ended = rlm("run", text, "--output", tmp_path / "out")
    assert ended.code == 2
    assert "--output needs a question" in ended.err


def test_no_result_writes_no_file_and_is_no_success(
    rlm: Rlm, says: Boots, text: Path, tmp_path: Path, model_dir: Path
) -> None:
    out = tmp_path / "out.txt"
    asked = ("run", text, "-q", "Is it a or b?", "--output", out, "--model", model_dir)
    not_found = rlm(*asked)
    assert (not_found.code, "Not found" in not_found.out) == (1, True)
    ended = rlm(*asked, "--agent", "calls", "--max-turns", "1")
    assert ended.code == 4
    assert "there is no result" in ended.err
    for err in (not_found.err, ended.err):
        assert "There is no result to write" in err
    assert not out.exists()


@pytest.mark.parametrize(
    "options",
    [("--labels", ""), ("--labels", "a"), ("--labels", "a,a"), ("--agent", "classify_each")],
)
def test_labels_are_checked_before_an_engine_boots(
    rlm: Rlm, boots: Boots, text: Path, model_dir: Path, options: tuple[str, ...]
) -> None:
    ended = rlm("run", text, "-q", "Which?", *options, "--model", model_dir)
    assert ended.code == 2
    assert "label" in ended.err
    assert not boots.engines


def test_what_a_result_lacks_is_said(
    rlm: Rlm, says: Boots, tmp_path: Path, model_dir: Path
) -> None:
    rows = tmp_path / "rows.txt"
    rows.write_text("Lovely!\nIt broke.\nLovely again!\n")
    asked = ("run", rows, "-q", "Which?", "--over", "shrink", "--model", model_dir)
    shrunk = rlm(*asked, "--labels", "a,b", "--max-calls", "2")
    assert shrunk.code == 0
    assert "1 row at the end left out" in shrunk.err
    long = tmp_path / "long.txt"
    long.write_text("The garden has an old wall.\n\n" * 500)
    asked = ("run", long, "-q", "Translate.", "--over", "shrink", "--model", model_dir)
    shrunk = rlm(*asked, "--combine", "join", "--max-calls", "2")
    assert shrunk.code == 0
    assert "5 chunks at the end left out" in shrunk.err
    assert "cut at their longest" not in shrunk.err
    says.says = ()
    endless = rlm(*asked, "--combine", "join", "--max-calls", "2")
    assert "The results of 2 chunks were cut" in endless.err


def test_the_document_of_a_direct_answer_has_no_prompt(
    rlm: Rlm, says: Boots, text: Path, model_dir: Path
) -> None:
    asked = ("run", text, "--agent", "direct", "-q", "Who?", "--model", model_dir, "--json")
    (question,) = rlm(*asked).document["questions"]
    assert question["detail"] == {
        "text": "It rained.",
        "value": "It rained.",
        "was_cut": False,
        "error": None,
    }


def test_a_plan_is_said_in_one_line() -> None:
    plan = Plan(steps=(Step("extract", 3, 900), Step("combine", 1, 400)))
    assert outcomes.plan(plan) == (
        "At most 4 calls and 1,300 tokens (3 calls to extract, 1 call to combine)."
    )


END = 2
"""The default model's end of a turn."""


@pytest.fixture
def says(boots: Boots, model_dir: Path) -> Boots:
    """Engines that answer everything in the same words."""
    boots.says = (*Tokenizer.from_folder(model_dir).encode("It rained."), END)
    return boots


def test_rows_are_counted_by_label(rlm: Rlm, boots: Boots, tmp_path: Path, model_dir: Path) -> None:
    rows = tmp_path / "rows.txt"
    rows.write_text("Lovely!\n\nIt broke.\nLovely again!\n")
    asked = ("run", rows, "--labels", "praise,complaint", "-q", "Which?", "--model", model_dir)
    ended = rlm(*asked)
    assert ended.code == 0
    assert json.loads(ended.out)["counts"] == {"praise": 3, "complaint": 0}
    assert "At most 3 calls" in ended.err
    (question,) = rlm(*asked, "--json").document["questions"]
    assert question["agent"] == "classify_each"
    assert question["detail"]["counts"] == {"praise": 3, "complaint": 0}
    assert question["result"]["name"] == "answer_a1"


def test_a_limit_below_the_plan_refuses_or_shrinks(
    rlm: Rlm, boots: Boots, tmp_path: Path, model_dir: Path
) -> None:
    rows = tmp_path / "rows.txt"
    rows.write_text("Lovely!\nIt broke.\nLovely again!\n")
    asked = ("run", rows, "--labels", "a,b", "-q", "Which?", "--max-calls", "2")
    refused = rlm(*asked, "--model", model_dir)
    assert refused.code == 4
    assert "max_calls=2" in refused.err
    assert boots.engines[0].requests == 0
    shrunk = rlm(*asked, "--over", "shrink", "--model", model_dir, "--json")
    assert shrunk.document["questions"][0]["detail"]["plan"]["left_out"] == 1
    assert boots.engines[1].requests == 2


def test_chunks_are_joined_and_written(
    rlm: Rlm, says: Boots, text: Path, tmp_path: Path, model_dir: Path
) -> None:
    out = tmp_path / "out.txt"
    asked = ("run", text, "--combine", "join", "-q", "Translate.", "--output", out)
    ended = rlm(*asked, "--model", model_dir)
    assert (ended.code, ended.out.strip()) == (0, "It rained.")
    assert out.read_text().strip() == "It rained."


def test_a_question_without_a_text_is_answered_directly(
    rlm: Rlm, says: Boots, model_dir: Path
) -> None:
    ended = rlm("run", "--agent", "auto", "-q", "Did it rain?", "--model", model_dir)
    assert (ended.code, ended.out.strip()) == (0, "It rained.")


def test_an_agent_that_makes_no_calls_ends_with_errors_in_a_row(
    rlm: Rlm, says: Boots, text: Path, model_dir: Path
) -> None:
    ended = rlm("run", text, "--agent", "calls", "-q", "Store it.", "--model", model_dir, "--json")
    assert ended.code == 1
    assert ended.document["questions"][0]["stop_reason"] == "errors_in_a_row"

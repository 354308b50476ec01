"""Help texts, as committed: a change of one is a decision."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

import pytest

from rlm_runtime.cli import apps
from rlm_runtime.cli.model import DEFAULT
from rlm_runtime.config.load import DEFAULT as DEFAULT_CONFIG
from rlm_runtime.engine import model_files

GOLDEN = Path(__file__).parent / "golden"
WIDTH = 96
VERBS = {
    "rlm": apps.rlm,
    "rlm-run": apps.rlm,
    "rlm-graph": apps.rlm,
    "rlm-resume": apps.rlm,
    "rlm-replay": apps.rlm,
    "rlm-doctor": apps.rlm,
    "rlm-config": apps.rlm,
    "rlm-model": apps.rlm,
    "rlm-model-list": apps.rlm,
    "rlm-model-add": apps.rlm,
    "rlm-model-path": apps.rlm,
    "bench": apps.rlm_bench,
    "bench-run": apps.rlm_bench,
    "bench-run-qa": apps.rlm_bench,
    "bench-run-needle": apps.rlm_bench,
    "bench-run-many_questions": apps.rlm_bench,
    "bench-run-rows": apps.rlm_bench,
    "bench-run-calls": apps.rlm_bench,
    "bench-ttft": apps.rlm_bench,
    "bench-report": apps.rlm_bench,
    "bench-explain": apps.rlm_bench,
    "bench-compare": apps.rlm_bench,
}


@pytest.fixture
def help_of(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.setenv("COLUMNS", str(WIDTH))

    def read(verb: str) -> str:
        capsys.readouterr()
        arguments = [word.replace("_", "-") for word in verb.split("-")[1:]]
        assert VERBS[verb]([*arguments, "--help"]) == 0
        return capsys.readouterr().out

    return read


@pytest.mark.parametrize("verb", VERBS)
def test_help_is_as_committed(verb: str, help_of: object) -> None:
    path = GOLDEN / f"{verb}.txt"
    assert callable(help_of)
    now, committed = help_of(verb), path.read_text()
    command = f"{verb.replace('bench', 'rlm bench', 1).replace('-', ' ').replace('_', '-')} --help"
    command = command.replace("rlm bench", "rlm-bench")
    diff = difflib.unified_diff(
        committed.splitlines(), now.splitlines(), "committed", "now", lineterm="", n=1
    )
    assert now == committed, "\n".join(
        [
            f"`{command}` says something else than before:",
            *diff,
            "If that is meant (a newer typer also changes its layout), commit the new text:",
            f"COLUMNS={WIDTH} .venv/bin/{command} > tests/unit/cli/golden/{path.name}",
        ]
    )


@pytest.mark.parametrize("verb", VERBS)
def test_help_has_the_exit_codes_and_a_verb_an_example(verb: str, help_of: object) -> None:
    assert callable(help_of)
    text = help_of(verb)
    assert re.search(r"^  Exit codes:\n    0    done", text, re.MULTILINE)
    if verb not in ("rlm", "rlm-model", "bench", "bench-run"):
        assert re.search(r"^  Examples?:\n    \S", text, re.MULTILINE)
        # Every option that takes a value says what it is without one.
        options = re.findall(r"^  (--?\S.*?)(?=\n  -|\n\n)", text, re.MULTILINE | re.DOTALL)
        assert [
            o for o in options if re.match(r"\S+(, \S+)? [A-Z]", o) and "default:" not in o
        ] == []


def test_the_defaults_that_help_names_are_the_defaults(help_of: object) -> None:
    assert callable(help_of)
    assert DEFAULT == model_files.DEFAULT
    assert f"else {DEFAULT_CONFIG})" in " ".join(help_of("rlm-run").split())


def test_no_verb_is_wrong_usage_and_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    for program in (apps.rlm, apps.rlm_bench):
        assert program([]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("Usage: ")
    assert apps.rlm(["model"]) == 2


def test_an_unknown_option_is_one_line_that_points_to_the_help(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert apps.rlm(["run", "x", "--bogus"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: No such option: --bogus")
    assert err.endswith("See: rlm run --help\n")
    assert err.count("\n") == 1


def test_a_usage_error_is_a_document_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert apps.rlm(["run", "--json", "--nothing-like-it"]) == 2
    out = capsys.readouterr().out
    assert '"code": "usage"' in out
    assert '"schema_version": 1' in out


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    assert apps.rlm(["--version"]) == 0
    assert re.fullmatch(r"rlm \d+\.\d+\.\d+\S*\n", capsys.readouterr().out)

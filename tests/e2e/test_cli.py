"""`rlm` as people type it, in processes of its own, on the real engine where one is needed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import pexpect
import psutil
import pytest

pytestmark = pytest.mark.e2e

RLM = Path(sys.executable).with_name("rlm")
NOBODY = 65534
GONE_WITHIN_S = 30

BRIDGE = "The Alder bridge was opened by Queen Mathilde in the summer of 1874."
KEEPER = "The lighthouse keeper Ivo Brandt counted four thousand herons that winter."
FOUND = {
    "Who opened the Alder bridge?": BRIDGE,
    "How many herons did the lighthouse keeper count?": KEEPER,
}
UNANSWERED = "Which team won the ice hockey final in Montreal?"


@pytest.fixture
def environment(tmp_path: Path, model_dir: Path) -> dict[str, str]:
    """The user's own, with a state directory of the test's, and without settings."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("RLM_")}
    if "RLM_HOME" in os.environ:
        own["RLM_MODEL"] = str(model_dir)
    # Only the state moves: the prepared model is the user's.
    return own | {"XDG_STATE_HOME": str(tmp_path / "state"), "RLM_ENGINE__KV_CACHE_GIB": "1"}


@pytest.fixture
def report(tmp_path: Path) -> Path:
    """About 8,000 tokens of Python's documentation, with two sentences that are not from there."""
    pages = [text.strip() for name, text in sorted(topics.items()) if 500 < len(text) < 4000]
    parts: list[str] = []
    while sum(map(len, parts)) < 30_000:
        parts.append(pages[len(parts)])
    parts.insert(len(parts) // 3, BRIDGE)
    parts.insert(-2, KEEPER)
    path = tmp_path / "REPORT.txt"
    path.write_text("\n\n".join(parts))
    return path


def run(
    environment: dict[str, str], *arguments: str | Path, **more: Any
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [RLM, *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        stdin=more.pop("stdin", subprocess.DEVNULL),
        timeout=280,
        check=False,
        **more,
    )


def lines(text: str) -> list[str]:
    return text.splitlines()


def start(environment: dict[str, str], *arguments: str | Path) -> subprocess.Popen[str]:
    """Start `rlm` in a process group of its own, as a shell does."""
    return subprocess.Popen(
        [RLM, *map(str, arguments)],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )


def wait_for(process: subprocess.Popen[str], words: str) -> str:
    """Read stderr up to the line that has these words."""
    assert process.stderr is not None
    read = []
    for line in process.stderr:
        read.append(line)
        if words in line:
            return "".join(read)
    raise AssertionError(f"it ended without {words!r}: {''.join(read)}")


def members(group: int) -> list[psutil.Process]:
    """The processes of a process group; the engine's are in that of the command."""
    found = []
    for process in psutil.process_iter():
        with suppress(ProcessLookupError):
            if os.getpgid(process.pid) == group:
                found.append(process)
    return found


def assert_all_end(group: int) -> None:
    _, alive = psutil.wait_procs(members(group), timeout=GONE_WITHIN_S)
    assert alive == []


# -- with the engine -------------------------------------------------------------------------------


def test_questions_are_answered_with_exact_places_from_one_engine(
    environment: dict[str, str], report: Path, tmp_path: Path, model_dir: Path
) -> None:
    questions = [*FOUND, UNANSWERED]
    asked = [word for question in questions for word in ("-q", question)]
    ended = run(environment, "run", report, *asked, "--json", "--run-dir", tmp_path / "run")
    assert (ended.returncode, ended.stderr) == (0, "")
    document = json.loads(ended.stdout)
    data = report.read_bytes()
    for entry, (question, sentence) in zip(document["questions"], FOUND.items(), strict=False):
        assert entry["question"] == question
        assert entry["found"]
        assert entry["answer"] == sentence
        best = entry["passages"][0]
        assert data[best["start_byte"] : best["end_byte"]].decode() == sentence
    assert not document["questions"][2]["found"]
    first, second = (entry["figures"] for entry in document["questions"][:2])
    assert second["computed_tokens"] < first["computed_tokens"] / 2
    assert second["hit_rate"] > 0.9
    figures = document["figures"]
    assert figures["prompt_tokens"] == figures["cached_tokens"] + figures["computed_tokens"]
    assert figures["engine_computed_tokens"] == figures["computed_tokens"]
    assert document["run_directory"] == str(tmp_path / "run")
    assert (tmp_path / "run" / "events.jsonl").stat().st_size > 0
    assert any((tmp_path / "run" / "blobs").iterdir())


def test_asking_on_a_terminal_survives_a_ctrl_c(
    environment: dict[str, str], report: Path, model_dir: Path
) -> None:
    terminal = pexpect.spawn(
        str(RLM),
        ["run", str(report)],
        env=environment | {"NO_COLOR": "1"},  # else marks stand within the sentence
        encoding="utf-8",
        timeout=240,
        dimensions=(30, 120),
    )
    terminal.expect_exact("booting")
    terminal.expect_exact("question> ")
    assert len(members(terminal.pid)) > 1  # or what follows would show nothing
    question, sentence = next(iter(FOUND.items()))
    terminal.sendline(question)
    terminal.expect_exact("ranking chunks")
    terminal.sendintr()
    terminal.expect_exact("Ctrl-C once more")
    terminal.expect_exact("question> ")
    terminal.sendline(question)
    terminal.expect_exact(sentence)
    terminal.expect(r"REPORT\.txt:bytes \d+-\d+")
    terminal.expect_exact("question> ")
    terminal.sendeof()
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert (terminal.exitstatus, terminal.signalstatus) == (0, None)
    assert_all_end(terminal.pid)


@pytest.mark.parametrize("stage", ["importing vllm", "starting engine"])
def test_ctrl_c_during_the_boot_leaves_nothing(
    environment: dict[str, str], report: Path, model_dir: Path, stage: str
) -> None:
    process = start(environment, "run", report, "-q", UNANSWERED)
    wait_for(process, f"booting: {stage}")
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert lines(err)[-1] == "interrupted"
    assert "Traceback" not in err
    assert_all_end(process.pid)


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
def test_a_signal_during_a_question_ends_in_order(
    environment: dict[str, str],
    report: Path,
    tmp_path: Path,
    model_dir: Path,
    number: int,
    code: int,
    word: str,
) -> None:
    log = tmp_path / "run"
    process = start(environment, "run", report, "-q", UNANSWERED, "--run-dir", log)
    wait_for(process, "ranking chunks")
    assert len(members(process.pid)) > 1
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does
    else:
        process.send_signal(number)  # as a supervisor does
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert lines(err)[-1] == word
    assert_all_end(process.pid)
    last = json.loads((log / "events.jsonl").read_text().splitlines()[-1])
    assert (last["event"], last["outcome"]) == ("run_finished", "cancelled")


# -- without the engine ----------------------------------------------------------------------------


def assert_one_line(ended: subprocess.CompletedProcess[str], code: int, words: str) -> None:
    assert (ended.returncode, ended.stdout) == (code, "")
    assert len(lines(ended.stderr)) == 1
    assert ended.stderr.startswith("error: ")
    assert words in ended.stderr


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file"),
        (b"", "is empty"),
        (b"one\0two", "binary: byte 3 is zero"),
        (b"caf\xe9 au lait", "not UTF-8"),
    ],
)
def test_a_file_that_cannot_be_searched_is_one_line(
    environment: dict[str, str], tmp_path: Path, content: bytes | None, words: str
) -> None:
    if content is not None:
        (tmp_path / "x.txt").write_bytes(content)
    assert_one_line(run(environment, "run", tmp_path / "x.txt", "-q", "x?"), 2, words)


def test_a_directory_is_one_line(environment: dict[str, str], tmp_path: Path) -> None:
    assert_one_line(run(environment, "run", tmp_path, "-q", "x?"), 2, "is a directory")


def test_a_file_without_permission_is_one_line(
    environment: dict[str, str], report: Path, tmp_path: Path
) -> None:
    report.chmod(0)
    as_user: dict[str, Any] = {}
    if os.geteuid() == 0:
        as_user = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
        try:
            subprocess.run([sys.executable, "-c", "import rlm_runtime"], check=True, **as_user)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("this Python is root's own: nobody else can run it")
        for folder in (tmp_path, *tmp_path.parents):
            if folder.stat().st_uid == 0 and folder.stat().st_mode & 0o001 == 0:
                folder.chmod(folder.stat().st_mode | 0o011)
    ended = run(environment, "run", report, "-q", "x?", **as_user)
    assert_one_line(ended, 2, "Permission denied")


def test_a_question_that_is_too_long_is_one_line(
    environment: dict[str, str], report: Path, model_dir: Path
) -> None:
    ended = run(environment, "run", report, "-q", "why " * 8000 + "?")
    assert_one_line(ended, 2, "shorten the question")


def test_an_unknown_key_is_one_line_with_the_nearest(
    environment: dict[str, str], report: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine.yaml").write_text("engine:\n  kv_cache_gb: 4\n")
    ended = run(environment, "run", report, "-q", "x?", "--config", tmp_path / "mine.yaml")
    assert_one_line(ended, 2, "engine.kv_cache_gib")


@pytest.mark.parametrize(
    ("setting", "code", "words"),
    [
        ("engine.window_tokens=1024", 2, "engine.window_tokens is 1,024"),
        ("engine.kv_cache_gib=4000", 3, "engine.kv_cache_gib"),
    ],
)
def test_a_setting_that_cannot_work_is_one_line_before_any_boot(
    environment: dict[str, str],
    report: Path,
    model_dir: Path,
    setting: str,
    code: int,
    words: str,
) -> None:
    del environment["RLM_ENGINE__KV_CACHE_GIB"]
    assert_one_line(run(environment, "run", report, "-q", "x?", "--set", setting), code, words)


@pytest.mark.parametrize(
    ("damage", "words"), [("tokenizer.json", "is missing"), ("model.safetensors", "bytes instead")]
)
def test_a_damaged_model_is_one_line(
    environment: dict[str, str],
    report: Path,
    tmp_path: Path,
    model_dir: Path,
    damage: str,
    words: str,
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    for file in model_dir.iterdir():
        (folder / file.name).symlink_to(file)
    (folder / damage).unlink()
    if damage == "model.safetensors":
        with (model_dir / damage).open("rb") as whole:
            (folder / damage).write_bytes(whole.read(1_000_000))
    ended = run(environment, "run", report, "-q", "x?", "--model", folder)
    assert_one_line(ended, 3, f"{damage} ")
    assert words in ended.stderr


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[None]:
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, check=False).returncode != 0:
        pytest.skip("a small disk can't be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_under_the_run_directory_is_one_line(
    environment: dict[str, str], report: Path, tmp_path: Path, model_dir: Path
) -> None:
    with small_disk(tmp_path / "disk", 16):
        more = ("--run-dir", tmp_path / "disk" / "run")
        ended = run(environment, "run", report, "-q", "x?", *more)
    assert_one_line(ended, 1, "are free")

"""The session without its engine: what is checked, stored and closed before one boots."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlm_runtime import RLM, Config
from rlm_runtime.config.model import EngineConfig, RunConfig
from rlm_runtime.errors import ConfigError, InputError, PromptTooLong
from rlm_runtime.tracing import RunFinished, read_events


@pytest.fixture
def config(model_dir: Path, tmp_path: Path) -> Config:
    return Config(model=str(model_dir), run=RunConfig(directory=tmp_path / "run"))


def test_closing_twice_is_closing_once(config: Config) -> None:
    with RLM(config) as rlm:
        rlm.close()
    rlm.close()
    assert config.run.directory is not None
    ends = [e for e in read_events(config.run.directory) if isinstance(e, RunFinished)]
    assert len(ends) == 1


def test_a_closed_session_boots_no_engine(config: Config) -> None:
    rlm = RLM(config)
    rlm.close()
    with pytest.raises(InputError, match="closed"):
        rlm.start()


def test_a_run_without_an_engine_has_no_counters(config: Config) -> None:
    RLM(config).close()
    assert config.run.directory is not None
    (*_, last) = read_events(config.run.directory)
    assert isinstance(last, RunFinished)
    assert last.outcome == "ok"
    assert last.engine_computed_tokens is None


def test_a_file_asked_about_again_is_stored_once(config: Config, tmp_path: Path) -> None:
    path = tmp_path / "REPORT.txt"
    path.write_text("The treaty was signed by Anna Meier.")
    with RLM(config) as rlm:
        first, second = rlm.store(path), rlm.store(path)
        assert first == second
        stored = rlm.ledger.figures()["stored_tokens"]
        path.write_text("The treaty was signed by nobody at all.")
        assert rlm.store(path).digest != first.digest
        assert (rlm.ledger.figures()["stored_tokens"] or 0) > (stored or 0)


@pytest.mark.parametrize("text", ["", b"", b"caf\xe9"])
def test_a_text_that_is_none_is_refused(config: Config, text: str | bytes) -> None:
    with RLM(config) as rlm, pytest.raises(InputError):
        rlm.store(text)


def test_a_question_is_checked_before_anything_starts(config: Config) -> None:
    with RLM(config) as rlm:
        with pytest.raises(InputError):
            rlm.run("  ", "Some text.")
        with pytest.raises(PromptTooLong, match="shorten the question"):
            rlm.run("why " * 9000, "Some text.")
        with pytest.raises(InputError, match="no text"):
            rlm.run("Why?")


def test_a_window_that_cannot_hold_the_shared_prefix_is_refused(
    config: Config, model_dir: Path
) -> None:
    small = Config(model=str(model_dir), engine=EngineConfig(window_tokens=1024))
    with pytest.raises(ConfigError, match=r"engine\.window_tokens"):
        RLM(small)

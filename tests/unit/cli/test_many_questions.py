"""What people write for sizes, and the settings that come of it."""

from __future__ import annotations

import pytest

from rlm_runtime.cli import apps
from rlm_runtime.cli.many_questions import _count, _size, _small_cache
from rlm_runtime.config import Config
from rlm_runtime.errors import ConfigError, InputError


@pytest.mark.parametrize(("text", "tokens"), [("30000", 30_000), ("30k", 30_000), ("1", 1)])
def test_numbers_of_tokens(text: str, tokens: int) -> None:
    assert _count(text, "--tokens") == tokens


@pytest.mark.parametrize(("text", "tokens"), [("1/3", 10_000), ("4k", 4000), ("2/1", 60_000)])
def test_a_cache_can_be_a_share_of_the_document(text: str, tokens: int) -> None:
    assert _size(text, 30_000) == tokens


@pytest.mark.parametrize("text", ["", "k", "x", "1/0", "0", "-3", "1/x", "0/4"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        _size(text, 30_000)


def test_a_small_cache_has_its_blocks_and_a_window_that_they_hold() -> None:
    settings = _small_cache(Config(), 2667)
    assert settings["engine.vllm_args"] == {"num_gpu_blocks_override": 84}
    assert settings["engine.window_tokens"] == 83 * 32


def test_other_arguments_of_vllm_stay() -> None:
    config = Config.model_validate({"engine": {"vllm_args": {"seed": 1}}})
    assert _small_cache(config, 64)["engine.vllm_args"] == {"seed": 1, "num_gpu_blocks_override": 2}


def test_a_cache_below_two_blocks_is_refused() -> None:
    with pytest.raises(ConfigError, match="two blocks"):
        _small_cache(Config(), 32)


@pytest.mark.usefixtures("home")
def test_a_run_that_keeps_no_log_is_refused_before_the_boot(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert apps.rlm_bench(["run", "many-questions", "--set", "run.keep=false"]) == 2
    assert "run.keep" in capsys.readouterr().err

from __future__ import annotations

from pathlib import Path

import pytest

from rlm_runtime.config.places import home, state_home, traces
from rlm_runtime.errors import ConfigError

USER = {"HOME": "/users/a"}


def test_rlm_home_holds_everything() -> None:
    environ = {**USER, "RLM_HOME": "/r", "XDG_CACHE_HOME": "/c", "XDG_STATE_HOME": "/s"}
    assert home(environ) == Path("/r")
    assert state_home(environ) == Path("/r/state")


def test_xdg_folders_come_next() -> None:
    environ = {**USER, "XDG_CACHE_HOME": "/c", "XDG_STATE_HOME": "/s"}
    assert home(environ) == Path("/c/rlm-vllm")
    assert state_home(environ) == Path("/s/rlm-vllm")


@pytest.mark.parametrize("relative", ["", "cache", "./cache"])
def test_relative_xdg_folders_are_ignored(relative: str) -> None:
    environ = {**USER, "XDG_CACHE_HOME": relative, "XDG_STATE_HOME": relative}
    assert home(environ) == Path("/users/a/.cache/rlm-vllm")
    assert state_home(environ) == Path("/users/a/.local/state/rlm-vllm")


def test_rlm_home_may_be_relative_and_becomes_absolute() -> None:
    assert home({"RLM_HOME": "here"}) == Path.cwd() / "here"


def test_a_home_of_an_unknown_user_is_refused() -> None:
    with pytest.raises(ConfigError, match="RLM_HOME"):
        home({"RLM_HOME": "~no-such-user-exists/x"})


def test_a_user_without_home_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError

    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(ConfigError, match="Set RLM_HOME"):
        home({})


def test_traces_are_only_where_named() -> None:
    assert traces({}) is None
    assert traces({"RLM_TRACES": "/t"}) == Path("/t")

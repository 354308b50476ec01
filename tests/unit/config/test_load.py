from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_runtime.config.keys import fields
from rlm_runtime.config.load import DEFAULT, builtin_configs, config_digest, explain, load
from rlm_runtime.config.model import Config
from rlm_runtime.errors import ConfigError


def write(folder: Path, text: str) -> Path:
    file = folder / "mine.yaml"
    file.write_text(text)
    return file


def refusal(
    source: str | Path | None = None,
    *,
    flags: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
) -> str:
    with pytest.raises(ConfigError) as caught:
        load(source, flags=flags, environ=environ or {})
    return str(caught.value)


@pytest.mark.parametrize("name", sorted(builtin_configs()))
def test_every_shipped_file_loads_and_sets_every_key(name: str) -> None:
    loaded = load(name, environ={})
    assert set(loaded.origins) == set(fields())
    left_out = [key for key, origin in loaded.origins.items() if origin != f"{name}.yaml"]
    assert not left_out, f"configs/{name}.yaml should set these too, with the reason: {left_out}"


def test_two_configurations_ship() -> None:
    assert {"cpu-smollm2", "gpu-24gb"} <= set(builtin_configs())


def test_shipped_default_is_the_tree_of_defaults() -> None:
    loaded = load(environ={})
    assert loaded.source == f"{DEFAULT}.yaml"
    assert loaded.config == Config()


def test_gpu_configuration_differs_where_a_gpu_does() -> None:
    engine = load("gpu-24gb", environ={}).config.engine
    default = Config().engine
    assert (engine.block_size, engine.kv_cache_gib, engine.enforce_eager) == (16, None, False)
    assert engine.window_tokens == 32768
    assert engine.max_running > default.max_running
    assert engine.max_batched_tokens > default.max_batched_tokens


def test_later_sources_win_and_origins_say_so(tmp_path: Path) -> None:
    file = write(tmp_path, "engine:\n  max_running: 2\n  block_size: 64\n  cpu_threads: 3\n")
    loaded = load(
        file,
        environ={"RLM_ENGINE__BLOCK_SIZE": "96", "RLM_ENGINE__CPU_THREADS": "4", "HOME": "/x"},
        flags={"engine.cpu_threads": 5},
    )
    engine = loaded.config.engine
    assert (engine.max_running, engine.block_size, engine.cpu_threads) == (2, 96, 5)
    assert loaded.origins["engine.max_running"] == "mine.yaml"
    assert loaded.origins["engine.block_size"] == "RLM_ENGINE__BLOCK_SIZE"
    assert loaded.origins["engine.cpu_threads"] == "flag"
    assert loaded.origins["model"] == "default"


def test_rlm_config_names_the_source_unless_an_argument_does(tmp_path: Path) -> None:
    environ = {"RLM_CONFIG": str(write(tmp_path, "model: mine\n"))}
    assert load(environ=environ).config.model == "mine"
    assert load("gpu-24gb", environ=environ).source == "gpu-24gb.yaml"
    assert load(environ={"RLM_CONFIG": ""}).source == f"{DEFAULT}.yaml"


def test_variables_with_other_jobs_are_no_settings() -> None:
    assert load(environ={"RLM_HOME": "/a", "RLM_TRACES": "/b", "_RLM_X": "1"}).config == Config()


@pytest.mark.parametrize(
    ("variable", "text", "key", "value"),
    [
        ("RLM_ENGINE__KV_CACHE_GIB", "2", "kv_cache_gib", 2.0),
        ("RLM_ENGINE__KV_CACHE_GIB", "null", "kv_cache_gib", None),
        ("RLM_ENGINE__ENFORCE_EAGER", "false", "enforce_eager", False),
        ("RLM_ENGINE__VLLM_ARGS", '{"swap_space": 4}', "vllm_args", {"swap_space": 4}),
    ],
)
def test_text_of_a_variable_is_read_by_the_type_of_its_key(
    variable: str, text: str, key: str, value: object
) -> None:
    assert getattr(load(environ={variable: text}).config.engine, key) == value


@pytest.mark.parametrize("name", ["1e3", "no", "null", "2024", "~"])
def test_a_name_in_a_variable_stays_text(name: str) -> None:
    assert load(environ={"RLM_MODEL": name}).config.model == name


def test_an_emptied_section_is_all_defaults(tmp_path: Path) -> None:
    file = write(tmp_path, "engine:\n  # max_running: 2\nmodel: x\n")
    assert load(file, environ={}).config == Config(model="x")
    assert load(write(tmp_path, ""), environ={}).config == Config()


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("engine:\n  kv_cache_gb: 2\n", ["line 2", "'engine.kv_cache_gb'", "engine.kv_cache_gib"]),
        ("engin:\n  max_running: 2\n", ["line 1", "'engin'", "nearest is engine;"]),
        ("kv_cache_gib: 2\n", ["line 1", "nearest is engine.kv_cache_gib"]),
        ("engine:\n  max_running: 0\n", ["engine.max_running", "0", "line 2", "equal to 1"]),
        ("engine:\n  dtype: int8\n", ["engine.dtype", "'int8'", "line 2", "'bfloat16'"]),
        ("engine:\n  kv_cache_gib: .inf\n", ["engine.kv_cache_gib", "finite"]),
        ("engine:\n  max_running: yes\n", ["engine.max_running", "true or false", "line 2"]),
        ("engine:\n  vllm_args: {a: 2026-01-01}\n", ["engine.vllm_args.a", "line 2", "JSON"]),
        ("model: a\nmodel: b\n", ["line 2, column 1", "'model'", "second time"]),
        ("engine:\n  vllm_args: {a: 1, a: 2}\n", ["line 2, column 21", "'a'", "second time"]),
        ("engine:\n  max_running: [1\n", ["line 3, column 1", "expected"]),
        ("model: a\n---\nmodel: b\n", ["line 2", "another document"]),
        ("? [a]\n: 1\n", ["line 1", "single word"]),
        ("- a\n", ["line 1", "not a section"]),
        ("engine: 3\n", ["line 1", "engine is not a section"]),
        ("model: !!python/name:os.system\n", ["line 1", "constructor"]),
        ("model: 2026-02-31\n", ["no YAML", "day"]),
        ("model: \x01\n", ["no YAML", "special characters"]),
        ("model: " + "[" * 5000, ["no YAML", "recursion"]),
    ],
    ids=lambda value: value[:24] if isinstance(value, str) else "",
)
def test_a_bad_file_is_refused_with_place_and_rule(
    tmp_path: Path, text: str, facts: list[str]
) -> None:
    file = write(tmp_path, text)
    message = refusal(file)
    assert [fact for fact in (str(file), *facts) if fact not in message] == [], message


def test_all_values_out_of_range_are_named_at_once(tmp_path: Path) -> None:
    message = refusal(write(tmp_path, "temperature: 9\n"), environ={"RLM_ENGINE__MAX_RUNNING": "x"})
    assert "temperature is 9 in" in message
    assert "engine.max_running is 'x' in RLM_ENGINE__MAX_RUNNING" in message


@pytest.mark.parametrize(
    ("environ", "facts"),
    [
        ({"RLM_ENGINE__MAX_RUNING": "2"}, ["RLM_ENGINE__MAX_RUNING", "RLM_ENGINE__MAX_RUNNING;"]),
        ({"RLM_HOEM": "/a"}, ["RLM_HOEM", "nearest is RLM_HOME"]),
        ({"RLM_ENGINE": "{}"}, ["RLM_ENGINE ", "no setting"]),
        ({"RLM_ENGINE__VLLM_ARGS": "{a"}, ["RLM_ENGINE__VLLM_ARGS", "not JSON", "character 2"]),
        ({"RLM_LIMITS__MAX_CALLS": ""}, ["limits.max_calls", "''"]),
        ({"RLM_CONFIG": "gpu"}, ["'gpu'", "gpu-24gb"]),
    ],
)
def test_a_bad_variable_is_refused_by_name(environ: dict[str, str], facts: list[str]) -> None:
    message = refusal(environ=environ)
    assert [fact for fact in facts if fact not in message] == [], message


def test_forced_decode_is_set_by_a_file_and_never_in_passing(tmp_path: Path) -> None:
    """Whoever answers with given ids has asked no model."""
    key = "engine.forced_decode"
    for value in ("true", "false"):
        with pytest.raises(ConfigError, match=f"{key} can't be set by a flag"):
            load(flags={key: value}, environ={})
        with pytest.raises(ConfigError, match="by the environment variable RLM_ENGINE__FORCED"):
            load(environ={"RLM_ENGINE__FORCED_DECODE": value})
    file = tmp_path / "own.yaml"
    file.write_text("engine:\n  forced_decode: true\n")
    assert load(file, environ={}).config.engine.forced_decode


def test_a_bad_flag_is_refused() -> None:
    assert "nearest is engine.max_running" in refusal(flags={"engine.max_rnning": 1})
    assert "the flag for engine.max_running" in refusal(flags={"engine.max_running": 0})


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    assert "No such file" in refusal(tmp_path / "none.yaml")
    assert "directory" in refusal(tmp_path)
    file = tmp_path / "latin.yaml"
    file.write_bytes(b"model: caf\xe9\n")
    assert "not UTF-8 (byte 10)" in refusal(file)


def test_digest_follows_what_changes_results_and_nothing_else() -> None:
    base = config_digest(Config())
    assert config_digest(load(flags={"run.directory": "/elsewhere"}, environ={}).config) == base
    assert config_digest(load(flags={"temperature": 0.5}, environ={}).config) != base


def test_explain_has_every_key_with_default_range_and_meaning() -> None:
    rows = {row.key: row for row in explain()}
    assert list(rows) == list(fields())
    assert all(row.description and row.allowed for row in rows.values())
    assert rows["engine.kv_cache_gib"].default == "4.0"
    assert rows["engine.kv_cache_gib"].allowed == "number, > 0; or null"
    assert rows["search.passages"].allowed == "whole number, >= 1, <= 20"
    assert rows["engine.dtype"].allowed == "bfloat16 | float16 | float32 | auto"


@given(st.dictionaries(st.text(max_size=12), st.integers() | st.text(), min_size=1, max_size=4))
def test_unknown_flags_always_end_in_a_config_error(flags: dict[str, Any]) -> None:
    if not flags.keys() & fields().keys():
        assert "is no setting" in refusal(flags=flags)

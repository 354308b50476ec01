"""The cause of a failure, read out of the engine's log."""

from __future__ import annotations

import logging
import stat
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_runtime.engine.engine_log import CAUSE_CHARS, EngineLog, last_error
from rlm_runtime.errors import EngineError

NOISE = """\
2026-11-25 03:39:50,635 INFO EngineCore vllm.config.model: Using max model len 2048
2026-11-25 03:39:50,636 WARNING EngineCore vllm.x: ValueError: not an error
Loading safetensors checkpoint shards: 100% Completed | 1/1 [00:00<00:00,  2.11it/s]
"""

REFUSED = (
    NOISE
    + """\
2026-11-25 03:38:30,001 ERROR EngineCore vllm.v1.engine.core: EngineCore failed to start.
Traceback (most recent call last):
  File "vllm/v1/engine/core.py", line 1489, in run_engine_core
    engine_core = EngineCoreProc(*args, engine_index=dp_rank, **kwargs)
                  ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  File "vllm/v1/core/kv_cache_utils.py", line 700, in check
    raise ValueError(
ValueError: To serve at least one request, 0.04 GiB KV cache is needed, which is larger than
the available 0.02 GiB.
Process EngineCore:
Traceback (most recent call last):
  File "multiprocessing/process.py", line 314, in _bootstrap
    self.run()
ValueError: To serve at least one request, 0.04 GiB KV cache is needed, which is larger than
the available 0.02 GiB.
/usr/lib/python3.11/multiprocessing/resource_tracker.py:254: UserWarning: resource_tracker
  warnings.warn('resource_tracker: There appear to be %d '
2026-11-25 03:38:31,002 INFO MainProcess vllm.v1.engine.core_client: [shutdown] MPClient: complete
"""
)

CHAINED = """\
Traceback (most recent call last):
  File "a.py", line 1, in f
    g()
safetensors._safetensors_rust.SafetensorError: Error while deserializing header: truncated

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "b.py", line 1, in h
    f()
RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
"""

VALIDATION = """\
Traceback (most recent call last):
  File "a.py", line 1, in f
    g()
pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig
  Value error, The checkpoint is of an unknown architecture. [type=value_error]
"""

MEMORY = """\
Traceback (most recent call last):
  File "a.py", line 1, in f
torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.
"""

WORKER = """\
2026-11-25 03:38:30,001 ERROR EngineCore vllm.v1.executor.multiproc_executor: \
Worker proc VllmWorker-0 died unexpectedly, shutting down executor.
Traceback (most recent call last):
  File "a.py", line 1, in f
RuntimeError: cancelled
2026-11-25 03:38:30,002 ERROR MainProcess vllm.v1.engine.async_llm: AsyncLLM output_handler failed.
Traceback (most recent call last):
  File "a.py", line 1, in f
vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue. See stack trace (above)
"""

CRASH = """\
Fatal Python error: Illegal instruction

Current thread 0x00007f1 (most recent call first):
  File "torch/nn/functional.py", line 1, in linear
"""


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("", None),
        (NOISE, None),
        (
            REFUSED,
            "ValueError: To serve at least one request, 0.04 GiB KV cache is needed, "
            "which is larger than the available 0.02 GiB.",
        ),
        (
            CHAINED,
            "safetensors._safetensors_rust.SafetensorError: "
            "Error while deserializing header: truncated",
        ),
        (
            VALIDATION,
            "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig "
            "Value error, The checkpoint is of an unknown architecture. [type=value_error]",
        ),
        (MEMORY, "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."),
        (WORKER, "Worker proc VllmWorker-0 died unexpectedly, shutting down executor."),
        (CRASH, "Fatal Python error: Illegal instruction"),
        (
            REFUSED + MEMORY,
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.",
        ),
    ],
    ids=[
        "empty",
        "noise",
        "refused",
        "chained",
        "validation",
        "memory",
        "worker",
        "crash",
        "last one wins",
    ],
)
def test_the_cause_is_the_last_error_that_says_something(text: str, cause: str | None) -> None:
    assert last_error(text) == cause


def test_an_endless_message_is_cut() -> None:
    found = last_error("ValueError: " + "x" * 5000)
    assert found is not None
    assert len(found) == CAUSE_CHARS
    assert found.endswith("…")


lines = st.one_of(
    st.text(max_size=40),
    st.sampled_from([line for text in (REFUSED, CHAINED, WORKER) for line in text.splitlines()]),
)


@given(st.lists(lines).map("\n".join))
def test_any_text_gives_one_short_line_or_none(text: str) -> None:
    found = last_error(text)
    assert found is None or (found and len(found) <= CAUSE_CHARS and "\n" not in found)


def test_the_log_takes_the_records_of_vllm_and_gives_the_logger_back(tmp_path: Path) -> None:
    logger = logging.getLogger("vllm")
    before = (logger.handlers[:], logger.propagate, logger.level)
    path = tmp_path / "engine.log"
    log = EngineLog(path)
    logging.getLogger("vllm.x").info("hello")
    log.close(keep=False)
    assert (logger.handlers, logger.propagate, logger.level) == before
    assert "INFO MainProcess vllm.x: hello" in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_log_is_appended_to_and_old_errors_are_no_cause(tmp_path: Path) -> None:
    path = tmp_path / "engine.log"
    path.write_text(CHAINED)
    log = EngineLog(path)
    assert log.cause() is None
    logging.getLogger("vllm").error("first")
    assert log.cause() == "first"
    log.mark()
    assert log.cause() is None
    logging.getLogger("vllm").error("second")
    assert log.cause() == "second"
    log.close(keep=True)
    assert path.read_text().startswith(CHAINED)


@pytest.mark.parametrize(
    ("lines", "keep", "stays"), [(1, True, True), (1, False, False), (0, True, False)]
)
def test_a_temporary_log_stays_only_if_it_helps(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lines: int, keep: bool, stays: bool
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    log = EngineLog(None)
    for _ in range(lines):
        logging.getLogger("vllm").error("hello")
    log.close(keep=keep)
    assert log.path.parent == tmp_path
    assert log.path.exists() == stays


def test_a_removed_log_has_no_cause(tmp_path: Path) -> None:
    log = EngineLog(tmp_path / "engine.log")
    log.path.unlink()
    assert log.cause() is None
    log.close(keep=True)


def test_a_log_that_can_not_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="No such file or directory"):
        EngineLog(tmp_path / "missing" / "engine.log")

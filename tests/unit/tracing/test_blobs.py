from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_runtime.errors import TraceError
from rlm_runtime.tracing import Blobs, Recorder, ids_from_blob, ids_to_blob, machine, run_started
from rlm_runtime.types import RunId


@given(st.lists(st.integers(0, 2**32 - 1)))
def test_ids_come_back_from_a_blob(ids: list[int]) -> None:
    assert ids_from_blob(ids_to_blob(ids)) == tuple(ids)


def test_ids_are_little_endian_words() -> None:
    assert ids_to_blob([1, 0x01020304]) == bytes([1, 0, 0, 0, 4, 3, 2, 1])


def test_a_blob_that_is_no_ids_is_refused() -> None:
    with pytest.raises(TraceError, match="5 bytes"):
        ids_from_blob(bytes(5))


@pytest.mark.parametrize("bad", [-1, 2**32])
def test_an_impossible_id_is_not_packed(bad: int) -> None:
    with pytest.raises(OverflowError):
        ids_to_blob([bad])


def test_a_changed_blob_is_refused(tmp_path: Path) -> None:
    with Recorder(tmp_path) as recorder:
        digest = recorder.blob(b"four")
    assert digest is not None
    assert Blobs(tmp_path).get(digest) == b"four"
    (tmp_path / "blobs" / digest).write_bytes(b"five")
    with pytest.raises(TraceError, match="damaged"):
        Blobs(tmp_path).get(digest)


@pytest.mark.parametrize("name", ["../events.jsonl", "", "A" * 32, "0" * 31, "0" * 32 + "\n"])
def test_only_a_digest_names_a_blob(tmp_path: Path, name: str) -> None:
    with pytest.raises(TraceError, match="not the name of a blob"):
        Blobs(tmp_path).get(name)


def test_a_missing_blob_says_that_contents_were_not_kept(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="not kept"):
        Blobs(tmp_path).get("0" * 32)


def test_the_machine_is_named_in_words() -> None:
    assert re.fullmatch(r".+, \d+ cores?, \d+ GiB, \w+ [\d.]+", machine()), machine()


def test_the_first_event_says_what_ran(tmp_path: Path) -> None:
    event = run_started(RunId("r7"), "c0ffee")
    assert (event.run_id, event.config_digest, event.at_s) == ("r7", "c0ffee", 0.0)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", event.started_at)
    assert event.machine == machine()

from __future__ import annotations

import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from rlm_runtime.errors import TraceError
from rlm_runtime.tracing import (
    AnyEvent,
    Blobs,
    CacheReset,
    Recorder,
    ValueRead,
    blob_digest,
    new_run_directory,
    new_run_id,
    read_events,
    run_started,
)
from rlm_runtime.tracing.recorder import LEAST_FREE_BYTES


def first(recorder: Recorder) -> AnyEvent:
    return run_started(recorder.run_id, "c0")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@contextmanager
def files_of_at_most(size_bytes: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_events_are_on_disk_when_emit_returns(tmp_path: Path) -> None:
    with Recorder(tmp_path / "run") as recorder:
        events = [first(recorder), CacheReset(at_s=1.5)]
        for count, event in enumerate(events, 1):
            recorder.emit(event)
            assert list(read_events(tmp_path / "run")) == events[:count]


def test_what_was_emitted_survives_a_kill(tmp_path: Path) -> None:
    program = """if True:
        import os, signal, sys
        from pathlib import Path
        from rlm_runtime.tracing import CacheReset, Recorder, run_started
        recorder = Recorder(Path(sys.argv[1]))
        recorder.emit(run_started(recorder.run_id, ""))
        recorder.emit(CacheReset(at_s=recorder.now()))
        os.kill(os.getpid(), signal.SIGKILL)
    """
    ended = subprocess.run([sys.executable, "-c", program, tmp_path / "run"], check=False)
    assert ended.returncode == -signal.SIGKILL
    reader = read_events(tmp_path / "run")
    assert [type(event).__name__ for event in reader] == ["RunStarted", "CacheReset"]
    assert not reader.is_torn


def test_only_the_owner_can_read_a_run(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        directory = new_run_directory(tmp_path / "state" / "runs")
        with Recorder(directory) as recorder:
            recorder.emit(first(recorder))
            digest = recorder.blob(b"secret")
    finally:
        os.umask(before)
    assert digest is not None
    assert mode(directory) == mode(directory / "blobs") == 0o700
    assert mode(directory / "events.jsonl") == mode(directory / "blobs" / digest) == 0o600


def test_a_directory_of_the_user_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir(mode=0o755)
    Recorder(tmp_path / "mine").close()
    assert mode(tmp_path / "mine") == 0o755
    assert mode(tmp_path / "mine" / "blobs") == 0o700


def test_a_directory_with_a_run_is_refused_and_left_alone(tmp_path: Path) -> None:
    with Recorder(tmp_path) as recorder:
        recorder.emit(first(recorder))
    before = (tmp_path / "events.jsonl").read_bytes()
    with pytest.raises(TraceError, match="holds a run already"):
        Recorder(tmp_path)
    assert (tmp_path / "events.jsonl").read_bytes() == before


def test_a_place_that_cannot_hold_a_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for directory in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(TraceError, match="Can't write a run in"):
            Recorder(directory)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "blobs").touch()
    with pytest.raises(TraceError, match="Can't write a run in"):
        Recorder(tmp_path / "run")
    assert not (tmp_path / "run" / "events.jsonl").exists()


def test_a_nearly_full_disk_is_refused_before_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.statvfs(tmp_path)
    nearly_full = os.statvfs_result(
        value if index != 4 else (LEAST_FREE_BYTES - 1) // real.f_frsize
        for index, value in enumerate(real)
    )
    with monkeypatch.context() as patch:
        patch.setattr(os, "fstatvfs", lambda _: nearly_full)
        with pytest.raises(TraceError, match="at least 32 MiB") as caught:
            Recorder(tmp_path / "run")
    assert "--run-dir" in caught.value.remedy
    Recorder(tmp_path / "run").close()  # the refusal left nothing that stands in the way


def test_a_failed_write_ends_the_log_and_keeps_what_it_has(tmp_path: Path) -> None:
    heard: list[AnyEvent] = []
    with Recorder(tmp_path / "run") as recorder:
        recorder.subscribe(heard.append)
        recorder.emit(first(recorder))
        size = (tmp_path / "run" / "events.jsonl").stat().st_size
        with files_of_at_most(size + 10), pytest.raises(TraceError, match="stays readable"):
            recorder.emit(CacheReset(at_s=1.0))
        # There is room again, but half a line stands at the end: nothing may follow it.
        with pytest.raises(TraceError, match="can't be written any more"):
            recorder.emit(CacheReset(at_s=2.0))
        with pytest.raises(TraceError, match="can't be written any more"):
            recorder.blob(b"x")
    reader = read_events(tmp_path / "run")
    assert list(reader) == heard
    assert len(heard) == 1
    assert reader.is_torn


def test_a_blob_that_does_not_fit_is_not_there_at_all(tmp_path: Path) -> None:
    data = bytes(1000)
    recorder = Recorder(tmp_path / "run")
    with files_of_at_most(999), pytest.raises(TraceError):
        recorder.blob(data)
    recorder.close()
    with pytest.raises(TraceError, match="has no blob"):
        Blobs(tmp_path / "run").get(blob_digest(data))


def test_a_removed_directory_is_noticed_at_the_next_event(tmp_path: Path) -> None:
    with Recorder(tmp_path / "run") as recorder:
        recorder.emit(first(recorder))
        shutil.rmtree(tmp_path / "run")
        with pytest.raises(TraceError, match="removed"):
            recorder.emit(CacheReset(at_s=1.0))


def test_a_removed_directory_is_noticed_at_the_next_blob(tmp_path: Path) -> None:
    with Recorder(tmp_path / "run") as recorder:
        shutil.rmtree(tmp_path / "run")
        with pytest.raises(TraceError, match="can't be written any more"):
            recorder.blob(b"x")


def test_a_renamed_directory_is_written_on(tmp_path: Path) -> None:
    with Recorder(tmp_path / "run") as recorder:
        recorder.emit(first(recorder))
        (tmp_path / "run").rename(tmp_path / "moved")
        recorder.emit(CacheReset(at_s=1.0))
        digest = recorder.blob(b"x")
    assert digest is not None
    assert len(list(read_events(tmp_path / "moved"))) == 2
    assert Blobs(tmp_path / "moved").get(digest) == b"x"


def test_equal_blobs_are_written_once(tmp_path: Path) -> None:
    with Recorder(tmp_path / "run") as recorder:
        digests = [recorder.blob(data) for data in (b"a", b"b", b"a", b"")]
        assert digests[0] == digests[2]
        written = {file.name: file.stat().st_ino for file in (tmp_path / "run" / "blobs").iterdir()}
        assert written.keys() == set(digests)
        recorder.blob(b"a")
        for file in (tmp_path / "run" / "blobs").iterdir():
            assert written[file.name] == file.stat().st_ino


def test_without_a_directory_nothing_is_written_and_listeners_hear(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    heard: list[AnyEvent] = []
    with Recorder(None) as recorder:
        recorder.subscribe(heard.append)
        recorder.emit(CacheReset(at_s=1.0))
        assert recorder.blob(b"content") is None
    assert heard == [CacheReset(at_s=1.0)]
    assert list(tmp_path.iterdir()) == []


def test_a_listener_is_told_after_the_event_was_written(tmp_path: Path) -> None:
    on_disk: list[int] = []
    with Recorder(tmp_path / "run") as recorder:
        recorder.subscribe(lambda _: on_disk.append(len(list(read_events(tmp_path / "run")))))
        recorder.emit(first(recorder))
        recorder.emit(CacheReset(at_s=1.0))
    assert on_disk == [1, 2]


def test_listeners_hear_until_they_unsubscribe() -> None:
    one: list[AnyEvent] = []
    two: list[AnyEvent] = []
    recorder = Recorder(None)
    end = recorder.subscribe(one.append)
    recorder.subscribe(two.append)
    recorder.emit(CacheReset(at_s=1.0))
    end()
    end()
    recorder.emit(CacheReset(at_s=2.0))
    assert [event.at_s for event in one] == [1.0]
    assert [event.at_s for event in two] == [1.0, 2.0]


def test_a_closed_log_takes_nothing_more(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "run")
    recorder.close()
    recorder.close()
    with pytest.raises(TraceError, match="closed"):
        recorder.emit(CacheReset(at_s=1.0))
    with pytest.raises(TraceError, match="closed"):
        recorder.blob(b"x")


def test_a_started_program_does_not_inherit_the_files(tmp_path: Path) -> None:
    with Recorder(tmp_path / "run"):
        listing = subprocess.run(
            ["ls", "-l", "/proc/self/fd"], check=True, capture_output=True, close_fds=False
        ).stdout
    assert b"->" in listing
    assert str(tmp_path).encode() not in listing


def test_time_starts_at_nothing_and_never_goes_back() -> None:
    recorder = Recorder(None)
    times = [recorder.now() for _ in range(1000)]
    assert times == sorted(times)
    assert times[0] >= 0


def test_runs_made_at_once_have_directories_of_their_own(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: new_run_directory(tmp_path), range(200)))
    assert len(set(made)) == 200
    assert all(directory.is_dir() for directory in made)


def test_run_ids_sort_by_time_and_differ_within_one_tick() -> None:
    ids = [new_run_id() for _ in range(200)]
    stamps = [run_id.rpartition("-")[0] for run_id in ids]
    assert stamps == sorted(stamps)
    assert len({run_id.rpartition("-")[2] for run_id in ids}) > 190


def test_a_run_is_called_as_its_directory_unless_the_user_named_that(tmp_path: Path) -> None:
    directory = new_run_directory(tmp_path)
    with Recorder(directory) as recorder:
        assert recorder.run_id == directory.name
    with Recorder(tmp_path / "mine") as recorder:
        assert recorder.run_id != "mine"


def test_a_line_is_one_event_whatever_it_holds(tmp_path: Path) -> None:
    event = ValueRead(
        at_s=0.0, reader="a\nb\r\u2028", name="\0", version=1, start_byte=0, end_byte=2, tokens=1
    )
    with Recorder(tmp_path / "run") as recorder:
        recorder.emit(first(recorder))
        recorder.emit(event)
    assert list(read_events(tmp_path / "run"))[1:] == [event]


def test_threads_may_emit_and_listeners_hear_one_event_at_a_time(tmp_path: Path) -> None:
    heard = 0

    def listen(_: AnyEvent) -> None:
        nonlocal heard
        before = heard
        time.sleep(0)  # other threads run here, if they may
        heard = before + 1

    with Recorder(tmp_path / "run") as recorder:
        recorder.emit(first(recorder))
        recorder.subscribe(listen)
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda at: recorder.emit(CacheReset(at_s=float(at))), range(500)))
    assert heard == 500
    written = [event.at_s for event in list(read_events(tmp_path / "run"))[1:]]
    assert sorted(written) == [float(at) for at in range(500)]

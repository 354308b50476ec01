from __future__ import annotations

import errno
import gc
import mmap
import os
import resource
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from rlm_runtime.errors import ConfigError, ContextError, QuotaExceeded
from rlm_runtime.store import ContextStore
from rlm_runtime.store.spill import SpilledContent, SpillFile

LARGE = "Zeile für Zeile. " * 1_000


@pytest.fixture
def store(tmp_path: Path) -> ContextStore:
    return ContextStore(len, spill_bytes=1_000, spill_directory=tmp_path / "spill")


def descriptors(folder: Path) -> list[Path]:
    """Open descriptors of files below `folder`, named or not."""
    gc.collect()
    links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    return [link for link in links if link.readlink().is_relative_to(folder)]


def disk_bytes(folder: Path) -> int:
    """What the one unnamed file below `folder` has."""
    return descriptors(folder)[0].stat().st_size


def test_large_values_are_in_a_file_without_a_name_and_small_ones_are_not(
    store: ContextStore, tmp_path: Path
) -> None:
    store.put_value("small", "x" * 1_000)
    assert not (tmp_path / "spill").exists()
    for name, value in {"text": LARGE, "raw": b"\xff" * 1_001, "rows": [LARGE], "n": 7}.items():
        assert store.load(store.put_value(name, value)) == value
    array = store.load(store.put_value("array", np.arange(1_000)))
    assert isinstance(array, np.ndarray)
    assert array.sum() == 499_500
    del array  # it holds the file open for itself
    assert (tmp_path / "spill").stat().st_mode & 0o777 == 0o700
    assert list((tmp_path / "spill").iterdir()) == []
    assert len(descriptors(tmp_path)) == 1


def test_the_file_goes_with_the_last_value(tmp_path: Path) -> None:
    store = ContextStore(len, spill_bytes=0, spill_directory=tmp_path)
    content = store.get(store.put_value("a", LARGE).name).content
    array = store.load(store.put_value("b", np.arange(9)), (slice(2, 4),))
    del store
    gc.collect()
    assert bytes(content[:17]).decode() == LARGE[:16]
    del content
    gc.collect()
    assert isinstance(array, np.ndarray)
    assert array.tolist() == [2, 3]
    del array
    assert descriptors(tmp_path) == []


def test_equal_contents_are_spilled_once(store: ContextStore, tmp_path: Path) -> None:
    refs = [store.put_text(name, LARGE) for name in ("a", "b", "a")]
    refs.append(store.put("c", "str", LARGE.encode()))
    assert len({ref.digest for ref in refs}) == 1
    assert len({id(store.get(ref.name, ref.version).content) for ref in refs}) == 1
    assert store.total_bytes == disk_bytes(tmp_path) == len(LARGE.encode())


def test_writers_of_equal_contents_at_once_spill_them_once(
    store: ContextStore, tmp_path: Path
) -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            texts = [LARGE + str(number // 8) for number in range(80)]
            refs = list(pool.map(lambda text: store.put_text("a", text), texts))
    finally:
        sys.setswitchinterval(interval)
    assert [store.load(ref) for ref in refs] == texts
    assert store.total_bytes == 10 * len(texts[0].encode())
    assert disk_bytes(tmp_path) < 10 * (len(texts[0].encode()) + 4096)


def test_a_folder_that_knows_no_unnamed_files_holds_values_too(
    store: ContextStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def refusing(path: object, flags: int, *args: object, **more: object) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "Operation not supported")
        return real(path, flags, *args, **more)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refusing)
        ref = store.put_text("a", LARGE)
    assert store.load(ref) == LARGE
    assert list((tmp_path / "spill").iterdir()) == []


class FullDisk:
    """`os.pwrite` of a disk that has room for some bytes."""

    def __init__(self, room: int, number: int = errno.ENOSPC) -> None:
        self.room = room
        self.number = number
        self.real = os.pwrite

    def __call__(self, descriptor: int, data: bytes | memoryview, offset: int) -> int:
        if self.room == 0:
            raise OSError(self.number, os.strerror(self.number))
        written = self.real(descriptor, memoryview(data)[: self.room], offset)
        self.room -= written
        return written


@pytest.fixture
def kept(store: ContextStore) -> Iterator[ContextStore]:
    """A store of some values, which are all still there at the end."""
    values = {"text": LARGE, "rows": [LARGE, 1], "small": "x"}
    refs = [store.put_value(name, value) for name, value in values.items()]
    total = store.total_bytes
    yield store
    assert [store.load(ref) for ref in refs] == list(values.values())
    assert store.names() == tuple(sorted(values))
    assert store.total_bytes == total


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("value", [LARGE + "!", [LARGE, 2], (LARGE + "!").encode()])
def test_a_full_disk_is_an_error_and_loses_nothing(
    kept: ContextStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    value: object,
    number: int,
) -> None:
    before = disk_bytes(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", FullDisk(5_000, number))
        with pytest.raises(QuotaExceeded, match=r"no room for the value.*spill_directory"):
            kept.put_value("new", value)
    assert disk_bytes(tmp_path) == before
    with pytest.raises(ContextError, match="No value named 'new'"):
        kept.get("new")


def test_a_file_that_the_system_lets_grow_no_further_is_full(
    kept: ContextStore, tmp_path: Path
) -> None:
    before = disk_bytes(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (before + 9_000, hard))
    try:
        with pytest.raises(QuotaExceeded, match="File too large"):
            kept.put_value("new", LARGE + "!")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert disk_bytes(tmp_path) == before


def test_there_is_room_again_after_a_full_disk(
    store: ContextStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = store.put_value("a", LARGE)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", FullDisk(5_000))
        with pytest.raises(QuotaExceeded):
            store.put_value("a", LARGE * 2)
    second = store.put_value("a", LARGE * 2)
    assert (first.version, second.version) == (1, 2)
    assert [store.load(ref) for ref in (first, second)] == [LARGE, LARGE * 2]


def test_a_disk_that_was_full_before_the_first_value(
    store: ContextStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", FullDisk(0))
        with pytest.raises(QuotaExceeded):
            store.put_value("a", LARGE)
    assert store.names() == ()
    assert store.load(store.put_value("a", LARGE)) == LARGE


def test_short_writes_are_gone_on_with(
    store: ContextStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.pwrite
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", lambda file, data, at: real(file, memoryview(data)[:99], at))
        ref = store.put_value("a", LARGE)
    assert store.load(ref) == LARGE


def test_reads_that_come_in_parts_are_put_together(
    store: ContextStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = store.put_value("a", LARGE)
    real = os.pread
    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", lambda file, wanted, at: real(file, min(wanted, 99), at))
        assert store.text(ref, 0, ref.size_bytes) == LARGE


def test_a_disk_that_cannot_be_read_is_an_error(
    store: ContextStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    ref = store.put_value("a", LARGE)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", broken)
        with pytest.raises(ContextError, match="Input/output error"):
            store.load(ref, (slice(0, 5),))
        patch.setattr(os, "pread", lambda *_: b"")
        with pytest.raises(ContextError, match="ends too soon"):
            store.load(ref, (slice(0, 5),))
        patch.setattr(mmap, "mmap", broken)
        with pytest.raises(ContextError, match="Input/output error"):
            store.load(ref)


def test_a_folder_that_cannot_be_used_is_an_error_of_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    store = ContextStore(len, spill_bytes=10, spill_directory=tmp_path / "file" / "below")
    small = store.put_value("a", "small")
    with pytest.raises(ConfigError, match=r"Not a directory.*store\.spill_directory"):
        store.put_value("b", LARGE)
    assert store.load(small) == "small"
    assert store.total_bytes == 5


def test_values_begin_where_they_can_be_mapped(tmp_path: Path) -> None:
    file = SpillFile(tmp_path)
    contents = [file.write((bytes([number]) * 5_000,)) for number in range(3)]
    assert all(isinstance(content, SpilledContent) for content in contents)
    assert [bytes(content.map()[:]) for content in contents] == [
        bytes([number]) * 5_000 for number in range(3)
    ]


@pytest.mark.parametrize("spill_bytes", [None, 10])
def test_the_quota_bounds_what_is_kept_and_loses_nothing(
    tmp_path: Path, spill_bytes: int | None
) -> None:
    store = ContextStore(len, spill_bytes=spill_bytes, spill_directory=tmp_path, max_bytes=100)
    refs = [store.put_value("a", "x" * 60), store.put_value("b", "y" * 40)]
    for name in ("a", "new"):
        with pytest.raises(QuotaExceeded, match=r"no room for 1 bytes: it holds 100 of 100"):
            store.put_value(name, "z")
    refs.append(store.put_value("again", "x" * 60))  # is there already, so it takes no room
    assert [store.load(ref) for ref in refs] == ["x" * 60, "y" * 40, "x" * 60]
    assert store.names() == ("a", "again", "b")
    assert store.total_bytes == 100


def test_writers_at_once_never_go_over_the_quota() -> None:
    store = ContextStore(len, max_bytes=1_000)

    def put(number: int) -> bool:
        try:
            store.put_bytes("a", number.to_bytes(10, "big"))
        except QuotaExceeded:
            return False
        return True

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            stored = sum(pool.map(put, range(400)))
    finally:
        sys.setswitchinterval(interval)
    assert (stored, store.total_bytes, len(store.versions("a"))) == (100, 1_000, 100)

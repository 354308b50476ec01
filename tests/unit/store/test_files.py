from __future__ import annotations

import gc
import os
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlm_runtime.errors import InputError
from rlm_runtime.store import ContextStore, cut, name_for
from rlm_runtime.store.context import COPIED_BYTES
from rlm_runtime.store.text_file import BLOCK_BYTES

LINE = b"Zeile f\xc3\xbcr Zeile.\n"
LARGE = LINE * (COPIED_BYTES // len(LINE) + 1)


@pytest.fixture
def store() -> ContextStore:
    return ContextStore(len)


def write(folder: Path, data: bytes) -> Path:
    file = folder / "file.txt"
    file.write_bytes(data)
    return file


def refusal(store: ContextStore, path: Path) -> str:
    with pytest.raises(InputError) as caught:
        store.put_file("a", path)
    assert store.names() == ()
    return str(caught.value)


def descriptors(folder: Path) -> int:
    """Open descriptors of files below `folder`."""
    gc.collect()  # a test that failed on purpose may still hold some in its traceback
    links = [link for link in Path("/proc/self/fd").iterdir() if link.exists()]
    return sum(link.resolve().is_relative_to(folder) for link in links)


@pytest.mark.parametrize("data", [b"x", LARGE[:-1], LARGE], ids=["tiny", "copied", "in place"])
def test_a_file_has_the_value_of_its_text(store: ContextStore, tmp_path: Path, data: bytes) -> None:
    ref = store.put_file("a", write(tmp_path, data))
    same = store.put_text("b", data.decode())
    assert (ref.digest, ref.size_bytes, ref.kind) == (same.digest, same.size_bytes, "str")
    assert store.slice(ref, 0, ref.size_bytes) == data
    assert cut(store.get("a").content, 500) == cut(data, 500)


@pytest.mark.parametrize("data", [b"small", LARGE], ids=["copied", "in place"])
def test_a_byte_order_mark_is_left_out(store: ContextStore, tmp_path: Path, data: bytes) -> None:
    ref = store.put_file("a", write(tmp_path, b"\xef\xbb\xbf" + data))
    assert ref.digest == store.put_text("b", data.decode()).digest
    assert store.text(ref, 0, 5) == data[:5].decode()
    assert store.slice(ref, len(data) - 3, len(data)) == data[-3:]


def test_a_large_file_takes_no_memory(store: ContextStore, tmp_path: Path) -> None:
    file = write(tmp_path, LINE * (20 * BLOCK_BYTES // len(LINE)))
    tracemalloc.start()
    try:
        ref = store.put_file("a", file)
        for chunk in cut(store.get("a").content, 10_000):
            store.text(ref, *chunk)
        store.tokens(ref)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < ref.size_bytes / 2


def test_a_descriptor_is_held_by_large_files_only_and_not_longer_than_the_value(
    tmp_path: Path,
) -> None:
    store = ContextStore(len)
    store.put_file("small", write(tmp_path, b"x"))
    assert descriptors(tmp_path) == 0
    store.put_file("large", write(tmp_path, LARGE))
    assert descriptors(tmp_path) == 1
    del store
    assert descriptors(tmp_path) == 0


def test_a_refused_file_is_closed(store: ContextStore, tmp_path: Path) -> None:
    refusal(store, write(tmp_path, LARGE + b"\0"))
    refusal(store, tmp_path)
    assert descriptors(tmp_path) == 0


@pytest.mark.parametrize(
    ("data", "fact"),
    [
        (b"", "is empty"),
        (b"\xef\xbb\xbf", "is empty"),
        (b"text\0text", "byte 4 is zero"),
        (b"%PDF-1.7 ...", "is a PDF"),
        (b"PK\x03\x04....", "ZIP archive"),
        (b"\x1f\x8b\x08", "gzip"),
        ("text".encode("utf-16"), "UTF-16"),
        (b"caf\xe9 au lait", "at byte 3 (0xe9)"),
        (b"ends in \xe6\xb1", "at byte 8 (0xe6)"),
        (b"\xef\xbb\xbfcaf\xe9", "at byte 6 (0xe9)"),
    ],
)
def test_a_file_that_is_no_text_is_refused_with_what_was_seen(
    store: ContextStore, tmp_path: Path, data: bytes, fact: str
) -> None:
    file = write(tmp_path, data)
    message = refusal(store, file)
    assert fact in message
    assert str(file) in message


@given(st.integers(0, 3 * BLOCK_BYTES - 1), st.booleans())
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_first_bad_byte_is_found_wherever_it_is(
    tmp_path: Path, store: ContextStore, offset: int, is_zero: bool
) -> None:
    data = bytearray(b"x" * (3 * BLOCK_BYTES))
    data[offset] = 0 if is_zero else 0xFF
    assert f"byte {offset:,} " in refusal(store, write(tmp_path, bytes(data)))


def test_a_character_across_two_blocks_is_whole(store: ContextStore, tmp_path: Path) -> None:
    data = b"x" * (BLOCK_BYTES - 1) + "汉".encode() * 2
    assert store.put_file("a", write(tmp_path, data)).size_bytes == len(data)
    torn = data[: BLOCK_BYTES + 1] + b"x"
    other = ContextStore(len)
    assert f"byte {BLOCK_BYTES - 1:,} (0xe6)" in refusal(other, write(tmp_path, torn))


def test_things_that_are_no_files_are_refused_without_waiting(
    store: ContextStore, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    assert "is a directory" in refusal(store, tmp_path)
    assert "is a pipe" in refusal(store, tmp_path / "pipe")
    assert "is a device" in refusal(store, Path("/dev/zero"))
    assert "No such file" in refusal(store, tmp_path / "none")
    assert "Not a directory" in refusal(store, write(tmp_path, b"x") / "below")
    assert "symbolic links" in refusal(store, tmp_path / "loop")
    assert "too long" in refusal(store, tmp_path / ("x" * 300))
    assert "can't be the name" in refusal(store, Path("a\0b"))


def test_a_pipe_is_not_even_opened(
    store: ContextStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[object] = []  # its writer would go on, and find no reader
    os.mkfifo(tmp_path / "pipe")
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", lambda path, _: opened.append(path))
        refusal(store, tmp_path / "pipe")
    assert opened == []


def test_a_file_without_permission_is_refused(
    store: ContextStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*_: object) -> int:  # root may read everything, so the system is asked in jest
        raise PermissionError(13, "Permission denied")

    file = write(tmp_path, b"x")
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", denied)
        assert "change its permissions" in refusal(store, file)


def test_a_file_replaced_by_a_pipe_between_two_looks_is_refused(
    store: ContextStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, pipe = write(tmp_path, b"x"), tmp_path / "pipe"
    os.mkfifo(pipe)
    real = os.open
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", lambda _, flags: real(pipe, flags))
        assert "is a pipe" in refusal(store, file)
    assert descriptors(tmp_path) == 0


def test_a_file_that_got_shorter_is_an_error_not_a_crash(
    store: ContextStore, tmp_path: Path
) -> None:
    file = write(tmp_path, LARGE)
    ref = store.put_file("a", file)
    os.truncate(file, 10)
    with pytest.raises(InputError, match=f"had {len(LARGE):,} bytes, now 10"):
        store.slice(ref, 0, 5)
    with pytest.raises(InputError, match="changed while it was in use"):
        cut(store.get("a").content, 1000)


def test_a_file_that_was_changed_in_place_is_noticed(store: ContextStore, tmp_path: Path) -> None:
    file = write(tmp_path, LARGE)
    ref = store.put_file("a", file)
    with file.open("r+b") as opened:
        opened.write(b"X")
    changed = file.stat().st_mtime_ns + 1  # clocks of file systems tick slowly
    os.utime(file, ns=(changed, changed))
    with pytest.raises(InputError, match="changed while it was in use"):
        store.slice(ref, 0, 5)


def test_a_file_that_was_replaced_or_removed_is_still_the_old_one(
    store: ContextStore, tmp_path: Path
) -> None:
    file = write(tmp_path, LARGE)
    ref = store.put_file("a", file)
    (tmp_path / "new").write_bytes(b"new")
    (tmp_path / "new").replace(file)
    assert store.slice(ref, 0, len(LARGE)) == LARGE


def test_a_small_file_may_change_afterwards(store: ContextStore, tmp_path: Path) -> None:
    file = write(tmp_path, b"before")
    ref = store.put_file("a", file)
    file.write_bytes(b"now")
    assert store.slice(ref, 0, 6) == b"before"


def test_a_text_of_equal_contents_does_not_depend_on_a_file(
    store: ContextStore, tmp_path: Path
) -> None:
    file = write(tmp_path, LARGE)
    store.put_file("a", file)
    ref = store.put_text("b", LARGE.decode())
    os.truncate(file, 0)
    assert store.slice(ref, 0, 5) == LARGE[:5]


def test_a_read_error_of_the_disk_is_an_input_error(
    store: ContextStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> bytes:
        raise OSError(5, "Input/output error")

    ref = store.put_file("a", write(tmp_path, LARGE))
    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", broken)
        with pytest.raises(InputError, match="Input/output error"):
            store.slice(ref, 0, 5)


def test_reads_that_come_in_parts_are_put_together(
    store: ContextStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = store.put_file("a", write(tmp_path, LARGE))
    real = os.pread
    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", lambda file, wanted, at: real(file, min(wanted, 7), at))
        assert store.slice(ref, 3, 100) == LARGE[3:100]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("report.txt", "report"),
        ("/a/b/Q3 results (final).md", "Q3_results_final"),
        ("2024.csv", "file_2024"),
        (".bashrc", "bashrc"),
        ("archive.tar.gz", "archive_tar"),
        ("class.py", "class_file"),
        ("input.txt", "input_file"),
        ("---.txt", "file"),
        ("Отчёт №5.txt", "Отчёт_No5"),
        ("__init__.py", "init"),
        ("x" * 99, "x" * 40),
    ],
)
def test_a_file_name_becomes_a_variable(path: str, name: str) -> None:
    assert name_for(Path(path)) == name


def test_a_taken_name_is_counted_up() -> None:
    assert name_for(Path("a.txt"), {"a", "a_2"}) == "a_3"


@given(st.text(min_size=1, alphabet=st.characters(exclude_characters="/\0")), st.sets(st.text()))
def test_any_file_name_becomes_a_valid_free_name(text: str, taken: set[str]) -> None:
    store = ContextStore(len)
    name = name_for(Path(text), taken)
    assert name not in taken
    assert store.put_text(name, "x").name == name

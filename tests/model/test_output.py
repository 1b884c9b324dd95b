"""New files: named together at the end, or gone without a trace, whatever goes wrong in between."""

from __future__ import annotations

import errno
import os
import resource
import signal
import stat
from pathlib import Path

import pytest
from interrupts import Interrupts, without_nameless_files

from shoal.errors import ArgumentError, InputError, MachineError
from shoal.model import output as module
from shoal.model.output import COPY_BYTES, GATHERED_BYTES_MAX, Output, Sibling


def listing(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def content(sibling: Sibling) -> bytes:
    return os.pread(sibling.fd, os.fstat(sibling.fd).st_size, 0)


def make(path: Path, content: bytes, data: bytes | None = None) -> None:
    """Write an output, with a data file beside it if there are data."""
    out = Output(path)
    try:
        model = out.create(len(content))
        named = [(model, path.name)]
        if data is not None:
            beside = out.create(len(data))
            beside.write(0, data)
            named.insert(0, (beside, path.name + ".data"))
        model.write(0, content)
        out.commit(named)
    finally:
        out.abort()


def test_an_output_and_its_data_file_appear(tmp_path: Path) -> None:
    make(tmp_path / "m", b"model", b"data")
    assert listing(tmp_path) == {"m": b"model", "m.data": b"data"}
    make(tmp_path / "m", b"", b"")
    assert listing(tmp_path) == {"m": b"", "m.data": b""}


def test_a_relative_path_without_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make(Path("m"), b"model")
    assert listing(tmp_path) == {"m": b"model"}


def test_nothing_is_there_before_the_commit(tmp_path: Path) -> None:
    """Not even a temporary name: a process that is killed leaves nothing."""
    out = Output(tmp_path / "m")
    assert content(out.create(10)) == bytes(10)
    assert os.listdir(tmp_path) == []
    out.abort()
    assert os.listdir(tmp_path) == []
    out.abort()


def test_a_process_that_is_killed_leaves_nothing(tmp_path: Path) -> None:
    make(tmp_path / "m", b"old")
    child = os.fork()
    if child == 0:
        sibling = Output(tmp_path / "m").create(10)
        sibling.write(0, b"new")
        os.kill(os.getpid(), signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    assert listing(tmp_path) == {"m": b"old"}


def test_where_files_must_have_names_they_are_temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_nameless_files(monkeypatch)
    out = Output(tmp_path / "m")
    sibling = out.create(10)
    assert os.listdir(tmp_path) == [sibling.name]
    assert (tmp_path / sibling.name).read_bytes() == content(sibling) == bytes(10)
    out.abort()
    assert os.listdir(tmp_path) == []
    out.abort()


def test_abort_after_commit_changes_nothing(tmp_path: Path) -> None:
    make(tmp_path / "m", b"old", b"old data")
    before = set(os.listdir("/proc/self/fd"))
    make(tmp_path / "m", b"new", b"new data")
    assert listing(tmp_path) == {"m": b"new", "m.data": b"new data"}
    assert set(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("umask", [0o022, 0o000, 0o077])
def test_permissions_are_0644_at_most(tmp_path: Path, umask: int) -> None:
    old = os.umask(umask)
    try:
        make(tmp_path / "m", b"model", b"data")
    finally:
        os.umask(old)
    for name in ("m", "m.data"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o644 & ~umask


def test_a_private_file_stays_private(tmp_path: Path) -> None:
    (tmp_path / "m").touch(0o600)
    make(tmp_path / "m", b"model", b"data")
    assert stat.S_IMODE((tmp_path / "m").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "m.data").stat().st_mode) == 0o600


def test_a_link_is_replaced_and_its_target_left_alone(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"target")
    (tmp_path / "m").symlink_to("target")
    make(tmp_path / "m", b"model")
    assert not (tmp_path / "m").is_symlink()
    assert listing(tmp_path) == {"m": b"model", "target": b"target"}


@pytest.mark.parametrize("kind", ["folder", "pipe", "device"])
def test_what_is_no_file_is_not_replaced(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "m"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path = Path("/dev/null")
    with pytest.raises(ArgumentError) as caught:
        Output(path)
    assert caught.value.code == "output.not_a_file"
    assert path.exists()


@pytest.mark.parametrize("path", ["", "/", "a/..", "no/such/folder/m", "file/m", "nul\0"])
def test_paths_that_name_no_file_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(ArgumentError):
        Output(path)
    assert os.listdir(tmp_path) == ["file"]


def test_a_name_that_is_too_long_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="too long"):
        Output(tmp_path / ("m" * 300))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.ENOSPC, "output.disk_full"),
        (errno.EDQUOT, "output.disk_full"),
        (errno.EIO, "output.io"),
        (errno.EROFS, "output.permission"),
        (errno.EACCES, "output.permission"),
    ],
)
@pytest.mark.parametrize("call", ["open", "posix_fallocate", "pwrite", "fsync", "link", "rename"])
def test_errors_of_the_disk_leave_the_old_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int, code: str
) -> None:
    make(tmp_path / "m", b"old")
    real = getattr(os, call)

    def failing(*args: object, **kwargs: object) -> object:
        if call == "open" and args[0] == tmp_path:
            return real(*args, **kwargs)
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(module.os, call, failing)
        with pytest.raises(MachineError) as caught:
            make(tmp_path / "m", b"new", b"new data")
    assert caught.value.code == code
    assert str(tmp_path / "m") in str(caught.value)
    assert listing(tmp_path) == {"m": b"old"}


@pytest.mark.parametrize("after", [False, True], ids=["instead", "after"])
@pytest.mark.parametrize("named", [False, True], ids=["nameless", "named"])
@pytest.mark.parametrize("had_data", [False, True], ids=["new data file", "data file of that name"])
def test_an_interrupt_at_any_step_leaves_the_old_or_the_new(
    tmp_path: Path, after: bool, had_data: bool, named: bool
) -> None:
    """A data file of the same name has the same content: our names follow from it."""
    steps = 0
    while True:
        steps += 1
        folder = tmp_path / str(steps)
        folder.mkdir()
        make(folder / "m", b"old", b"data" if had_data else None)
        old = listing(folder)
        interrupts = Interrupts(steps, after, KeyboardInterrupt())
        with pytest.MonkeyPatch.context() as patched:
            if named:
                without_nameless_files(patched)
            interrupts.install(patched)
            try:
                make(folder / "m", b"new", b"data")
                finished = True
            except KeyboardInterrupt:
                finished = False
        new = {"m": b"new", "m.data": b"data"}
        assert listing(folder) in ([new] if finished else [old, new]), f"interrupted at call {steps}"
        if interrupts.count < steps:
            assert finished
            break
    # Open the folder; twice open (nameless is tried first), allocate, write; fsync twice; twice link, rename, fsync;
    # the temporary names are removed, though they are gone; one more that is not reached.
    assert steps == 1 + (2 * 4 if named else 2 * 3) + 2 + (2 * 2 if named else 2 * 3) + 2 + 1


def test_a_disk_that_does_not_confirm_the_last_rename_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "m", b"old")
    interrupts = Interrupts(8, False, OSError(errno.EIO, "Input/output error"))
    with monkeypatch.context() as patched:
        interrupts.install(patched)
        with pytest.raises(MachineError) as caught:
            make(tmp_path / "m", b"new")
    assert caught.value.code == "output.unconfirmed"
    assert listing(tmp_path) == {"m": b"new"}


def test_a_limit_on_the_size_of_files_reads_as_a_full_disk(tmp_path: Path) -> None:
    make(tmp_path / "m", b"old")
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, old[1]))
    try:
        with pytest.raises(MachineError) as caught:
            make(tmp_path / "m", bytes(2**20 + 1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert caught.value.code == "output.disk_full"
    assert listing(tmp_path) == {"m": b"old"}


@pytest.mark.parametrize("kernel", [True, False], ids=["copy_file_range", "pread"])
def test_copies_between_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernel: bool) -> None:
    whole = os.urandom(2 * COPY_BYTES + 17)
    (tmp_path / "source").write_bytes(whole)
    if not kernel:

        def refused(*args: object) -> int:
            raise OSError(errno.EXDEV, "Invalid cross-device link")

        monkeypatch.setattr(os, "copy_file_range", refused)
    out = Output(tmp_path / "m")
    try:
        with (tmp_path / "source").open("rb") as source:
            sibling = out.create(len(whole))
            sibling.copy(source.fileno(), 5, len(whole) - 2, 3)
            assert content(sibling) == bytes(3) + whole[5:-2] + bytes(4)
            with pytest.raises(InputError) as caught:
                sibling.copy(source.fileno(), 0, len(whole) + 1, 0)
            assert caught.value.code == "file.changed"
    finally:
        out.abort()


def test_short_writes_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: real(fd, memoryview(data)[:3], at))
    make(tmp_path / "m", b"0123456789")
    assert listing(tmp_path) == {"m": b"0123456789"}


def test_pieces_of_all_sizes_and_with_gaps(tmp_path: Path) -> None:
    large = bytes(range(256)) * (COPY_BYTES // 128)
    pieces = [(0, b"ab"), (2, b"c"), (5, b"d"), (6, large), (6 + len(large), b"e"), (7 + len(large), large[:100])]
    pieces += [(200 + len(large) + i * (GATHERED_BYTES_MAX + 1), large[: GATHERED_BYTES_MAX + 1]) for i in range(20)]
    whole = bytearray(pieces[-1][0] + len(pieces[-1][1]))
    for at, data in pieces:
        whole[at : at + len(data)] = data
    out = Output(tmp_path / "m")
    try:
        sibling = out.create(len(whole))
        sibling.write_pieces(iter(pieces))
        assert content(sibling) == whole
    finally:
        out.abort()

"""New files that take their names together at the end, or leave no trace.

Data are written to temporary files in the output's own folder; a commit makes them durable and names them, the model
last.  At any moment the output path holds the whole old file or the whole new one.  Where the file system can, the
temporary files have no name at all until then, so that even a process that is killed leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from shoal import failpoint
from shoal.errors import ArgumentError, InputError, MachineError, ShoalError, shown

#: bytes moved at once where the kernel cannot copy between two files by itself.
COPY_BYTES = 2**20
#: pieces above this size are written by a call of their own.
GATHERED_BYTES_MAX = 64 * 2**10
#: bytes after which the disk starts to write what it has got so far.
WRITING_BYTES = 16 * 2**20
#: permissions of an output before the umask: readable for all, writable for the owner.
MODE = 0o644

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}
#: answers of copy_file_range that mean "not between these two files", not "failed".
_CANNOT_COPY = {errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM, errno.ETXTBSY, errno.EBADF}
#: answers to O_TMPFILE that mean "not in this file system".
_CANNOT_BE_NAMELESS = {errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT, errno.ENOSYS}


def machine_error(error: OSError, doing: str, path: os.PathLike[str] | str) -> MachineError:
    """Return what an operating system's error on an output means to the user."""
    number = error.errno
    code = "output.disk_full" if number in _FULL else "output.permission" if number in _DENIED else "output.io"
    return MachineError(code, f"cannot {doing} {shown(os.fspath(path))}: {error.strerror or error}")


def _find_start_writing() -> Callable[[int], object] | None:
    """Return a function that asks the kernel to start writing a file's changed pages, without waiting for the disk.

    Without it all of a large file would wait for the fsync at the end, with the disk idle until then.  A hint only.
    """
    try:
        sync_file_range = ctypes.CDLL(None).sync_file_range
    except (OSError, AttributeError):
        return None
    sync_file_range.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
    whole_file, start_only = 0, 2
    return lambda fd: sync_file_range(fd, 0, whole_file, start_only)


_start_writing = _find_start_writing()


def _own_path(fd: int) -> str:
    """Return the path under which a process finds its own descriptor, whether or not the file has a name."""
    return f"/proc/self/fd/{fd}"


class Sibling:
    """A temporary file beside the output.  Writes go to any offset, from any thread.

    name    its temporary name, unpredictable
    linked  whether it has this name already
    fd      its descriptor, which the Output closes
    """

    def __init__(self, name: str, linked: bool, fd: int, output: Path) -> None:
        self.name = name
        self.linked = linked
        self.fd = fd
        self._output = output
        self._unsent = 0

    def write(self, at: int, data: bytes | bytearray | memoryview) -> None:
        """Write all of ``data`` at byte ``at``; the GIL is free meanwhile.

        raises  MachineError  if the disk is full or fails
        """
        view = memoryview(data)
        try:
            while len(view):
                done = os.pwrite(self.fd, view, at)
                at, view = at + done, view[done:]
        except OSError as error:
            raise machine_error(error, "write", self._output) from error
        self._count(len(data))

    def _count(self, count: int) -> None:
        """Send what was written on its way to the disk now and then.  Threads may lose each other's counts: no harm."""
        self._unsent += count
        if self._unsent >= WRITING_BYTES and _start_writing is not None:
            self._unsent = 0
            _start_writing(self.fd)

    def write_pieces(self, pieces: Iterable[tuple[int, bytes | memoryview]]) -> None:
        """Write many (offset, bytes), gathering small neighbours: a system call for each would cost more."""
        gathered = bytearray()
        start = 0
        for at, data in pieces:
            if at != start + len(gathered) or len(gathered) + len(data) > COPY_BYTES:
                self.write(start, gathered)
                gathered, start = bytearray(), at
            if len(data) > GATHERED_BYTES_MAX and not gathered:
                self.write(at, data)
                start = at + len(data)
            else:
                gathered += data
        self.write(start, gathered)

    def copy(self, source: int, start: int, stop: int, at: int) -> None:
        """Copy bytes ``[start, stop)`` of the open file ``source`` to ``at``, inside the kernel where it can.

        raises  InputError    if the source ends early
                MachineError  if a disk is full or fails
        """
        try:
            while start < stop:
                done = self._copy_some(source, start, stop - start, at)
                if done == 0:
                    raise InputError(
                        "file.changed", f"a file became shorter while {shown(str(self._output))} was written"
                    )
                start, at = start + done, at + done
        except OSError as error:
            raise machine_error(error, "copy into", self._output) from error

    def _copy_some(self, source: int, start: int, count: int, at: int) -> int:
        try:
            done = os.copy_file_range(source, self.fd, min(count, WRITING_BYTES), start, at)
            self._count(done)
            return done
        except OSError as error:
            if error.errno not in _CANNOT_COPY:
                raise
        data = os.pread(source, min(count, COPY_BYTES), start)
        self.write(at, data)
        return len(data)


def place_of(path: str | os.PathLike[str]) -> str:
    """The one name of the place that a new file of this path takes: a link at its end is replaced, not followed."""
    folder, name = os.path.split(os.fspath(path))
    return os.path.join(os.path.realpath(folder), name)


class Output:
    """A path that will hold a new file, and the siblings that are being written for it.

    path  where the model goes; its folder must be there.  A link is replaced, not followed.

    raises  ArgumentError  if the folder is missing, or the path is there and no regular file
            MachineError   if the folder cannot be opened
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._siblings: list[str] = []
        self._fds: list[int] = []
        self._published: list[str] = []
        if not self.path.name or "\0" in os.fspath(path):
            raise ArgumentError("output.path", f"output {shown(os.fspath(path))} names no file")
        try:
            self._folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            raise ArgumentError(
                "output.folder", f"output {shown(os.fspath(path))}: folder {shown(str(self.path.parent))} is not there"
            ) from None
        except OSError as error:
            raise machine_error(error, "open the folder of", path) from error
        try:
            self.mode = self._mode()
        except BaseException:
            self.abort()
            raise

    def _mode(self) -> int:
        """Permissions of the new file: those of the file that it replaces, and never more than MODE."""
        old = self.status(self.path.name)
        if old is None or stat.S_ISLNK(old.st_mode):
            return MODE
        if not stat.S_ISREG(old.st_mode):
            raise ArgumentError("output.not_a_file", f"output {shown(str(self.path))} is there and is no regular file")
        return MODE & old.st_mode

    def status(self, name: str) -> os.stat_result | None:
        """Return the status of a file of the output's folder, without following a link; None if it is not there."""
        try:
            return os.stat(name, dir_fd=self._folder, follow_symlinks=False)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise machine_error(error, "look at", self.path.parent / name) from error

    def names(self) -> list[str]:
        """Return the names in the output's folder."""
        try:
            return os.listdir(self._folder)
        except OSError as error:
            raise machine_error(error, "list the folder of", self.path) from error

    def create(self, size: int) -> Sibling:
        """Create a sibling of ``size`` bytes, all zero, with its room on the disk taken.

        raises  MachineError  if there is no room or no permission
        """
        # Noted before it is made: whatever interrupts the next lines, abort() finds the file.
        name = f".shoal-{secrets.token_hex(16)}.tmp"
        self._siblings.append(name)
        try:
            fd, linked = self._open_new(name)
            self._fds.append(fd)
            if size:
                os.posix_fallocate(fd, 0, size)
        except OSError as error:
            raise machine_error(error, "write", self.path) from error
        return Sibling(name, linked, fd, self.path)

    def _open_new(self, name: str) -> tuple[int, bool]:
        """Open a new file without a name, or, where there is no such thing, with one; return also whether it has it."""
        flags = os.O_RDWR | os.O_CLOEXEC
        try:
            fd = os.open(".", flags | os.O_TMPFILE, self.mode, dir_fd=self._folder)
        except OSError as error:
            if error.errno not in _CANNOT_BE_NAMELESS:
                raise
        else:
            if os.path.exists(_own_path(fd)):
                return fd, False
            os.close(fd)  # it could never be given a name
        return os.open(name, flags | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, self.mode, dir_fd=self._folder), True

    def commit(self, named: Sequence[tuple[Sibling, str]]) -> None:
        """Make the siblings durable and give them their names, in order; the last one must be the output itself.

        raises  MachineError  if the disk fails; the output path then still holds what it held, unless the code is
                              "output.unconfirmed": then it holds the new file, and a power cut might undo that
        """
        try:
            for sibling, _ in named:
                os.fsync(sibling.fd)
            for sibling, name in named[:-1]:
                if self.status(name) is None:
                    self._published.append(name)
                self._rename(sibling, name)
                # On the disk, too, a model must never come before its data.
                self._sync_folder()
            failpoint.reach("model.rename.before")
            self._rename(*named[-1])
            failpoint.reach("model.rename.after")
        except OSError as error:
            raise machine_error(error, "finish", self.path) from error
        try:
            self._sync_folder()
        except OSError as error:
            raise MachineError(
                "output.unconfirmed", f"{shown(str(self.path))} is written, but the disk did not confirm it: {error}"
            ) from error

    def _rename(self, sibling: Sibling, name: str) -> None:
        """Give a sibling its final name; a link cannot replace a file, so it gets its temporary name first."""
        if not sibling.linked:
            os.link(_own_path(sibling.fd), sibling.name, dst_dir_fd=self._folder, follow_symlinks=True)
            sibling.linked = True
        os.rename(sibling.name, name, src_dir_fd=self._folder, dst_dir_fd=self._folder)

    def _sync_folder(self) -> None:
        try:
            os.fsync(self._folder)
        except OSError as error:
            if error.errno != errno.EINVAL:  # some network file systems have no such call for folders
                raise

    def remove(self, name: str) -> None:
        """Remove a file of the folder that nothing needs any more; it does not matter if that fails."""
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=self._folder)

    def abort(self) -> None:
        """Remove every trace of what was not committed.  May be called at any time, and more than once.

        The output's own sibling is created first and renamed last.  Once it is what the output's name stands for, files
        with their final names belong to it.
        """
        if self._folder < 0:
            return
        for name in self._siblings + ([] if self._is_committed() else self._published):
            self.remove(name)
        self.close()

    def _is_committed(self) -> bool:
        try:
            there = self.status(self.path.name)
            return bool(self._fds) and there is not None and os.path.samestat(there, os.fstat(self._fds[0]))
        except (ShoalError, OSError):
            return True  # not known; a file too many does less harm than one that is missing

    def close(self) -> None:
        """Close all descriptors.  May be called more than once."""
        for fd in [*self._fds, self._folder]:
            with contextlib.suppress(OSError):
                if fd >= 0:
                    os.close(fd)
        self._fds.clear()
        self._folder = -1

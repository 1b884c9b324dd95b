"""Files beside a model that hold values of its tensors: found inside the model's own folder, opened once.

Nothing that a model says can reach another file: locations are relative, go down only, and no link is followed, neither
on the way nor at its end.

source  ONNX, docs/ExternalData.md; CVE-2022-25882, CVE-2024-5187 for what happens otherwise
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from shoal.errors import InputError, MachineError, shown
from shoal.limits import HOLES_BYTES_MAX

#: external data files of one model that are open at once; a process has about a thousand descriptors.
FILES_OPEN_MAX: Final = 16
#: keys that external_data may have.
KEYS: Final = frozenset({"location", "offset", "length", "checksum"})
_CHUNK = 2**20
_NUMBER = re.compile(r"[0-9]{1,18}", re.ASCII)
_SHA1 = re.compile(r"[0-9a-fA-F]{40}", re.ASCII)
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


@dataclass(frozen=True, slots=True, order=True)
class Identity:
    """What tells whether a file is still the one that was checked."""

    device: int
    inode: int
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, descriptor: int) -> Identity:
        status = os.fstat(descriptor)
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor says its values are.

    location  tuple of names, folder by folder
    offset    int            bytes from the start of the file
    length    int | None     bytes; None: up to the end of the file
    checksum  str            SHA-1 of the whole file in hex digits; "" if none is given
    """

    location: tuple[str, ...]
    offset: int
    length: int | None
    checksum: str


def read_place(entries: Sequence[tuple[str, str]], where: str) -> Place:
    """Check the external_data entries of the tensor named by ``where``; InputError ``external.*``."""
    found: dict[str, str] = {}
    for key, value in entries:
        if key not in KEYS:
            raise InputError("external.keys", f"{where}: external data has the unknown key {shown(repr(key))}")
        if key in found:
            raise InputError("external.keys", f"{where}: external data has {key} twice")
        found[key] = value
    for key in ("offset", "length"):
        if key in found and _NUMBER.fullmatch(found[key]) is None:
            text = shown(repr(found[key]))
            raise InputError(
                "external.number", f"{where}: {key} of external data is {text}; expected a number of bytes"
            )
    checksum = found.get("checksum", "")
    if checksum and _SHA1.fullmatch(checksum) is None:
        raise InputError("external.checksum", f"{where}: checksum of external data is no SHA-1 in 40 hex digits")
    length = int(found["length"]) if "length" in found else None
    return Place(
        split_location(found.get("location", ""), where), int(found.get("offset", "0")), length, checksum.lower()
    )


def split_location(location: str, where: str) -> tuple[str, ...]:
    """The names in a location; InputError ``external.location`` if it could mean a place outside the model's folder."""
    parts = tuple(part for part in location.split("/") if part != ".")
    wrong = (
        "names no file" if not location or not parts
        else "is absolute" if location.startswith("/") or re.match(r"[A-Za-z]:", location)
        else "contains a backslash" if "\\" in location
        else "contains a NUL byte" if "\0" in location
        else "goes upwards" if ".." in parts
        else "has an empty part" if "" in parts
        else ""
    )  # fmt: skip
    if wrong:
        raise InputError(
            "external.location",
            f"{where}: external data location {shown(repr(location))} {wrong}; expected a file in the model's folder",
        )
    return parts


class DataFiles:
    """The external data files of one model.  Methods may be called from several threads.

    folder  str       folder of the model
    own     Identity  of the model itself, which cannot be its own external data
    """

    def __init__(self, folder: str, own: Identity) -> None:
        self.folder = folder
        self._own = own
        self._known: dict[tuple[str, ...], Identity] = {}
        self._checksums: dict[tuple[str, ...], str] = {}
        self._open: OrderedDict[tuple[str, ...], tuple[int, list[int]]] = OrderedDict()
        self._lock = threading.Lock()

    def path(self, location: tuple[str, ...]) -> str:
        return os.path.join(self.folder, *location)

    def find(self, location: tuple[str, ...], where: str) -> Identity:
        """Open the file for the first time and note what it is; InputError ``external.*`` names ``where``."""
        if location not in self._known:
            with self._use(location, where):
                pass
        return self._known[location]

    @contextmanager
    def descriptor(self, location: tuple[str, ...]) -> Iterator[int]:
        """A descriptor of a file that was found before; InputError ``file.changed`` if it is another one now."""
        with self._use(location, shown(self.path(location))) as descriptor:
            yield descriptor

    def verify(self, location: tuple[str, ...], checksum: str, where: str) -> None:
        """Compare the file's SHA-1 with ``checksum``; InputError ``external.checksum``."""
        if location not in self._checksums:
            digest = hashlib.sha1(usedforsecurity=False)
            with self.descriptor(location) as descriptor:
                at = 0
                while chunk := os.pread(descriptor, _CHUNK, at):
                    digest.update(chunk)
                    at += len(chunk)
            self._checksums[location] = digest.hexdigest()
        if self._checksums[location] != checksum:
            name = shown(repr("/".join(location)))
            raise InputError(
                "external.checksum",
                f"{where}: SHA-1 of external data {name} is {self._checksums[location]}; expected {checksum}",
            )

    def check_unchanged(self) -> None:
        for location, identity in self._known.items():
            with self.descriptor(location) as descriptor:
                if Identity.of(descriptor) != identity:
                    raise _changed(self.path(location))

    def close(self) -> None:
        with self._lock:
            for descriptor, _ in self._open.values():
                os.close(descriptor)
            self._open.clear()

    @contextmanager
    def _use(self, location: tuple[str, ...], where: str) -> Iterator[int]:
        with self._lock:
            if location not in self._open:
                self._make_room()
                self._open[location] = (self._checked(location, where), [0])
            self._open.move_to_end(location)
            descriptor, users = self._open[location]
            users[0] += 1
        try:
            yield descriptor
        finally:
            with self._lock:
                users[0] -= 1

    def _make_room(self) -> None:
        for location, (descriptor, users) in list(self._open.items()):
            if len(self._open) < FILES_OPEN_MAX:
                return
            if not users[0]:
                os.close(descriptor)
                del self._open[location]

    def _checked(self, location: tuple[str, ...], where: str) -> int:
        descriptor = open_inside(self.folder, location, where)
        try:
            identity = Identity.of(descriptor)
            if (identity.device, identity.inode) == (self._own.device, self._own.inode):
                raise InputError("external.self", f"{where}: external data lie in the model file itself")
            if self._known.setdefault(location, identity) != identity:
                raise _changed(self.path(location))
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor


def open_inside(folder: str, location: tuple[str, ...], where: str) -> int:
    """Open a regular file below ``folder`` for reading, one folder after the other, following no link.

    returns  a descriptor that the caller closes
    raises   InputError    external.missing, external.link, external.not_regular, external.hard_link
             MachineError  file.read  if the machine does not let us
    """
    name = shown(repr("/".join(location)))
    here = -1
    try:
        here = os.open(folder or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        for part in location[:-1]:
            inner = os.open(part, _FLAGS | os.O_DIRECTORY, dir_fd=here)
            os.close(here)
            here = inner
        _check_kind(os.stat(location[-1], dir_fd=here, follow_symlinks=False), name, where)
        descriptor = os.open(location[-1], _FLAGS, dir_fd=here)
    except OSError as error:
        raise _unreadable(error, name, where) from None
    finally:
        if here >= 0:
            os.close(here)
    try:
        _check_kind(os.fstat(descriptor), name, where)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _check_kind(status: os.stat_result, name: str, where: str) -> None:
    if stat.S_ISLNK(status.st_mode):
        raise InputError("external.link", f"{where}: external data {name} is a symbolic link; expected the file itself")
    if not stat.S_ISREG(status.st_mode):
        raise InputError("external.not_regular", f"{where}: external data {name} is no regular file")
    if status.st_nlink > 1:
        raise InputError(
            "external.hard_link",
            f"{where}: external data {name} has {status.st_nlink} names (hard links); expected one; copy it",
        )
    stored = status.st_blocks * 512
    if status.st_size - stored > HOLES_BYTES_MAX:
        raise InputError(
            "external.holes",
            f"{where}: external data {name} has {status.st_size} bytes, of which {stored} are on the disk; expected a "
            f"file with at most {HOLES_BYTES_MAX} bytes of holes",
        )


def _unreadable(error: OSError, name: str, where: str) -> InputError | MachineError:
    if error.errno == errno.ENOENT:
        return InputError("external.missing", f"{where}: external data {name} is not in the model's folder")
    if error.errno in (errno.ELOOP, errno.ENOTDIR):
        return InputError("external.link", f"{where}: external data {name}: a folder on the way is a link or no folder")
    if error.errno in (errno.ENAMETOOLONG, errno.ENXIO, errno.EISDIR, errno.EINVAL):
        return InputError("external.location", f"{where}: external data {name} cannot be opened: {error.strerror}")
    return MachineError("file.read", f"{where}: external data {name} cannot be read: {error.strerror}")


def _changed(path: str) -> InputError:
    return InputError("file.changed", f"{shown(path)}: changed while it was in use; expected the file as it was opened")

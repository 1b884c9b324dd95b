"""Files that the commands about swarms read and write."""

from __future__ import annotations

import os
from pathlib import Path

from shoal.errors import InputError, MachineError, shown


def replace(path: Path, data: bytes) -> None:
    """Write a file whole or not at all; one that is there is replaced."""
    from shoal.model.output import Output

    target = Output(path)
    try:
        into = target.create(0)
        into.write(0, data)
        target.commit([(into, path.name)])
    finally:
        target.close()


def create(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a new file that only its owner can change.  raises  MachineError  ``file.exists``: nothing is replaced"""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    except FileExistsError:
        raise MachineError("file.exists", f"{shown(str(path))}: exists already") from None
    except OSError as error:
        raise MachineError("file.write", f"{shown(str(path))}: {error.strerror}") from None
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)


def read(path: Path, limit: int, what: str) -> bytes:
    """At most ``limit`` + 1 bytes of a regular file: more than ``limit`` are too many, which the reader says.

    raises  InputError  ``file.missing``, ``file.not_regular``;  MachineError  ``file.read``
    """
    from shoal.model.regular import open_regular

    with os.fdopen(open_regular(str(path), what), "rb") as file:
        try:
            return file.read(limit + 1)
        except OSError as error:
            raise MachineError("file.read", f"{shown(str(path))}: {error.strerror}") from None


def folder(path: Path) -> None:
    """Make a folder for its owner alone, if it is not there."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except FileExistsError:
        raise InputError("file.not_folder", f"{shown(str(path))}: is there and no folder") from None
    except OSError as error:
        raise MachineError("file.write", f"{shown(str(path))}: {error.strerror}") from None

"""Private keys on disk: made once, readable by their owner only, never through a link."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from shoal.errors import InputError, MachineError
from shoal.ledger.curve_key import CurveKey
from shoal.ledger.identity import Identity

#: a PEM file of an Ed25519 or X25519 key has about 120 bytes
_KEY_FILE_BYTES_MAX = 4096


def create_key_file(path: Path) -> Identity:
    """Make a new identity and write it to ``path`` (mode 0600); an existing file is never replaced.

    raises  MachineError  ``key.exists``, ``key.write``
    """
    identity = Identity.generate()
    _create(path, identity.pem())
    return identity


def read_key_file(path: Path) -> Identity:
    """The identity in ``path``.

    raises  MachineError  ``key.read``: missing or unreadable; ``key.exposed``: others may read it, or another owns it
            InputError    ``key.format``: not a regular file, or no Ed25519 key
    """
    return Identity.from_pem(_read(path), str(path))


def create_curve_file(path: Path) -> CurveKey:
    """As ``create_key_file``, for the key of the transport."""
    key = CurveKey.generate()
    _create(path, key.pem())
    return key


def read_curve_file(path: Path) -> CurveKey:
    """As ``read_key_file``, for the key of the transport."""
    return CurveKey.from_pem(_read(path), str(path))


def _create(path: Path, data: bytes) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise MachineError("key.exists", f"{path}: exists already; a key is never replaced") from None
    except OSError as error:
        raise MachineError("key.write", f"{path}: {error.strerror}") from None
    try:
        os.fchmod(descriptor, 0o600)
        _write_all(descriptor, data)
        os.fsync(descriptor)
        _sync_folder(path.parent)
    except OSError as error:
        os.unlink(path)
        raise MachineError("key.write", f"{path}: {error.strerror}") from None
    finally:
        os.close(descriptor)


def _read(path: Path) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise MachineError("key.read", f"{path}: {error.strerror}") from None
    try:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            raise InputError("key.format", f"{path}: not a regular file")
        if facts.st_mode & 0o077 or facts.st_uid != os.geteuid():
            found = f"mode {facts.st_mode & 0o777:04o}, owner {facts.st_uid}"
            raise MachineError("key.exposed", f"{path}: {found}; a private key must be yours alone: chmod 600")
        if facts.st_size > _KEY_FILE_BYTES_MAX:
            raise InputError(
                "key.format", f"{path}: {facts.st_size} bytes, a key file has at most {_KEY_FILE_BYTES_MAX}"
            )
        return os.read(descriptor, _KEY_FILE_BYTES_MAX)
    except OSError as error:
        raise MachineError("key.read", f"{path}: {error.strerror}") from None
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""The file that stays beside a new state until the model that belongs to it is there: `<name>.previous`."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Iterable
from pathlib import Path

from shoal.errors import MachineError, shown

SUFFIX = ".previous"


def previous_of(path: Path) -> Path:
    """Where the file before ``path`` stands."""
    return path.with_name(path.name + SUFFIX)


def keep_previous(path: Path, old: Path) -> None:
    """Give the file ``old`` the name of the one before ``path``, too, in one instant; it may have it already.

    raises  MachineError  if the disk does not let us
    """
    place = previous_of(path)
    if old == place:
        return
    made = path.with_name(f".shoal-{secrets.token_hex(16)}.tmp")
    try:
        try:
            os.link(old, made)
        except OSError:  # a file system that knows no second names
            shutil.copy2(old, made)
            _sync(made)
        os.replace(made, place)
        with contextlib.suppress(OSError):  # some network file systems have no such call for folders
            _sync(path.parent)
    except OSError as error:
        raise MachineError("output.previous", f"{shown(str(place))}: {error.strerror or error}") from error
    finally:
        made.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_with_data(file: Path, path: Path, data: Iterable[str]) -> None:
    """Remove a file and those of its data files that were made for ``path``; it does not matter if that fails."""
    ours = re.compile(re.escape(path.name) + rf"(?:{re.escape(SUFFIX)})?\.[0-9a-f]{{16}}\.data")
    for each in (file, *(place for place in map(Path, data) if ours.fullmatch(place.name))):
        with contextlib.suppress(OSError):
            each.unlink()

"""Regular files that others wrote, open for reading at any place."""

from __future__ import annotations

import os
import stat

import numpy as np
import numpy.typing as npt

from shoal.errors import InputError, MachineError, shown


def open_regular(path: str, expected: str) -> int:
    """Open what must be a regular file (a link to one will do) without waiting for anybody.

    expected  for messages: "an ONNX model"
    returns   a descriptor that the caller closes
    raises    InputError    file.missing, file.not_regular
              MachineError  file.read
    """
    name = shown(path)
    try:
        kind = _irregular(os.stat(path).st_mode)
        if kind:
            raise InputError("file.not_regular", f"{name}: is a {kind}; expected {expected}")
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except FileNotFoundError:
        raise InputError("file.missing", f"{name}: is not there; expected {expected}") from None
    except ValueError:
        raise InputError("file.missing", f"{name}: is no path; expected {expected}") from None
    except OSError as error:
        raise MachineError("file.read", f"cannot open {name}: {error.strerror}") from None
    if kind := _irregular(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InputError("file.not_regular", f"{name}: is a {kind}; expected {expected}")
    return descriptor


def read_at(descriptor: int, at: int, raw: npt.NDArray[np.uint8], path: str) -> None:
    """Fill ``raw`` with a file's bytes from ``at`` on; the GIL is free meanwhile.

    raises  InputError    file.changed  if the file ends before
            MachineError  file.read     if the machine fails
    """
    view = raw.data
    try:
        while view:
            done = os.preadv(descriptor, [view], at)
            if done == 0:
                raise InputError("file.changed", f"{shown(path)}: became shorter while it was read")
            view = view[done:]
            at += done
    except OSError as error:
        raise MachineError("file.read", f"cannot read {shown(path)}: {error.strerror}") from None


def _irregular(mode: int) -> str:
    """What a file is that is no regular file; "" for a regular one."""
    if stat.S_ISREG(mode):
        return ""
    kinds = ((stat.S_ISDIR, "directory"), (stat.S_ISFIFO, "named pipe"), (stat.S_ISSOCK, "socket"))
    return next((kind for is_kind, kind in kinds if is_kind(mode)), "device")

"""Errors and interrupts at a chosen step: for tests of what is left behind."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Any

import pytest


class Interrupts:
    """Raises `error` in place of, or right after, the n-th call of any function of `os` that makes or changes files."""

    CALLS = ("open", "posix_fallocate", "pwrite", "fsync", "link", "rename", "unlink", "copy_file_range")

    def __init__(self, at: int, after: bool, error: BaseException) -> None:
        self.at, self.after, self.error, self.count = at, after, error, 0

    def install(self, patched: pytest.MonkeyPatch) -> None:
        for name in self.CALLS:
            patched.setattr(os, name, self._wrap(getattr(os, name)))

    def _wrap(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.count += 1
            if self.count != self.at:
                return real(*args, **kwargs)
            if self.after:
                with contextlib.suppress(OSError):
                    real(*args, **kwargs)
            raise self.error

        return call


def without_nameless_files(patched: pytest.MonkeyPatch) -> None:
    """As on a file system that does not know O_TMPFILE."""
    real = os.open

    def refused(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(95, "Operation not supported")
        return real(path, flags, *args, **kwargs)

    patched.setattr(os, "open", refused)

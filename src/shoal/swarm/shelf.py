"""The model files of a node, in the folder of its site's data:

    certified.onnx   the model in force         carried        what the next round needs beside it (carried.py)
    next.onnx        one that this node voted   next.carried   likewise
                     for, or is about to

A new model is on the disk before this node votes for it; when it is certified it takes the name of the last one.  So a
certified model is at a quorum of nodes even if all fall out at once, and whoever comes back has it.  What is carried
takes its name first: without its model it is not used, but a model without it is of no use in the next round.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from shoal import failpoint
from shoal.errors import MachineError, ShoalError
from shoal.ledger.digest import DIGEST_BYTES
from shoal.merge.outer import Outer
from shoal.model.layout import Layout, selects
from shoal.model.model import Model, load
from shoal.model.output import Output
from shoal.swarm.book import Book
from shoal.swarm.parcel import Bytes

MODEL_FILE: Final = "certified.onnx"
CARRIED_FILE: Final = "carried"
NEXT_FILE: Final = "next.onnx"
NEXT_CARRIED_FILE: Final = "next.carried"


class Shelf:
    """See the module.  After `open_book`, of one thread at a time.

    raises  ShoalError  the model cannot be read or copied
    """

    def __init__(self, folder: Path, model_path: Path, exclude: Sequence[str] = ()) -> None:
        """model_path  the swarm's base model; what an earlier life left in ``folder`` goes before it
        exclude     globs of tensors that are not merged, and that each site may have of its own
        """
        self._folder = folder
        self._exclude = exclude
        self._next = b""  # digest of what is in NEXT_FILE, once that is whole
        self._kept = b""  # digest of what is in MODEL_FILE, where what it carries is there, too
        kept = folder / MODEL_FILE
        if not kept.exists():
            # A copy: whose file it is may change it, and it must not change under a node that runs.
            with load(model_path) as base:
                base.save(kept)
        self._file: Model = load(kept)
        assert self._file.file is not None
        self._layout = Layout.of_file(self._file.file, self._merged)
        places = {str(kept), *self._file.file.data_files()}
        self._bytes = sum(os.path.getsize(place) for place in places)

    def open_book(self, outer: Outer | None = None) -> Book:
        """The model in force, as far as this node knows; what it made last waits in the book to be certified.

        outer  the swarm's optimiser
        """
        local = [name for name in self._file if not self._merged(name)]
        book = Book({name: self._file[name] for name in self._file}, self._layout, outer, local)
        empty = book.carried
        carried = self._carried(book.digest, len(empty))
        self._kept = b"" if carried is None else book.digest
        book.carry(empty if carried is None else carried)
        made = self._left()
        if made is not None and _forms(made) == _forms(book.arrays):
            digest = Model.from_tensors(made).digest()
            carried = self._carried(digest, len(empty))
            if digest != book.digest and carried is not None:
                self._next = book.wait(made, carried)
        book.keep = self.keep_next
        return book

    def check_room(self) -> None:
        """Whether one more model finds room here: who cannot keep what it votes for must not make others wait for its
        vote.  May be called from any thread.

        raises  MachineError  ``output.disk_full`` and others of model/output.py
        """
        output = Output(self._folder / NEXT_FILE)
        try:
            output.create(self._bytes)
        finally:
            output.abort()

    def _merged(self, name: str) -> bool:
        return selects(name, (), self._exclude)

    def keep_next(self, digest: bytes, arrays: Mapping[str, Any], carried: Bytes) -> None:
        """Write a model where it survives, before this node votes for it.  raises  MachineError"""
        self._next = b""
        _write(self._folder / NEXT_CARRIED_FILE, _encoded(digest, carried))  # first: see `_left`
        self._save(NEXT_FILE, arrays)
        self._next = digest

    def keep(self, digest: bytes, arrays: Mapping[str, Any], carried: Bytes) -> None:
        """This model is in force.  raises  MachineError"""
        if digest == self._kept:  # a round that was given up
            return
        self._kept = b""
        assert self._file.file is not None
        if self._next == digest and not self._file.file.data_files():
            if (self._folder / NEXT_CARRIED_FILE).exists():  # else an earlier life came as far as this
                _rename(self._folder / NEXT_CARRIED_FILE, self._folder / CARRIED_FILE)
            _rename(self._folder / NEXT_FILE, self._folder / MODEL_FILE)
        else:  # it came from a peer, or its values lie in a file of their own, which has the model's name
            _write(self._folder / CARRIED_FILE, _encoded(digest, carried))
            self._save(MODEL_FILE, arrays)
        self._next, self._kept = b"", digest

    def _save(self, name: str, arrays: Mapping[str, Any]) -> None:
        for tensor in self._layout.tensors:  # all others are as they were
            self._file[tensor.key] = arrays[tensor.key]
        self._file.save(self._folder / name)

    def _left(self) -> dict[str, Any] | None:
        """What an earlier life voted for, or was about to; None if that is not there, or not whole.

        What it carries was written before it, so where that is missing, the model is one that was never voted for, or
        of an attempt before.
        """
        try:
            with load(self._folder / NEXT_FILE) as made:
                return {name: np.array(made[name]) for name in made}
        except ShoalError:
            return None

    def _carried(self, digest: bytes, size: int) -> Bytes | None:
        """What belongs to the model with this digest, so many bytes; None if it is not there, or not whole."""
        for name in (CARRIED_FILE, NEXT_CARRIED_FILE):
            with contextlib.suppress(FileNotFoundError):
                data = (self._folder / name).read_bytes()
                known, found = data[:DIGEST_BYTES], data[2 * DIGEST_BYTES :]
                if known == digest and len(found) == size and data == _encoded(digest, found):
                    return np.frombuffer(found, np.uint8).copy()
        return None


def _forms(arrays: Mapping[str, Any]) -> dict[str, tuple[Any, tuple[int, ...]]]:
    return {name: (array.dtype, array.shape) for name, array in arrays.items()}


def _encoded(digest: bytes, carried: Bytes | bytes) -> bytes:
    """A file: whose it is, a check of what follows, and what follows."""
    return digest + hashlib.sha256(digest + bytes(carried)).digest() + bytes(carried)


def _rename(old: Path, new: Path) -> None:
    """raises  MachineError  ``node.write``

    The folder is not synced: both files are on the disk, and whichever names a power cut leaves them, they are found.
    """
    try:
        failpoint.reach("node.rename.before")
        os.replace(old, new)
        failpoint.reach("node.rename.after")
    except OSError as error:
        raise MachineError("node.write", f"{new}: {error.strerror}") from None


def _write(path: Path, data: bytes) -> None:
    """Replace a small file as a whole; mode 0600.  raises  MachineError  ``node.write``"""
    temporary = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        failpoint.reach("statistics.rename.before")
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise MachineError("node.write", f"{path}: {error.strerror}") from None

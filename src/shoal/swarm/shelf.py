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
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from shoal import failpoint
from shoal.errors import MachineError, ShoalError
from shoal.ledger.digest import DIGEST_BYTES
from shoal.merge.outer import Outer
from shoal.model.digest import ModelDigest
from shoal.model.file import ModelFile
from shoal.model.layout import Layout, selects
from shoal.model.model import load
from shoal.model.output import Output
from shoal.model.write import ModelWriter
from shoal.swarm.book import Book, add_to, digest_of
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
        self._file = self._made = Shelved(kept)
        self._layout = Layout.of_file(self._file.file, self._merged)
        places = {str(kept), *self._file.file.data_files()}
        self._bytes = sum(os.path.getsize(place) for place in places)

    def open_book(self, outer: Outer | None = None) -> Book:
        """The model in force, as far as this node knows; what it made last waits in the book to be certified.

        outer  the swarm's optimiser
        """
        local = [name for name in self._file if not self._merged(name)]
        book = Book(self._file, self._layout, outer, local)
        empty = book.carried
        carried = self._carried(book.digest, len(empty))
        self._kept = b"" if carried is None else book.digest
        book.carry(empty if carried is None else carried)
        made = self._left()
        if made is not None and made.forms == self._file.forms:
            digest = digest_of(made)
            carried = self._carried(digest, len(empty))
            if digest != book.digest and carried is not None:
                self._next, self._made = book.wait(made, carried), made
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

    def keep_next(self, arrays: Mapping[str, Any], carried: Bytes) -> tuple[bytes, Mapping[str, Any]]:
        """Write a model where it survives, before this node votes for it; its digest, and the same from there.

        raises  MachineError
        """
        self._next = b""
        # What it carries is in its place first: see `_left`.
        digest, made = self._write(NEXT_FILE, arrays, carried, NEXT_CARRIED_FILE)
        self._next, self._made = digest, made
        return digest, made

    def keep(self, digest: bytes, arrays: Mapping[str, Any], carried: Bytes) -> Mapping[str, Any]:
        """This model is in force; the same from its file.  raises  MachineError"""
        if digest == self._kept:  # a round that was given up
            return arrays
        self._kept = b""
        if self._next == digest and not self._file.file.data_files():
            if (self._folder / NEXT_CARRIED_FILE).exists():  # else an earlier life came as far as this
                _rename(self._folder / NEXT_CARRIED_FILE, self._folder / CARRIED_FILE)
            _rename(self._folder / NEXT_FILE, self._folder / MODEL_FILE)
            made = self._made
        else:  # it came from a peer, or its values lie in a file of their own, which has the model's name
            _, made = self._write(MODEL_FILE, arrays, carried, CARRIED_FILE)
        self._next, self._kept, self._file = b"", digest, made
        return made

    def _write(self, name: str, arrays: Mapping[str, Any], carried: Bytes, beside: str) -> tuple[bytes, Shelved]:
        """One tensor after the other: of what is made when it is asked for, no more than that is in memory."""
        file, path, digest = self._file.file, self._folder / name, ModelDigest()
        merged = {tensor.key for tensor in self._layout.tensors}  # all others are as they were
        with ModelWriter(file, path, merged) as writer:
            for key in arrays:
                array = arrays[key]
                add_to(digest, key, array)
                if key in merged:
                    writer.write(file.tensors[key], 0, np.ascontiguousarray(array))
            found = digest.digest()
            _write(self._folder / beside, _encoded(found, carried))
            writer.commit()
        return found, Shelved(path)

    def _left(self) -> Shelved | None:
        """What an earlier life voted for, or was about to; None if that is not there, or not whole.

        What it carries was written before it, so where that is missing, the model is one that was never voted for, or
        of an attempt before.
        """
        try:
            return Shelved(self._folder / NEXT_FILE)
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


class Shelved(Mapping[str, Any]):
    """A model file as named arrays that are read when they are asked for.

    The file stays open, whatever becomes of its name, until nobody holds this any more.
    raises  ShoalError  it cannot be read
    """

    def __init__(self, path: Path) -> None:
        self._model = load(path)
        weakref.finalize(self, self._model.close)

    @property
    def file(self) -> ModelFile:
        assert self._model.file is not None
        return self._model.file

    @property
    def forms(self) -> dict[str, tuple[Any, tuple[int, ...]]]:
        """Types and shapes."""
        return {name: (info.dtype, info.dims) for name, info in self._model.tensors.items()}

    def __getitem__(self, name: str) -> Any:
        return self._model[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._model)

    def __len__(self) -> int:
        return len(self._model)


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

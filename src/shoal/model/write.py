"""Write a model that equals a template in every byte but those of the tensors that are replaced.

The template is never parsed or held: its unchanged ranges are copied by the kernel, and the new values are written
where they belong, in any order, by any number of threads.
"""

from __future__ import annotations

import os
import re
import secrets
import threading
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from shoal.errors import ArgumentError, InputError, ShoalError, shown
from shoal.model.external import split_location
from shoal.model.file import ModelFile
from shoal.model.output import GATHERED_BYTES_MAX, Output, Sibling, place_of
from shoal.model.placement import VERSION_DIGITS, Place, Placement, data_version, place
from shoal.model.splice import Copy, Hole, Literal
from shoal.model.tensor import Storage, TensorRef


class ModelWriter:
    """A new model file in the making.

    template   the model whose bytes pass through
    path       the output; it may be the template's own path, or another input's
    replaced   keys of the tensors that will be written; all others pass through
    keep       data files that stay even if only the old output refers to them: those of other inputs.  The output must
               not be one of them, nor of the template's

    Use as a context manager: leaving it without commit(), also by an exception or an interrupt, removes every trace.

    raises  ArgumentError  for a key that is not in the template, one that cannot be replaced, or an unusable path
            InputError     if the template is damaged, changes meanwhile, or would grow beyond what protobuf allows
            MachineError   for a full disk, missing permission, a failing device; the old file stays whole
    """

    def __init__(
        self,
        template: ModelFile,
        path: str | os.PathLike[str],
        replaced: Iterable[str],
        keep: Iterable[str | os.PathLike[str]] = (),
    ) -> None:
        self._template = template
        self._replaced = frozenset(replaced)
        for key in self._replaced - template.tensors.keys():
            raise ArgumentError("write.key", f"{shown(str(template.path))} has no tensor {shown(key)}")
        self._keep = {os.path.realpath(kept) for kept in keep}
        _require_no_data_file(path, {*self._keep, *(os.path.realpath(data) for data in template.data_files())})
        self._written = dict.fromkeys(self._replaced, 0)
        self._lock = threading.Lock()
        self._output = Output(path)
        try:
            self._start()
        except BaseException:
            self.abort()
            raise

    @property
    def path(self) -> Path:
        """Where the model goes."""
        return self._output.path

    @property
    def has_data_file(self) -> bool:
        """Whether the output will have a data file beside it: the template has external data."""
        return self._data is not None

    def _start(self) -> None:
        """Create the siblings and fill them with everything that is not replaced."""
        template = self._template
        tensors = template.tensors.values()
        outside = any(ref.storage is Storage.EXTERNAL for ref in tensors)
        self._placement = place(
            tensors,
            self._replaced,
            lambda offset, count: template.raw_proto_range(offset, min(offset + count, template.size)),
            template.size,
            data_stem(self.path) if outside else b"",
        )
        self._model = self._output.create(self._placement.layout.size)
        self._data = None if self._placement.data_size is None else self._output.create(self._placement.data_size)
        self._model.write_pieces(_small_pieces(self._placement, template.fileno(), self._model))
        for key, at in self._placement.places.items():
            if at.outside and key not in self._replaced:
                self._copy_outside(template.tensors[key], at)

    def _copy_outside(self, ref: TensorRef, at: Place) -> None:
        assert self._data is not None
        with self._template._descriptor_of(ref) as source:
            self._data.copy(source, ref.offset, ref.offset + at.nbytes, at.offset)

    def write(self, ref: TensorRef, first_element: int, array: npt.NDArray[np.generic]) -> None:
        """Write elements ``[first_element, first_element + array.size)`` of a tensor, flattened in C order.

        array   C-contiguous, of the tensor's dtype; it may be changed as soon as this returns
        raises  ArgumentError  for another dtype, a range outside the tensor, or a tensor that is not replaced

        Thread-safe.  Each element must be written exactly once.
        """
        if ref.key not in self._replaced:
            raise ArgumentError("write.key", f"tensor {shown(ref.key)} was not announced as replaced")
        if array.dtype != ref.dtype.numpy or not array.flags.c_contiguous:
            raise ArgumentError(
                "write.array", f"tensor {shown(ref.key)}: got {array.dtype}, expected C-contiguous {ref.dtype.name}"
            )
        if first_element < 0 or first_element + array.size > ref.elements:
            raise ArgumentError(
                "write.range",
                f"tensor {shown(ref.key)} has {ref.elements} elements; got {first_element}+{array.size}",
            )
        at = self._placement.places[ref.key]
        target = self._data if at.outside else self._model
        assert target is not None
        target.write(at.offset + first_element * array.itemsize, array.reshape(-1).view(np.uint8).data)
        with self._lock:
            self._written[ref.key] += array.size

    def commit(self, digest: bytes | None = None) -> None:
        """Put the new model in the place of the old one.

        digest  the new model's digest, if known: the data file's name then follows from its content, and the same
                merge gives the same bytes everywhere.  Without it the name is random.
        raises  ArgumentError  if some element was not written
                InputError     if the template changed while it was copied
        """
        tensors = self._template.tensors
        for key, count in self._written.items():
            if count != tensors[key].elements:
                raise ArgumentError(
                    "write.incomplete", f"tensor {shown(key)}: {count} of {tensors[key].elements} elements were written"
                )
        self._template.check_unchanged()
        named = [(self._model, self.path.name)]
        data_name = None
        if self._data is not None:
            version = data_version(self._placement.places, digest) if digest else secrets.token_hex(VERSION_DIGITS // 2)
            self._model.write_pieces((offset, version.encode()) for offset in self._placement.versions)
            data_name = f"{self.path.name}.{version}.data"
            named.insert(0, (self._data, data_name))
        stale = stale_data_files(self._output, data_name, self._keep)
        self._output.commit(named)
        for name in stale:
            self._output.remove(name)
        self._output.close()

    def abort(self) -> None:
        """Remove every trace of what was not committed.  No thread may be writing.  May be called more than once."""
        self._output.abort()

    def __enter__(self) -> ModelWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()


def _require_no_data_file(path: str | os.PathLike[str], data_files: Collection[str]) -> None:
    """Refuse to put a model where the data of one lie that it is made from: that model would be lost."""
    if place_of(path) in data_files:
        raise ArgumentError(
            "output.data", f"output {shown(os.fspath(path))} is a data file of an input; expected another path"
        )


def data_stem(path: Path) -> bytes:
    """Return the name of an output's data file up to its version.

    raises  ArgumentError  if a model could not refer to such a file: readers refuse what might be another place
    """
    stem = f"{path.name}."
    try:
        split_location(stem, "")
        return stem.encode()
    except (InputError, UnicodeEncodeError):
        raise ArgumentError(
            "output.name", f"output {shown(str(path))}: a model under this name cannot have a data file beside it"
        ) from None


def stale_data_files(output: Output, data_name: str | None, keep: Collection[str] = ()) -> list[str]:
    """Return the names of data files of ours that only the file which is about to be replaced refers to.

    data_name  name of the new data file, which is not stale
    keep       real paths of files that stay
    """
    ours = re.compile(re.escape(output.path.name) + rf"\.[0-9a-f]{{{VERSION_DIGITS}}}\.data")
    if not any(ours.fullmatch(name) for name in output.names()) or output.status(output.path.name) is None:
        return []
    try:
        with ModelFile.open(output.path) as old:
            paths = {Path(ref.path) for ref in old.tensors.values() if ref.storage is Storage.EXTERNAL}
    except (ShoalError, OSError):
        return []  # no model, so nothing of it is known to be ours
    folder = os.path.realpath(output.path.parent)
    return sorted(
        path.name
        for path in paths
        if ours.fullmatch(path.name)
        and path.name != data_name
        and os.path.realpath(path.parent) == folder
        and os.path.realpath(path) not in keep
    )


def _small_pieces(placement: Placement, source: int, target: Sibling) -> Iterator[tuple[int, bytes]]:
    """Copy large pieces at once; yield the others' bytes with their places."""
    for piece in placement.layout.pieces:
        match piece:
            case Literal():
                yield piece.at, piece.data
            case Hole():
                if piece.slot.size <= GATHERED_BYTES_MAX:
                    yield piece.at, bytes(piece.slot.size)
            case Copy() if piece.stop - piece.start <= GATHERED_BYTES_MAX:
                data = os.pread(source, piece.stop - piece.start, piece.start)
                if len(data) != piece.stop - piece.start:
                    raise InputError("file.changed", "the template became shorter while it was copied")
                yield piece.at, data
            case Copy():
                target.copy(source, piece.start, piece.stop, piece.at)

"""The memory of an outer optimiser in a file: a weights file of its moments, read and written tile by tile."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from shoal.errors import InputError, MachineError, shown
from shoal.merge.moments import moment_name, step_name
from shoal.merge.outer import Outer, moment_dtype
from shoal.merge.source import Item, Tensor
from shoal.merge.tile import Array
from shoal.merge.tiles import Buffers
from shoal.model.file import ModelFile
from shoal.model.tensor import TensorRef
from shoal.model.weights import save_weights
from shoal.model.write import ModelWriter


class FileMoments:
    """Moments of the last merge in one file, those of this merge in another, which `commit` puts in its place.

    path     of the state; None: it starts from nothing and is forgotten.  If there is no file, the state before the
             first step is made beside it, and removed at the end.
    tensors  the tensors that are merged
    """

    def __init__(self, outer: Outer, path: str | os.PathLike[str] | None, tensors: Sequence[Tensor]) -> None:
        self._outer = outer
        self._stack = ExitStack()
        self._writer: ModelWriter | None = None
        self._file: ModelFile | None = None
        if path is None:
            return
        try:
            old = Path(path) if os.path.lexists(path) else self._fresh(Path(path), tensors)
            self._file = self._stack.enter_context(ModelFile.open(old))
            self._refs = self._file.tensors
            self._check(Path(path), tensors)
            names = [step_name(outer), *self._names(tensors)]
            self._writer = self._stack.enter_context(ModelWriter(self._file, path, names))
        except BaseException:
            self._stack.close()
            raise

    def _names(self, tensors: Sequence[Tensor]) -> list[str]:
        return [moment_name(self._outer, moment, t.key) for t in tensors for moment in self._outer.kind.moments]

    def _fresh(self, path: Path, tensors: Sequence[Tensor]) -> Path:
        """A file with the state before the first step; its numbers are never in memory."""
        try:
            folder = tempfile.mkdtemp(prefix=".shoal-", dir=path.parent)
        except OSError as error:
            raise MachineError("outer.state", f"{shown(str(path))}: {error.strerror or error}") from error
        self._stack.callback(shutil.rmtree, folder, ignore_errors=True)
        arrays: dict[str, Array] = {step_name(self._outer): np.array(0, np.int64)}
        for tensor in tensors:
            for moment in self._outer.kind.moments:
                one = self._outer.start(moment, np.empty(1, tensor.dtype))[0]
                arrays[moment_name(self._outer, moment, tensor.key)] = np.broadcast_to(one, tensor.dims)
        made = Path(folder) / "state.onnx"
        save_weights(arrays, made)
        return made

    def _check(self, path: Path, tensors: Sequence[Tensor]) -> None:
        wanted: dict[str, tuple[Any, tuple[int, ...]]] = {step_name(self._outer): (np.dtype(np.int64), ())}
        for t in tensors:
            for moment in self._outer.kind.moments:
                wanted[moment_name(self._outer, moment, t.key)] = (moment_dtype(t.dtype), t.dims)
        for name, (dtype, dims) in wanted.items():
            ref = self._refs.get(name)
            if ref is None or ref.dtype.numpy != dtype or ref.dims != dims:
                found = "nothing" if ref is None else str(ref)
                raise InputError(
                    "outer.state",
                    f"{shown(str(path))}: {shown(name)} is {found}; expected {dtype}{list(dims)}: the state of a merge "
                    f"of this model with {self._outer.kind.name}",
                )

    def step(self, outer: Outer, item: Item, base: Array, out: Array, buffers: Buffers, /) -> None:
        offset = 0
        for stretch in item:
            part = slice(offset, offset + stretch.count)
            offset += stretch.count
            old, new, refs = [], [], []
            for moment in outer.kind.moments:
                dtype = moment_dtype(out.dtype)
                buffer = buffers.get(("moment", moment), dtype, stretch.count)
                if self._file is None:
                    buffer[...] = outer.start(moment, base[part])
                else:
                    ref = self._refs[moment_name(outer, moment, stretch.tensor.key)]
                    self._file.read_into(ref, stretch.first, buffer)
                    refs.append(ref)
                old.append(buffer)
                new.append(buffers.get(("new", moment), dtype, stretch.count))
            outer.apply(base[part], out[part], tuple(old), tuple(new))
            self._write(refs, stretch.first, new)

    def _write(self, refs: list[TensorRef], first: int, new: list[Array]) -> None:
        if self._writer is not None:
            for ref, values in zip(refs, new, strict=True):
                self._writer.write(ref, first, values)

    def commit(self) -> None:
        """Count the step and put the new state in the place of the old one."""
        if self._file is None or self._writer is None:
            return
        ref = self._refs[step_name(self._outer)]
        taken = np.empty(1, np.int64)
        self._file.read_into(ref, 0, taken)
        self._writer.write(ref, 0, taken + 1)
        self._file.check_unchanged()
        self._writer.commit()

    def __enter__(self) -> FileMoments:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

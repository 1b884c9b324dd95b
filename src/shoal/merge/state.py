"""The memory of an outer optimiser in a file: a weights file of its moments, read and written tile by tile.

A state belongs to the base that its last step has made.  Two files cannot change at one instant; so the state is
written before that base, and the state before it stays beside it, as `<name>.previous`, until the base is there.
Whenever a merge stops, one of the two belongs to the base that is there.

The format: docs/FORMAT.md, "State of an outer optimiser".
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from shoal.errors import InputError, shown
from shoal.merge.moments import ANY_BASE, base_name, moment_name, step_name
from shoal.merge.outer import Outer, moment_dtype
from shoal.merge.source import Item, Tensor
from shoal.merge.tile import Array
from shoal.merge.tiles import Buffers
from shoal.model.file import ModelFile
from shoal.model.previous import keep_previous, previous_of, remove_with_data
from shoal.model.tensor import Storage, TensorRef
from shoal.model.weights import save_weights
from shoal.model.write import ModelWriter


class FileMoments:
    """Moments of the last merge in one file, those of this merge in another, which `commit` puts in its place.

    path     of the state; None: it starts from nothing and is forgotten.  If there is no file, the state before the
             first step is made as `<path>.previous`, and removed at the end.
    tensors  the tensors that are merged
    base     digest of the base model
    raises   InputError  state.base   if the state belongs to another base
                         outer.state  if it is not the state of such a merge
    """

    def __init__(
        self, outer: Outer, path: str | os.PathLike[str] | None, tensors: Sequence[Tensor], base: bytes = ANY_BASE
    ) -> None:
        self._outer = outer
        self._stack = ExitStack()
        self._writer: ModelWriter | None = None
        self._file: ModelFile | None = None
        self._data: set[str] = set()
        if path is None:
            return
        self._path = Path(path)
        try:
            self._file = self._matching(tensors, base) if os.path.lexists(path) else self._fresh(tensors)
            self._refs = self._file.tensors
            self._data = {ref.path for ref in self._refs.values() if ref.storage is Storage.EXTERNAL}
            names = [step_name(outer), base_name(outer), *self._names(tensors)]
            self._writer = self._stack.enter_context(ModelWriter(self._file, path, names, self._data))
        except BaseException:
            self._stack.close()
            raise

    def _names(self, tensors: Sequence[Tensor]) -> list[str]:
        return [moment_name(self._outer, moment, t.key) for t in tensors for moment in self._outer.kind.moments]

    # --- finding the state before ------------------------------------------------------------------------------------

    def _fresh(self, tensors: Sequence[Tensor]) -> ModelFile:
        """A file with the state before the first step; its numbers are never in memory."""
        arrays: dict[str, Array] = {
            step_name(self._outer): np.array(0, np.int64),
            base_name(self._outer): np.frombuffer(ANY_BASE, np.uint8),
        }
        for tensor in tensors:
            for moment in self._outer.kind.moments:
                one = self._outer.start(moment, np.empty(1, tensor.dtype))[0]
                arrays[moment_name(self._outer, moment, tensor.key)] = np.broadcast_to(one, tensor.dims)
        made = previous_of(self._path)
        self._stack.callback(self._remove_unused)
        save_weights(arrays, made)
        return self._stack.enter_context(ModelFile.open(made))

    def _remove_unused(self) -> None:
        """Of a merge that failed before anything was written."""
        if not os.path.lexists(self._path):
            remove_with_data(previous_of(self._path), self._path, self._data)

    def _matching(self, tensors: Sequence[Tensor], base: bytes) -> ModelFile:
        """The state that belongs to the base: the file, or the one before it if the last merge did not end."""
        file = self._stack.enter_context(ModelFile.open(self._path))
        self._check(file, tensors)
        found = self._base_of(file)
        if found in (ANY_BASE, base):
            return file
        before = previous_of(self._path)
        if os.path.lexists(before):
            older = self._stack.enter_context(ModelFile.open(before))
            self._check(older, tensors)
            if self._base_of(older) in (ANY_BASE, base):
                return older
        raise InputError(
            "state.base",
            f"{shown(str(self._path))}: the state of {self._outer.kind.name} belongs to the base with digest "
            f"{found.hex()[:16]}, which its last step made; the base given has {base.hex()[:16]}; expected that base, "
            "or no state (remove the file to start anew)",
        )

    def _base_of(self, file: ModelFile) -> bytes:
        return bytes(file.array(file.tensors[base_name(self._outer)]))

    def _check(self, file: ModelFile, tensors: Sequence[Tensor]) -> None:
        wanted: dict[str, tuple[Any, tuple[int, ...]]] = {
            step_name(self._outer): (np.dtype(np.int64), ()),
            base_name(self._outer): (np.dtype(np.uint8), (len(ANY_BASE),)),
        }
        for t in tensors:
            for moment in self._outer.kind.moments:
                wanted[moment_name(self._outer, moment, t.key)] = (moment_dtype(t.dtype), t.dims)
        for name, (dtype, dims) in wanted.items():
            ref = file.tensors.get(name)
            if ref is None or ref.dtype.numpy != dtype or ref.dims != dims:
                found = "nothing" if ref is None else str(ref)
                raise InputError(
                    "outer.state",
                    f"{shown(str(file.path))}: {shown(name)} is {found}; expected {dtype}{list(dims)}: the state of a "
                    f"merge of this model with {self._outer.kind.name}",
                )

    # --- the step ----------------------------------------------------------------------------------------------------

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

    def commit(self, base: bytes) -> None:
        """Count the step and put the new state in the place of the old one, which stays beside it.

        base  digest of the model that this step has made, which is written after this
        """
        if self._file is None or self._writer is None:
            return
        ref = self._refs[step_name(self._outer)]
        taken = np.empty(1, np.int64)
        self._file.read_into(ref, 0, taken)
        self._writer.write(ref, 0, taken + 1)
        self._writer.write(self._refs[base_name(self._outer)], 0, np.frombuffer(base, np.uint8))
        self._file.check_unchanged()
        keep_previous(self._path, Path(self._file.path))
        self._writer.commit()

    def finish(self) -> None:
        """Remove the old state: the model that this step has made is there."""
        if self._file is not None:
            remove_with_data(previous_of(self._path), self._path, self._data)

    def __enter__(self) -> FileMoments:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

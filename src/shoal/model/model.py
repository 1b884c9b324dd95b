"""A model as named arrays: loaded lazily from an ONNX file, or made from arrays; changed by assignment; saved."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from shoal.errors import ArgumentError, shown
from shoal.model.arrays import as_array
from shoal.model.digest import ModelDigest, model_digest, tensor_digest
from shoal.model.dtype import Dtype
from shoal.model.file import ModelFile
from shoal.model.weights import numpy_dtype, save_weights
from shoal.model.write import ModelWriter

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """What is known of a tensor without reading it."""

    name: str
    dtype: Dtype
    dims: tuple[int, ...]


class Model(Mapping[str, Array]):
    """Named tensors, in the order of their file or of the mapping they came from.

    ``model[name]`` reads a tensor from the file, each time anew, as an array that cannot be written to;
    ``model[name] = array`` changes it, keeping dtype and shape.  Assigned arrays are held, not copied: do not change
    them before the model is saved.  A name is the tensor's key (docs/FORMAT.md, "Keys of tensors").  Tensors for which
    numpy has no dtype (strings, elements of less than a byte) are in ``tensors`` only.

    A loaded model holds its file open until close(), or the end of a ``with``.
    """

    def __init__(self, file: ModelFile | None, arrays: Mapping[str, Array]) -> None:
        """Use shoal.load or Model.from_tensors."""
        self._file = file
        self._arrays = dict(arrays)
        self._tensors = self._describe()

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Array]) -> Model:
        """Make a model without a graph from arrays (numpy, torch, JAX ...), which are held, not copied.

        raises  ArgumentError  for a value that is no array, or of a dtype that ONNX does not have
        """
        arrays = {name: _own(array, name) for name, array in tensors.items()}
        for name, array in arrays.items():
            numpy_dtype(name, array)
        return cls(None, {name: _frozen(array) for name, array in arrays.items()})

    def _describe(self) -> dict[str, TensorInfo]:
        if self._file is not None:
            return {key: TensorInfo(key, ref.dtype, ref.dims) for key, ref in self._file.tensors.items()}
        return {name: TensorInfo(name, numpy_dtype(name, array), array.shape) for name, array in self._arrays.items()}

    @property
    def path(self) -> Path | None:
        """The file that the model was loaded from; None if it was made from arrays."""
        return None if self._file is None else Path(self._file.path)

    @property
    def file(self) -> ModelFile | None:
        """The open file behind the model; values assigned since are not in it."""
        return self._file

    @property
    def changed(self) -> frozenset[str]:
        """Names of the tensors whose values are not, or no longer, those of the file."""
        return frozenset(self._arrays)

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """Name -> dtype and shape, without reading a value."""
        return self._tensors

    def __getitem__(self, name: str) -> Array:
        """Read a tensor.

        raises  KeyError    if there is no such tensor
                InputError  if the file is not as it was
        """
        if name in self._arrays:
            return self._arrays[name]
        if self._file is None or self._tensors[name].dtype.numpy is None:
            raise KeyError(name)
        return _frozen(self._file.array(self._file.tensors[name]))

    def __setitem__(self, name: str, array: npt.ArrayLike) -> None:
        """Change a tensor.

        raises  ArgumentError  for a name that is not there, or another dtype or shape
        """
        info = self._tensors.get(name)
        if info is None:
            raise ArgumentError("model.name", f"no tensor {shown(str(name))}; a model's names are fixed")
        array = np.asarray(array) if isinstance(array, int | float | list | tuple) else _own(array, name)
        if info.dtype.numpy is None or array.dtype.newbyteorder("<") != info.dtype.numpy or array.shape != info.dims:
            raise ArgumentError(
                "model.array",
                f"tensor {shown(name)}: got {array.dtype}{list(array.shape)}, "
                f"expected {info.dtype.name}{list(info.dims)}",
            )
        self._arrays[name] = _frozen(np.asarray(array, dtype=info.dtype.numpy, order="C"))

    def __iter__(self) -> Iterator[str]:
        return (name for name, info in self._tensors.items() if info.dtype.numpy is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        where = "from arrays" if self._file is None else f"from {shown(str(self._file.path))}"
        return f"<shoal.Model of {len(self)} tensors, {where}>"

    # A mapping's own == would read every tensor and then ask an array for its truth; digests compare models.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def digest(self, threads: int = 1) -> bytes:
        """Return the digest of the tensors as they are now: 32 bytes (docs/FORMAT.md, "Digests")."""
        if self._file is not None:
            return model_digest(self._file, self._arrays, threads)
        digest = ModelDigest()
        for name, array in self._arrays.items():
            digest.add(name, self._tensors[name].dtype.code, array.shape, tensor_digest(array))
        return digest.digest()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model; a loaded one keeps everything of its file but the changed values.

        The output appears whole or not at all.  It may be the model's own file.
        raises  ArgumentError, InputError, MachineError  as ModelWriter and save_weights
        """
        if self._file is None:
            save_weights(self._arrays, path)
            return
        own = os.path.realpath(path) == os.path.realpath(self._file.path)
        with ModelWriter(self._file, path, self._arrays) as writer:
            for name, array in self._arrays.items():
                writer.write(self._file.tensors[name], 0, array)
            writer.commit(self.digest() if writer.has_data_file else None)
        if own:
            # The old file, and a data file of ours beside it, are gone; go on with what stands in their place.
            self._file.close()
            self._file = ModelFile.open(path)
            self._arrays.clear()

    def close(self) -> None:
        """Close the file.  Tensors that were not assigned can no longer be read.  May be called more than once."""
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def load(path: str | os.PathLike[str]) -> Model:
    """Open an ONNX file as named tensors; no value is read yet.

    raises  InputError    if it is no ONNX model, or a damaged one
            MachineError  if it cannot be read
    """
    return Model(ModelFile.open(path), {})


def save(model: Model | Mapping[str, Array], path: str | os.PathLike[str]) -> None:
    """Write a model, or named arrays as a weights file (docs/FORMAT.md, "Weights files").

    raises  ArgumentError, InputError, MachineError  as `Model.save`
    """
    if not isinstance(model, Mapping):
        raise ArgumentError("weights.type", f"got {type(model).__name__}; expected a Model, or a dict of arrays")
    (model if isinstance(model, Model) else Model.from_tensors(model)).save(path)


def _own(array: object, name: object) -> Array:
    """Return a framework's array as numpy's own; one of numpy may lie in any order."""
    return np.asarray(array) if isinstance(array, np.ndarray | np.generic) else as_array(array, "model", str(name))


def _frozen(array: Array) -> Array:
    """Return a view that cannot be written to: writing into it would change nothing in the file."""
    view = array.view()
    view.flags.writeable = False
    return view

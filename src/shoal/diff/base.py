"""A model as an update sees it: flat vector, tensors that must be equal, tensors that stay local, and its digest."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from shoal.errors import InputError, shown
from shoal.model.digest import ModelDigest, PieceDigest, stored_digest
from shoal.model.file import ModelFile
from shoal.model.layout import Layout, Part
from shoal.model.tensor import TensorRef

Native = npt.NDArray[np.generic]


class Base:
    """The model that an update starts from; it is hashed while it is read.

    selected  key -> whether the tensor is in the update; all others are local
    file      ModelFile
    layout    of the selected floating tensors
    local     keys of the tensors that are not selected, in the order of the file
    fixed     the selected ones that are never part of a difference: they must be equal in both models
    """

    def __init__(self, file: ModelFile, selected: Callable[[str], bool]) -> None:
        self.file = file
        self.layout = Layout.of_file(file, selected)
        self.local = tuple(key for key in file.tensors if not selected(key))
        placed = {tensor.key for tensor in self.layout.tensors}
        self.fixed: list[TensorRef] = [
            ref for key, ref in file.tensors.items() if key not in placed and selected(key)
        ]  # fmt: skip
        self._pieces = {key: PieceDigest(file.tensors[key].nbytes) for key in placed}
        self._whole: dict[str, bytes] = {}

    @property
    def nbytes(self) -> int:
        """Bytes of the layout's tensors."""
        return sum(self.file.tensors[tensor.key].nbytes for tensor in self.layout.tensors)

    def read(self, part: Part, out: Native) -> None:
        """Read and hash a part: each element once, in nearly rising order; thread-safe.

        out  of the tensor's dtype, part.count elements
        """
        read_part(self.file, part, out)
        self._pieces[part.tensor.key].add(part.first * out.itemsize, out.view(np.uint8).data)

    def digests(self) -> dict[str, bytes]:
        """Digest of each tensor that is not local.  All parts must have been read."""
        if not self._whole:
            self._whole = {ref.key: stored_digest(self.file, ref) for ref in self.fixed}
            self._whole |= {key: pieces.digest() for key, pieces in self._pieces.items()}
        return self._whole

    def digest(self) -> bytes:
        """Digest of the model without its local tensors; without such tensors it is the model's own."""
        return model_digest_of(self.file, self.digests())


def model_digest_of(file: ModelFile, digests: dict[str, bytes]) -> bytes:
    """Digest of the model that consists of these tensors of a file, of which the digests may be another's."""
    model = ModelDigest()
    for key, digest in digests.items():
        ref = file.tensors[key]
        model.add(key, ref.dtype.code, ref.dims, digest)
    return model.digest()


def read_part(file: ModelFile, part: Part, out: Native) -> None:
    """Read a part of a tensor: part.count elements of its own dtype."""
    file.read_into(file.tensors[part.tensor.key], part.first, out)


def refuse_nonfinite(file: ModelFile, part: Part, values: Native) -> None:
    """InputError ``tensor.nonfinite`` naming file, tensor and element if a value is NaN or Inf."""
    finite = np.isfinite(values)
    if not finite.all():
        at = int(np.argmin(finite))
        raise InputError(
            "tensor.nonfinite",
            f"{shown(file.path)}: tensor {shown(part.tensor.key)} has {values[at]} at element {part.first + at} of "
            f"{part.tensor.elements}; expected finite numbers",
        )


def refuse_nonfinite_range(file: ModelFile, layout: Layout, first: int, count: int) -> None:
    """As `refuse_nonfinite`, for a range of the flat vector, which is read anew."""
    for part in layout.parts(first, count):
        values = np.empty(part.count, part.tensor.numpy)
        read_part(file, part, values)
        refuse_nonfinite(file, part, values)

"""The model in force at a node: named arrays, the flat vector of what is learned, and what merges make of it.

Every member makes the new model itself, from the same base and the same merged diff: base + diff in float32 (or in the
tensor's own wider type), rounded once to the tensor's type; where the swarm has an outer optimiser, its step from the
base towards that.  So all have the same bits, and the digest that a quorum signs is the one that `shoal inspect` shows.

A *state* is what a member that missed a round fetches: the bytes of all tensors of the layout, in its order, and behind
them what the next round needs beside them (carried.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from shoal.errors import ArgumentError, InputError, shown
from shoal.kernels.reference_coding import Float64s
from shoal.ledger.digest import ZERO_DIGEST
from shoal.merge.outer import Outer
from shoal.model.digest import ModelDigest, tensor_digest
from shoal.model.layout import Layout, Placed
from shoal.model.weights import numpy_dtype
from shoal.swarm.carried import Carried, CarriedForm
from shoal.swarm.coder import Float32s
from shoal.swarm.parcel import Bytes
from shoal.swarm.stock import STOCK

Array = npt.NDArray[Any]

#: arrays, and what is carried beside them, as bytes -> digest, and the arrays where they were put
Keep = Callable[[Mapping[str, Array], Bytes], tuple[bytes, Mapping[str, Array]]]


class Book:
    """One model, and what it may become.

    arrays  name -> array; not written to, each new model has new ones.  A node's are read from its file when they are
            asked for: a model that nobody looks at takes no memory
    layout  which of them are merged
    local   which of the others each site may have of its own; here they keep the base's values
    digest  32 bytes, docs/FORMAT.md, "Digests"
    keep    called with each new model before it can be voted for: a model that a quorum has certified must not be
            lost, even where all fall out at once.  Tensors of what it is given are made when they are asked for, anew
            each time
    outer   the swarm's optimiser; None: the merged model is the new one
    """

    def __init__(
        self,
        arrays: Mapping[str, Array],
        layout: Layout | None = None,
        outer: Outer | None = None,
        local: Iterable[str] = (),
    ) -> None:
        self.arrays = arrays
        self.local = frozenset(local)
        self.layout = layout or Layout.of_arrays(dict(arrays))
        self.digest = digest_of(arrays)
        self.keep: Keep = _held
        self._form = CarriedForm(self.layout, None if outer is None or outer.identity else outer)
        self._carried = Carried()
        self._carried_digest = ZERO_DIGEST
        self._next: dict[bytes, tuple[Mapping[str, Array], Carried, bytes]] = {}

    @property
    def rms(self) -> Float64s | None:
        """Statistics of the last round, float64[blocks of the grid]; None where it was in the clear."""
        return self._carried.rms

    @property
    def carried(self) -> Bytes:
        """What the next round needs beside the arrays."""
        return self._form.pack(self._carried)

    def carry(self, data: Bytes) -> None:
        """Take what an earlier life carried beside these arrays.  raises  InputError  ``model.state``"""
        self._carried = self._form.unpack(data)
        self._carried_digest = self._form.digest(self._carried)

    def holds(self, digest: bytes, carried: bytes) -> bool:
        """Whether this is the model of that digest, with what belongs to it."""
        return (self.digest, self._carried_digest) == (digest, carried)

    def diff(self, local: Mapping[str, Array]) -> Float32s:
        """local - base, float32[layout.elements].

        raises  ArgumentError  ``diff.model``: other names, shapes or types, or a tensor differs that is neither merged
                               nor local
        """
        _require_same(self.arrays, local)
        free = self.local.union(tensor.key for tensor in self.layout.tensors)
        for name in self.arrays.keys() - free:
            array = self.arrays[name]
            if not np.array_equal(array, local[name], equal_nan=array.dtype.kind == "f"):
                raise ArgumentError(
                    "diff.model", f"tensor {shown(name)} ({array.dtype}) is not merged, but differs from the base"
                )
        found: Float32s = STOCK.take(4 * self.layout.elements).view(np.float32)
        for tensor, start, stop in self._places():
            ours, theirs = self.arrays[tensor.key], np.asarray(local[tensor.key])
            wide = np.float64 if ours.dtype == np.float64 else np.float32
            out = found[start:stop].reshape(ours.shape)
            # Subtracted in the wider type, then rounded to float32.
            np.subtract(theirs, ours, out=out, dtype=wide, casting="unsafe")
        return found

    def settle(self, diff: Float32s, rms: Float64s | None = None) -> tuple[bytes, bytes]:
        """Make the new model of a merged diff and the round's statistics; its digest, and that of what it carries.

        It waits under these until it is adopted.

        raises  MachineError  it cannot be kept;  InputError  the optimiser's step leaves the tensors' types
        """
        moved = Moved(self.arrays, self._places(), diff)
        made, carried = self._form.step(self.arrays, moved, self._carried, rms)
        beside = self._form.digest(carried)
        digest, kept = self.keep(made, self._form.pack(carried))
        self._next[digest] = (kept, carried, beside)
        return digest, beside

    def put(self, digest: bytes, arrays: Mapping[str, Array]) -> None:
        """The arrays of that model are here, too: look for them there, if it is still in force."""
        if digest == self.digest:
            self.arrays = arrays

    def wait(self, arrays: Mapping[str, Array], carried: Bytes) -> bytes:
        """What an earlier life of this node has made may still be certified; its digest.

        raises  InputError  ``model.state``
        """
        digest, beside = digest_of(arrays), self._form.unpack(carried)
        self._next[digest] = (arrays, beside, self._form.digest(beside))
        return digest

    def adopt(self, digest: bytes, carried: bytes) -> bool:
        """The model of that digest is certified, with what it carries: it is the base from here on; False if it was
        never made here."""
        if self.holds(digest, carried):
            return True
        made = self._next.get(digest)
        if made is None or made[2] != carried:
            return False
        (self.arrays, self._carried, self._carried_digest), self.digest = made, digest
        self._next.clear()
        return True

    def state(self) -> Bytes:
        """See the module."""
        pieces = [np.ascontiguousarray(self.arrays[t.key]).reshape(-1).view(np.uint8) for t, _, _ in self._places()]
        return np.concatenate([*pieces, self.carried])

    @property
    def state_bytes(self) -> int:
        return sum(t.elements * t.numpy.itemsize for t in self.layout.tensors) + self._form.nbytes

    def restore(self, state: Bytes, digest: bytes, carried: bytes) -> None:
        """Take a state that others sent, if it is the model of that digest, with what belongs to it.

        raises  InputError  ``model.state``
        """
        merged = {tensor.key for tensor in self.layout.tensors}
        made, at = {name: self.arrays[name] for name in self.arrays if name not in merged}, 0
        if len(state) != self.state_bytes:
            raise InputError("model.state", f"a state of {len(state)} bytes; expected {self.state_bytes}")
        for tensor in self.layout.tensors:
            size = tensor.elements * tensor.numpy.itemsize
            made[tensor.key] = state[at : at + size].copy().view(tensor.numpy).reshape(tensor.dims)
            at += size
        found = digest_of(made)
        if found != digest:
            raise InputError("model.state", f"a state of model {found.hex()[:16]}; expected {digest.hex()[:16]}")
        beside = self._form.unpack(state[at:])
        if self._form.digest(beside) != carried:
            raise InputError("model.state", f"what came beside model {digest.hex()[:16]} is not what was certified")
        self.arrays, self.digest = made, digest
        self._carried, self._carried_digest = beside, carried
        self._next.clear()

    def _places(self) -> list[tuple[Placed, int, int]]:
        starts = self.layout.starts
        return [(t, a, b) for t, a, b in zip(self.layout.tensors, starts, starts[1:], strict=False)]


class Moved(Mapping[str, Array]):
    """A base and a merged diff as the model that they make; each tensor is made when it is asked for.

    places  tensors of the layout, and where they begin and end in ``diff``
    """

    def __init__(self, base: Mapping[str, Array], places: Iterable[tuple[Placed, int, int]], diff: Float32s) -> None:
        self._base = base
        self._places = {tensor.key: (start, stop) for tensor, start, stop in places}
        self._diff = diff

    def __getitem__(self, name: str) -> Array:
        old = self._base[name]
        if name not in self._places:
            return old
        start, stop = self._places[name]
        wide = np.float64 if old.dtype == np.float64 else np.float32
        new = STOCK.take(old.nbytes).view(old.dtype).reshape(old.shape)
        with np.errstate(over="ignore"):
            # Added in the wider type, then rounded to the tensor's own.
            np.add(old, self._diff[start:stop].reshape(old.shape), out=new, dtype=wide, casting="unsafe")
        return new

    def __iter__(self) -> Iterator[str]:
        return iter(self._base)

    def __len__(self) -> int:
        return len(self._base)


def digest_of(arrays: Mapping[str, Array]) -> bytes:
    """As `Model.digest`, of one array after the other."""
    digest = ModelDigest()
    for name in arrays:
        add_to(digest, name, arrays[name])
    return digest.digest()


def add_to(digest: ModelDigest, name: str, array: Array) -> None:
    """Add an array to a model's digest."""
    digest.add(name, numpy_dtype(name, array).code, array.shape, tensor_digest(array))


def _held(arrays: Mapping[str, Array], _carried: Bytes) -> tuple[bytes, Mapping[str, Array]]:
    """A model that is kept in memory alone."""
    made = dict(arrays)
    return digest_of(made), made


def _require_same(ours: Mapping[str, Array], theirs: Mapping[str, Array]) -> None:
    for name in sorted(ours.keys() ^ theirs.keys()):
        where = "is missing" if name in ours else "is not in the base"
        raise ArgumentError("diff.model", f"tensor {shown(name)} {where}; expected the tensors of the base")
    for name in ours:
        array = ours[name]
        other = np.asarray(theirs[name])
        if other.shape != array.shape or other.dtype != array.dtype:
            raise ArgumentError(
                "diff.model",
                f"tensor {shown(name)} is {other.dtype}{list(other.shape)}; expected {array.dtype}{list(array.shape)}",
            )

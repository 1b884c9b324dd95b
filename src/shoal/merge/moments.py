"""The memory of an outer optimiser: its moments, from one merge to the next, as named arrays.

Names: "<optimiser>/step" (int64, number of steps taken) and "<optimiser>/<moment>/<key of the tensor>"; in files also
"<optimiser>/base" (uint8[32], digest of the model that the last step has made).
"""

from __future__ import annotations

from collections.abc import Iterable, MutableMapping, Sequence
from typing import Any, Protocol

import numpy as np

from shoal.errors import ArgumentError, shown
from shoal.merge.outer import Outer, moment_dtype
from shoal.merge.source import Item, Tensor
from shoal.merge.tile import Array
from shoal.merge.tiles import Buffers

#: a digest that stands for "not known": the state goes with any base.
ANY_BASE = bytes(32)


class Moments(Protocol):
    """Where the moments are read and written while the data are swept."""

    def step(self, outer: Outer, item: Item, base: Array, out: Array, buffers: Buffers, /) -> None:
        """Take one outer step on the stretches of ``item``, which lie one behind the other in ``base`` and ``out``."""
        ...


class MemoryMoments:
    """Moments in a dict of the caller, which `finish` changes when the whole merge is done.

    state  name -> array; empty before the first step
    """

    def __init__(self, outer: Outer, state: MutableMapping[str, Any], tensors: Iterable[Tensor]) -> None:
        self._state = state
        self._name = outer.kind.name
        self._old: dict[str, Array] = {}
        self._new: dict[str, Array] = {}
        fresh = not state
        if not fresh and step_name(outer) not in state:
            raise ArgumentError(
                "outer.state", f"the optimiser's state has no {step_name(outer)}: it is not a state of {self._name}"
            )
        for tensor in tensors:
            for moment in outer.kind.moments:
                name = moment_name(outer, moment, tensor.key)
                dtype = moment_dtype(tensor.dtype)
                if not fresh:
                    self._old[name] = _state_array(state, name, dtype, tensor.elements)
                self._new[name] = np.empty(tensor.elements, dtype)

    def step(self, outer: Outer, item: Item, base: Array, out: Array, _buffers: Buffers, /) -> None:
        offset = 0
        for stretch in item:
            span, part = slice(stretch.first, stretch.first + stretch.count), slice(offset, offset + stretch.count)
            offset += stretch.count
            names = [moment_name(outer, moment, stretch.tensor.key) for moment in outer.kind.moments]
            old = tuple(
                self._old[name][span] if name in self._old else outer.start(moment, base[part])
                for name, moment in zip(names, outer.kind.moments, strict=True)
            )
            outer.apply(base[part], out[part], old, tuple(self._new[name][span] for name in names))

    def finish(self, outer: Outer, shapes: Iterable[tuple[str, Sequence[int]]]) -> None:
        """Put the new moments and the step into the caller's dict, in the tensors' shapes."""
        for key, dims in shapes:
            for moment in outer.kind.moments:
                name = moment_name(outer, moment, key)
                if name in self._new:
                    self._state[name] = self._new[name].reshape(tuple(dims))
        taken = int(np.asarray(self._state.get(step_name(outer), 0)))
        self._state[step_name(outer)] = np.array(taken + 1, np.int64)
        if base_name(outer) in self._state:
            # From a file.  Arrays in memory are not hashed, which takes longer than to merge them: no longer known.
            self._state[base_name(outer)] = np.frombuffer(ANY_BASE, np.uint8).copy()


def _state_array(state: MutableMapping[str, Any], name: str, dtype: np.dtype[Any], elements: int) -> Array:
    found = state.get(name)
    if not isinstance(found, np.ndarray) or found.dtype != dtype or found.size != elements:
        what = "nothing" if found is None else f"{getattr(found, 'dtype', type(found).__name__)}"
        raise ArgumentError(
            "outer.state", f"the optimiser's state {shown(name)} is {what}; expected {elements} numbers of {dtype}"
        )
    return np.ascontiguousarray(found).reshape(-1)


def step_name(outer: Outer) -> str:
    return f"{outer.kind.name}/step"


def base_name(outer: Outer) -> str:
    return f"{outer.kind.name}/base"


def moment_name(outer: Outer, moment: str, key: str) -> str:
    return f"{outer.kind.name}/{moment}/{key}"

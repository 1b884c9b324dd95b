"""What a rule works on: one stretch of one tensor (a tile), and the merge that it is part of (a run)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from shoal.kernels import dispatch

Array = npt.NDArray[Any]
Float64s = npt.NDArray[np.float64]

#: tiles start at multiples of this many elements of their tensor (counter-based random numbers rely on it)
TILE_ALIGNMENT = 8


class Kernels(Protocol):
    """The kernels of rules that look at each coordinate alone; the contract stands in `reference`."""

    def weighted_mean(
        self, inputs: Sequence[Array], weights: Sequence[float], out: Array, *, threads: int = 0
    ) -> bool: ...
    def median(
        self, inputs: Sequence[Array], weights: Sequence[float] | None, out: Array, *, threads: int = 0
    ) -> bool: ...
    def trimmed_mean(
        self, inputs: Sequence[Array], weights: Sequence[float] | None, trim: int, out: Array, *, threads: int = 0
    ) -> bool: ...


@dataclass(slots=True)
class Tile:
    """One stretch of one tensor, the same in every model.

    key      the tensor's key; empty where several small tensors are joined (rules that look at each coordinate alone)
    first    first element of the stretch in its tensor, a multiple of TILE_ALIGNMENT
    inputs   the models that count, in the caller's order: 1-D, one length, one dtype; not to be written to
    base     the base model, or None
    out      where the result goes (while measuring: empty); never one of the inputs
    threads  what kernels are told
    kernels  who does it: the CPU, or a device through staged copies
    """

    key: str
    first: int
    inputs: list[Array]
    base: Array | None
    out: Array
    threads: int
    kernels: Kernels = dispatch


#: tile in, ``tile.out`` written; returns True if every number read was finite
Apply = Callable[[Tile], bool]
#: tile in, a number of partial results (first axis) out, to be added up in order
Measure = Callable[[Tile], Array]


@dataclass(frozen=True, slots=True)
class Combine:
    """How a rule makes the result, once it has measured what it needs.

    models  places (among the models that count) of those ``apply`` wants as ``tile.inputs``; None: all
    """

    apply: Apply
    models: tuple[int, ...] | None = None


class Run(Protocol):
    """The merge as a rule sees it.

    count       models that count (weight above 0), N >= 1
    places      their places in the caller's list
    weights     their weights as given (float64, finite, > 0), or None where the caller gave none
    parameters  the rule's own, checked and complete
    notes       for the report: what the rule chose
    """

    @property
    def count(self) -> int: ...
    @property
    def places(self) -> tuple[int, ...]: ...
    @property
    def weights(self) -> tuple[float, ...] | None: ...
    @property
    def parameters(self) -> Mapping[str, Any]: ...
    @property
    def notes(self) -> dict[str, Any]: ...

    @property
    def models_at_once(self) -> int:
        """Models whose blocks of GRAM_BLOCK elements fit in memory at once."""
        ...

    def total(self, measure: Measure, models: Sequence[int] | None = None, *, blocks: bool = False) -> Array:
        """Read the data once and return the sum of all partial results, added up in order.

        models  places (among the models that count) of those to read; None: all
        blocks  ``measure`` works in blocks of GRAM_BLOCK elements: no tile may end inside one

        The order is: tensors by key, tiles as they lie in the tensor, first axis of each partial result.  So the bits
        depend neither on the size of tiles nor on threads, if ``measure`` gives the same parts for any tiles.
        """
        ...

    def gram(self, centre: int) -> Float64s:
        """Inner products of model - model ``centre`` (in float64) of all models, over all data: float64[N, N].

        Blocks of GRAM_BLOCK elements of a tensor are summed as the kernel does; the sum over blocks is exact, and
        rounded once.  So it does not matter where which block was measured.
        """
        ...

    def small(self) -> Tile | None:
        """The run's one tensor as a tile, if it is small enough to lie in memory at once."""
        ...

    def nonfinite(self) -> frozenset[int]:
        """Read the data once; places (among the models that count) of those with a NaN or Inf."""
        ...

"""What the next round needs of this one beside the model: statistics that scales are made from, and the memory of the
outer optimiser.

It is made by every member alike, so a quorum signs its digest with the model's, and whoever fetches a model from a peer
can tell that this came with it.  As bytes, always of one length for one swarm:

    8 bytes for each block of the grid   root mean squares, float64; NaN where the round was in the clear
    with an outer optimiser: 8 bytes     steps taken, int64
    and for each of its moments          the moment of each tensor, in the order of the layout, in its dtype

    digest = H("carried", SHA-256(bytes)), or zeros where there are neither statistics nor steps
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from shoal.diff.grid import Grid
from shoal.domain import hashed
from shoal.errors import InputError
from shoal.kernels.reference_coding import Float64s
from shoal.ledger.digest import ZERO_DIGEST
from shoal.merge.library import merge
from shoal.merge.moments import moment_name, step_name
from shoal.merge.outer import Outer, moment_dtype
from shoal.merge.tile import Array
from shoal.model.layout import Layout
from shoal.swarm.parcel import DOMAIN, Bytes


@dataclass(frozen=True)
class Carried:
    """rms      float64[blocks of the grid], of the last secure round; None before
    moments  of the outer optimiser, as merge/moments.py names them; empty before its first step.  Not written to
    """

    rms: Float64s | None = None
    moments: Mapping[str, Array] = field(default_factory=dict)


class CarriedForm:
    """How a swarm's `Carried` are made, and what they look like as bytes.

    nbytes  of each
    """

    def __init__(self, layout: Layout, outer: Outer | None = None) -> None:
        self._layout = layout
        self._outer = outer
        self._blocks = Grid.of(layout.elements).blocks
        self._moments = [] if outer is None else list(self._named(outer))
        self.nbytes = 8 * self._blocks + (8 if outer else 0) + sum(n * d.itemsize for _, d, n in self._moments)

    def _named(self, outer: Outer) -> Iterator[tuple[str, np.dtype[Any], int]]:
        for moment in outer.kind.moments:
            for tensor in self._layout.tensors:
                yield moment_name(outer, moment, tensor.key), moment_dtype(tensor.numpy), tensor.elements

    def step(
        self, base: Mapping[str, Array], merged: Mapping[str, Array], before: Carried, rms: Float64s | None
    ) -> tuple[Mapping[str, Array], Carried]:
        """Take the outer step, if there is one to take: the new model, and what it carries.

        base    the model that the updates were taken from
        raises  InputError  ``merge.overflow``, ``tensor.nonfinite``
        """
        moments: dict[str, Any] = dict(before.moments)
        if self._outer is not None:
            keys = [tensor.key for tensor in self._layout.tensors]
            settings: dict[str, Any] = dict(self._outer.settings)
            stepped = merge(
                [{key: merged[key] for key in keys}],
                base={key: base[key] for key in keys},
                outer=self._outer.kind.name,
                outer_state=moments,
                **settings,
            )
            merged = {**{name: merged[name] for name in merged if name not in stepped}, **stepped}
        return merged, Carried(rms, moments)

    def digest(self, carried: Carried) -> bytes:
        """See the module."""
        if carried.rms is None and not carried.moments:
            return ZERO_DIGEST
        whole = hashlib.sha256()
        for piece in self._pieces(carried):
            whole.update(piece.data)
        return hashed(DOMAIN, "carried", whole.digest())

    def pack(self, carried: Carried) -> Bytes:
        """uint8[nbytes]"""
        return np.concatenate(list(self._pieces(carried)))

    def _pieces(self, carried: Carried) -> Iterator[Bytes]:
        rms = np.full(self._blocks, np.nan) if carried.rms is None else carried.rms
        yield np.ascontiguousarray(rms, "<f8").view(np.uint8)
        if self._outer is None:
            return
        yield np.array([carried.moments.get(step_name(self._outer), 0)], "<i8").view(np.uint8)
        for name, dtype, elements in self._moments:
            moment = carried.moments[name] if carried.moments else np.zeros(elements, dtype)
            yield np.ascontiguousarray(moment).reshape(-1).view(np.uint8)

    def unpack(self, data: Bytes) -> Carried:
        """raises  InputError  ``model.state``: bytes that no `pack` gives"""
        if len(data) != self.nbytes:
            raise InputError("model.state", f"{len(data)} bytes beside the model; expected {self.nbytes}")
        at = 8 * self._blocks
        rms = data[:at].copy().view("<f8")
        if not (np.isnan(rms).all() or (np.isfinite(rms).all() and (rms >= 0).all())):
            raise InputError("model.state", "statistics that are no root mean squares")
        moments: dict[str, Array] = {}
        if self._outer is not None:
            taken = data[at : at + 8].copy().view("<i8")[0]
            at += 8
            if taken:
                moments[step_name(self._outer)] = np.array(taken)
            for name, dtype, elements in self._moments if taken else ():
                end = at + elements * dtype.itemsize
                moments[name] = data[at:end].copy().view(dtype)
                at = end
        return Carried(None if np.isnan(rms).all() else rms, moments)

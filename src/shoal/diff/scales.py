"""The table of scales that a round agrees on: for each block of the rotation the clip C, and so the step Delta = C / L.

A clip of 0 says that a block is zero for everybody (frozen layers): it is not sent.  The table is made from public
numbers alone, by `next_scales` from the statistics that were summed in the round before, or by `fallback_scales` from
the last merged diff; so every participant makes the same one, and the plan names it by its digest (docs/FORMAT.md).

Source: docs/PROTOCOL.md, "Scales".
"""

from __future__ import annotations

import hashlib
import math
import struct
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from shoal.diff.grid import Grid
from shoal.errors import ArgumentError
from shoal.kernels.coding import Blocks
from shoal.kernels.reference_coding import Float32s, Float64s

#: room for updates that grow from one round to the next.  The clip of the mean of n lies above that of a single update
#: already; with more room, 15 %, rounding would cost 20 % more than with this, wherever updates do not grow.
MARGIN: Final = 1.05
#: how far the root mean square of one participant may lie above that of the merged diff, if nothing better is known
SPREAD: Final = 2.0
#: clips below would make steps whose inverse is not finite in float32, clips above make products that are not
CLIP_LEAST, CLIP_MOST = 2.0**-90, 2.0**90
#: g of a block whose scale is not known: root mean squares from 1e-7 to 0.5 are told well by 255 participants
FIRST_UNIT: Final = 2.0**-4

_SCALES: Final = b"shoal scales 1\n"


@dataclass(frozen=True, eq=False)
class Scales:
    """The table.

    grid    blocks of the whole vector
    factor  clips in units of the expected root mean square, > 0
    clips   float32[grid.blocks], 0 or CLIP_LEAST ... CLIP_MOST
    raises  ArgumentError  ``scales.value``
    """

    grid: Grid
    factor: float
    clips: Float32s

    def __post_init__(self) -> None:
        clips = self.clips
        if clips.dtype != np.float32 or clips.shape != (self.grid.blocks,):
            raise ArgumentError(
                "scales.value", f"clips are {clips.dtype}{list(clips.shape)}; expected float32[{self.grid.blocks}]"
            )
        if not (math.isfinite(self.factor) and self.factor > 0):
            raise ArgumentError("scales.value", f"clips at {self.factor} root mean squares; expected a positive number")
        if not ((clips == 0) | ((clips >= CLIP_LEAST) & (clips <= CLIP_MOST))).all():
            raise ArgumentError("scales.value", f"a clip is neither 0 nor within {CLIP_LEAST} to {CLIP_MOST}")

    @property
    def active(self) -> npt.NDArray[np.bool_]:
        """bool[grid.blocks]: which blocks are sent."""
        return self.clips > 0

    @cached_property
    def blocks(self) -> Blocks:
        """The blocks that are sent; their places are counted without gaps."""
        return Blocks(self.grid.starts()[self.active], self.grid.logs()[self.active], 0)

    @cached_property
    def digest(self) -> bytes:
        """32 bytes: names the table in a plan."""
        head = struct.pack("<QfQ", self.grid.elements, self.factor, self.grid.blocks)
        return hashlib.sha256(_SCALES + head + self.clips.astype("<f4").tobytes()).digest()

    @cached_property
    def units(self) -> Float64s:
        """float64[grid.blocks]: g, the power of two at or below each clip; FIRST_UNIT where there is none."""
        _, exponents = np.frexp(self.clips.astype(np.float64))
        units: Float64s = np.where(self.active, np.ldexp(1.0, exponents - 1), FIRST_UNIT)
        return units

    @property
    def norm(self) -> float:
        """Norm of a whole update of the expected size."""
        sizes = np.exp2(self.grid.logs().astype(np.float64))
        return float(np.sqrt(np.sum((self.clips.astype(np.float64) / self.factor) ** 2 * sizes)))

    def inverse_steps(self, bound: int) -> Float32s:
        """float32[m]: 1 / Delta of each block that is sent, for L = ``bound``."""
        return (bound / self.clips[self.active].astype(np.float64)).astype(np.float32)

    def decoding(self, bound: int, total: float) -> Float64s:
        """float64[m]: what `coding.decode` multiplies by, Delta / (131072 A), for A = ``total``."""
        scales: Float64s = self.clips[self.active].astype(np.float64) / (bound * 131072.0 * total)
        return scales


def _table(grid: Grid, factor: float, rms: Float64s) -> Scales:
    clips = np.where(rms > 0, np.clip(factor * rms, CLIP_LEAST, CLIP_MOST), 0.0)
    return Scales(grid, factor, clips.astype(np.float32))


def next_scales(grid: Grid, rms: Float64s, kappa: float, margin: float = MARGIN) -> Scales:
    """From the root mean square R of a participant's numbers in each block: C = margin * kappa * R.

    rms  float64[grid.blocks], finite, >= 0; a block of zeros is not sent
    """
    return _table(grid, float(np.float32(margin * kappa)), rms)


def fallback_scales(grid: Grid, merged: Float32s, kappa: float, participants: int) -> Scales:
    """From the last merged diff float32[grid.elements] alone: C = kappa * min(sqrt(n), 2) * its root mean square.

    Right within a factor of 2 unless participants' updates cancel to less than a quarter.
    """
    squares = block_squares(grid, merged)
    rms = np.sqrt(squares / np.exp2(grid.logs().astype(np.float64)))
    return _table(grid, float(np.float32(kappa)), min(math.sqrt(participants), SPREAD) * rms)


def block_squares(
    grid: Grid, x: Float32s, base: Float32s | None = None, only: npt.NDArray[np.bool_] | None = None
) -> Float64s:
    """float64[grid.blocks]: sum of the squares of x - base over each block (the rotation does not change it).

    only  bool[grid.blocks]: blocks that are wanted; the others are 0
    raises  ArgumentError  ``diff.nonfinite``, naming the element
    """
    found = np.zeros(grid.blocks)
    starts, logs = grid.starts().tolist(), grid.logs().tolist()
    for j in range(grid.blocks) if only is None else np.flatnonzero(only).tolist():
        part = slice(starts[j], starts[j] + (1 << logs[j]))
        values = x[part] if base is None else x[part] - base[part]
        wide = values.astype(np.float64)
        found[j] = float(wide @ wide)
        if not math.isfinite(found[j]):
            at = int(np.flatnonzero(~np.isfinite(values))[0])
            raise ArgumentError("diff.nonfinite", f"element {starts[j] + at} is {values[at]}; expected finite numbers")
    return found

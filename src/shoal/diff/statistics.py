"""The lane of statistics: a few 64-bit words beside each update, masked and summed as the update is.

    for each block of the grid
        q        round(2**48 |alpha z|^2 / (B g^2)), its mean square: g is a public power of two; at least 1 unless the
                 block is all zero, at most 2**62 / n (`word_most`)
    for each run of 2**20 elements of the grid
        totals   sum of the integers that were sent.  The sum of the merged integers differs only if the ring wrapped
    for each run
        clipped  numbers that the bound cut: too many, and the scale is too small
    for each run
        zeros    blocks that are all zero

Only sums over the survivors become known: R, the root mean square of a participant's block, from which the next round's
clips are made, and the canaries.  R^2 = (sum of |alpha z|^2 / B) / divisor, which takes the weights out: the sum of the
alphas' squares if they are public, so that R is that of z; the sum of the alphas where only that is known.

Source: docs/PROTOCOL.md, "Scales".
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from shoal.diff.clip import tail
from shoal.diff.grid import Grid
from shoal.diff.scales import CLIP_LEAST, Scales
from shoal.errors import PeerError
from shoal.kernels.coding import BlockSums
from shoal.kernels.reference_coding import Float64s, Int64s

Uint64s = npt.NDArray[np.uint64]

#: log2 of the elements that one set of canaries watches
RUN_LOG: Final = 20
_ONE: Final = 2.0**48
#: words below say a mean square to less than one in a thousand
_COARSE: Final = 2**10


def word_most(planned: int) -> int:
    """The largest q of one of ``planned`` participants: 2**62 / n, so that sums fit, and exact in float64."""
    return 2**62 // planned & ~1023


def runs(grid: Grid) -> int:
    """Sets of canaries of a grid."""
    return -(-grid.places >> RUN_LOG)


def words_count(grid: Grid) -> int:
    """Words of the lane."""
    return grid.blocks + 3 * runs(grid)


def _by_run(grid: Grid, values: npt.NDArray[Any]) -> Int64s:
    """Sums of int64[grid.blocks] over the blocks of each run; no block lies in two."""
    found = np.zeros(runs(grid), np.int64)
    np.add.at(found, grid.starts() >> RUN_LOG, values)
    return found


def _spread(scales: Scales, values: Int64s) -> Int64s:
    """int64[m] of the blocks that are sent -> int64[grid.blocks]."""
    found = np.zeros(scales.grid.blocks, np.int64)
    found[scales.active] = values
    return found


def words_of(scales: Scales, squares: Float64s, sums: BlockSums | None, planned: int) -> Uint64s:
    """One participant's words, before masks: uint64[words_count].

    squares  float64[grid.blocks]: sum of (alpha z)^2 over each block, sent or not; finite
    sums     of `coding.encode` over the blocks that are sent; None if only statistics are sent
    planned  participants
    """
    grid = scales.grid
    sizes = np.exp2(grid.logs().astype(np.float64))
    with np.errstate(over="ignore"):
        share = np.rint(squares / sizes / scales.units**2 * _ONE)
    q = np.where(squares > 0, np.clip(share, 1, float(word_most(planned))), 0).astype(np.uint64)
    nothing = np.zeros(runs(grid), np.int64)
    totals = _by_run(grid, _spread(scales, sums.totals)) if sums else nothing
    clipped = _by_run(grid, _spread(scales, sums.clipped)) if sums else nothing
    zeros = _by_run(grid, (squares == 0).astype(np.int64))
    return np.concatenate([q, *(c.view(np.uint64) for c in (totals, clipped, zeros))])


@dataclass(frozen=True, eq=False)
class Statistics:
    """What the summed lane says.

    rms        float64[grid.blocks]: R
    saturated  a block may be larger than its word can say; a table made from this one has larger units: ask again
    coarse     a block is so small that its word says little; a table made from this one has smaller units
    totals, clipped, zeros  int64[runs]
    survivors  participants in the sum
    """

    rms: Float64s
    saturated: bool
    coarse: bool
    totals: Int64s
    clipped: Int64s
    zeros: Int64s
    survivors: int


def read(scales: Scales, words: Uint64s, survivors: int, divisor: float, planned: int) -> Statistics:
    """The summed words of the survivors.

    divisor  sum over the survivors of alpha^2 (public weights), of alpha (private), or their number (uniform)
    raises   PeerError  ``statistics.value``: no honest participants' words add up to this
    """
    grid = scales.grid
    q = words[: grid.blocks]
    totals, clipped, zeros = words[grid.blocks :].view(np.int64).reshape(3, runs(grid))
    most = word_most(planned)
    sent = _by_run(grid, np.where(scales.active, np.int64(1) << grid.logs().astype(np.int64), 0))
    blocks = _by_run(grid, np.ones(grid.blocks, np.int64))
    for wrong, what in (
        ((q > np.uint64(survivors * most)).any(), "squares"),
        (((clipped < 0) | (clipped > survivors * sent)).any(), "counts of clipped numbers"),
        (((zeros < 0) | (zeros > survivors * blocks)).any(), "counts of zero blocks"),
    ):
        if wrong:
            raise PeerError("statistics.value", f"the sum of {what} is more than {survivors} participants can have")
    rms = np.sqrt(q.astype(np.float64) / _ONE / divisor) * scales.units
    coarse = (q > 0) & (q < _COARSE) & (scales.units > CLIP_LEAST)
    return Statistics(rms, bool((q >= np.uint64(most)).any()), bool(coarse.any()), totals, clipped, zeros, survivors)


def clipped_most(factor: float) -> float:
    """The share of numbers that may be clipped: three times what a normal distribution has 15 % above the expected
    scale, and one in twenty: residuals that are carried swell a round's updates, and clipping is repaired by them."""
    return min(1.0, 0.05 + 3 * 2 * tail(factor / 1.15))


def check(scales: Scales, found: Statistics, merged_totals: Iterable[int]) -> None:
    """Compare the canaries with the merged integers.

    merged_totals  sum of the merged integers over the blocks of each run
    raises  PeerError  ``slot.wrapped``: the ring wrapped somewhere, the sum is wrong;
                       ``slot.clipped``: the scales are too small, do it again with those of these statistics
    """
    grid = scales.grid
    for run, (told, seen) in enumerate(zip(found.totals.tolist(), merged_totals, strict=True)):
        if told != seen:
            raise PeerError(
                "slot.wrapped",
                f"the integers of run {run} add up to {seen}; their senders say {told}: a ring has wrapped",
            )
    sent = _by_run(grid, np.where(scales.active, np.int64(1) << grid.logs().astype(np.int64), 0))
    limit = clipped_most(scales.factor)
    for run, (count, places) in enumerate(zip(found.clipped.tolist(), sent.tolist(), strict=True)):
        most = math.ceil(limit * places * found.survivors)
        if count > most:
            raise PeerError(
                "slot.clipped",
                f"{count} of {places * found.survivors} numbers of run {run} were clipped; at most {most} may be: "
                "updates are larger than their scales",
            )

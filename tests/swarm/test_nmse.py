"""Accuracy of the mean of ten, with the scales that a swarm would use, against the figures that it has to reach.

Masks cancel bit for bit (test_slot.py), so they are left out here.  Tolerance 5 %, as drawn updates spread.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
import pytest

from shoal.diff.clip import mean_error
from shoal.diff.grid import Grid
from shoal.diff.scales import Scales
from shoal.diff.weights import Weighting
from shoal.swarm.slot_coding import Merged, SlotCoding, Terms, scales_after

N, D = 10, 2**20
DRAWS = {
    "normal": lambda rng: rng.standard_normal(D),
    "lognormal": lambda rng: rng.lognormal(size=D),
    "student-t": lambda rng: rng.standard_t(3, D),
}
Float32s = npt.NDArray[np.float32]


def updates(source: str, aligned: bool) -> list[Float32s]:
    rng = np.random.default_rng(7)
    drawn = [DRAWS[source](rng).astype(np.float32) for _ in range(1 if aligned else N)]
    return drawn * N if aligned else drawn


def merged(coding: SlotCoding, diffs: list[Float32s]) -> Merged:
    uploads = [coding.encode(p, x).data for p, x in enumerate(diffs)]
    sums = [
        coding.reduce(shard, {p: data[span] for p, data in enumerate(uploads)}, None)
        for shard, span in enumerate(coding.spans)
    ]
    return coding.decode(sums, range(N))


def nmse(diffs: list[Float32s], bits: int, wrong: float = 1.0) -> float:
    """``wrong``: factor of all clips."""
    seed = hashlib.sha256(b"plan").digest()
    terms, alone = (Terms.of(N, b, Weighting.UNIFORM, seed) for b in (bits, None))
    grid = Grid.of(D)
    scales = Scales(grid, 1.0, np.zeros(grid.blocks, np.float32))
    for _ in range(2):
        scales = scales_after(scales, merged(SlotCoding(alone, b"r", scales, range(N), N), diffs).statistics, terms)
    scales = Scales(grid, scales.factor, scales.clips * np.float32(wrong))
    found = merged(SlotCoding(terms, b"r", scales, range(N), N), diffs).diff
    mean = np.mean(np.stack(diffs), axis=0, dtype=np.float64)
    return float(np.sum((found - mean) ** 2) / np.mean([x.astype(np.float64) @ x for x in diffs]))


@pytest.mark.parametrize("source", DRAWS)
@pytest.mark.parametrize(("aligned", "most"), [(False, 7.2e-4), (True, 1.2e-4)])
def test_ring_of_8_bits(source: str, aligned: bool, most: float) -> None:
    assert 0.8 * most < nmse(updates(source, aligned), 8) < 1.05 * most


@pytest.mark.parametrize(("aligned", "most"), [(False, 2.8e-8), (True, 2.8e-9)])
def test_ring_of_16_bits(aligned: bool, most: float) -> None:
    assert 0.8 * most < nmse(updates("normal", aligned), 16) < 1.05 * most


def test_wrong_scales() -> None:
    """0.7 x: 20 times the error where updates agree, by clipping; 1.5 x: twice the error where they do not."""
    aligned, apart = updates("normal", True), updates("normal", False)
    small, large = nmse(aligned, 8, 0.7), nmse(apart, 8, 1.5)
    assert 2e-3 < small < 3.2e-3 and small == pytest.approx(mean_error(0.7 * 3.54, 12, N * N), rel=0.05)
    assert large == pytest.approx(1.6e-3, rel=0.06)

"""The table of scales: its digest, what is sent, and how the next one is made."""

from __future__ import annotations

import numpy as np
import pytest

from shoal.diff.grid import Grid
from shoal.diff.scales import CLIP_LEAST, CLIP_MOST, MARGIN, Scales, block_squares, fallback_scales, next_scales
from shoal.errors import ArgumentError

GRID = Grid.of(3000)


def clips(*values: float) -> np.ndarray:
    found = np.zeros(GRID.blocks, np.float32)
    found[: len(values)] = values
    return found


def test_golden_digest() -> None:
    scales = Scales(GRID, 3.5, clips(1.0, 0.0, 0.25))
    assert scales.digest.hex() == "e8d24e7aa5cccc08889b4044c590ee664777a6ab6f0a95a6eb9e9916c70a6944"
    others = [
        Scales(GRID, 3.25, scales.clips),
        Scales(Grid.of(2999), 3.5, scales.clips),
        Scales(GRID, 3.5, clips(1.0, 0.0, 0.5)),
    ]
    assert len({scales.digest, *(other.digest for other in others)}) == 4


def test_zero_blocks_are_not_sent() -> None:
    scales = Scales(GRID, 3.5, clips(1.0, 0.0, 0.25))
    assert scales.blocks.starts.tolist() == [0, 2048] and scales.blocks.logs.tolist() == [10, 8]
    assert scales.blocks.places == 1024 + 256 and scales.blocks.first == 0
    assert scales.inverse_steps(12).tolist() == [12.0, 48.0]
    assert scales.decoding(8, 2.0).tolist() == [2.0**-21, 2.0**-23]


def test_units_are_powers_of_two_below_the_clip() -> None:
    scales = Scales(GRID, 3.5, clips(1.0, 0.0, 0.25, 0.3, 7.9, CLIP_LEAST, CLIP_MOST))
    assert scales.units[:7].tolist() == [1.0, 2.0**-4, 0.25, 0.25, 4.0, CLIP_LEAST, CLIP_MOST]


def test_next() -> None:
    rms = np.linspace(0, 2, GRID.blocks)
    rms[3], rms[4] = 1e-300, 1e300
    scales = next_scales(GRID, rms, 3.0)
    want = np.float32(MARGIN * 3) * rms
    assert scales.clips[0] == 0 and scales.clips[3] == CLIP_LEAST and scales.clips[4] == CLIP_MOST
    assert np.allclose(scales.clips[5:], want[5:], rtol=1e-6)
    sizes = 2.0 ** GRID.logs()
    usual = next_scales(GRID, np.ones(GRID.blocks), 3.0)
    assert usual.norm == pytest.approx(np.sqrt(sizes.sum()), rel=1e-6)


def test_fallback() -> None:
    merged = np.random.default_rng(1).standard_normal(3000).astype(np.float32)
    merged[1024:2048] = 0
    for n, spread in ((2, 2**0.5), (4, 2), (100, 2)):
        scales = fallback_scales(GRID, merged, 3.0, n)
        assert scales.clips[0] == pytest.approx(
            3 * spread * np.sqrt(np.mean(merged[:1024].astype(float) ** 2)), rel=1e-6
        )
        assert scales.clips[1] == 0 and (scales.clips[2:] > 0).all()


def test_squares() -> None:
    x = np.random.default_rng(2).standard_normal(3000).astype(np.float32)
    base = np.random.default_rng(3).standard_normal(3000).astype(np.float32)
    only = np.zeros(GRID.blocks, bool)
    only[[0, GRID.blocks - 1]] = True
    found = block_squares(GRID, x, base, only)
    assert found[0] == pytest.approx(((x - base)[:1024].astype(float) ** 2).sum()) and not found[1:-1].any()
    x[2999] = np.nan
    with pytest.raises(ArgumentError) as caught:
        block_squares(GRID, x)
    assert caught.value.code == "diff.nonfinite" and "2999" in str(caught.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0, 2.0**-91, 2.0**91])
def test_bad_clips(value: float) -> None:
    with pytest.raises(ArgumentError):
        Scales(GRID, 3.5, clips(value))


def test_bad_tables() -> None:
    for factor in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ArgumentError):
            Scales(GRID, factor, clips(1.0))
    for wrong in (clips(1.0)[:-1], clips(1.0).astype(np.float64)):
        with pytest.raises(ArgumentError):
            Scales(GRID, 3.5, wrong)

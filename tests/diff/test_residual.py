"""Error feedback: what coding loses arrives later, and never grows."""

from __future__ import annotations

import numpy as np
import pytest

from shoal.diff.grid import Grid
from shoal.diff.quantiser import Quantiser
from shoal.diff.residual import Residual, own_part, wanted
from shoal.diff.ring_width import Width
from shoal.diff.scales import Scales
from shoal.errors import ArgumentError
from shoal.kernels.reference_ring import sum_words


def test_where_it_is_worth_it() -> None:
    assert [wanted(bound) for bound in (1, 42, 62, 63, 700)] == [True, True, True, False, False]
    assert not wanted(12, private=True)
    for n in range(3, 256):
        assert wanted(Width.equal(n, 8).bound if n <= 127 else 1) and wanted(Width.equal(n, 12).bound) == (n > 32)


def quantiser(n: int, rid: int, clip: float) -> Quantiser:
    grid = Grid.of(1024)
    scales = Scales(grid, clip, np.full(grid.blocks, clip, np.float32))
    return Quantiser(scales, Width.equal(n, 8), bytes(32), rid.to_bytes(4, "little"), tuple(range(n)))


@pytest.mark.parametrize("feedback", [True, False])
def test_clipping_is_repaired_over_rounds(feedback: bool) -> None:
    """All hold the same update; a tenth of it is clipped.  With feedback the mean over rounds converges on it."""
    n, rounds, clip = 3, 24, 1.6
    x = np.random.default_rng(1).standard_normal(1024).astype(np.float32)
    residuals = [Residual(1024) for _ in range(n)]
    told = np.zeros(1024)
    errors = []
    for r in range(rounds):
        q = quantiser(n, r, clip)
        words = []
        for i, residual in enumerate(residuals):
            given = residual.added(x) if feedback else x
            words.append(np.empty(q.word_bytes, np.uint8))
            q.encode(i, 1.0, given, words[-1])
            if feedback:
                residual.kept(given, own_part(q, i, 1.0, words[-1]), np.sqrt(1024))
        total, out = np.empty(q.word_bytes, np.uint8), np.empty(1024, np.float32)
        sum_words(words, 8, total)
        q.decode(total, range(n), n, None, out)
        told += out
        errors.append(float(np.mean((told / (r + 1) - x) ** 2)))
    if feedback:
        assert errors[-1] < errors[0] / 20
        assert all(np.linalg.norm(residual.carried) < 2 * np.sqrt(1024) for residual in residuals)
    else:
        assert errors[-1] > 0.3 * errors[0] > 0.005


def test_carries_exactly_what_was_lost() -> None:
    q = quantiser(3, 0, 1.0)
    x = np.random.default_rng(1).standard_normal(1024).astype(np.float32)
    words = np.empty(q.word_bytes, np.uint8)
    q.encode(1, 0.5, x, words)
    own = own_part(q, 1, 0.5, words)
    residual = Residual(1024)
    residual.kept(residual.added(x), own, 1e9)
    assert np.array_equal(residual.carried, x - own) and residual.carried.any()
    assert np.array_equal(residual.added(x), x + (x - own))


def test_left_out() -> None:
    residual = Residual(4)
    x = np.array([8.0, -4, 2, 0], np.float32)
    for want in (4.0, 6.0, 7.0):
        residual.missed(residual.added(x))
        assert residual.carried[0] == want
    residual.missed(residual.added(x))
    assert not residual.carried.any()
    residual.kept(x, np.zeros(4, np.float32), 1e9)
    assert residual.missed_rounds == 0


def test_never_longer_than_two_updates() -> None:
    residual = Residual(4)
    residual.kept(np.array([3.0, 4, 0, 0], np.float32), np.zeros(4, np.float32), 1.0)
    assert np.linalg.norm(residual.carried) == pytest.approx(2) and residual.carried[1] / residual.carried[
        0
    ] == pytest.approx(4 / 3)


def test_wrong_diffs() -> None:
    for x in (np.zeros(3, np.float32), np.zeros(4)):
        with pytest.raises(ArgumentError):
            Residual(4).added(x)  # type: ignore[arg-type]

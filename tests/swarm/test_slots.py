"""Round after round: scales follow the updates, residuals repair what is clipped, everybody gets the same."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from slot_bench import draws

from shoal.diff.weights import Weighting
from shoal.errors import ArgumentError, PeerError
from shoal.limits import EPOCH_SLOTS_MAX
from shoal.swarm.slot import Mishaps
from shoal.swarm.slots import Settings, Slots


def test_scales_follow_the_updates() -> None:
    slots = Slots(3, 3000, Settings(bits=16, weighting=Weighting.UNIFORM), Random(1).randbytes)
    assert slots.scales is None
    for size in (1e-6, 1.3e-6, 1e-6, 1e-7):
        diffs = [d * np.float32(size) for d in draws(3, 3000)]
        outcome = slots.merge(diffs)
        nmse = np.mean((outcome.diff - np.mean(diffs, axis=0)) ** 2) / size**2
        assert nmse < 2e-6
    assert slots.scales is not None and slots.scales.norm == pytest.approx(1e-7 * np.sqrt(3000), rel=0.05)


def test_large_and_small_first_updates() -> None:
    for size in (1e-12, 1e-3, 50.0, 1e6):
        diffs = [d * np.float32(size) for d in draws(4, 500)]
        outcome = Slots(4, 500, Settings(bits=16), Random(2).randbytes).merge(diffs, [5, 5, 5, 5])
        assert np.mean((outcome.diff - np.mean(diffs, axis=0)) ** 2) < 2e-6 * size**2


def test_updates_that_outgrow_their_scales() -> None:
    slots = Slots(3, 1000, Settings(weighting=Weighting.UNIFORM, feedback=False), Random(3).randbytes)
    slots.merge(draws(3, 1000))
    large = [d * np.float32(10) for d in draws(3, 1000, seed=2)]
    with pytest.raises(PeerError) as caught:
        slots.merge(large)
    assert caught.value.code == "slot.clipped"
    again = slots.merge(large)
    assert np.mean((again.diff - np.mean(large, axis=0)) ** 2) < 100 * 1e-3


@pytest.mark.parametrize("feedback", [True, False])
def test_cumulative_mean(feedback: bool) -> None:
    """The same updates for some rounds, heavy-tailed: with feedback the mean over rounds converges on theirs."""
    n, d = 10, 1024
    rng = np.random.default_rng(4)
    diffs = [rng.standard_t(3, d).astype(np.float32) for _ in range(n)]
    slots = Slots(n, d, Settings(bits=8, weighting=Weighting.UNIFORM, feedback=feedback, shards=1), Random(5).randbytes)
    told, errors = np.zeros(d), []
    for r in range(8):
        told += slots.merge(diffs).diff
        errors.append(float(np.mean((told / (r + 1) - np.mean(diffs, axis=0)) ** 2)))
    ratio = errors[-1] / errors[0]
    assert ratio < (1 / 20 if feedback else 1 / 4)
    if not feedback:
        assert ratio > 1 / 20


def test_everybody_could_have_computed_the_same() -> None:
    results = []
    for _ in range(2):
        slots = Slots(4, 700, Settings(), Random(7).randbytes)
        results.append([slots.merge(draws(4, 700, seed=r), [3, 2, 5, 1]) for r in range(2)])
    for a, b in zip(*results, strict=True):
        assert np.array_equal(a.diff, b.diff) and all(np.array_equal(x, y) for x, y in zip(a.sums, b.sums, strict=True))


def test_left_out_and_back() -> None:
    slots = Slots(4, 600, Settings(weighting=Weighting.UNIFORM), Random(8).randbytes)
    diffs = draws(4, 600)
    out = slots.merge(diffs, mishaps=Mishaps(mute=frozenset([2])))
    assert out.survivors == (0, 1, 3) and slots._residuals[2].missed_rounds == 1
    assert np.array_equal(slots._residuals[2].carried, diffs[2] * np.float32(0.5))
    assert slots.merge(diffs).survivors == (0, 1, 2, 3) and slots._residuals[2].missed_rounds == 0


def test_blocks_that_are_zero_are_left_out_until_they_are_not() -> None:
    slots = Slots(3, 4096, Settings(weighting=Weighting.UNIFORM), Random(9).randbytes)
    diffs = draws(3, 4096)
    frozen = [d.copy() for d in diffs]
    for d in frozen:
        d[1024:3072] = 0
    first = slots.merge(frozen)
    assert sum(s.size for s in first.sums[:-1]) == 2048 and not first.diff[1024:3072].any()
    slots.merge(diffs)
    third = slots.merge(diffs)
    assert sum(s.size for s in third.sums[:-1]) == 4096
    # what the second round could not send was carried
    assert np.mean((third.diff[1024:3072] - 2 * np.mean(diffs, axis=0)[1024:3072]) ** 2) < 0.1


def test_named_arrays() -> None:
    rng = np.random.default_rng(10)
    arrays = [
        {"b": rng.standard_normal((3, 5)).astype(np.float32), "a": rng.standard_normal(7), "steps": np.int64(4)}
        for _ in range(3)
    ]
    for each in arrays:
        each["steps"] = np.array([4])
    slots = Slots(3, 22, Settings(bits=16, weighting=Weighting.UNIFORM), Random(11).randbytes)
    merged = slots.merge_arrays(arrays)
    assert set(merged) == {"a", "b"} and merged["b"].shape == (3, 5)
    for name in merged:
        assert np.allclose(merged[name], np.mean([each[name] for each in arrays], axis=0), atol=0.01)
    with pytest.raises(ArgumentError) as caught:
        slots.merge_arrays([arrays[0], arrays[1], {"a": arrays[2]["a"]}])
    assert caught.value.code == "layout.differs"


def test_private_weights_above_the_cap() -> None:
    slots = Slots(3, 300, Settings(bits=16, weighting=Weighting.PRIVATE, cap=100), Random(12).randbytes)
    diffs = draws(3, 300)
    outcome = slots.merge(diffs, [50, 100, 1000])
    mean = (0.5 * diffs[0] + diffs[1] + diffs[2]) / 2.5
    assert outcome.capped == (2,) and np.sqrt(np.mean((outcome.diff - mean) ** 2)) < 0.01


def test_wrong_inputs() -> None:
    slots = Slots(3, 100, draw=Random(13).randbytes)
    for diffs, samples in (
        (draws(2, 100), [1, 1]),
        (draws(3, 100), []),
        (draws(3, 100), [1, 1, 0]),
        (draws(3, 99), [1, 1, 1]),
    ):
        with pytest.raises(ArgumentError):
            slots.merge(diffs, samples)
    with pytest.raises(ArgumentError) as caught:
        Slots(2, 100, draw=Random(13).randbytes).merge(draws(2, 100), [1, 1])
    assert caught.value.code == "secure.parameters"


def test_a_new_epoch() -> None:
    slots = Slots(3, 64, Settings(weighting=Weighting.UNIFORM, shards=1), Random(14).randbytes)
    slots.merge(draws(3, 64))
    before = slots._keys[0]
    slots._slot = EPOCH_SLOTS_MAX
    slots.merge(draws(3, 64))
    assert slots._keys[0] is not before and slots._keys[0].first == EPOCH_SLOTS_MAX

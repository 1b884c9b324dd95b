"""One whole slot: the masked sum is the plain sum, bit for bit, whoever falls out; who tampers is named."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from slot_bench import draws, flat_scales, make_slot, plain_sums, same_sums, spread

from shoal.diff import quantiser
from shoal.diff.weights import Weighting
from shoal.errors import ArgumentError, PeerError
from shoal.kernels import coding, ring
from shoal.kernels.coding import RING_BITS
from shoal.swarm.slot import EVERYTHING, GATHER, REPAIR, UPLOAD, Mishaps, Slot
from shoal.swarm.slot_coding import scales_after
from shoal.thresholds import thresholds


def error(slot: Slot, diff: Any, survivors: tuple[int, ...]) -> float:
    mean = np.mean([slot.sites[p].diff for p in survivors], axis=0)
    return float(np.sqrt(np.mean((diff - mean) ** 2)))


@pytest.mark.parametrize("bits", RING_BITS)
@pytest.mark.parametrize("n", [3, 4, 7, 10])
def test_masked_sum_is_the_plain_sum(n: int, bits: int) -> None:
    slot = make_slot(draws(n, 700), bits)
    outcome = slot.run()
    assert outcome.survivors == outcome.shared == tuple(range(n))
    assert same_sums(slot, outcome) and outcome.total == n
    step = 4.0 / slot.coding.terms.width.bound  # type: ignore[union-attr]
    assert outcome.diff is not None and error(slot, outcome.diff, outcome.survivors) < 0.02 + step


@pytest.mark.parametrize("n", [31, 100])
def test_many(n: int) -> None:
    lost = thresholds(n).d_max
    mute, vanished = spread(lost // 2, n, 1), spread(lost - lost // 2, n, 0)
    slot = make_slot(draws(n, 200), 12, mishaps=Mishaps(mute=mute, vanished=vanished), shards=2)
    outcome = slot.run()
    assert len(outcome.survivors) == n - len(mute) and same_sums(slot, outcome)


@pytest.mark.parametrize("n", [3, 5, 10, 16])
@pytest.mark.parametrize("extreme", [1.0, -1.0])
def test_all_clipped_the_same_way(n: int, extreme: float) -> None:
    """The largest sums there are; the scale is told wrong on purpose, and that is found out only after the sums."""
    diffs = [np.float32(extreme) * draws(1, 128)[0]] * n
    slot = make_slot(diffs, 8, scales=flat_scales(128, 2.0**-40))
    with pytest.raises(PeerError) as caught:
        slot.run()
    assert caught.value.code == "slot.clipped"
    assert slot.found is not None
    totals = slot.found.statistics.totals
    bound = slot.coding.terms.width.bound  # type: ignore[union-attr]
    assert abs(int(totals[0])) <= 128 * n * bound and slot.found.statistics.clipped.tolist() == [128 * n]


@pytest.mark.parametrize("n", [4, 7, 10])
def test_up_to_d_max_fall_out_at_every_stage(n: int) -> None:
    lost = thresholds(n).d_max
    diffs = draws(n, 300)
    for gone in (frozenset(range(1, 1 + lost)), spread(lost, n, 1)):
        for stage in ("silent", "mute", "torn", "corrupt", "vanished"):
            slot = make_slot(diffs, 8, mishaps=Mishaps(**{stage: gone}), shards=3)
            outcome = slot.run()
            left = tuple(range(n)) if stage == "vanished" else tuple(p for p in range(n) if p not in gone)
            # what is lost on the way to a keeper is not lost on the way to oneself
            assert set(left) <= set(outcome.survivors) and same_sums(slot, outcome)
            if stage != "torn":
                assert outcome.survivors == left
            assert error(slot, outcome.diff, outcome.survivors) < 0.3


def test_all_kinds_of_falling_out_in_one_slot() -> None:
    mishaps = Mishaps(silent=frozenset([1]), mute=frozenset([4]), corrupt=frozenset([7]), vanished=frozenset([9, 12]))
    slot = make_slot(draws(16, 16 * 1024), 12, mishaps=mishaps)
    outcome = slot.run()
    assert set(range(16)) - set(outcome.shared) == {1}
    assert set(outcome.shared) - set(outcome.survivors) == {4, 7} and same_sums(slot, outcome)
    assert all(outcome.received[p][REPAIR] for p in (10, 13)), "backups of keepers that vanished pull uploads"


@pytest.mark.parametrize("stage", ["silent", "mute", "corrupt", "vanished"])
def test_below_the_floor_nothing_is_opened(stage: str) -> None:
    n = 10
    gone = spread(thresholds(n).d_max + 1, n, 1)
    slot = make_slot(draws(n, 100), 8, mishaps=Mishaps(**{stage: gone}))
    with pytest.raises(PeerError) as caught:
        slot.run()
    assert caught.value.code == "slot.floor" and not any(c["open"] for c in slot._sent)


def flip(words: Any) -> None:
    words[len(words) // 2] ^= 0x80


@pytest.mark.parametrize("bits", [8, 12, 16, 32])
@pytest.mark.parametrize("last", [False, True])
def test_a_keeper_that_alters_a_sum_is_named(bits: int, last: bool) -> None:
    shard = 4 if last else 2
    slot = make_slot(draws(4, 4096), bits, mishaps=Mishaps(sums={shard: flip}))
    with pytest.raises(PeerError) as caught:
        slot.run()
    keeper = slot.keepers[shard]
    assert caught.value.code == "slot.check" and f"participant {keeper} made it" in str(caught.value)


def test_who_vouches_for_something_else_is_named() -> None:
    slot = make_slot(draws(5, 300), 8, mishaps=Mishaps(vouches={3: lambda sums: sums + np.uint64(1)}))
    with pytest.raises(PeerError) as caught:
        slot.run()
    assert caught.value.code == "slot.check" and "participant 3 vouches" in str(caught.value)


def test_withheld_nonces_cost_more_checks_and_nothing_else() -> None:
    slot = make_slot(draws(5, 300), 8, mishaps=Mishaps(closed=frozenset([2])))
    usual = make_slot(draws(5, 300), 8)
    told, all_told = slot.run(), usual.run()
    assert np.array_equal(told.diff, all_told.diff)  # type: ignore[arg-type]
    assert told.sent[0]["statements"] == all_told.sent[0]["statements"] + 4 * 32 * (1 + 8)


def test_weights() -> None:
    diffs, samples = draws(4, 500), [100, 50, 25, 400]
    for weighting, cap, alphas in (
        (Weighting.PUBLIC, 0, np.array(samples) / 400),
        (Weighting.PRIVATE, 200, np.array([0.5, 0.25, 0.125, 1.0])),
        (Weighting.UNIFORM, 0, np.ones(4)),
    ):
        slot = make_slot(diffs, 16, samples=samples, weighting=weighting, cap=cap)
        outcome = slot.run()
        mean = sum(a * d for a, d in zip(alphas, diffs, strict=True)) / alphas.sum()
        assert same_sums(slot, outcome) and outcome.total == pytest.approx(alphas.sum(), rel=1e-6)
        assert np.sqrt(np.mean((outcome.diff - mean) ** 2)) < 0.01
        assert outcome.capped == ((3,) if weighting == Weighting.PRIVATE else ())
        assert np.allclose(outcome.statistics.rms[:1], 1, atol=0.45 if weighting == Weighting.PRIVATE else 0.1)


def test_private_rounding() -> None:
    slot = make_slot(draws(3, 500), 16, rounding="private")
    outcome = slot.run()
    assert same_sums(slot, outcome) and error(slot, outcome.diff, outcome.survivors) < 0.01


def test_statistics_alone() -> None:
    diffs = [d * np.float32(0.01) for d in draws(4, 5000)]
    for d in diffs:
        d[1024:2048] = 0
    slot = make_slot(diffs, None, scales=flat_scales(5000, 0.0, 1.0))
    outcome = slot.run()
    assert outcome.diff is None and len(outcome.sums) == 1 and same_sums(slot, outcome)
    assert not outcome.statistics.saturated and outcome.statistics.zeros.tolist() == [4]
    terms = make_slot(diffs, 8).plan.terms
    table = scales_after(slot.plan.scales, outcome.statistics, terms)
    assert table.clips[1] == 0 and np.allclose(table.clips[[0, 2, 3]] / table.factor, 0.01, rtol=0.1)
    after = make_slot(diffs, 8, scales=table, number=6)
    assert after.run().sums[0].size and after.coding.model_bytes == 5000 - 1024 + 56


def test_a_diff_that_is_not_numbers_is_not_uploaded() -> None:
    diffs = draws(3, 100)
    diffs[1][17] = np.nan
    slot = make_slot(diffs, 8)
    with pytest.raises(ArgumentError) as caught:
        slot.run()
    assert caught.value.code == "diff.nonfinite" and 1 not in slot.uploads and "17" in str(caught.value)


def test_a_ring_that_wraps_is_found_out() -> None:
    """A participant puts in the largest words there are and tells its true total: the sum wraps."""
    slot = make_slot(draws(3, 128), 8)
    outcome = slot.run()
    sums = plain_sums(slot, outcome)
    model = np.concatenate(sums[:-1])
    statistics = slot.coding.decode(sums, outcome.survivors).statistics
    statistics.totals[0] += 128 * 120
    model += np.uint8(120)
    parts = [model[span] for span in slot.coding.spans[:-1]]
    with pytest.raises(PeerError) as caught:
        slot.coding.judge([*parts, sums[-1]], statistics)
    assert caught.value.code == "slot.wrapped"


@pytest.mark.parametrize(("bits", "bytes_each"), [(8, 2.0), (12, 3.0), (16, 4.0), (32, 8.0)])
@pytest.mark.parametrize("n", [3, 10])
def test_bytes_on_the_wire(bits: int, bytes_each: float, n: int) -> None:
    """Both legs: 2 b/8 (n-1)/n for each parameter and participant, in the mean; the rest does not grow with it."""
    d = 10 * 1024
    slot = make_slot(draws(n, d), bits)
    outcome = slot.run()
    f = (n - 1) / n
    statistics = 8 * (slot.plan.scales.grid.blocks + 3)
    both = [sum(c[leg] for leg in (UPLOAD, GATHER)) for c in outcome.sent]
    assert sum(both) / n == pytest.approx(bytes_each * f * d + 2 * statistics * f)
    assert sum(sum(c.values()) for c in outcome.sent) == sum(sum(c.values()) for c in outcome.received)
    small = max(sum(c[leg] for leg in EVERYTHING if leg not in (UPLOAD, GATHER)) for c in outcome.sent)
    assert small < 700 * n + 35 * n * 32, "shares, secrets and statements: some hundred bytes for each other"


def test_no_byte_is_wasted_just_above_a_power_of_two() -> None:
    d = 2**16 + 1
    slot = make_slot([np.zeros(d, np.float32) + 1] * 3, 8, scales=flat_scales(d, 64.0), shards=1)
    outcome = slot.run()
    assert slot.coding.model_bytes - d == 63 and sum(c[UPLOAD] for c in outcome.sent) < 2 * 1.01 * d


class Recorder:
    """Counts keystream bytes of masks."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.by_lane: Counter[int] = Counter()
        add, encode = ring.add_streams, coding.encode

        def added(data: Any, bits: int, streams: Any, lane: int, *more: Any, **named: Any) -> None:
            self.by_lane[lane] += len(streams) * len(data)
            add(data, bits, streams, lane, *more, **named)

        def encoded(x: Any, blocks: Any, keys: Any, spec: Any, out: Any, **named: Any) -> Any:
            if named.get("streams") is not None:
                self.by_lane[ring.LANE_MODEL] += len(named["streams"]) * len(out)
            return encode(x, blocks, keys, spec, out, **named)

        monkeypatch.setattr(ring, "add_streams", added)
        monkeypatch.setattr(quantiser.coding, "encode", encoded)


@pytest.mark.parametrize("dropped", [(), (3,), (1, 6), (0, 4, 8)])
def test_keystream_bytes(dropped: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """k + 1 streams to upload, 1 to unmask, 1 to check; each that fell out costs its partners' streams once more for
    each of the two: |D| k / n for each word and participant."""
    n, d, bits = 10, 640, 8
    recorder = Recorder(monkeypatch)
    slot = make_slot(draws(n, d), bits, mishaps=Mishaps(mute=frozenset(dropped)))
    outcome = slot.run()
    k, left = thresholds(n).k, len(outcome.survivors)
    edges = sum(
        1 for i in outcome.survivors for j in dropped if slot._ids[j] in slot.sites[i].keys._graph[slot._ids[i]]
    )
    assert left == n - len(dropped) and len(dropped) * (k - len(dropped) + 1) <= edges <= len(dropped) * k
    assert recorder.by_lane[ring.LANE_MODEL] == d * (left * (k + 1) + 2 * (left + edges))


def test_the_same_diff_in_two_slots_looks_like_noise() -> None:
    diffs = draws(3, 4096)
    first, second = make_slot(diffs, 8, seed=1), make_slot(diffs, 8, number=6, seed=2)
    first.run(), second.run()
    a, b = (s.uploads[0].data[: s.coding.model_bytes].astype(float) for s in (first, second))
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.06
    counts = np.bincount(first.uploads[0].data[: first.coding.model_bytes], minlength=256)
    assert ((counts - 16) ** 2 / 16).sum() < 255 + 6 * np.sqrt(2 * 255)


def test_no_plain_words_on_the_wire() -> None:
    slot = make_slot(draws(3, 1024), 8)
    slot.run()
    for p, upload in slot.uploads.items():
        bare = slot.coding.encode(p, slot.sites[p].diff).data.tobytes()
        masked = upload.data.tobytes()
        assert not any(bare[at : at + 16] in masked for at in range(0, len(bare) - 16, 7))


def test_another_plan_is_another_slot() -> None:
    diffs = draws(3, 100)
    plans = [
        make_slot(diffs, 8).plan,
        make_slot(diffs, 12).plan,
        make_slot(diffs, 8, scales=flat_scales(100, 5.0)).plan,
        make_slot(diffs, 8, number=6).plan,
        make_slot(diffs, 8, shards=2).plan,
        make_slot(diffs, 8, rounding="private").plan,
        make_slot(diffs, 8, samples=[1, 2, 3], weighting=Weighting.PUBLIC).plan,
    ]
    assert len({plan.rid for plan in plans}) == len(plans)
    assert make_slot(diffs, 8).plan.rid == plans[0].rid

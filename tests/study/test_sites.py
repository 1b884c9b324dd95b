"""Simulated sites: everybody is somewhere once, nobody is trained on and tested on, and sites differ as they say."""

from __future__ import annotations

import numpy as np
import pytest

from shoal.study.data import load_cohort
from shoal.study.sites import deal, hold_out, make_sites


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_row_goes_to_one_place(seed: int) -> None:
    cohort = load_cohort("wdbc")
    dealt = deal(cohort, seed)
    parts = [part for rows in dealt.values() for part in hold_out(cohort, rows, seed)]
    assert sorted(np.concatenate(parts).tolist()) == list(range(569))


def test_the_seed_decides() -> None:
    cohort = load_cohort("wdbc")
    first, again, other = deal(cohort, 5), deal(cohort, 5), deal(cohort, 6)
    assert all(np.array_equal(first[k], again[k]) for k in first)
    assert any(not np.array_equal(first[k], other[k]) for k in first)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_sites_differ_in_size_and_case_mix(seed: int) -> None:
    cohort = load_cohort("wdbc")
    sites, pooled = make_sites(cohort, seed)
    sizes = {s.name: len(s.train) for s in sites}
    assert sizes["A"] == max(sizes.values()) and sizes["D"] == min(sizes.values())
    radius = {s.name: float(s.train.x[:, cohort.columns.index("mean radius")].mean()) for s in sites}
    assert radius["B"] > radius["A"] > radius["C"]
    assert len(pooled.train) == sum(sizes.values()) and len(pooled.test) == sum(len(s.test) for s in sites)


def test_held_out_part_keeps_the_share_of_outcomes() -> None:
    cohort = load_cohort("wdbc")
    train, test = hold_out(cohort, np.arange(569), 0)
    assert len(test) == 171 and not set(train) & set(test)
    assert cohort.outcome[test].mean() == pytest.approx(cohort.outcome[train].mean(), abs=0.01)

"""The cohorts: what is recorded, on which scale, and nothing that only the dead have."""

from __future__ import annotations

import numpy as np
import pytest

from shoal.errors import ArgumentError, MachineError
from shoal.study.data import Cohort, Feature, Lean, load_cohort


def test_wdbc() -> None:
    cohort = load_cohort("wdbc")
    assert cohort.values.shape == (569, 30) and len(set(cohort.columns)) == 30
    assert int(cohort.outcome.sum()) == 212
    scaled = cohort.scaled(np.arange(569), cohort.medians(np.arange(569)))
    assert scaled.dtype == np.float32 and np.abs(np.median(scaled, axis=0)).max() < 1


def test_flchain() -> None:
    pytest.importorskip("sksurv")
    cohort = load_cohort("flchain")
    assert cohort.values.shape == (6834, 7)
    assert cohort.outcome.mean() == pytest.approx(0.258, abs=0.001)
    assert cohort.columns == ["age", "male", "kappa", "lambda", "creatinine", "mgus", "flc.grp", "creatinine missing"]
    missing = np.isnan(cohort.values)
    assert missing.sum(axis=0).tolist() == [0, 0, 0, 0, 1002, 0, 0]
    scaled = cohort.scaled(np.arange(6834), cohort.medians(np.arange(6834)))
    assert np.isfinite(scaled).all() and np.abs(np.median(scaled, axis=0)).max() < 1.5


def small() -> Cohort:
    values = np.array([[1.0, 10.0], [2.0, np.nan], [3.0, 30.0]])
    features = (Feature("a", 2, 0.5), Feature("b", np.log(10), 2, log=True, may_miss=True))
    return Cohort("small", "?", "made here", features, values, np.array([0, 1, 1]), (Lean("A", "all", 1, {}),))


def test_missing_values_are_filled_and_flagged() -> None:
    cohort = small()
    assert cohort.columns == ["a", "b", "b missing"]
    assert cohort.medians(np.array([0, 2])).tolist() == [2, 20]
    scaled = cohort.scaled(np.array([1, 0]), np.array([0.0, 20.0]))
    np.testing.assert_allclose(scaled, [[0, np.log(2) / 2, 1], [-2, 0, 0]], atol=1e-7)


def test_unknown_name() -> None:
    with pytest.raises(ArgumentError, match="flchain, wdbc"):
        load_cohort("mnist")


def test_package_that_ships_the_records_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "sksurv.datasets", None)
    with pytest.raises(MachineError, match="--data wdbc"):
        load_cohort("flchain")

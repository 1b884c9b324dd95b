"""The demo's result: complete, repeatable, and its words follow from its numbers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from shoal.study.data import load_cohort
from shoal.study.demo import SIMULATED, Result, conclusion, plan_for, run_demo
from shoal.study.plot import save_plot
from shoal.study.score import Estimate


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    cohort = load_cohort("wdbc")
    return run_demo(cohort, plan_for(cohort, 2, 1), tmp_path_factory.mktemp("demo"), lambda _: None, swarm=False)


def test_everything_is_there(result: Result) -> None:
    assert [r.model for r in result.rows] == ["A", "B", "C", "D", "federated", "pooled"]
    assert {len(curve) for curve in result.curves.values()} == {2}
    for row in result.rows:
        at = row.everyone
        assert at.value is not None and at.low is not None and at.high is not None
        assert at.low <= at.value <= at.high and at.value == result.curves[row.model][-1]
    assert [h.test for h in result.homes] and sum(h.test for h in result.homes) == result.held_out
    assert Path(result.merged_file).is_file()


def test_json_says_that_the_hospitals_are_simulated(result: Result) -> None:
    assert json.loads(json.dumps(result.as_json()))["simulated"] == SIMULATED


def test_same_seed_same_numbers(result: Result, tmp_path: Path) -> None:
    cohort = load_cohort("wdbc")
    again = run_demo(cohort, plan_for(cohort, 2, 1), tmp_path, lambda _: None, swarm=False)
    assert again.curves == result.curves and again.rows == result.rows


def with_gains(result: Result, *gains: tuple[float, float, float]) -> Result:
    rows = list(result.rows)
    for place, gain in zip((0, 1, 2, 3, 5), gains, strict=True):
        rows[place] = replace(rows[place], gain=Estimate(*gain))
    return replace(result, rows=rows)


def test_words_follow_the_numbers(result: Result) -> None:
    up, maybe, down = (0.1, 0.05, 0.2), (0.1, -0.1, 0.2), (-0.1, -0.2, -0.05)
    good = conclusion(with_gains(result, up, maybe, up, up, maybe))
    assert "higher AUC than 4 of 4" in good and "3 (A, C, D)" in good and "zero lies inside" in good
    assert "worse" not in good and "did not help" not in good
    bad = conclusion(with_gains(result, down, down, down, down, down))
    assert "higher AUC than 0 of 4" in bad and "clearly worse than A, B, C, D alone" in bad
    assert "merging did not help" in bad and "zero lies outside" in bad


def test_plot_is_a_png(result: Result, tmp_path: Path) -> None:
    save_plot(result, tmp_path / "auc.png")
    data = (tmp_path / "auc.png").read_bytes()
    assert data.startswith(b"\x89PNG") and len(data) > 20_000

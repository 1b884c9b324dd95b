"""The ways to learn differ in one thing: what a site begins its next round with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from shoal.study.data import load_cohort
from shoal.study.network import read_onnx, train
from shoal.study.sites import Site, make_sites
from shoal.study.ways import Plan, learn, round_seed

PLAN = Plan(rounds=2, seed=3)


@pytest.fixture(scope="module")
def sites() -> list[Site]:
    return make_sites(load_cohort("wdbc"), 3)[0]


def same(one: dict, two: dict) -> bool:
    return all(np.array_equal(one[k], two[k]) for k in one)


def test_first_round_is_the_same_alone_and_together(sites: list[Site], tmp_path: Path) -> None:
    learn("local", sites, PLAN, tmp_path / "local")
    learn("federated", sites, PLAN, tmp_path / "federated")
    for site in sites:
        files = [tmp_path / way / "round-01" / f"{site.name}.onnx" for way in ("local", "federated")]
        assert files[0].read_bytes() == files[1].read_bytes()


def test_merged_file_is_the_mean_by_samples_and_the_next_start(sites: list[Site], tmp_path: Path) -> None:
    history, _ = learn("federated", sites, PLAN, tmp_path)
    models = [read_onnx(tmp_path / "round-01" / f"{s.name}.onnx") for s in sites]
    weights = np.array([len(s.train) for s in sites]) / sum(len(s.train) for s in sites)
    merged = read_onnx(history[0][0])
    for name, value in merged.items():
        expected = sum(w * m[name].astype(np.float64) for w, m in zip(weights, models, strict=True))
        np.testing.assert_allclose(value, expected, rtol=1e-6, atol=1e-8)
    second = train(merged, sites[1].train, PLAN.training, round_seed(PLAN.seed, 2, 1))
    assert same(read_onnx(tmp_path / "round-02" / f"{sites[1].name}.onnx"), second)


def test_alone_a_site_goes_on_from_its_own_model(sites: list[Site], tmp_path: Path) -> None:
    history, _ = learn("local", sites, PLAN, tmp_path)
    second = train(read_onnx(history[0][2]), sites[2].train, PLAN.training, round_seed(PLAN.seed, 2, 2))
    assert same(read_onnx(history[1][2]), second)


def test_every_rule_gets_the_weights_that_it_takes(sites: list[Site], tmp_path: Path) -> None:
    for method in ("median", "krum", "task-arithmetic", "ties"):
        _, last = learn("federated", sites, Plan(rounds=1, seed=3, method=method), tmp_path / method)
        assert read_onnx(last.output).keys() == read_onnx(last.begin).keys()
        weights, command = last.weights(method), last.command(method)
        assert (weights is None) == (method == "krum") == ("--weights" not in command)
        assert ("--base" in command) == (method in ("task-arithmetic", "ties"))
        if method == "task-arithmetic":
            assert weights is not None and sum(weights) == pytest.approx(1)

"""shoal demo, end to end on the small cohort."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from shoal.model.model import load


def test_demo_and_the_command_it_suggests(shoal: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = shoal("demo", "--data", "wdbc", "--rounds", "2", "--seed", "3")
    assert done.code == 0, done.err
    for word in (
        "simulated",
        "federated",
        "swarm",
        "verified",
        "pooled",
        "A alone",
        "larger tumours",
        "held-out",
        "auc.png",
        "next:",
    ):
        assert word in done.out
    numbers = json.loads((tmp_path / "demo-out/results.json").read_text())
    assert numbers["seed"] == 3 and (tmp_path / numbers["plot"]).read_bytes().startswith(b"\x89PNG")
    assert shoal(*shlex.split(numbers["command"])[1:]).code == 0
    # A swarm adds the mean of the updates to its base, the command takes the mean of the models: they round differently.
    with load(tmp_path / "merged.onnx") as ours, load(tmp_path / "demo-out/federated/round-02/merged.onnx") as theirs:
        assert set(ours) == set(theirs)
        for name in ours:
            np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-5, atol=1e-6)
            assert np.abs(ours[name]).max() > 1e-3


def test_demo_in_json_by_another_rule(shoal: Callable, tmp_path: Path) -> None:
    words = [
        "demo",
        "--data",
        "wdbc",
        "--rounds",
        "1",
        "--out",
        tmp_path / "d",
        "--method",
        "median",
        "--format",
        "json",
    ]
    found = shoal(*words).json
    assert (
        found["method"] == "median"
        and found["cohort"] == "WDBC"
        and len(found["rows"]) == 7
        and not found["swarm"]["secure"]
    )
    assert len(found["curves"]["swarm"]) == 1


def test_without_scikit_survival_it_says_so_and_goes_on(
    shoal: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "sksurv.datasets", None)
    done = shoal("demo", "--rounds", "1", "--no-swarm", "--out", tmp_path / "d")
    assert done.code == 0 and "scikit-survival" in done.err and "--data wdbc" in done.err
    assert "569 people" in done.out
    assert "scikit-survival" in shoal("demo", "--data", "flchain", "--out", tmp_path / "d").error()


def test_refusals(shoal: Callable, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "mnist" in shoal("demo", "--data", "mnist", "--out", tmp_path / "d").error()
    assert "file" in shoal("demo", "--data", "wdbc", "--out", tmp_path / "file").error()
    assert "nope" in shoal("demo", "--data", "wdbc", "--method", "nope", "--out", tmp_path / "d").error()

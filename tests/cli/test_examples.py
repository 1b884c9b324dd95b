"""The examples run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from small_nets import weight_of

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def test_merge_two_models() -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLES / "merge_two_models.py"],
        env={**os.environ, "PYTHONPATH": str(EXAMPLES.parent / "src")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "merged bias: [0.228" in done.stdout and "2 tensors, 8 parameters" in done.stdout


@pytest.mark.parametrize("rule", ["midrange", "mean-without-extremes"])
def test_custom_rule(shoal: Callable, nets: list[np.ndarray], rule: str) -> None:
    words = ["merge", "a.onnx", "b.onnx", "c.onnx", "-o", "o.onnx", "--rule-file", EXAMPLES / "custom_rule.py"]
    done = shoal(*words, "--method", rule)
    assert done.code == 0, done.err
    stacked = np.sort(np.stack(nets[:3]), axis=0)
    expected = {"midrange": (stacked[0] + stacked[2]) / 2, "mean-without-extremes": stacked[1]}[rule]
    np.testing.assert_allclose(weight_of("o.onnx"), expected, rtol=1e-6)


def test_recipe(shoal: Callable, nets: list[np.ndarray], tmp_path: Path) -> None:
    (tmp_path / "recipe.yml").write_text((EXAMPLES / "recipe.yml").read_text())
    for old, new in (("a", "site-a"), ("b", "site-b"), ("c", "site-c")):
        (tmp_path / f"{old}.onnx").rename(tmp_path / f"{new}.onnx")
    assert "by ties" in shoal("merge", "recipe.yml", "-o", "o.onnx").out

"""Outer optimisers over several rounds, against the formulas of their papers written out in plain numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import shoal

Array = npt.NDArray[Any]


def rounds(name: str, deltas: list[Array], p: dict[str, float]) -> Array:
    """Reddi et al. 2021, algorithm 2 (adagrad, adam, yogi); heavy ball and Nesterov as in PyTorch's SGD."""
    x, m, v = np.zeros_like(deltas[0]), 0.0, p.get("tau", 0.0) ** 2
    for target in deltas:
        d = target - x
        if name == "sgd":
            x = x + p["eta"] * d
        elif name == "momentum":
            m = p["momentum"] * m + d
            x = x + p["eta"] * m
        elif name == "nesterov":
            m = p["momentum"] * m + d
            x = x + p["eta"] * (d + p["momentum"] * m)
        else:
            m = p["beta_1"] * m + (1 - p["beta_1"]) * d
            if name == "adagrad":
                v = v + d**2
            elif name == "adam":
                v = p["beta_2"] * v + (1 - p["beta_2"]) * d**2
            else:
                v = v - (1 - p["beta_2"]) * d**2 * np.sign(v - d**2)
            x = x + p["eta"] * m / (np.sqrt(v) + p["tau"])
    return np.asarray(x)


ADAPTIVE = {"eta": 0.05, "beta_1": 0.8, "beta_2": 0.95, "tau": 0.01}


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("sgd", {"eta": 0.3}),
        ("momentum", {"eta": 0.5, "momentum": 0.7}),
        ("nesterov", {"eta": 0.5, "momentum": 0.7}),
        ("adam", ADAPTIVE),
        ("yogi", ADAPTIVE),
        ("adagrad", {k: v for k, v in ADAPTIVE.items() if k != "beta_2"}),
    ],
)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_three_rounds(name: str, parameters: dict[str, float], dtype: Any) -> None:
    rng = np.random.default_rng(2)
    targets = [rng.normal(size=50).astype(dtype) for _ in range(3)]
    base, memory = np.zeros(50, dtype), {}
    for step, target in enumerate(targets):
        base = shoal.merge([target, target], base=base, outer=name, outer_state=memory, **parameters)
        assert memory[f"{name}/step"] == step + 1
    expected = rounds(name, [t.astype(np.float64) for t in targets], parameters)
    np.testing.assert_allclose(base, expected, rtol=1e-12 if dtype == np.float64 else 2e-5, atol=1e-6)
    assert all(v.dtype == dtype for k, v in memory.items() if not k.endswith("step"))


@pytest.mark.parametrize("name", ["momentum", "nesterov", "adam", "yogi", "adagrad", "sgd"])
def test_a_merge_that_moves_nothing_leaves_the_base(name: str) -> None:
    base = np.array([1.5, -0.0, 3e-40, 1e30], np.float32)
    assert np.array_equal(shoal.merge([base, base], base=base, outer=name), base)


def test_excluded_tensors_take_no_step_and_have_no_moments() -> None:
    memory: dict[str, Any] = {}
    models = [{"a": np.ones(2), "b": np.ones(2)}] * 2
    base = {"a": np.zeros(2), "b": np.zeros(2)}
    found = shoal.merge(models, base=base, outer="adam", outer_state=memory, exclude=["b"])
    assert found["b"].tolist() == [1, 1] and sorted(memory) == ["adam/m/a", "adam/step", "adam/v/a"]

"""The small network: its gradient, its training, and that its file computes what numpy computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from shoal.evaluate.session import Session
from shoal.study.network import Training, gradients, initial, logits, read_onnx, train, write_onnx
from shoal.study.sites import Patients


def patients(n: int = 64, columns: int = 5) -> Patients:
    rng = np.random.default_rng(8)
    x = rng.normal(size=(n, columns)).astype(np.float32)
    return Patients(x, (x[:, 0] - x[:, 1] > 0).astype(np.int64))


def log_loss(parameters: dict, who: Patients) -> float:
    answer = logits(parameters, who.x).astype(np.float64)
    return float(np.mean(np.logaddexp(0, answer) - who.y * answer))


@pytest.mark.parametrize("name", ["hidden.weight", "hidden.bias", "answer.weight", "answer.bias"])
def test_gradient_is_the_slope_of_the_loss(name: str) -> None:
    """Central differences in float64."""
    who, start = patients(), {k: v.astype(np.float64) for k, v in initial(5, 4, 0).items()}
    gradient = gradients(start, who.x, who.y)[name]  # type: ignore[arg-type]
    for place in np.ndindex(gradient.shape):
        up, down = ({k: v.copy() for k, v in start.items()} for _ in range(2))
        up[name][place] += 1e-4
        down[name][place] -= 1e-4
        slope = (log_loss(up, who) - log_loss(down, who)) / 2e-4
        assert gradient[place] == pytest.approx(slope, abs=2e-3)


def test_training_learns_is_seeded_and_leaves_its_start_alone() -> None:
    who, start = patients(), initial(5, 8, 1)
    before = {k: v.copy() for k, v in start.items()}
    how = Training(epochs=20, rate=0.02)
    first, again, other = (train(start, who, how, seed) for seed in (3, 3, 4))
    assert log_loss(first, who) < 0.3 < log_loss(start, who)
    assert all(np.array_equal(start[k], before[k]) for k in start)
    assert all(np.array_equal(first[k], again[k]) and first[k].dtype == np.float32 for k in first)
    assert any(not np.array_equal(first[k], other[k]) for k in first)


def test_file_computes_what_numpy_computes(tmp_path: Path) -> None:
    who, parameters = patients(), initial(5, 8, 2)
    write_onnx(parameters, tmp_path / "m.onnx")
    model = onnx.load(tmp_path / "m.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert (model.ir_version, model.opset_import[0].version) == (10, 21)
    risk = Session(tmp_path / "m.onnx").predict(who.x)
    np.testing.assert_allclose(risk[:, 0], 1 / (1 + np.exp(-logits(parameters, who.x))), atol=1e-6)
    read = read_onnx(tmp_path / "m.onnx")
    assert all(np.array_equal(read[k], parameters[k]) for k in parameters)

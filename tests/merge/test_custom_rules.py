"""Rules that users write: by decorator, by file, in memory and through files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import shoal
from shoal.errors import ArgumentError, MachineError
from shoal.merge import rules
from shoal.model.weights import save_weights

pytest.importorskip("numba")


@pytest.fixture(autouse=True)
def table() -> Iterator[None]:
    """Rules that a test registers are gone after it."""
    before = dict(rules._rules)
    yield
    rules._rules.clear()
    rules._rules.update(before)


def test_a_decorated_function_is_a_rule_by_name(tmp_path: Path) -> None:
    @shoal.rule
    def weighted_extremes(values: Any, weights: Any) -> float:
        """Weighted sum of the extremes."""
        return values.min() * weights[0] + values.max() * weights[-1]

    rng = np.random.default_rng(1)
    models = [{"a": rng.normal(size=1000).astype("f4"), "b": rng.normal(size=(3, 5))} for _ in range(4)]
    found = shoal.merge(models, method="weighted-extremes", weights=[0.5, 9, 9, 0.25])
    for key, value in found.items():
        rows = np.stack([m[key].astype(np.float64) for m in models])
        np.testing.assert_allclose(value, rows.min(axis=0) * 0.5 + rows.max(axis=0) * 0.25, rtol=1e-6)
    for i, model in enumerate(models):
        save_weights(model, tmp_path / f"{i}.onnx")
    options = shoal.MergeOptions(method="weighted_extremes", weights=[0.5, 9, 9, 0.25], threads=2)
    shoal.merge_files([tmp_path / f"{i}.onnx" for i in range(4)], tmp_path / "out.onnx", options)
    for key, value in found.items():
        assert np.asarray(shoal.load(tmp_path / "out.onnx")[key]).tobytes() == value.tobytes()
    assert rules.find("weighted-extremes").summary == "Weighted sum of the extremes."


def test_weights_are_ones_if_none_are_given() -> None:
    @shoal.rule(name="total")
    def any_name(values: Any, weights: Any) -> float:
        return (values * weights).sum()

    assert shoal.merge([np.ones(3), np.full(3, 2.0)], method="total").tolist() == [3.0] * 3


def test_nonfinite_inputs_and_results_are_refused() -> None:
    @shoal.rule
    def reciprocal(values: Any, weights: Any) -> float:
        return 1.0 / values[0]

    with pytest.raises(ArgumentError, match="model 2"):
        shoal.merge([np.ones(3), np.array([1, np.nan, 1])], method="reciprocal")
    with pytest.raises(shoal.InputError, match="cannot hold"):
        shoal.merge([np.array([1.0, 0.0, 1.0]), np.ones(3)], method="reciprocal")


def test_a_name_of_ours_is_taken() -> None:
    for name in ("mean", "coordmedian"):
        with pytest.raises(ArgumentError, match="one of Shoal's own"):
            shoal.rule(name=name)(lambda values, weights: 0.0)
    with pytest.raises(ArgumentError, match="a rule is a function"):
        shoal.rule(3)  # type: ignore[call-overload]


def test_a_rule_file(tmp_path: Path) -> None:
    text = "import shoal\n\n@shoal.rule\ndef low_end(values, weights):\n    return values.min()\n"
    (tmp_path / "mine.py").write_text(text)
    for _ in range(2):  # a second time replaces the first
        assert shoal.load_rule_file(tmp_path / "mine.py") == ("low-end",)
    assert shoal.merge([np.ones(3), np.zeros(3)], method="low-end").tolist() == [0.0] * 3
    assert rules.find("low-end") in shoal.rules()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = 1\n", "no function"),
        ("raise ValueError('boom')\n", "ValueError: boom"),
        ("def (", "SyntaxError"),
        ("raise SystemExit(3)\n", "SystemExit: 3"),
    ],
)
def test_a_rule_file_that_cannot_be_used(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text(text)
    with pytest.raises(ArgumentError, match=words):
        shoal.load_rule_file(tmp_path / "bad.py")


def test_a_rule_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MachineError):
        shoal.load_rule_file(tmp_path / "no.py")


def test_a_rule_file_is_read_as_it_is_now_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "mine"
    for number in (1, 2):  # of one length, and most likely in one tick of the file system's clock
        path.write_text(f"import shoal\n\n@shoal.rule\ndef always(values, weights):\n    return {number}.0\n")
        assert shoal.load_rule_file(path) == ("always",)
        assert shoal.merge([np.zeros(2), np.zeros(2)], method="always").tolist() == [number, number]
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]

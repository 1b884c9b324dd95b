"""Rules written in Python run natively and give what plain Python gives."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from sample_arrays import KINDS, NAMES, bits_of, sample

from shoal.errors import ArgumentError, MachineError
from shoal.kernels import dispatch, reference
from shoal.kernels.custom import compile_rule

pytest.importorskip("numba", reason="rules of users need numba")


def middle_half(values: Any, weights: Any) -> float:
    """A trimmed mean that sorts its values in place."""
    values.sort()
    total = 0.0
    for i in range(len(values) // 4, len(values) - len(values) // 4):
        total += values[i]
    return total / (len(values) - 2 * (len(values) // 4))


def weighted(values: Any, weights: Any) -> float:
    total, weight = 0.0, 0.0
    for i in range(len(values)):
        total += weights[i] * values[i]
        weight += weights[i]
    return total / weight


def fussy(values: Any, weights: Any) -> float:
    if values[0] > 0.1:
        raise ValueError("too large")
    return values[0]


COMPILED = {f: compile_rule(f) for f in (middle_half, weighted)}


@pytest.mark.parametrize("dtype", NAMES.values(), ids=str)
@pytest.mark.parametrize("rule", COMPILED)
def test_same_as_plain_python(rule: Any, dtype: np.dtype[Any]) -> None:
    rng = np.random.default_rng(1)
    weights = np.array([812.0, 240.0, 1504.0, 0.1, 3.0])
    for kind in KINDS[:1] + KINDS[3:]:
        inputs = [sample(rng, dtype, 333, kind) for _ in weights]
        rows = np.stack([x.astype(np.float64) for x in inputs])
        with np.errstate(all="ignore"):
            plain = np.array([rule(rows[:, k].copy(), weights) for k in range(333)])
        expected = reference.narrow(plain, np.dtype(dtype))
        for threads in (1, 3):
            out = np.empty(333, dtype)
            assert COMPILED[rule].apply(inputs, weights.tolist(), out, threads=threads)
            assert np.array_equal(bits_of(out), bits_of(expected)), kind


def test_threads_do_not_matter() -> None:
    rng = np.random.default_rng(2)
    inputs = [rng.standard_normal(100_003, dtype=np.float32) for _ in range(5)]
    kept = [x.copy() for x in inputs]
    one, other = np.empty_like(inputs[0]), np.empty_like(inputs[0])
    COMPILED[middle_half].apply(inputs, [1.0] * 5, one, threads=1)
    COMPILED[middle_half].apply(inputs, [1.0] * 5, other, threads=4)
    assert np.array_equal(one, other)
    assert all(np.array_equal(x, y) for x, y in zip(inputs, kept, strict=True))
    expected = np.empty_like(one)
    dispatch.trimmed_mean(inputs, None, 1, expected)
    assert np.array_equal(one, expected)


def test_non_finite_inputs_are_told() -> None:
    x = np.ones(50, np.float32)
    bad = x.copy()
    bad[33] = np.nan
    out = np.empty_like(x)
    assert COMPILED[weighted].apply([x, x], [1.0, 1.0], out)
    assert not COMPILED[weighted].apply([x, bad], [1.0, 1.0], out)


@pytest.mark.parametrize("index", [3, 100, -4])
def test_a_rule_cannot_read_beyond_its_values(index: int) -> None:
    def outside(values, weights):
        return values[index]

    rule = compile_rule(outside)
    inputs = [np.ones(5, np.float32)] * 3
    with pytest.raises(ArgumentError) as caught:
        rule.apply(inputs, [1.0] * 3, np.empty(5, np.float32))
    assert caught.value.code == "rule.failed"


def test_exception_in_a_rule_is_an_error() -> None:
    rule = compile_rule(fussy)
    x = np.zeros(5000, np.float32)
    out = np.empty_like(x)
    rule.apply([x], [1.0], out)
    x[4321] = 1
    with pytest.raises(ArgumentError, match="rule fussy raised an exception") as caught:
        rule.apply([x], [1.0], out)
    assert caught.value.code == "rule.failed"


def changes_weights(values: Any, weights: Any) -> float:
    weights[0] = 0.0
    return values[0]


def gives_text(values: Any, weights: Any) -> Any:
    return "text"


def unknown_name(values: Any, weights: Any) -> Any:
    return values[0] + nowhere  # type: ignore[name-defined]  # noqa: F821


def wrong_arguments(values: Any) -> Any:
    return values[0]


@pytest.mark.parametrize("function", [changes_weights, gives_text, unknown_name, wrong_arguments, 7])
def test_what_cannot_be_compiled_is_refused(function: Any) -> None:
    with pytest.raises(ArgumentError) as caught:
        compile_rule(function)
    assert caught.value.code in ("rule.compile", "rule.type")
    assert "\n" not in str(caught.value)


def test_division_by_zero_is_arithmetic() -> None:
    rule = compile_rule(lambda values, weights: values[0] / values[1])
    out = np.empty(2)
    rule.apply([np.array([1.0, 0.0]), np.zeros(2)], [1.0, 1.0], out)
    assert out[0] == np.inf
    assert np.isnan(out[1])


def test_arguments_are_checked() -> None:
    x = np.zeros(5, np.float32)
    with pytest.raises(ArgumentError):
        COMPILED[weighted].apply([x, x], [1.0], np.empty_like(x))
    with pytest.raises(ArgumentError):
        COMPILED[weighted].apply([x, x], [1.0, 1.0], np.empty(4, np.float32))
    with pytest.raises(ArgumentError, match="threads"):
        COMPILED[weighted].apply([x], [1.0], np.empty_like(x), threads=-1)


def test_missing_numba_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)
    with pytest.raises(MachineError, match="numba is not installed") as caught:
        compile_rule(weighted)
    assert caught.value.code == "machine.numba"


def test_import_does_not_load_numba() -> None:
    code = "import sys, shoal.kernels.custom; raise SystemExit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0

"""Our metrics against scikit-learn's, ties and all; and what is not defined."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from shoal.errors import InputError
from shoal.evaluate.metrics import METRICS, accuracy, auc, bootstrap_auc, f1, interval, loss


def two(scores: np.ndarray) -> np.ndarray:
    return np.stack([1 - scores, scores], axis=1)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 300), st.integers(1, 20), st.integers(0, 10**6))
def test_two_classes_agree_with_scikit_learn(n: int, levels: int, seed: int) -> None:
    """Few levels: most scores are ties."""
    rng = np.random.default_rng(seed)
    scores = rng.integers(1, levels + 1, n) / (levels + 1)
    labels = rng.integers(0, 2, n)
    labels[:2] = 0, 1
    probabilities = two(scores)
    assert auc(labels, probabilities) == pytest.approx(sk.roc_auc_score(labels, scores), abs=1e-12)
    assert accuracy(labels, probabilities) == pytest.approx(sk.accuracy_score(labels, scores >= 0.5))
    assert f1(labels, probabilities) == pytest.approx(sk.f1_score(labels, scores >= 0.5, zero_division=0.0))
    assert loss(labels, probabilities) == pytest.approx(sk.log_loss(labels, probabilities, labels=[0, 1]))


@pytest.mark.parametrize("seed", range(5))
def test_more_classes_agree_with_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.ones(4), 200)
    labels = np.r_[np.arange(4), rng.integers(0, 4, 196)]
    guessed = probabilities.argmax(axis=1)
    assert auc(labels, probabilities) == pytest.approx(sk.roc_auc_score(labels, probabilities, multi_class="ovr"))
    assert accuracy(labels, probabilities) == pytest.approx(sk.accuracy_score(labels, guessed))
    assert f1(labels, probabilities) == pytest.approx(sk.f1_score(labels, guessed, average="macro"))
    assert loss(labels, probabilities) == pytest.approx(sk.log_loss(labels, probabilities))


def test_certain_and_wrong_is_large_but_finite() -> None:
    assert loss(np.array([0]), two(np.array([1.0]))) == pytest.approx(-np.log(np.finfo(np.float64).eps))


@pytest.mark.parametrize("label", [0, 1])
def test_auc_of_one_class_is_refused(label: int) -> None:
    with pytest.raises(InputError, match="class 1") as error:
        auc(np.full(5, label), two(np.linspace(0, 1, 5)))
    assert error.value.code == "eval.classes"


def test_names() -> None:
    assert list(METRICS) == ["auc", "accuracy", "f1", "loss"]


def test_bootstrap_resamples_as_scikit_learn_would() -> None:
    """Each draw is the AUC of the rows repeated as often as they were drawn."""
    rng = np.random.default_rng(3)
    scores, labels = rng.integers(0, 12, 80) / 12, rng.integers(0, 2, 80)
    counts = np.random.default_rng(9).multinomial(80, np.full(80, 1 / 80), size=20)
    expected = [sk.roc_auc_score(np.repeat(labels, c), np.repeat(scores, c)) for c in counts]
    np.testing.assert_allclose(bootstrap_auc(labels, scores, 20, 9), expected, atol=1e-12)


def test_bootstrap_leaves_out_draws_of_one_class() -> None:
    draws = bootstrap_auc(np.array([0, 1]), np.array([0.1, 0.9]), 200, 1)
    assert np.isnan(draws).any() and set(draws[~np.isnan(draws)]) == {1.0}
    assert interval(draws) == (1.0, 1.0)
    assert all(np.isnan(interval(np.full(3, np.nan))))

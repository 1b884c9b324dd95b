"""How good a model's scores are: arrays in, one number out, in plain numpy.

The same conventions as scikit-learn's functions of the same names, against which the tests compare.  ``labels`` are
integers 0..K-1; ``probabilities`` are float64[n, K] with rows that sum to one (K = 2 for a yes/no question).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from shoal.errors import InputError

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]


def auc(labels: Labels, probabilities: Floats) -> float:
    """Area under the receiver operating characteristic; ties count one half.

    Two classes: of the scores for class 1.  More: mean over the classes of each against the rest.
    raises  InputError("eval.classes")  a class (or its rest) has no row, so that the area is not defined
    source  Hanley and McNeil, Radiology 143 (1982): the Mann-Whitney form
    """
    classes = probabilities.shape[1]
    if classes == 2:
        return _area(labels == 1, probabilities[:, 1], 1)
    return float(np.mean([_area(labels == k, probabilities[:, k], k) for k in range(classes)]))


def _area(positive: npt.NDArray[np.bool_], scores: Floats, name: int) -> float:
    ones = int(positive.sum())
    zeros = len(positive) - ones
    if not ones or not zeros:
        found = "no row" if not ones else "every row"
        raise InputError(
            "eval.classes", f"AUC is not defined: {found} has class {name}; expected some with and some without"
        )
    _, group, sizes = np.unique(scores, return_inverse=True, return_counts=True)
    last = np.cumsum(sizes)
    ranks = (last - (sizes - 1) / 2)[group]
    return float((ranks[positive].sum() - ones * (ones + 1) / 2) / (ones * zeros))


def accuracy(labels: Labels, probabilities: Floats) -> float:
    """Part of the rows whose most probable class is the right one (0.5 and more means yes, for two classes)."""
    return float(np.mean(predictions(probabilities) == labels))


def f1(labels: Labels, probabilities: Floats) -> float:
    """Harmonic mean of precision and recall: of class 1 for two classes, else the mean over the classes (macro).

    A class with no row and no prediction counts 0.
    """
    guessed, classes = predictions(probabilities), probabilities.shape[1]
    found = []
    for k in range(classes) if classes > 2 else [1]:
        hits = int(np.sum((guessed == k) & (labels == k)))
        named = int(np.sum(guessed == k) + np.sum(labels == k))
        found.append(2 * hits / named if named else 0.0)
    return float(np.mean(found))


def loss(labels: Labels, probabilities: Floats) -> float:
    """Mean negative log of the probability given to the right class (natural log; below 2**-52 counts as that)."""
    tiny = np.finfo(np.float64).eps
    chosen = probabilities[np.arange(len(labels)), labels]
    return float(-np.mean(np.log(np.clip(chosen, tiny, 1.0))))


def predictions(probabilities: Floats) -> Labels:
    """The most probable class of each row: int64[n].  Of two classes, 1 wins a tie."""
    if probabilities.shape[1] == 2:
        return (probabilities[:, 1] >= 0.5).astype(np.int64)
    return np.asarray(probabilities.argmax(axis=1), np.int64)


METRICS: Final[dict[str, Callable[[Labels, Floats], float]]] = {
    "auc": auc,
    "accuracy": accuracy,
    "f1": f1,
    "loss": loss,
}


def bootstrap_auc(labels: Labels, scores: Floats, draws: int, seed: int) -> Floats:
    """AUC of `draws` resamples of the rows with replacement: float64[draws], NaN where a resample has one class only.

    labels  int64[n]   0 or 1
    scores  float64[n] higher means class 1
    The same (n, draws, seed) draws the same rows, so that differences of two models can be taken draw by draw.
    source  Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13 (percentile interval)
    """
    n = len(labels)
    counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=draws)
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(scores[order]) != 0])
    ones = np.add.reduceat(counts[:, order] * (labels[order] == 1), starts, axis=1).astype(np.float64)
    zeros = np.add.reduceat(counts[:, order] * (labels[order] == 0), starts, axis=1).astype(np.float64)
    below = np.cumsum(zeros, axis=1) - zeros / 2
    pairs = ones.sum(axis=1) * zeros.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(pairs > 0, (ones * below).sum(axis=1) / pairs, np.nan), np.float64)


def interval(draws: Floats, level: float = 0.95) -> tuple[float, float]:
    """The middle `level` of the draws (NaN ones left out): (low, high), both NaN if none is left."""
    kept = draws[~np.isnan(draws)]
    if not kept.size:
        return float("nan"), float("nan")
    low, high = np.quantile(kept, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)

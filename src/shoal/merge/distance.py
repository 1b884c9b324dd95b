"""Rules that look at the distances between whole models: geometric median, Krum, multi-Krum, Bulyan.

All distances come from one N x N Gram matrix, measured in one pass over the data; iterations then cost N*N each and no
further pass.  The arithmetic on that matrix is element by element in a fixed order (no BLAS), so that every machine
chooses the same models and the same coefficients.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from shoal.errors import ArgumentError, InputError
from shoal.kernels import dispatch
from shoal.kernels.reference import scaled_weights
from shoal.merge.average import lowest_terms
from shoal.merge.tile import Array, Combine, Float64s, Run

#: a centre whose squared distance to the bulk of the models is so many times the spread of the bulk costs the digits
#: that tell them apart: 2**53 holds 16 digits, this leaves 10.
FAR = 1e6


def geometric_median(run: Run) -> Combine:
    """The point with the least weighted sum of distances to the models, each taken as one vector.

    Smoothed Weiszfeld iterations.  Distances below nu * scale count as that much; the scale is the weighted median
    distance to the model in the middle (not a mean, which one liar could stretch).  Where half of the weight lies at
    one point, that point is the answer; where the other half lies at one point, too (as with two models), all points
    between them are equally near, and the one half-way is taken.

    source  Pillutla, Kakade & Harchaoui, IEEE TSP 2022 (RFA), algorithm 2; Weiszfeld 1937
    """
    given = np.array(lowest_terms(run.weights) or (1.0,) * run.count)
    found = measure(run)
    weights = np.where(found.good, scaled_weights(given.tolist()), 0.0)
    middle, scale = _weighted_middle(found.squares, weights)
    if scale == 0.0:
        coefficients, steps = np.where(_at_best(found, weights, middle), given, 0.0), 0
    else:
        gram = np.where(found.good[:, None] & found.good[None, :], found.gram, 0.0)
        start = weights / np.maximum(np.sqrt(found.squares[middle]), scale)
        coefficients, steps = weiszfeld(gram, weights, start, scale, run.parameters)
    run.notes["coefficients"] = by_place(run, coefficients / math.fsum(coefficients))
    run.notes["iterations"] = steps
    chosen = tuple(i for i in range(run.count) if coefficients[i] > 0)
    left = [float(coefficients[i]) for i in chosen]
    return Combine(lambda tile: dispatch.weighted_mean(tile.inputs, left, tile.out, threads=tile.threads), chosen)


def krum(run: Run) -> Combine:
    """The one model that lies closest to its N - f - 2 nearest others (f = num_malicious_nodes).

    Scores sum squared distances; of equal scores the first model wins.

    source  Blanchard et al., NeurIPS 2017, section 4
    """
    return _mean_of(run, krum_order(run)[:1])


def multi_krum(run: Run) -> Combine:
    """Weighted mean of the num_nodes_to_select models with the best Krum scores (not given: N - f).

    source  Blanchard et al., NeurIPS 2017, section 6 (Multi-Krum); weights as in Flower
    """
    select = run.parameters["num_nodes_to_select"]
    if select is None:
        select = max(1, run.count - run.parameters["num_malicious_nodes"])
    if select > run.count:
        raise ArgumentError(
            "rule.models", f"multi-krum cannot select num_nodes_to_select={select} of {run.count} models that count"
        )
    return _mean_of(run, krum_order(run)[:select])


def bulyan(run: Run) -> Combine:
    """Krum chooses N - 2f models, one after another; then each coordinate takes the mean of those N - 4f of its values
    that lie closest to its median.

    source  El Mhamdi et al., ICML 2018, section 4; needs N >= 4f + 3
    """
    count, malicious = run.count, run.parameters["num_malicious_nodes"]
    if count < 4 * malicious + 3:
        raise ArgumentError(
            "rule.models",
            f"bulyan with num_malicious_nodes={malicious} needs at least {4 * malicious + 3} models that count, found "
            f"{count}",
        )
    found = measure(run)
    squares, good = found.squares, found.good
    left = [i for i in range(count) if good[i]]
    chosen: list[int] = []
    while left and len(chosen) < count - 2 * malicious:
        scores = krum_scores(squares, left, malicious)
        chosen.append(left.pop(int(np.argmin(scores))))
    keep = len(chosen) - 2 * malicious
    if keep < 1:
        raise InputError("rule.models", f"bulyan: only {len(chosen)} of {count} models are finite; too few")
    models = tuple(sorted(chosen))
    run.notes["chosen"] = [run.places[i] for i in models]
    return Combine(lambda tile: dispatch.mean_around_median(tile.inputs, keep, tile.out, threads=tile.threads), models)


@dataclass(frozen=True, slots=True)
class Measured:
    """How the models lie to each other, each taken as one vector of all its merged tensors.

    squares  float64[N, N]: squared distances; inf where a model is not finite, which only nonfinite="allow" lets in
    gram     float64[N, N]: inner products of model - centre, for a centre among the bulk of the models
    good     bool[N]: the models that are finite
    """

    squares: Float64s
    gram: Float64s
    good: Array


def measure(run: Run) -> Measured:
    """Read the data once; twice if the first model is far from the others.

    The Gram matrix is centred on the first model.  If that one lies far from the bulk, the small distances between the
    others drown in its rounding: a liar who comes first could hide a second liar.  Then the data are read once more,
    centred on the model in the middle.

    raises   InputError  if the squares leave the range of float64
    """
    good = np.ones(run.count, bool)
    centre, gram = 0, run.gram(0)
    if not np.isfinite(gram).all():
        good[list(run.nonfinite())] = False
        if not good.any():
            raise InputError("tensor.nonfinite", "every model has a NaN or Inf; none is left to choose")
        centre = int(np.argmax(good))
        gram = run.gram(centre)
    squares = _squares(gram, good)
    if not np.isfinite(squares[np.ix_(good, good)]).all():
        raise InputError("rule.overflow", "the squared distances between the models do not fit in float64")
    middle = _middle(squares, good)
    if middle == centre:
        return Measured(squares, gram, good)
    if float(gram[middle, middle]) > FAR * _spread(squares, good, middle):
        gram = run.gram(middle)
        return Measured(_squares(gram, good), gram, good)
    with np.errstate(invalid="ignore"):
        moved = ((gram - gram[middle]) - gram[:, middle, None]) + gram[middle, middle]
    return Measured(squares, moved, good)


def _squares(gram: Float64s, good: Array) -> Float64s:
    norms = np.diagonal(gram)
    with np.errstate(invalid="ignore", over="ignore"):
        squares = np.maximum((norms[:, None] + norms[None, :]) - 2.0 * gram, 0.0)
    squares[~good, :] = squares[:, ~good] = np.inf
    np.fill_diagonal(squares, 0.0)
    return squares


def _middle(squares: Float64s, good: Array) -> int:
    """The model whose median squared distance to the good ones is least; the first of equals."""
    half = np.sort(squares[:, good], axis=1)[:, np.count_nonzero(good) // 2]
    return int(np.argmin(np.where(good, half, np.inf)))


def _spread(squares: Float64s, good: Array, middle: int) -> float:
    return float(np.sort(squares[middle, good])[np.count_nonzero(good) // 2])


def krum_order(run: Run) -> list[int]:
    """The models from the best Krum score to the worst; of equal scores the first model comes first."""
    count, malicious = run.count, run.parameters["num_malicious_nodes"]
    if malicious and count < 2 * malicious + 3:
        raise ArgumentError(
            "rule.models",
            f"num_malicious_nodes={malicious} needs at least {2 * malicious + 3} models that count, found {count}",
        )
    found = measure(run)
    squares, good = found.squares, found.good
    everybody = list(range(count))
    scores = np.where(good, krum_scores(squares, everybody, malicious), np.inf)
    run.notes["scores"] = by_place(run, scores)
    order = [int(i) for i in np.argsort(scores, kind="stable")]
    return [i for i in order if good[i]]


def krum_scores(squares: Float64s, models: list[int], malicious: int) -> Float64s:
    """Sum of squared distances from each of ``models`` to its nearest others among them.

    The number of neighbours is len(models) - malicious - 2, at least 1 and at most all others.
    """
    near = min(max(len(models) - malicious - 2, 1), len(models) - 1)
    rows = np.sort(squares[np.ix_(models, models)], axis=1)[:, 1 : near + 1]
    return np.array([math.fsum(row) if np.isfinite(row).all() else np.inf for row in rows])


def _mean_of(run: Run, chosen: list[int]) -> Combine:
    """Weighted mean of the chosen models."""
    models = tuple(sorted(chosen))
    if not models:
        raise InputError("tensor.nonfinite", "every model has a NaN or Inf; none is left to choose")
    run.notes["chosen"] = [run.places[i] for i in models]
    weights = lowest_terms([1.0 if run.weights is None else run.weights[i] for i in models]) or ()
    return Combine(lambda tile: dispatch.weighted_mean(tile.inputs, weights, tile.out, threads=tile.threads), models)


def _weighted_middle(squares: Float64s, weights: Float64s) -> tuple[int, float]:
    """The model with the least weighted median distance to all, and that distance; the first of equals."""
    half = 0.5 * math.fsum(weights)
    medians = np.full(len(weights), np.inf)
    for i in np.flatnonzero(weights > 0):
        order = np.argsort(squares[i], kind="stable")
        medians[i] = squares[i][order[int(np.argmax(np.cumsum(weights[order]) >= half * (1 - 1e-12)))]]
    middle = int(np.argmin(medians))
    return middle, math.sqrt(float(medians[middle]))


def _at_best(found: Measured, weights: Float64s, middle: int) -> Array:
    """The models whose mean is the answer where at least half of the weight lies at the model in the middle."""
    here: Array = found.good & (found.squares[middle] == 0.0)
    there = found.good & ~here & (weights > 0)
    balanced = abs(math.fsum(weights[here]) - math.fsum(weights[there])) <= 1e-12
    if balanced and bool((found.squares[np.ix_(there, there)] == 0.0).all()):
        return found.good
    return here


def weiszfeld(
    gram: Float64s, weights: Float64s, start: Float64s, scale: float, parameters: Mapping[str, Any]
) -> tuple[Float64s, int]:
    """Coefficients (sum 1) of the geometric median, and the number of iterations.

    gram    centred in the bulk, so that what a far model adds to a sum is small again times its small coefficient
    start   coefficients of the first point, of any sum
    scale   unit of distance: distances below nu * scale count as that much

    Ends when no coefficient changes by more than the share `tolerance`.  (The sum of distances would be the wrong thing
    to watch: one far model makes up nearly all of it.)
    """
    floor, most = parameters["nu"] * scale, int(parameters["max_iterations"])
    b = start / math.fsum(start)
    for step in range(1, most + 1):
        after = weights / np.maximum(_to_point(gram, b), floor)
        after /= math.fsum(after)
        change = np.abs(after - b)
        b = after
        if bool((change <= parameters["tolerance"] * b).all()):
            return b, step
    return b, most


def _to_point(gram: Float64s, b: Float64s) -> Float64s:
    """Distance of each model to the point with coefficients b: the root of G_ii - 2 (G b)_i + b'G b."""
    total = np.zeros(len(b))
    for row, coefficient in zip(gram, b, strict=True):
        total = total + coefficient * row
    return np.sqrt(np.maximum((np.diagonal(gram) - 2.0 * total) + math.fsum(b * total), 0.0))


def by_place(run: Run, values: Float64s) -> dict[int, float]:
    """Values by the models' places in the caller's list, for the report."""
    return {place: float(value) for place, value in zip(run.places, values, strict=True)}

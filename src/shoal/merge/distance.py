"""Rules that look at the distances between whole models: geometric median, Krum, multi-Krum, Bulyan.

All distances come from one N x N Gram matrix, measured in one pass over the data; iterations then cost N*N each and no
further pass.  The arithmetic on that matrix is element by element in a fixed order (no BLAS), so that every machine
chooses the same models and the same coefficients.
"""

from __future__ import annotations

import math

import numpy as np

from shoal.errors import ArgumentError, InputError
from shoal.kernels import dispatch
from shoal.kernels.reference import scaled_weights
from shoal.merge.tile import Array, Combine, Float64s, Measure, Run

#: a centre whose squared distance to the bulk of the models is so many times the spread of the bulk costs the digits
#: that tell them apart: 2**53 holds 16 digits, this leaves 10.
FAR = 1e6


def geometric_median(run: Run) -> Combine:
    """The point with the least weighted sum of distances to the models, each taken as one vector.

    Smoothed Weiszfeld iterations.  Distances below nu * (weighted mean distance from the mean) count as that much.

    source  Pillutla, Kakade & Harchaoui, IEEE TSP 2022 (RFA), algorithm 2; Weiszfeld 1937
    """
    squares, good = distances(run)
    weights = scaled_weights(run.weights or (1.0,) * run.count)
    weights = np.where(good, weights, 0.0)
    coefficients, steps = weiszfeld(squares, weights, run)
    run.notes["coefficients"] = by_place(run, coefficients)
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
    squares, good = distances(run)
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


def distances(run: Run) -> tuple[Float64s, Array]:
    """Squared distances between all models, each taken as one vector of all its merged tensors.

    returns  float64[N, N] (inf where a model has NaN or Inf, which only ``nonfinite="allow"`` lets through),
             bool[N]: the models that are finite
    raises   InputError  if the squares leave the range of float64

    The Gram matrix is centred on the first model.  If that one lies far from the bulk, the small distances between the
    others drown in its rounding: a liar who comes first could hide a second liar.  Then the data are read once more,
    centred on the model in the middle.
    """
    good = np.ones(run.count, bool)
    gram = _centred_gram(run, 0)
    if not np.isfinite(gram).all():
        good[list(run.nonfinite())] = False
        if not good.any():
            raise InputError("tensor.nonfinite", "every model has a NaN or Inf; none is left to choose")
        gram = _centred_gram(run, int(np.argmax(good)))
    squares = _squares(gram, good)
    if not np.isfinite(squares[np.ix_(good, good)]).all():
        raise InputError("rule.overflow", "the squared distances between the models do not fit in float64")
    middle = _middle(squares, good)
    spread, away = _spread(squares, good, middle), float(gram[middle, middle])
    if away > FAR * spread:
        squares = _squares(_centred_gram(run, middle), good)
    return squares, good


def _centred_gram(run: Run, centre: int) -> Float64s:
    """Gram matrix of model - centre, in one pass over the data; in more where a block of all models is too large."""
    if run.count <= run.models_at_once:
        return run.total(_gram_around(centre), blocks=True)
    half = (run.models_at_once - 1) // 2
    groups = [range(first, min(first + half, run.count)) for first in range(0, run.count, half)]
    gram = np.zeros((run.count, run.count))
    for i, one in enumerate(groups):
        for two in groups[i + 1 :]:
            models = [centre, *one, *two]
            gram[np.ix_(models[1:], models[1:])] = run.total(_gram_around(0), models, blocks=True)[1:, 1:]
    return gram


def _gram_around(centre: int) -> Measure:
    return lambda tile: dispatch.gram(tile.inputs, tile.inputs[centre], threads=tile.threads)


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
    squares, good = distances(run)
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
    weights = [1.0 if run.weights is None else run.weights[i] for i in models]
    return Combine(lambda tile: dispatch.weighted_mean(tile.inputs, weights, tile.out, threads=tile.threads), models)


def weiszfeld(squares: Float64s, weights: Float64s, run: Run) -> tuple[Float64s, int]:
    """Coefficients (sum 1) of the geometric median, and the number of iterations.

    With coefficients b, the squared distance of model i to the point sum_j b_j x_j is s_i - q/2, where D holds the
    squared distances, s = D b and q = b'D b.
    """
    nu, tolerance = run.parameters["nu"], run.parameters["tolerance"]
    used = weights > 0
    near = np.where(used[:, None] & used[None, :], squares, 0.0)
    b = weights / math.fsum(weights)
    away = _to_point(near, b)
    floor = nu * math.fsum(b * away)
    if floor == 0.0:
        return b, 0
    value = math.fsum(weights * away)
    for step in range(1, int(run.parameters["max_iterations"]) + 1):
        b = weights / np.maximum(away, floor)
        b /= math.fsum(b)
        away = _to_point(near, b)
        before, value = value, math.fsum(weights * away)
        if abs(before - value) <= tolerance * before:
            return b, step
    return b, int(run.parameters["max_iterations"])


def _to_point(squares: Float64s, b: Float64s) -> Float64s:
    """Distance of each model to the point with coefficients b."""
    total = np.zeros(len(b))
    for row, coefficient in zip(squares, b, strict=True):
        total = total + coefficient * row
    inner = math.fsum(b * total)
    return np.sqrt(np.maximum(total - 0.5 * inner, 0.0))


def by_place(run: Run, values: Float64s) -> dict[int, float]:
    """Values by the models' places in the caller's list, for the report."""
    return {place: float(value) for place, value in zip(run.places, values, strict=True)}

"""Rules that look at each coordinate alone: mean, median, trimmed mean."""

from __future__ import annotations

import math
from collections.abc import Sequence

from shoal.errors import ArgumentError
from shoal.merge.tile import Combine, Run


def lowest_terms(weights: Sequence[float] | None) -> tuple[float, ...] | None:
    """The smallest whole numbers in the same ratios, or the weights as they are if there are none below 2**53.

    Products with small whole numbers are exact more often: 0.1 : 0.2 gives the bits of 1 : 2, and 0.7 : 0.7 those of
    no weights at all.
    """
    if weights is None:
        return None
    ratios = [weight.as_integer_ratio() for weight in weights]
    over = max(below for _, below in ratios)  # a power of two, as all of them
    whole = [above * (over // below) for above, below in ratios]
    divisor = math.gcd(*whole)
    if max(whole) // divisor >= 2**53:
        return tuple(weights)
    return tuple(float(number // divisor) for number in whole)


def mean(run: Run) -> Combine:
    """Weighted mean of each coordinate.

    source  McMahan et al., AISTATS 2017 (FederatedAveraging), algorithm 1: weights are the numbers of samples
    """
    weights = lowest_terms(run.weights) or (1.0,) * run.count
    return Combine(lambda tile: tile.kernels.weighted_mean(tile.inputs, weights, tile.out, threads=tile.threads))


def median(run: Run) -> Combine:
    """Weighted median of each coordinate; the mean of the two middle values where the weights leave a choice.

    source  Yin et al., ICML 2018, definition 1
    """
    weights = lowest_terms(run.weights)
    return Combine(lambda tile: tile.kernels.median(tile.inputs, weights, tile.out, threads=tile.threads))


def trimmed_mean(run: Run) -> Combine:
    """Weighted mean of what is left when int(beta * N) values are cut at each end of every coordinate.

    source  Yin et al., ICML 2018, definition 2; the count is rounded down, as in scipy.stats.trim_mean and Flower
    """
    weights, trim = lowest_terms(run.weights), int(run.parameters["beta"] * run.count)
    if 2 * trim >= run.count:
        raise ArgumentError(
            "rule.models",
            f"trimmed-mean with beta={run.parameters['beta']:g} cuts {trim} of {run.count} models at each end and "
            "leaves none; expected a smaller beta",
        )
    run.notes["cut_at_each_end"] = trim
    return Combine(lambda tile: tile.kernels.trimmed_mean(tile.inputs, weights, trim, tile.out, threads=tile.threads))

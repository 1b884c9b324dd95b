"""How much each participant counts: alphas that scale diffs before they are summed, and A that the sum is divided by.

    public   samples stand in the plan: alpha_i = w_i / max w.  Nothing more travels.
    private  a cap W stands in the plan: alpha_i = min(1, w_i / W), in whole 2**-20; each sends alpha_i * 2**20 masked
             in a lane of its own, so only their sum becomes known.  Who is above the cap is capped, and told so.
    uniform  alpha_i = 1

The mean of the survivors U is (sum of alpha_i x_i) / A, A = sum of their alphas.

Source: docs/PROTOCOL.md, "Weights".
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np

from shoal.errors import ArgumentError, PeerError
from shoal.limits import SAMPLES_MAX

#: private weights are whole multiples of 1 / PRIVATE_UNITS
PRIVATE_UNITS: Final = 2**20


class Weighting(IntEnum):
    """Numbers as in a round's plan."""

    PUBLIC = 1
    PRIVATE = 2
    UNIFORM = 3


@dataclass(frozen=True, slots=True)
class Alpha:
    """One participant's weight.

    value   float32 in (0, 1]
    units   alpha * 2**20 for the lane of weights; 0 unless weights are private
    capped  whether the participant has more samples than the cap, and so counts for less than it could
    """

    value: float
    units: int = 0
    capped: bool = False


def public_alphas(samples: Sequence[int]) -> tuple[Alpha, ...]:
    """raises  ArgumentError  ``weights.samples``: none, or not 1 ... SAMPLES_MAX"""
    if not samples or min(samples) < 1 or max(samples) > SAMPLES_MAX:
        raise ArgumentError("weights.samples", f"samples {tuple(samples)}; expected 1 to {SAMPLES_MAX} each")
    heaviest = max(samples)
    return tuple(Alpha(float(np.float32(count / heaviest))) for count in samples)


def private_alpha(samples: int, cap: int) -> Alpha:
    """raises  ArgumentError  ``weights.samples``, ``weights.cap``"""
    if not 1 <= samples <= SAMPLES_MAX:
        raise ArgumentError("weights.samples", f"{samples} samples; expected 1 to {SAMPLES_MAX}")
    if not 1 <= cap <= SAMPLES_MAX:
        raise ArgumentError("weights.cap", f"a cap of {cap} samples; expected 1 to {SAMPLES_MAX}")
    units = max(1, (min(samples, cap) * PRIVATE_UNITS + cap // 2) // cap)
    return Alpha(units / PRIVATE_UNITS, units, capped=samples > cap)


UNIFORM_ALPHA: Final = Alpha(1.0)


def total_public(alphas: Sequence[Alpha], survivors: Collection[int]) -> float:
    """A for weights that stand in the plan: rounded once, so the same on every machine."""
    return math.fsum(alphas[position].value for position in survivors)


def total_private(units: int, survivors: int) -> float:
    """A from the sum of the lane of weights, of so many survivors.

    raises  PeerError  ``weights.sum``: not between 1 and 2**20 for each survivor, so somebody lied or the sum is wrong
    """
    if not survivors <= units <= survivors * PRIVATE_UNITS:
        raise PeerError(
            "weights.sum", f"private weights add up to {units}; expected {survivors} to {survivors * PRIVATE_UNITS}"
        )
    return units / PRIVATE_UNITS

"""How wide the words of a masked sum are, and how large an integer each participant may put in, so that no sum wraps.

Integers are centred: participant i puts in |v| <= Lambda_i, and the sum of all Lambda_i is at most 2**(bits-1) - 1.
That holds for everybody who is planned to upload, so it holds for every set of survivors.

    equal or private weights   Lambda_i = L = floor((2**(bits-1) - 1) / n)
    public weights             Lambda_i = max(1, floor(alpha_i L)), L the largest for which the sum fits: skewed weights
                               gain resolution

Source: docs/PROTOCOL.md, "Ring width".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from shoal.errors import ArgumentError
from shoal.kernels.coding import RING_BITS
from shoal.limits import LEDGER_MEMBERS_MAX, SAMPLES_MAX

#: the least L that a ring is chosen for on its own: 4 bits for each participant
BOUND_WANTED: Final = 8


def capacity(bits: int) -> int:
    """The largest sum of a ring of centred integers.

    raises  ArgumentError  ``plan.bits``
    """
    if bits not in RING_BITS:
        raise ArgumentError("plan.bits", f"a ring of {bits} bits; expected one of {RING_BITS}")
    return int(2 ** (bits - 1) - 1)


@dataclass(frozen=True, slots=True)
class Width:
    """A ring and its bounds.

    bits    8, 12, 16 or 32
    bound   L: steps from 0 to the clip, for weight 1
    bounds  Lambda of each planned participant, by position, 1 ... L
    raises  ArgumentError  ``plan.bits``, ``plan.bound``: the sum could wrap, or a bound is outside 1 ... L
    """

    bits: int
    bound: int
    bounds: tuple[int, ...]

    def __post_init__(self) -> None:
        most = capacity(self.bits)
        if not self.bounds or min(self.bounds) < 1 or max(self.bounds) > self.bound:
            raise ArgumentError("plan.bound", f"integers of up to {self.bounds}; expected 1 to {self.bound} each")
        if sum(self.bounds) > most:
            raise ArgumentError(
                "plan.bound",
                f"{len(self.bounds)} participants can add up to {sum(self.bounds)}; "
                f"a ring of {self.bits} bits holds {most}",
            )

    @classmethod
    def equal(cls, participants: int, bits: int) -> Width:
        """For weights that are all equal, or private (any of them may be 1)."""
        _check_count(participants)
        bound = capacity(bits) // participants
        return cls(bits, bound, (bound,) * participants)

    @classmethod
    def public(cls, samples: Sequence[int], bits: int) -> Width:
        """For weights that stand in the plan: samples of each participant, 1 or more.

        In whole numbers throughout, so that every machine finds the same L.
        """
        _check_count(len(samples))
        if min(samples) < 1 or max(samples) > SAMPLES_MAX:
            raise ArgumentError("weights.samples", f"samples {tuple(samples)}; expected 1 to {SAMPLES_MAX} each")
        most, heaviest = capacity(bits), max(samples)
        low, high = 1, most
        while low < high:
            middle = (low + high + 1) // 2
            if sum(_bounds(samples, heaviest, middle)) <= most:
                low = middle
            else:
                high = middle - 1
        return cls(bits, low, _bounds(samples, heaviest, low))


def _check_count(participants: int) -> None:
    if not 1 <= participants <= LEDGER_MEMBERS_MAX:
        raise ArgumentError("plan.participants", f"{participants} participants; expected 1 to {LEDGER_MEMBERS_MAX}")


def _bounds(samples: Sequence[int], heaviest: int, bound: int) -> tuple[int, ...]:
    return tuple(max(1, count * bound // heaviest) for count in samples)


def choose_bits(participants: int, *, fine: bool = False, faithful: bool = False) -> int:
    """The narrowest ring that leaves each of equal participants BOUND_WANTED steps: 8 bits up to 15, else 12.

    fine      at least 16 bits: an error of the mean below 1e-5 of the updates' squares
    faithful  32 bits: for noise of differential privacy, or close to float32
    """
    _check_count(participants)
    if faithful:
        return 32
    return next(
        bits for bits in RING_BITS if capacity(bits) // participants >= BOUND_WANTED and (bits >= 16 or not fine)
    )

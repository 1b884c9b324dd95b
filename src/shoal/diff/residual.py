"""Error feedback: what a round's coding lost of a participant's own update is added to its next one.

    e <- x + e - what of it the sum contains

The participant decodes its own words as the others decode the sum, so clipping and rounding are carried exactly.  Worth
it where steps are coarse; off for fine rings, where the error is below 3e-4 anyway, and under differential privacy,
where it would carry data past the noise.

Source: docs/PROTOCOL.md, "Error feedback"; Karimireddy et al., ICML 2019.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from shoal.diff.quantiser import Quantiser
from shoal.errors import ArgumentError
from shoal.kernels.reference_coding import Float32s
from shoal.kernels.ring import Bytes, Streams

#: from this many steps on there is nothing worth carrying
FINE_BOUND: Final = 63
#: rounds in a row that a residual may wait for a sum that it enters
ROUNDS_MISSED_MAX: Final = 3
#: of an update of the agreed size: a residual is never longer
NORM_MAX: Final = 2.0


def wanted(bound: int, *, private: bool = False) -> bool:
    """Whether a slot with L = ``bound`` carries residuals; ``private``: differential privacy is on."""
    return bound < FINE_BOUND and not private


class Residual:
    """What one participant carries: float32[elements], and for how many rounds it was left out."""

    def __init__(self, elements: int) -> None:
        self.carried: Float32s = np.zeros(elements, np.float32)
        self.missed_rounds = 0

    def added(self, diff: Float32s) -> Float32s:
        """diff + residual: what is to be sent now.  A new array."""
        if diff.shape != self.carried.shape or diff.dtype != np.float32:
            raise ArgumentError(
                "diff.length", f"a diff of {diff.dtype}{list(diff.shape)}; expected float32{list(self.carried.shape)}"
            )
        return diff + self.carried

    def kept(self, given: Float32s, own: Float32s, norm: float) -> None:
        """The sum contains this participant.

        given  what `added` gave
        own    what the sum contains of it (`own_part`)
        norm   of an update of the agreed size (`Scales.norm`): the residual is cut to twice that
        """
        np.subtract(given, own, out=self.carried)
        length = float(np.sqrt(np.sum(self.carried.astype(np.float64) ** 2)))
        if length > NORM_MAX * norm:
            self.carried *= np.float32(NORM_MAX * norm / length)
        self.missed_rounds = 0

    def missed(self, given: Float32s) -> None:
        """A model was certified without this participant: half of what it wanted to say is still of use; after
        ROUNDS_MISSED_MAX such rounds the base has moved too far, and nothing is."""
        self.missed_rounds += 1
        if self.missed_rounds > ROUNDS_MISSED_MAX:
            self.carried[:] = 0
        else:
            np.multiply(given, np.float32(0.5), out=self.carried)


def own_part(
    quantiser: Quantiser, position: int, alpha: float, words: Bytes, *, streams: Streams | None = None, threads: int = 0
) -> Float32s:
    """A participant's own contribution as the others will decode it: float32[elements], 0 in blocks that are not sent.

    words    its own, as uploaded
    streams  its masks with their signs turned, if the words are masked
    """
    own = np.zeros(quantiser.scales.grid.elements, np.float32)
    quantiser.decode(words, (position,), alpha, None, own, streams=streams, threads=threads)
    return own

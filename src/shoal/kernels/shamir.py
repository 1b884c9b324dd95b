"""Shamir's secret sharing as the rest of Shoal calls it: arguments are checked here, native code does the work.

Field, abscissas and arithmetic stand in `reference_shamir`.  The time that a call takes depends on lengths and
abscissas only.  Secrets are shared byte by byte: no length is too long, and no value is special.

raises  ArgumentError  ``shamir.*``; nothing of a secret is ever in a message
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from shoal.errors import ArgumentError
from shoal.kernels import _native

#: abscissas are the field's elements but 0, where the secret lies
ABSCISSA_MAX: Final = 255
#: bytes of one secret: far above what a protocol shares
SECRET_BYTES_MAX: Final = 2**20


def split(
    secret: bytes, threshold: int, abscissas: Sequence[int], draw: Callable[[int], bytes] = os.urandom
) -> list[bytes]:
    """A share for each abscissa, as long as the secret; any ``threshold`` of them give it back, fewer say nothing.

    draw  draw(n) -> n uniformly random secret bytes: the coefficients, none rejected
    """
    x = _abscissas(abscissas)
    if not 1 <= threshold <= len(x):
        raise ArgumentError("shamir.threshold", f"threshold is {threshold}; expected 1 to {len(x)} shares")
    if not 1 <= len(secret) <= SECRET_BYTES_MAX:
        raise ArgumentError("shamir.secret", f"a secret of {len(secret)} bytes; expected 1 to {SECRET_BYTES_MAX}")
    drawn = draw((threshold - 1) * len(secret))
    coefficients = np.frombuffer(drawn, np.uint8).reshape(threshold - 1, len(secret))
    shares = _native.shamir_split(np.frombuffer(secret, np.uint8), coefficients, x)
    return [row.tobytes() for row in shares]


def combine(shares: Sequence[bytes], abscissas: Sequence[int]) -> bytes:
    """The secret behind shares, each at its abscissa.  Too few, or wrong ones, give other bytes: the caller checks."""
    x = _abscissas(abscissas)
    if len(shares) != len(x):
        raise ArgumentError("shamir.count", f"{len(shares)} shares at {len(x)} abscissas; expected one for each")
    length = len(shares[0])
    if not 1 <= length <= SECRET_BYTES_MAX or any(len(share) != length for share in shares):
        raise ArgumentError("shamir.length", "shares are empty, too long, or of different lengths")
    rows = np.frombuffer(b"".join(shares), np.uint8).reshape(len(shares), length)
    return _native.shamir_combine(rows, x).tobytes()


def _abscissas(abscissas: Sequence[int]) -> npt.NDArray[np.uint8]:
    numbers = [int(x) for x in abscissas]
    if not numbers:
        raise ArgumentError("shamir.count", "no abscissas; expected at least one")
    if min(numbers) < 1 or max(numbers) > ABSCISSA_MAX:
        raise ArgumentError("shamir.abscissa", f"an abscissa is 0 or above {ABSCISSA_MAX}; the secret lies at 0")
    if len(set(numbers)) != len(numbers):
        raise ArgumentError("shamir.abscissa", "an abscissa comes twice; expected distinct ones")
    return np.array(numbers, np.uint8)

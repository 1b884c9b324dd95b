"""Shamir's secret sharing over GF(2^8) in plain numpy: this file *defines* what is right.

Field: GF(2)[x] / (x^8 + x^4 + x^3 + x + 1), polynomial 0x11B (FIPS 197, section 4.2).  Each byte of a secret is shared
by a polynomial of its own, all at the same abscissas.  Abscissas are 1 ... 255, distinct.

The native code does the same without tables and without branches on secret bytes: its time says nothing about them.

Source: Shamir, CACM 1979; docs/PROTOCOL.md.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]


def multiply(a: Bytes, b: Bytes) -> Bytes:
    """Products in the field, elementwise (arrays broadcast)."""
    a, b = np.broadcast_arrays(a, b)
    left, right = a.astype(np.uint8), b.astype(np.uint8)
    product = np.zeros(left.shape, np.uint8)
    for _ in range(8):
        product ^= left * (right & 1)
        carry = left >> 7
        left = ((left << np.uint8(1)) ^ carry * np.uint8(0x1B)).astype(np.uint8)
        right = right >> np.uint8(1)
    return product


def inverse(a: Bytes) -> Bytes:
    """1 / a, elementwise, as a**254; 0 for 0."""
    power = a.astype(np.uint8)
    result = np.ones_like(power)
    for _ in range(7):
        power = multiply(power, power)
        result = multiply(result, power)
    return result


def split(secret: Bytes, coefficients: Bytes, abscissas: Bytes) -> Bytes:
    """Shares of a secret: secret + c1 x + c2 x^2 + ... at each abscissa.

    secret        uint8[m]
    coefficients  uint8[threshold - 1, m], uniformly random: row i is multiplied by x^(i+1)
    abscissas     uint8[n], 1 ... 255, distinct
    returns       uint8[n, m]: row j is the share at abscissas[j]
    """
    x = np.asarray(abscissas, np.uint8)[:, None]
    shares = np.zeros((len(x), len(secret)), np.uint8)
    for row in coefficients[::-1]:
        shares = multiply(shares ^ row, x)
    return shares ^ secret


def combine(shares: Bytes, abscissas: Bytes) -> Bytes:
    """The secret of ``threshold`` or more shares: interpolation at 0 (Lagrange).

    shares     uint8[n, m];  abscissas  uint8[n], 1 ... 255, distinct
    returns    uint8[m]
    """
    x = np.asarray(abscissas, np.uint8)
    secret = np.zeros(shares.shape[1], np.uint8)
    for j, share in enumerate(shares):
        others = np.delete(x, j)
        factor = np.ones(1, np.uint8)
        for other in others:
            factor = multiply(factor, multiply(np.array([other]), inverse(other ^ x[j : j + 1])))
        secret ^= multiply(share, factor)
    return secret

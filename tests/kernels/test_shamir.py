"""Secret sharing: the field of FIPS 197, any threshold of shares gives the secret, fewer say nothing."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from shoal.errors import ArgumentError
from shoal.kernels import _native, reference_shamir, shamir


def test_field() -> None:
    """FIPS 197, section 4.2: {57} * {83} = {c1}; and {53} * {ca} = {01}."""
    assert reference_shamir.multiply(np.uint8(0x57), np.uint8(0x83)) == 0xC1
    assert reference_shamir.inverse(np.array([0x53], np.uint8))[0] == 0xCA
    every = np.arange(1, 256, dtype=np.uint8)
    assert (reference_shamir.multiply(every, reference_shamir.inverse(every)) == 1).all()


def test_native_products_are_the_fields() -> None:
    """All 65,536: with threshold 2, the share at x of a secret 0 is coefficient * x."""
    coefficients = np.arange(256, dtype=np.uint8)[None, :]
    x = np.arange(1, 256, dtype=np.uint8)
    found = _native.shamir_split(np.zeros(256, np.uint8), coefficients, x)
    expected = reference_shamir.multiply(np.broadcast_to(coefficients, (255, 256)), x[:, None])
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("secret", [bytes(64), b"\xff" * 64, b"\x20" * 64, bytes(range(64)), b"\x00"])
def test_any_threshold_of_shares_gives_the_secret(secret: bytes) -> None:
    shares = shamir.split(secret, 3, range(1, 7))
    assert all(len(share) == len(secret) for share in shares)
    for chosen in combinations(range(6), 3):
        assert shamir.combine([shares[i] for i in chosen], [i + 1 for i in chosen]) == secret
    assert shamir.combine(shares, range(1, 7)) == secret
    assert shamir.combine(shares[::-1], range(6, 0, -1)) == secret


@pytest.mark.parametrize(("n", "threshold"), [(1, 1), (2, 2), (100, 67), (255, 255)])
def test_many_holders(n: int, threshold: int) -> None:
    drawn = np.random.default_rng(n).bytes
    shares = shamir.split(b"k" * 32, threshold, range(1, n + 1), drawn)
    reference = reference_shamir.split(
        np.frombuffer(b"k" * 32, np.uint8),
        np.frombuffer(np.random.default_rng(n).bytes((threshold - 1) * 32), np.uint8).reshape(-1, 32),
        np.arange(1, n + 1, dtype=np.uint8),
    )
    assert [row.tobytes() for row in reference] == shares
    last = list(range(n - threshold + 1, n + 1))
    assert shamir.combine([shares[x - 1] for x in last], last) == b"k" * 32


def test_fewer_shares_say_nothing() -> None:
    """Over all coefficients, two shares of three are uniform, whatever the secret: each pair of values comes once."""
    for secret in (0, 1, 0x53, 255):
        pairs = set()
        for one in range(256):
            row = np.stack([np.full(256, one, np.uint8), np.arange(256, dtype=np.uint8)])
            shares = _native.shamir_split(np.full(256, secret, np.uint8), row, np.array([1, 2, 3], np.uint8))
            pairs |= set(zip(shares[0].tolist(), shares[2].tolist(), strict=True))
        assert len(pairs) == 65_536


def test_coefficients_are_all_used_and_none_is_rejected() -> None:
    """65,536 drawn bytes come back as they were: shares at 1 less the secret are the coefficients themselves."""
    drawn = np.random.default_rng(5).bytes(65_536)
    shares = shamir.split(bytes(65_536), 2, [1, 2], lambda n: drawn[:n])
    counts = np.bincount(np.frombuffer(shares[0], np.uint8), minlength=256)
    assert shares[0] == drawn and ((counts - 256) ** 2 / 256).sum() < 330


def test_randomness_is_fresh() -> None:
    assert shamir.split(b"s" * 32, 2, [1, 2]) != shamir.split(b"s" * 32, 2, [1, 2])


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda: shamir.split(b"s", 1, [0, 1]), "shamir.abscissa"),
        (lambda: shamir.split(b"s", 1, [1, 256]), "shamir.abscissa"),
        (lambda: shamir.split(b"s", 2, [5, 5]), "shamir.abscissa"),
        (lambda: shamir.split(b"s", 3, [1, 2]), "shamir.threshold"),
        (lambda: shamir.split(b"s", 0, [1, 2]), "shamir.threshold"),
        (lambda: shamir.split(b"", 1, [1]), "shamir.secret"),
        (lambda: shamir.combine([b"a", b"b"], [1, 257]), "shamir.abscissa"),
        (lambda: shamir.combine([b"a", b"b"], [1, 1]), "shamir.abscissa"),
        (lambda: shamir.combine([b"a", b"bc"], [1, 2]), "shamir.length"),
        (lambda: shamir.combine([b"a"], [1, 2]), "shamir.count"),
        (lambda: shamir.combine([], []), "shamir.count"),
    ],
)
def test_bad_arguments_are_named(call, code: str) -> None:
    with pytest.raises(ArgumentError) as raised:
        call()
    assert raised.value.code == code

"""Digests: fixed by golden values, and equal for equal tensors in whatever order and form the bytes come."""

from __future__ import annotations

import hashlib
import struct
import threading
from itertools import pairwise

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.errors import ArgumentError
from shoal.limits import DIGEST_CHUNK_BYTES
from shoal.model.digest import ModelDigest, PieceDigest, TensorDigest, tensor_digest

CHUNK = DIGEST_CHUNK_BYTES


def sha(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def by_the_book(data: bytes) -> bytes:
    """docs/FORMAT.md, word by word."""
    leaves = [sha(b"shoal digest leaf 1\n", data[at : at + 2**20]) for at in range(0, len(data), 2**20)]
    return sha(b"shoal digest tensor 1\n", struct.pack("<Q", len(data)), *leaves)


def test_golden_values() -> None:
    """These never change: a digest that was signed once must be computable for ever."""
    tensor = tensor_digest(np.arange(6, dtype=np.float32).reshape(2, 3))
    assert tensor.hex() == "0cef1a94eb5c0cdb91814d0bbc87928f4cb743b1148b24d4bbc516087fe50c0e"
    model = ModelDigest()
    model.add("w", 1, (2, 3), tensor)
    assert model.digest().hex() == "f0beb32ebc1e448c078ec4c969b78f2912c9c8b4e19c1c001168b55d1ca83cac"
    assert ModelDigest().digest().hex() == "c21c5d016139cc43cfa05ec7a7b18a6dfece18887658ca44b72993a3d6585397"


@pytest.mark.parametrize("nbytes", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 3 * CHUNK + 5])
def test_sizes_around_a_chunk(nbytes: int) -> None:
    data = np.random.default_rng(nbytes).integers(0, 256, nbytes, dtype=np.uint8)
    assert tensor_digest(data) == by_the_book(data.tobytes())


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(5)))
def test_chunks_in_any_order(order: list[int]) -> None:
    data = np.arange(4 * CHUNK + 8, dtype=np.uint32).view(np.uint8)[: 4 * CHUNK + 8]
    parts = TensorDigest(data.nbytes)
    for chunk in order:
        parts.add(chunk * CHUNK, memoryview(data[chunk * CHUNK : (chunk + 1) * CHUNK]))
    assert parts.digest() == by_the_book(data.tobytes())


def test_several_chunks_at_once() -> None:
    data = bytes(range(256)) * (CHUNK // 64)
    parts = TensorDigest(len(data))
    parts.add(CHUNK, data[CHUNK:])
    parts.add(0, data[:CHUNK])
    assert parts.digest() == by_the_book(data)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(700_000, dtype=">f4").reshape(700, 1000),
        np.asfortranarray(np.arange(700_000, dtype=np.float32).reshape(700, 1000)),
        np.arange(1_400_000, dtype=np.float64)[::2],
        np.arange(600_000, dtype=np.float32).astype(ml_dtypes.bfloat16)[::-1],
        np.array(3, dtype=">i8"),
        np.zeros((3, 0, 2), np.float16),
        np.array([[True, False]]).T,
    ],
    ids=["big-endian", "fortran", "strided", "bfloat16 reversed", "number", "empty", "bool"],
)
def test_memory_order_does_not_matter(array: np.ndarray) -> None:
    little = array.dtype.newbyteorder("<") if array.dtype.byteorder == ">" else array.dtype
    assert tensor_digest(array) == by_the_book(array.astype(little).tobytes())


@pytest.mark.parametrize(
    ("first", "count"), [(1, CHUNK), (0, 5), (-CHUNK, CHUNK), (2 * CHUNK, 11), (CHUNK, CHUNK + 9), (3 * CHUNK, CHUNK)]
)
def test_parts_that_are_no_whole_chunks_are_refused(first: int, count: int) -> None:
    with pytest.raises(ArgumentError) as caught:
        TensorDigest(2 * CHUNK + 10).add(first, bytes(count))
    assert caught.value.code == "digest.range"


def test_missing_and_double_chunks_are_refused() -> None:
    parts = TensorDigest(2 * CHUNK)
    parts.add(0, bytes(CHUNK))
    with pytest.raises(ArgumentError, match="not hashed"):
        parts.digest()
    with pytest.raises(ArgumentError, match="twice"):
        parts.add(0, bytes(CHUNK))


@pytest.mark.parametrize("seed", range(4))
def test_pieces_of_any_bounds_in_any_order(seed: int) -> None:
    data, rng = np.random.default_rng(seed).bytes(2 * CHUNK + 12345), np.random.default_rng(seed)
    cuts = np.unique([0, len(data), CHUNK, *rng.integers(0, len(data), 20)])
    pieces = list(pairwise(cuts.tolist()))
    rng.shuffle(pieces)
    parts = PieceDigest(len(data))
    for start, stop in pieces[:-1]:
        parts.add(start, data[start:stop])
    with pytest.raises(ArgumentError, match="not hashed"):
        parts.digest()
    parts.add(pieces[-1][0], memoryview(data)[slice(*pieces[-1])])
    assert parts.digest() == by_the_book(data)


def test_pieces_from_many_threads() -> None:
    data = np.random.default_rng(5).bytes(3 * CHUNK + 77)
    parts, starts, lock = PieceDigest(len(data)), iter(range(0, len(data), 50_001)), threading.Lock()

    def work() -> None:
        while True:
            with lock:
                start = next(starts, -1)
            if start < 0:
                return
            parts.add(start, data[start : start + 50_001])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert parts.digest() == by_the_book(data)


@pytest.mark.parametrize(("first", "count", "code"), [
    (0, 5, "digest.twice"), (10, 5, "digest.twice"), (-1, 5, "digest.range"), (CHUNK, 6, "digest.range"),
])  # fmt: skip
def test_pieces_that_came_before_or_lie_outside_are_refused(first: int, count: int, code: str) -> None:
    parts = PieceDigest(CHUNK + 5)
    parts.add(0, bytes(10))
    parts.add(10, bytes(CHUNK - 10))
    with pytest.raises(ArgumentError) as caught:
        parts.add(first, bytes(count))
    assert caught.value.code == code


def test_each_part_of_a_row_counts_and_order_does_not() -> None:
    rows = {"a": ("w", 1, (2, 3), b"1" * 32), "b": ("v", 1, (6,), b"2" * 32)}

    def digest(*chosen: tuple[str, int, tuple[int, ...], bytes]) -> bytes:
        model = ModelDigest()
        for row in chosen:
            model.add(*row)
        return model.digest()

    whole = digest(*rows.values())
    assert digest(*reversed(rows.values())) == whole
    others = [("x", 1, (2, 3), b"1" * 32), ("w", 10, (2, 3), b"1" * 32), ("w", 1, (3, 2), b"1" * 32)]
    others += [("w", 1, (2, 3), b"3" * 32), ("w", 1, (2, 3, 1), b"1" * 32)]
    assert len({whole, *(digest(other, rows["b"]) for other in others), digest(rows["a"])}) == 7


def test_a_key_twice_is_refused() -> None:
    model = ModelDigest()
    model.add("w", 1, (), b"1" * 32)
    with pytest.raises(ArgumentError, match="twice"):
        model.add("w", 1, (), b"1" * 32)

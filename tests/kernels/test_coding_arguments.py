"""What the door of the coding kernels refuses, and that the native code refuses it too, before a byte is written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from shoal.errors import ArgumentError
from shoal.kernels import _native, coding
from shoal.kernels.coding import Blocks, Spec, StreamKeys

KEYS = StreamKeys(bytes(32), bytes(range(32)))
N = 320
X = np.ones(N, np.float32)
GRID = Blocks(np.array([0, 256], np.int64), np.array([8, 6], np.uint8), 64)
SPEC = Spec(0, 1.0, np.ones(2, np.float32), 5, 8)
TABLE, SCALES = np.zeros(65_536, np.int32), np.ones(2)
CENTROIDS = np.array([-1, 1], np.float32)
BOUNDARY = np.zeros(1, np.float32)


def starts(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def logs(*values: int) -> np.ndarray:
    return np.array(values, np.uint8)


MADE: dict[str, tuple[Callable[[], object], str]] = {
    "overlap": (lambda: Blocks(starts(0, 63), logs(6, 6)), "blocks.order"),
    "not ascending": (lambda: Blocks(starts(64, 0), logs(6, 6)), "blocks.order"),
    "negative start": (lambda: Blocks(starts(-1), logs(6)), "blocks.order"),
    "start that wraps": (lambda: Blocks(starts(0, 2**63 - 1), logs(6, 6)), "blocks.order"),
    "odd log": (lambda: Blocks(starts(0), logs(7)), "blocks.log"),
    "log too large": (lambda: Blocks(starts(0), logs(16)), "blocks.log"),
    "counts": (lambda: Blocks(starts(0), logs(6, 6)), "array.length"),
    "first": (lambda: Blocks(starts(0), logs(6), 32), "blocks.first"),
    "first below 0": (lambda: Blocks(starts(0), logs(6), -64), "blocks.first"),
    "starts of int32": (lambda: Blocks(np.zeros(1, np.int32), logs(6)), "array.dtype"),  # type: ignore[arg-type]
    "short key": (lambda: StreamKeys(bytes(31), bytes(32)), "key.length"),
    "offset": (lambda: Spec(65_536, 1.0, SPEC.inverse_steps, 5, 8), "spec.offset"),
    "alpha 0": (lambda: Spec(0, 0.0, SPEC.inverse_steps, 5, 8), "spec.alpha"),
    "alpha that is 0 in float32": (lambda: Spec(0, 1e-50, SPEC.inverse_steps, 5, 8), "spec.alpha"),
    "alpha NaN": (lambda: Spec(0, float("nan"), SPEC.inverse_steps, 5, 8), "spec.alpha"),
    "bits": (lambda: Spec(0, 1.0, SPEC.inverse_steps, 5, 64), "spec.bits"),
    "bound of the ring": (lambda: Spec(0, 1.0, SPEC.inverse_steps, 128, 8), "spec.bound"),
    "bound 0": (lambda: Spec(0, 1.0, SPEC.inverse_steps, 0, 8), "spec.bound"),
    "step below 0": (lambda: Spec(0, 1.0, -SPEC.inverse_steps, 5, 8), "scales.value"),
    "step Inf": (lambda: Spec(0, 1.0, SPEC.inverse_steps / 0, 5, 8), "scales.value"),
}


@pytest.mark.parametrize("name", MADE)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_what_cannot_be_made(name: str) -> None:
    make, code = MADE[name]
    with pytest.raises(ArgumentError) as caught:
        make()
    assert caught.value.code == code


def out(count: int = N, dtype: Any = np.uint8) -> np.ndarray:
    return np.full(count, 77, dtype)


def encode(x: Any = X, grid: Blocks = GRID, spec: Spec = SPEC, to: Any = None, **more: Any) -> None:
    coding.encode(x, grid, KEYS, spec, out() if to is None else to, **more)


def decode(
    words: Any = None, table: Any = TABLE, scales: Any = SCALES, base: Any = None, to: Any = None, bits: int = 8
) -> None:
    given = out() if words is None else words
    coding.decode(given, GRID, KEYS, table, scales, base, out(N, np.float32) if to is None else to, bits=bits)


def codes(centroids: Any = CENTROIDS, boundaries: Any = BOUNDARY, to: Any = None) -> None:
    coding.encode_codes(X, GRID, KEYS.signs, boundaries, centroids, out(N // 8) if to is None else to)


WHOLE = out(4 * N)
CALLS: dict[str, tuple[Callable[[], object], str]] = {
    "x of float64": (lambda: encode(X.astype(np.float64)), "array.dtype"),
    "x with a stride": (lambda: encode(np.ones(2 * N, np.float32)[::2]), "array.layout"),
    "x too short for the last block": (lambda: encode(X[:256]), "blocks.range"),
    "base of another length": (lambda: encode(base=X[1:]), "array.length"),
    "steps for other blocks": (lambda: encode(spec=Spec(0, 1.0, np.ones(3, np.float32), 5, 8)), "array.length"),
    "out too short": (lambda: encode(to=out(N - 1)), "array.length"),
    "out for other bits": (lambda: encode(spec=Spec(0, 1.0, np.ones(2, np.float32), 5, 12), to=out()), "array.length"),
    "out read-only": (lambda: encode(to=np.frombuffer(bytes(N), np.uint8)), "array.readonly"),
    "out over x": (lambda: encode(WHOLE.view(np.float32), to=WHOLE[:N]), "array.overlap"),
    "threads": (lambda: encode(threads=-1), "threads.value"),
    "words too short": (lambda: decode(out(N - 1)), "array.length"),
    "table of int64": (lambda: decode(table=TABLE.astype(np.int64)), "array.dtype"),
    "table too short": (lambda: decode(table=TABLE[1:]), "array.length"),
    "scale NaN": (lambda: decode(scales=SCALES * np.nan), "scales.value"),
    "scale below 0": (lambda: decode(scales=-SCALES), "scales.value"),
    "ring of 64 bits": (lambda: decode(out(8 * N), bits=64), "spec.bits"),
    "out over words": (lambda: decode(WHOLE[:N], to=WHOLE.view(np.float32)), "array.overlap"),
    "three centroids": (lambda: codes(np.ones(3, np.float32), np.zeros(2, np.float32)), "codes.centroids"),
    "32 centroids": (lambda: codes(np.ones(32, np.float32), np.zeros(31, np.float32)), "codes.centroids"),
    "centroid NaN": (lambda: codes(CENTROIDS * np.nan), "codes.centroids"),
    "boundaries that fall": (
        lambda: codes(np.ones(4, np.float32), np.array([0, 1, 0], np.float32), out(N // 4)),
        "codes.boundaries",
    ),
    "size of a run": (lambda: coding.absmax(X, 0, out(0, np.float32)), "runs.size"),
    "number of runs": (lambda: coding.absmax(X, 64, out(4, np.float32)), "array.length"),
    "levels": (
        lambda: coding.quantise_absmax(X, N, 128, SCALES[:1].astype(np.float32), out(N, np.int8)),
        "codes.levels",
    ),
    "offsets": (lambda: coding.dither_table(starts(65_536)), "spec.offset"),
}


@pytest.mark.parametrize("name", CALLS)
def test_what_cannot_be_called(name: str) -> None:
    call, code = CALLS[name]
    before = WHOLE.copy()
    with pytest.raises(ArgumentError) as caught:
        call()
    assert caught.value.code == code
    assert np.array_equal(WHOLE, before)


def test_out_may_be_the_base_but_not_a_part_of_it() -> None:
    room = np.ones(N + 1, np.float32)
    with pytest.raises(ArgumentError, match="overlaps"):
        decode(base=room[1:], to=room[:-1])
    zero_words = np.zeros(N, np.uint8)
    decode(zero_words, base=room[1:], to=room[1:].copy())
    same = room[1:]
    decode(zero_words, base=same, to=same)
    assert np.array_equal(room, np.ones(N + 1))


def test_no_blocks_at_all() -> None:
    none = Blocks(starts(), logs())
    sums = coding.encode(X, none, KEYS, Spec(0, 1.0, np.empty(0, np.float32), 5, 8), out(0))
    assert len(sums.squares) == len(sums.totals) == none.places == 0
    to = X.copy()
    coding.decode(out(0), none, KEYS, TABLE, np.empty(0), None, to, bits=8)
    assert np.array_equal(to, X)


NO_KEYS, NO_SIGNS = np.empty((0, 32), np.uint8), np.empty(0, np.int8)


@pytest.mark.parametrize(
    ("which", "wrong"),
    [
        (0, X.astype(np.float64)), (1, X[1:]), (2, starts(0, 200)), (2, starts(0, 2**62)), (2, starts(-64, 256)),
        (2, starts(0)), (3, logs(8, 7)), (3, logs(8, 200)), (4, 1), (4, -64), (5, bytes(31)), (7, 65_536), (7, -1),
        (9, np.ones(1, np.float32)), (10, 0), (10, 128), (11, 64), (11, 0), (12, np.empty((1, 32), np.uint8)),
        (12, np.empty((0, 31), np.uint8)), (14, out(N - 1)), (14, np.frombuffer(bytes(N), np.uint8)),
    ],
)  # fmt: skip
def test_the_native_code_checks_too(which: int, wrong: Any) -> None:
    """What a change of the arrays behind the door's back, or another caller, could bring."""
    arguments = [
        X, None, GRID.starts, GRID.logs, 64, KEYS.signs, KEYS.dither, 0, 1.0, SPEC.inverse_steps, 5, 8,
        NO_KEYS, NO_SIGNS, out(), 1,
    ]  # fmt: skip
    _native.encode(*arguments)  # type: ignore[arg-type]
    arguments[which] = wrong
    with pytest.raises((ValueError, TypeError)):
        _native.encode(*arguments)  # type: ignore[arg-type]

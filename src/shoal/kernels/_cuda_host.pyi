from typing import Any

import numpy as np
import numpy.typing as npt

KIND: str
INPUTS_MAX: int
ORDER_MAX: int
SUM_INPUTS_MAX: int
STREAMS_MAX: int

Doubles = npt.NDArray[np.float64]
Keys = npt.NDArray[np.uint8]
Signs = npt.NDArray[np.int8]

# Arrays are addresses; the last two arguments are the device and the stream.  See kernels/cuda.py.
def weighted_mean(
    inputs: list[int], weights: Doubles, length: int, dtype: int, out: int, flag: int, device: int, stream: int, /
) -> None: ...
def combine(
    base: int,
    inputs: list[int],
    weights: Doubles,
    length: int,
    dtype: int,
    out: int,
    flag: int,
    device: int,
    stream: int,
    /,
) -> None: ...
def scaled_add(
    y: int, x: int, scale: Doubles, length: int, dtype: int, out: int, flag: int, device: int, stream: int, /
) -> None: ...
def order(
    inputs: list[int],
    weights: Doubles | None,
    trim: int,
    length: int,
    dtype: int,
    out: int,
    flag: int,
    device: int,
    stream: int,
    /,
) -> None: ...
def convert(x: int, from_type: int, out: int, to_type: int, length: int, device: int, stream: int, /) -> None: ...
def add_streams(
    words: int,
    bits: int,
    bytes: int,
    keys: Keys,
    signs: Signs,
    lane: int,
    first: int,
    out: int,
    device: int,
    stream: int,
    /,
) -> None: ...
def sum_words(inputs: list[int], bits: int, bytes: int, out: int, device: int, stream: int, /) -> None: ...
def dlpack(capsule: object, /) -> tuple[int, int, int, int, tuple[int, ...], tuple[int, ...] | None, object]: ...

class Grid:
    def __init__(
        self,
        starts: int,
        places: int,
        logs: int,
        count: int,
        length: int,
        first: int,
        signs: Keys,
        dither: Keys | None,
        /,
    ) -> None: ...

def rotate(grid: Grid, x: int, out: int, device: int, stream: int, /) -> None: ...
def encode(
    grid: Grid,
    x: int,
    base: int,
    alpha: float,
    offset: int,
    bound: int,
    bits: int,
    inverse_steps: int,
    keys: Keys,
    signs: Signs,
    out: int,
    bytes: int,
    squares: int,
    clipped: int,
    totals: int,
    device: int,
    stream: int,
    /,
) -> None: ...
def decode(
    grid: Grid,
    words: int,
    bits: int,
    dithered: bool,
    table: int,
    scales: int,
    keys: Keys,
    signs: Signs,
    base: int,
    out: int,
    device: int,
    stream: int,
    /,
) -> None: ...

class Memory:
    def __init__(self, bytes: int, device: int, stream: int, /) -> None: ...
    @property
    def pointer(self) -> int: ...
    def put(self, x: npt.NDArray[np.uint8], device: int, stream: int, /) -> None: ...

def get(pointer: int, to: npt.NDArray[np.uint8], device: int, stream: int, /) -> None: ...
def banked(element: int, /) -> int: ...
def limit_memory(bytes: int, /) -> None: ...
def stats(x: int, dtype: int, length: int, numbers: int, counts: int, device: int, stream: int, /) -> None: ...
def gram(base: int, inputs: list[int], length: int, dtype: int, found: int, device: int, stream: int, /) -> None: ...
def check_sums(
    words: int,
    bits: int,
    bytes: int,
    key: Keys,
    lane: int,
    first: int,
    sums: int,
    device: int,
    stream: int,
    /,
) -> None: ...

class Pipeline:
    def __init__(self, device: int, tile_bytes: int, /) -> None: ...
    @property
    def tile_bytes(self) -> int: ...
    def weighted_mean(
        self, inputs: list[Any], dtype: int, weights: Doubles, out: npt.NDArray[Any], threads: int, /
    ) -> bool: ...
    def order(
        self,
        inputs: list[Any],
        dtype: int,
        weights: Doubles | None,
        trim: int,
        out: npt.NDArray[Any],
        threads: int,
        /,
    ) -> bool: ...

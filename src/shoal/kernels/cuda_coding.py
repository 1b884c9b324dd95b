"""Diffs to masked words and back on a CUDA device: what `coding` does on the CPU, with the same bits.

The contracts stand in `reference_coding` and `coding`; arrays, ``stream`` and errors are those of `cuda`.  Only what is
public or secret to the call lies in host memory: the grid's keys, the masks' keys.  So a peer can take the difference
of two models, rotate, quantise and mask it on the device, and only masked bytes cross the bus.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from shoal.errors import ArgumentError
from shoal.kernels.blocks import Blocks, BlockSums, Spec, StreamKeys, checked_bits, checked_key, checked_scales
from shoal.kernels.cuda import Call
from shoal.kernels.cuda_array import View
from shoal.kernels.cuda_memory import download, empty, upload
from shoal.kernels.reference_coding import DITHER_VALUES
from shoal.kernels.reference_ring import Bytes
from shoal.kernels.ring import Streams

_FLOAT32: Final = np.dtype(np.float32)
_NO_STREAMS: Final = Streams(np.empty((0, 32), np.uint8), np.empty(0, np.int8))


@dataclass(frozen=True, eq=False)
class Grid:
    """Blocks whose arrays lie on a device: made once for a model, used for every round."""

    blocks: Blocks
    starts: View
    places: View
    logs: View

    @property
    def end(self) -> int:
        """Where in the vector the last block begins, or -1."""
        return int(self.blocks.starts[-1]) if len(self.blocks) else -1


@dataclass(frozen=True, eq=False)
class DeviceSums:
    """`BlockSums` on the device.  ``squares`` that are not finite mean that the diff was not, or overflowed: then the
    words must not be used.  `BlockSums` on the CPU is checked; here the caller looks, when it has waited."""

    squares: View
    clipped: View
    totals: View


class Coding:
    """Coding kernels of one native module: `_cuda`, or in tests its host twin."""

    def __init__(self, native: Any, device: int = 0) -> None:
        self.native, self.device = native, device

    def grid(self, blocks: Blocks, *, stream: object = None) -> Grid:
        """Copies the blocks to the device."""
        sizes = np.int64(1) << blocks.logs.astype(np.int64)
        places = np.cumsum(sizes) - sizes
        arrays = (np.ascontiguousarray(blocks.starts), places, np.ascontiguousarray(blocks.logs))
        return Grid(blocks, *(upload(self.native, x, device=self.device, stream=stream) for x in arrays))

    def sums(self, blocks: int, *, stream: object = None) -> DeviceSums:
        """Room for the sums of so many blocks."""
        return DeviceSums(
            *(
                empty(self.native, blocks, dtype, device=self.device, stream=stream)
                for dtype in (np.float64, np.int64, np.int64)
            )
        )

    def read_sums(self, sums: DeviceSums, *, stream: object = None) -> BlockSums:
        """The sums in host memory; waits for the stream."""
        return BlockSums(*(download(self.native, x, stream=stream) for x in (sums.squares, sums.clipped, sums.totals)))

    def rotate(self, x: object, grid: Grid, signs_key: bytes, out: object, *, stream: object = None) -> None:
        """out float32[blocks.places] = the rotation alone."""
        checked_key(signs_key, "signs")
        call = Call(self.native, stream)
        view = _vector(call, x, "x", grid)
        to = call.out(out, _FLOAT32, grid.blocks.places, [view], same=False)
        if len(grid.blocks):
            call.start(self.native.rotate, self._bound(call, grid, view.length, signs_key), view.pointer, to.pointer)

    def encode(
        self,
        x: object,
        grid: Grid,
        keys: StreamKeys,
        spec: Spec,
        out: object,
        sums: DeviceSums,
        *,
        base: object | None = None,
        streams: Streams | None = None,
        inverse_steps: object | None = None,
        stream: object = None,
    ) -> None:
        """x - base, rotated, quantised, masked, packed into ``out`` uint8[places * bits / 8], sums into ``sums``.

        inverse_steps  float32[m] on the device, or None: then those of ``spec`` are copied there by this call
        """
        call = Call(self.native, stream)
        view = _vector(call, x, "x", grid)
        start = None if base is None else call.view(base, "base", _FLOAT32, view.length)
        count, size = len(grid.blocks), grid.blocks.places * spec.bits // 8
        if inverse_steps is None:
            inverse_steps = upload(self.native, spec.inverse_steps, device=self.device, stream=stream)
        steps = call.view(inverse_steps, "inverse_steps", _FLOAT32, count)
        to = call.out(out, np.dtype(np.uint8), size, [view, *([] if start is None else [start])], same=False)
        found = [call.view(s, "sums", length=count) for s in (sums.squares, sums.clipped, sums.totals)]
        masks = streams or _NO_STREAMS
        if count:
            call.start(
                self.native.encode, self._bound(call, grid, view.length, keys.signs, keys.dither), view.pointer,
                0 if start is None else start.pointer, float(np.float32(spec.alpha)), spec.offset, spec.bound,
                spec.bits, steps.pointer, masks.keys, masks.signs, to.pointer, size, *(s.pointer for s in found),
            )  # fmt: skip

    def decode(
        self,
        words: object,
        grid: Grid,
        keys: StreamKeys,
        table: object,
        scales: object,
        base: object | None,
        out: object,
        *,
        bits: int,
        dithered: bool = True,
        streams: Streams | None = None,
        stream: object = None,
    ) -> None:
        """The inverse of `encode` for a sum of words; out float32[n] may be ``base``.

        table     int32[65536] on the device, or numpy's, which this call copies there
        dithered  False: the table is all zero and is not looked at (private rounding)
        scales    float64[m], finite, >= 0; on the device, or numpy's
        streams   up to `_cuda.STREAMS_MAX`; more are taken off by `add_streams` first
        """
        checked_bits(bits)
        masks = streams or _NO_STREAMS
        if len(masks) > self.native.STREAMS_MAX:
            raise ArgumentError("streams.count", f"{len(masks)} streams; expected at most {self.native.STREAMS_MAX}")
        call = Call(self.native, stream)
        count = len(grid.blocks)
        if isinstance(scales, np.ndarray):
            checked_scales(scales, "scales")
        read = call.view(words, "words", np.dtype(np.uint8), grid.blocks.places * bits // 8)
        known = call.view(self._there(table, stream), "table", np.dtype(np.int32), DITHER_VALUES)
        factors = call.view(self._there(scales, stream), "scales", np.dtype(np.float64), count)
        start = None if base is None else call.view(base, "base", _FLOAT32)
        to = call.out(out, _FLOAT32, call.view(out, "out").length, [read])
        if start is not None:
            call.out(to, _FLOAT32, start.length, [start])
        _vector(call, to, "out", grid)
        if count:
            call.start(
                self.native.decode, self._bound(call, grid, to.length, keys.signs, keys.dither), read.pointer, bits,
                dithered, known.pointer, factors.pointer, masks.keys, masks.signs,
                0 if start is None else start.pointer, to.pointer,
            )  # fmt: skip

    def _there(self, x: object, stream: object) -> object:
        return upload(self.native, x, device=self.device, stream=stream) if isinstance(x, np.ndarray) else x

    def _bound(self, call: Call, grid: Grid, length: int, signs: bytes, dither: bytes | None = None) -> object:
        """The grid as the native code takes it; the device of its arrays is that of the call's."""
        pointers = [call.view(v, "grid").pointer for v in (grid.starts, grid.places, grid.logs)]
        keys: list[Bytes | None] = [None if key is None else np.frombuffer(key, np.uint8) for key in (signs, dither)]
        return self.native.Grid(*pointers, len(grid.blocks), length, grid.blocks.first, *keys)


def _vector(call: Call, x: object, what: str, grid: Grid) -> View:
    view = call.view(x, what, _FLOAT32)
    if grid.end >= view.length:
        raise ArgumentError(
            "blocks.range",
            f"the last block begins at {grid.end}; expected less than {view.length}, the vector's length",
        )
    return view

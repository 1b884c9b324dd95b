"""Build, check and measure the CUDA kernels on this machine's first device; print one table.

    floor of bytes     what a kernel must move, at the rate of a copy within the device (read + written)
    floor of cipher    the blocks of ChaCha20 that it must compute, at the rate of a kernel that does nothing else
    floor of the bus   what a merge of host arrays must move, at the rate of a copy from pinned memory

"of floor" is the floor's time over the kernel's: 1 is the limit, more is better.  "x torch": torch's time
for the same numbers over the kernel's, where it is installed.  Bits are compared with the CPU before anything is
measured: by tests/cuda, which run on the device here.

usage: python bench/gpu/run.py [--elements 100000000] [--write]
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from shoal.kernels.blocks import Blocks, Spec, StreamKeys
from shoal.kernels.cuda import Kernels, available
from shoal.kernels.cuda_coding import Coding
from shoal.kernels.cuda_memory import empty, upload
from shoal.kernels.cuda_staged import Staged
from shoal.kernels.device import Device, cuda_devices
from shoal.kernels.ring import Streams

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "PERFORMANCE_GPU.md"
MODELS = 8
STREAMS = 8
#: bytes of a device's memory that a bench may take, of all
SHARE = 0.6


@dataclass(frozen=True)
class Row:
    """One kernel: seconds, the floor's seconds and what it is, seconds of a framework or None."""

    name: str
    seconds: float
    floor: float
    limit: str
    other: float | None = None

    def cells(self) -> list[str]:
        other = "" if self.other is None else f"{self.other / self.seconds:.2f}"
        return [self.name, f"{self.seconds * 1e3:.3f}", f"{self.floor / self.seconds:.2f}", self.limit, other]


def build() -> None:
    """Builds what is missing; nvcc compiles for this device alone if SHOAL_CUDA_ARCHS says so."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        raise SystemExit("bench/gpu: nothing to measure, this machine has no NVIDIA driver (libcuda.so.1)") from None
    if importlib.util.find_spec("shoal.kernels._cuda") is not None:
        return
    command = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "SHOAL_CUDA": "1", "SHOAL_ONLY": "_cuda"})
    if done.returncode:
        raise SystemExit("bench/gpu: the CUDA module cannot be built here (see above)")


def check_bits() -> None:
    """Every kernel against the reference, on the device."""
    words = ["-m", "pytest", "tests/cuda", "-q", "-p", "no:cacheprovider"]
    if subprocess.run([sys.executable, *words], cwd=ROOT).returncode:
        raise SystemExit("bench/gpu: the device does not give the reference's bits; nothing was measured")


class Bench:
    """Arrays on the device and what is measured with them."""

    def __init__(self, native: Any, device: Device, elements: int, repeats: int = 11) -> None:
        self.native, self.device, self.repeats = native, device, repeats
        self.kernels, self.coding = Kernels(native), Coding(native)
        most = int(self.device.memory * SHARE) // ((MODELS + 3) * 4)
        self.elements = min(elements, most) // 2**14 * 2**14
        rng = np.random.default_rng(0)
        some = rng.standard_normal(min(self.elements, 2**24)).astype(np.float32)
        whole = np.resize(some, self.elements)
        self.inputs = [upload(self.native, np.roll(whole, 4099 * i)) for i in range(MODELS)]
        self.out = empty(self.native, self.elements, np.float32)
        self.timer = self.native.Timer(0, 1)
        moved = min(2**30, 4 * self.elements)
        self.copy_rate = 2 * moved / self.native.copy_seconds(moved, 0)
        self.bus_rates = [moved / self.native.bus_seconds(moved, way, 0) for way in (True, False)]
        blocks = min(2**24, self.elements)
        self.cipher_rate = blocks / self.native.cipher_seconds(blocks, 0)

    def seconds(self, call: Callable[[], object]) -> float:
        """Median of the device's own clock."""
        for _ in range(self.repeats // 4):
            call()
        found = []
        for _ in range(self.repeats):
            self.timer.start()
            call()
            found.append(self.timer.stop())
        return statistics.median(found)

    def by_bytes(self, name: str, call: Callable[[], object], moved: float, other: float | None = None) -> Row:
        return Row(name, self.seconds(call), moved / self.copy_rate, "copy", other)

    def by_cipher(self, name: str, call: Callable[[], object], stream_bytes: float) -> Row:
        return Row(name, self.seconds(call), stream_bytes / 64 / self.cipher_rate, "cipher")

    def rows(self) -> list[Row]:
        return [*self.sums(), *self.scans(), *self.coded(), *self.staged()]

    # --- kernels ---------------------------------------------------------------------------------------------------

    def sums(self) -> list[Row]:
        n, k, out = self.elements, self.kernels, self.out
        weights = [812.0, 240, 1504, 90, 77, 1, 3000, 12]
        short = empty(self.native, n, np.dtype(np.float16))
        few = [replace(x, length=n // 4) for x in self.inputs] * 4
        quarter = replace(out, length=n // 4)
        other = by_torch(n)
        return [
            self.by_bytes(
                "weighted mean, 8 x float32", lambda: k.weighted_mean(self.inputs, weights, out), 9 * n * 4,
                other.get("mean"),
            ),
            self.by_bytes("median, 8 x float32", lambda: k.median(self.inputs, None, out), 9 * n * 4, other.get("median")),
            self.by_bytes("weighted median, 8 x float32", lambda: k.median(self.inputs, weights, out), 9 * n * 4),
            self.by_bytes("trimmed mean, 8 x float32", lambda: k.trimmed_mean(self.inputs, None, 2, out), 9 * n * 4),
            self.by_bytes("median, 32 x float32", lambda: k.median(few, None, quarter), 33 * (n // 4) * 4),
            self.by_bytes(
                "base + combination, 7 x float32", lambda: k.combine(self.inputs[7], self.inputs[:7], weights[:7], out),
                9 * n * 4,
            ),
            self.by_bytes("float32 to float16", lambda: k.convert(self.inputs[0], short), 6 * n, other.get("convert")),
        ]  # fmt: skip

    def scans(self) -> list[Row]:
        n, k = self.elements, self.kernels
        numbers, counts = empty(self.native, 2, np.float64), empty(self.native, 2, np.int64)
        found = empty(self.native, -(-n // 65536) * MODELS**2, np.float64)
        words, sums = empty(self.native, 2 * n, np.uint8), empty(self.native, 32, np.uint64)
        return [
            self.by_bytes("statistics, float32", lambda: k.stats(self.inputs[0], numbers, counts), 4 * n),
            self.by_bytes("inner products, 8 x float32", lambda: k.gram(self.inputs, None, found), 8 * n * 4),
            self.by_cipher("check sums, 16 bits", lambda: k.check_sums(words, 16, bytes(32), 3, 0, sums), 4 * n),
        ]

    def coded(self) -> list[Row]:
        n, coding, x = self.elements, self.coding, self.inputs[0]
        count = n >> 14
        blocks = Blocks(np.arange(count, dtype=np.int64) << 14, np.full(count, 14, np.uint8))
        grid, sums = coding.grid(blocks), coding.sums(count)
        keys = StreamKeys(bytes(32), bytes(range(32)))
        streams = Streams.of([bytes([i]) * 32 for i in range(STREAMS)], [1, -1] * (STREAMS // 2))
        table = upload(self.native, np.zeros(65536, np.int32))
        scales = upload(self.native, np.full(count, 1e-9))
        steps = np.full(count, 30, np.float32)
        there = upload(self.native, steps)
        rows = [self.by_bytes("rotation", lambda: coding.rotate(x, grid, keys.signs, self.out), 8 * n)]
        for bits in (8, 12, 16, 32):
            words = empty(self.native, n * bits // 8, np.uint8)
            spec = Spec(7, 0.5, steps, 2 ** (bits - 1) // (STREAMS + 1), bits)
            width = 2 if bits == 12 else bits // 8

            def encode(words: Any = words, spec: Any = spec) -> None:
                coding.encode(
                    x, grid, keys, spec, words, sums, base=self.inputs[1], streams=streams, inverse_steps=there
                )

            def decode(words: Any = words, bits: int = bits, dithered: bool = True) -> None:
                coding.decode(words, grid, keys, table, scales, x, self.out, bits=bits, dithered=dithered)

            def mask(words: Any = words, bits: int = bits) -> None:
                self.kernels.add_streams(words, bits, streams, 0, 0, words)

            rows += [
                self.by_cipher(f"rotate, round, mask: {STREAMS} streams, {bits} bits", encode, n * (STREAMS * width + 2 + 1 / 8)),
                self.by_cipher(f"masks alone: {STREAMS} streams, {bits} bits", mask, n * STREAMS * width),
                self.by_bytes(f"decode, dithered, {bits} bits", decode, n * (8 + bits / 8)),
                self.by_bytes(f"decode, private, {bits} bits", lambda d=decode: d(dithered=False), n * (8 + bits / 8)),
            ]  # fmt: skip
        return rows

    def staged(self) -> list[Row]:
        """Host to host; this waits, so the clock is the host's."""
        n = self.elements // 4
        inputs = [np.full(n, i + 1, np.float32) for i in range(MODELS)]
        out, there, found = np.empty(n, np.float32), Staged(self.native), []
        for _ in range(5):
            started = time.perf_counter()
            there.weighted_mean(inputs, [1.0] * MODELS, out)
            found.append(time.perf_counter() - started)
        floor = MODELS * n * 4 / self.bus_rates[0]
        return [Row("weighted mean of host arrays, 8 x float32", statistics.median(found[1:]), floor, "bus")]


def by_torch(elements: int) -> dict[str, float]:
    """Seconds of torch for the same, in float32 as one writes it there; empty without torch."""
    try:
        import torch
    except ImportError:
        return {}
    if not torch.cuda.is_available():
        return {}
    rows = [torch.randn(elements, device="cuda") for _ in range(MODELS)]

    def mean() -> None:
        total = rows[0] * 0.1
        for row in rows[1:]:
            total.add_(row, alpha=0.1)

    def time_of(call: Callable[[], object]) -> float:
        begun, ended = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        found = []
        for _ in range(6):
            begun.record()
            call()
            ended.record()
            ended.synchronize()
            found.append(begun.elapsed_time(ended) / 1e3)
        return statistics.median(found[1:])

    found = {"mean": time_of(mean), "convert": time_of(lambda: rows[0].to(torch.float16))}
    small = [row[: elements // 16] for row in rows]
    found["median"] = time_of(lambda: torch.stack(small).median(dim=0)) * 16  # more does not fit beside it
    return found


def table(bench: Bench, rows: list[Row]) -> str:
    device = bench.device
    lines = [
        f"Device: {device.name}, compute capability {'.'.join(map(str, device.capability))}, {bench.elements:,} elements "
        f"of float32 per vector, {date.today()}",
        "",
        f"Measured limits: copy {bench.copy_rate / 1e9:,.0f} GB/s read and written; bus {bench.bus_rates[0] / 1e9:.1f} GB/s "
        f"in, {bench.bus_rates[1] / 1e9:.1f} out; ChaCha20 {bench.cipher_rate * 64 / 1e9:,.0f} GB/s of keystream.",
        "",
        "| kernel | median, ms | of floor | floor | x torch |",
        "|---|---|---|---|---|",
        *("| " + " | ".join(row.cells()) + " |" for row in rows),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description="Build, check and measure the CUDA kernels.")
    parser.add_argument("--elements", type=int, default=100_000_000, help="of one vector")
    parser.add_argument("--write", action="store_true", help=f"write the table to {PAGE.relative_to(ROOT)}")
    asked = parser.parse_args()
    build()
    there, reason = available()
    if not there:
        raise SystemExit(f"bench/gpu: nothing to measure, no CUDA device: {reason}")
    check_bits()
    import shoal.kernels._cuda as native

    bench = Bench(native, cuda_devices()[0][0], asked.elements)
    text = table(bench, bench.rows())
    sys.stdout.write(text)
    if asked.write:
        PAGE.write_text("# Performance on a GPU\n\nWritten by `python bench/gpu/run.py --write`.\n\n" + text)


if __name__ == "__main__":
    main()

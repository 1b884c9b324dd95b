"""Kernels need no memory beside what they are given, but for a tile of each thread."""

from __future__ import annotations

import subprocess
import sys

import pytest

#: bytes that a thread works in (native/coding_engine.cpp, Scratch), and its stack as far as it is used
TILE_BYTES = 256 * 2**10
#: what Python and numpy take meanwhile; small against the vectors, of which the smallest has 4 MiB
SMALL_BYTES = 2**20

#: Every kernel of a slot on vectors of 2**22 numbers; prints by how many bytes the peak rose while they ran.
CODE = """
import sys
import numpy as np
from shoal.kernels import coding, ring
from shoal.kernels.coding import Blocks, Spec, StreamKeys
from shoal.kernels.ring import Streams

threads, n = int(sys.argv[1]), 2**22
blocks = Blocks(np.arange(0, n, 2**14), np.full(n >> 14, 14, np.uint8), 0)
keys, masks = StreamKeys(b"s" * 32, b"d" * 32), Streams.of([bytes([i]) * 32 for i in range(9)], [1, -1, 1] * 3)
spec = Spec(7, 1.0, np.full(len(blocks), 4.0, np.float32), 12, 8)
x, base, out = (np.full(n, value, np.float32) for value in (0.5, 0.25, 1.0))
words, total = np.ones(n, np.uint8), np.ones(n, np.uint8)
table, scales = coding.dither_table(np.arange(4, dtype=np.int64) * 16_384), np.full(len(blocks), 1e-6)
centroids = np.linspace(-2, 2, 16, dtype=np.float32)
boundaries, floats = (centroids[1:] + centroids[:-1]) / 2, scales.astype(np.float32)

def peak():
    # Not ru_maxrss: that knows the process from before exec, too, when it was as large as the one that started it.
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM:")) * 1024

before = peak()
coding.encode(x, blocks, keys, spec, words, base=base, streams=masks, threads=threads)
coding.decode(words, blocks, keys, table, scales, base, out, bits=8, streams=masks.opposite(), threads=threads)
coding.encode_codes(x, blocks, keys.signs, boundaries, centroids, words[: n // 2], threads=threads)
coding.decode_codes(words[: n // 2], blocks, keys.signs, centroids, floats, None, out, threads=threads)
ring.add_streams(words, 8, masks, 0, 0, total, threads=threads)
ring.sum_words([words, words], 8, total, threads=threads)
ring.check_sums(total, 8, b"c" * 32, 3, 0, threads=threads)
ring.keystream(b"k" * 32, 0, 0, total, threads=threads)
if len(sys.argv) > 2:
    np.ones(n, np.uint8)
print(peak() - before)
"""


def grown(*words: str) -> int:
    done = subprocess.run([sys.executable, "-c", CODE, *words], check=True, capture_output=True, text=True)
    return int(done.stdout)


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_a_tile_for_each_thread_and_no_more(threads: int) -> None:
    assert grown(str(threads)) < threads * TILE_BYTES + SMALL_BYTES


def test_a_copy_of_the_smallest_vector_would_show() -> None:
    assert grown("1", "copy") > 2 * TILE_BYTES + SMALL_BYTES

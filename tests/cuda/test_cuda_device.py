"""What only a device can show: more than 2**32 elements, and results that are there when the stream has come so far."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from shoal.errors import MachineError
from shoal.kernels import coding, cuda, dispatch, reference_ring
from shoal.kernels.blocks import Blocks, Spec, StreamKeys
from shoal.kernels.cuda import Kernels
from shoal.kernels.cuda_array import View
from shoal.kernels.cuda_coding import Coding
from shoal.kernels.cuda_memory import download, empty, upload
from shoal.kernels.cuda_staged import Staged
from shoal.kernels.ring import Streams


@pytest.fixture
def device() -> Iterator[Kernels]:
    there, reason = cuda.available()
    if not there:
        pytest.skip(f"no CUDA device: {reason}")
    yield cuda.kernels()


def test_more_than_two_to_the_32_words(device: Kernels) -> None:
    """The last words of 4 GiB and a few are masked as the reference masks them."""
    found, _ = cuda.cuda_devices()
    count = 2**32 + 4096 + 7
    if found[0].memory < 3 * count:
        pytest.skip(f"{found[0].name} has less than {3 * count} bytes")
    words = empty(device.native, count, np.uint8)
    key = bytes(range(32))
    device.add_streams(words, 8, Streams.of([key], [1]), 0, 0, words)
    end = View(words.pointer + count - 5000, 5000, words.dtype, words.device, False, words)
    before = download(device.native, end)
    device.add_streams(words, 8, Streams.of([key], [1]), 0, 0, words)
    expected = np.empty_like(before)
    reference_ring.add_streams(before, 8, [key], [1], 0, count - 5000, expected)
    assert np.array_equal(download(device.native, end), expected)


def test_calls_on_one_stream_follow_each_other(device: Kernels) -> None:
    x = upload(device.native, np.arange(100_000, dtype=np.float32))
    for _ in range(20):
        device.scaled_add(x, 1.0, x, x)
    assert np.array_equal(download(device.native, x), np.arange(100_000, dtype=np.float32) * 2.0**20)


def test_too_much_memory_is_an_error_and_the_next_call_works(device: Kernels) -> None:
    with pytest.raises(MachineError) as raised:
        empty(device.native, 2**50, np.uint8)
    assert raised.value.code == "device.memory"
    x = upload(device.native, np.ones(10, np.float32))
    device.scaled_add(x, 1.0, x, x)
    assert download(device.native, x).tolist() == [2.0] * 10


def test_staged_arrays_on_the_device(device: Kernels) -> None:
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal(1_000_003).astype(np.float32) for _ in range(5)]
    out, expected = np.empty_like(inputs[0]), np.empty_like(inputs[0])
    assert Staged(device.native, 0, 2**20).median(inputs, None, out) and dispatch.median(inputs, None, expected)
    assert np.array_equal(out.view(np.uint32), expected.view(np.uint32))


@pytest.mark.parametrize("framework", ["torch", "cupy"])
def test_arrays_of_frameworks(device: Kernels, framework: str) -> None:
    module = pytest.importorskip(framework, reason=f"{framework} is not installed")
    a, b, out = (module.ones(1000, dtype=module.float32) for _ in range(3))
    if framework == "torch":
        a, b, out = a.cuda(), b.cuda() * 3, out.cuda()
    else:
        b *= 3
    device.weighted_mean([a, b], [1, 1], out)
    assert float(out.min()) == float(out.max()) == 2.0


def test_a_difference_of_torchs_models_is_masked_on_the_device(device: Kernels) -> None:
    """Only the words come back; they are those that the CPU makes."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    rng = np.random.default_rng(3)
    x, base = (rng.standard_normal(2**15 - 5).astype(np.float32) for _ in range(2))
    blocks = Blocks(np.array([0, 2**14], np.int64), np.array([14, 14], np.uint8))
    keys, streams = StreamKeys(bytes(32), bytes(range(32))), Streams.of([bytes([9]) * 32, bytes([8]) * 32], [1, -1])
    spec = Spec(11, 0.25, np.full(2, 40, np.float32), 20, 8)
    expected = np.empty(blocks.places, np.uint8)
    found = coding.encode(x, blocks, keys, spec, expected, base=base, streams=streams)
    there = Coding(device.native)
    words, sums = torch.empty(blocks.places, dtype=torch.uint8, device="cuda"), there.sums(2)
    model, start = (torch.from_numpy(a).cuda() for a in (x, base))
    there.encode(
        model, there.grid(blocks), keys, spec, words, sums, base=start, streams=streams,
        stream=torch.cuda.current_stream(),
    )  # fmt: skip
    assert np.array_equal(words.cpu().numpy(), expected)
    assert np.array_equal(there.read_sums(sums).squares, found.squares)

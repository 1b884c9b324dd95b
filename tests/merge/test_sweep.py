"""The threads of one reading: order of sums, errors, cuts."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from shoal.limits import DIGEST_CHUNK_BYTES, MODELS_MAX, STREAM_BYTES_MAX
from shoal.merge.source import Tensor
from shoal.merge.sweep import OrderedSum, Sweep
from shoal.merge.tiles import Buffers, cut, items


def test_a_sum_is_the_same_in_whatever_order_its_parts_come() -> None:
    parts = [np.random.default_rng(i).normal(size=(3, 5)) * 10.0 ** (i % 9) for i in range(30)]
    found = set()
    for seed in range(20):
        total = OrderedSum()
        for i in np.random.default_rng(seed).permutation(30):
            total.put(int(i), [parts[i]])
        assert total.value is not None
        found.add(total.value.tobytes())
    assert len(found) == 1


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_every_item_is_done_once_by_threads_that_own_what_they_use(threads: int) -> None:
    owners: dict[int, int] = {}

    def start() -> list[int]:
        mine: list[int] = []
        owners[id(mine)] = threading.get_ident()
        kept.append(mine)
        return mine

    def work(item: int, mine: list[int]) -> list[np.ndarray]:
        assert owners[id(mine)] == threading.get_ident()
        mine.append(item)
        return [np.array([[item]])]

    kept: list[list[int]] = []
    sweep = Sweep(range(500), start, work)
    sweep.run(threads)
    assert sorted(item for mine in kept for item in mine) == list(range(500))
    assert sweep.total.value is not None and sweep.total.value[0] == 500 * 499 // 2


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_the_first_error_in_order_is_raised(threads: int) -> None:
    later = threading.Event()

    def work(item: int, _: None) -> None:
        if item == 40:
            if threads > 1:
                later.wait(5)  # only goes on when a later item has failed already
            raise ValueError("first")
        if item > 40:
            later.set()
            raise ValueError("later")

    with pytest.raises(ValueError, match="first"):
        Sweep(range(1000), lambda: None, work).run(threads)


def test_errors_of_starting_are_raised_too() -> None:
    def start() -> None:
        raise MemoryError

    with pytest.raises(MemoryError):
        Sweep(range(10), start, lambda _item, _worker: None).run(3)


@pytest.mark.parametrize("threads", [1, 2, 16, 256])
@pytest.mark.parametrize("models", [1, 2, 9, 33, 200, MODELS_MAX + 1])
def test_buffers_stay_within_the_limit(threads: int, models: int) -> None:
    size = cut(models, threads)
    assert size.threads * (models * size.tile_bytes + DIGEST_CHUNK_BYTES) <= STREAM_BYTES_MAX
    assert size.tile_bytes & (size.tile_bytes - 1) == 0 and 1 <= size.threads <= threads


def test_items_cover_every_element_once_and_start_at_chunks() -> None:
    sizes = [0, 1, 7, 262_144, 262_145, 3, 1_000_000, 5]
    tensors = [Tensor(str(i), "float", np.dtype("f4"), size, (size,)) for i, size in enumerate(sizes)]
    seen = dict.fromkeys((t.key for t in tensors), 0)
    for item in items(tensors, DIGEST_CHUNK_BYTES):
        assert sum(s.count for s in item) * 4 <= DIGEST_CHUNK_BYTES
        for stretch in item:
            assert stretch.first == seen[stretch.tensor.key] and stretch.first * 4 % DIGEST_CHUNK_BYTES == 0
            seen[stretch.tensor.key] += stretch.count
    assert list(seen.values()) == sizes


def test_tensors_of_different_types_are_not_joined() -> None:
    tensors = [Tensor(str(i), "float", np.dtype(kind), 4, (4,)) for i, kind in enumerate(("f4", "f8", "f8", "f4"))]
    assert [len(item) for item in items(tensors, 1024)] == [1, 2, 1]


def test_buffers_are_aligned_and_reused() -> None:
    buffers = Buffers()
    one = buffers.get("a", np.dtype("f8"), 100)
    assert one.ctypes.data % 64 == 0 and len(one) == 100
    assert buffers.get("a", np.dtype("f4"), 50).ctypes.data == one.ctypes.data
    assert buffers.get("b", np.dtype("f8"), 1).ctypes.data != one.ctypes.data

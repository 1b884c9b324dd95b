"""One call reads the same stretch of many files; a file that ends early is named by its place."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from shoal.model.file import read_rows


@pytest.fixture
def descriptors(tmp_path: Path) -> list[int]:
    found = []
    for k, size in enumerate((300_000, 300_000, 100)):
        (tmp_path / str(k)).write_bytes(np.random.default_rng(k).bytes(size))
        found.append(os.open(tmp_path / str(k), os.O_RDONLY))
    return found


def test_every_row_is_read(descriptors: list[int], tmp_path: Path) -> None:
    buffers = [np.zeros(200_000, np.uint8), np.zeros(0, np.uint8), np.zeros(50, np.uint8)]
    assert read_rows([(descriptors[0], 7), (descriptors[1], 5), (descriptors[2], 50)], buffers) == -1
    assert buffers[0].tobytes() == (tmp_path / "0").read_bytes()[7:200_007]
    assert buffers[2].tobytes() == (tmp_path / "2").read_bytes()[50:]


def test_a_short_file_is_named_by_its_place(descriptors: list[int]) -> None:
    buffers = [np.zeros(60, np.uint8) for _ in descriptors]
    assert read_rows([(d, 50) for d in descriptors], buffers) == 2


def test_a_closed_descriptor_is_named_by_its_place(descriptors: list[int]) -> None:
    os.close(descriptors[1])
    assert read_rows([(d, 0) for d in descriptors], [np.zeros(10, np.uint8) for _ in descriptors]) == 1


def test_nothing_to_read() -> None:
    assert read_rows([], []) == -1

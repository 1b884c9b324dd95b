"""Sparse tensors: every value has a place of its own in the dense tensor, or the model is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from shoal.errors import InputError
from shoal.model import sparse
from shoal.model.file import ModelFile


def store(folder: Path, places: object, dims: list[int], constant: bool = False) -> Path:
    index = np.array(places, np.int64)
    values = numpy_helper.from_array(np.ones(len(index), np.float32), "" if constant else "s")
    tensor = helper.make_sparse_tensor(values, numpy_helper.from_array(index, "at"), dims)
    nodes = [helper.make_node("Constant", [], ["s"], sparse_value=tensor)] if constant else []
    graph = helper.make_graph(nodes, "g", [], [], [] if constant else None)
    if not constant:
        graph.sparse_initializer.append(tensor)
    onnx.save(helper.make_model(graph), folder / "m.onnx")
    return folder / "m.onnx"


GOOD = [([0, 3, 8], [9]), ([0, 3, 8], [3, 3]), ([[0, 0], [0, 2], [2, 1]], [3, 3]), ([], [4]), ([[1, 0, 5]], [2, 1, 6])]


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize(("places", "dims"), GOOD)
def test_good_ones_are_read(places: object, dims: list[int], constant: bool, tmp_path: Path) -> None:
    with ModelFile.open(store(tmp_path, places, dims, constant)) as file:
        assert set(file.tensors) == {"s", "s::indices"}


BAD = [
    ([0, 9], [9], "index 1 is [9]"),
    ([-1, 0], [9], "index 0 is [-1]"),
    ([3, 3], [9], "index 1 does not come after"),
    ([3, 1], [9], "index 1 does not come after"),
    ([[0, 3]], [3, 3], "index 0 is [0, 3]"),
    ([[0, -1]], [3, 3], "index 0 is [0, -1]"),
    ([[1, 0], [0, 2]], [3, 3], "index 1 does not come after"),
    ([[0, 1], [0, 1]], [3, 3], "index 1 does not come after"),
    ([[0, 1]], [3, 3, 3], "do not fit"),
    ([0], [0, 5], "index 0 is [0]"),
    ([0], [2**40, 2**40], "more than"),
]


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize(("places", "dims", "says"), BAD)
def test_bad_ones_are_refused(places: object, dims: list[int], says: str, constant: bool, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        ModelFile.open(store(tmp_path, places, dims, constant))
    assert caught.value.code == "tensor.sparse"
    assert says in str(caught.value) and "'s'" in str(caught.value) and "m.onnx" in str(caught.value)


def test_order_is_checked_across_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse, "_PIECE", 2)
    ModelFile.open(store(tmp_path, [1, 2, 5, 6, 7], [9])).close()
    with pytest.raises(InputError, match="index 2 does not come after"):
        ModelFile.open(store(tmp_path, [1, 5, 4, 6, 7], [9]))

"""Models as named arrays: lazy, changed by assignment, saved whole."""

from __future__ import annotations

import os
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from shoal.errors import ArgumentError, InputError
from shoal.model import weights as weights_module
from shoal.model.model import Model, load, save

ARRAYS = {
    "layer.10": np.arange(6, dtype=np.float32).reshape(2, 3),
    "layer.2": np.array([1.5, -2], ml_dtypes.bfloat16),
    "steps": np.array(7, np.int64),
    "half": np.zeros((0, 3), np.float16),
}


def onnx_file(path: Path, *, text: bool = True) -> Path:
    """The same arrays in every way of storage, and a string, with a node around."""
    half = helper.make_tensor("half", TensorProto.FLOAT16, [0, 3], [])
    steps = helper.make_tensor("steps", TensorProto.INT64, [], [7])
    layer2 = helper.make_tensor("layer.2", TensorProto.BFLOAT16, [2], [1.5, -2])
    tensors = [numpy_helper.from_array(ARRAYS["layer.10"], "layer.10"), layer2, steps, half]
    if text:
        tensors.append(helper.make_tensor("text", TensorProto.STRING, [2], [b"a", b"bc"]))
    graph = helper.make_graph(
        [helper.make_node("Identity", ["layer.10"], ["y"])],
        "graph",
        [],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 3])],
        initializer=tensors,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    return path


def same(left: np.ndarray, right: np.ndarray) -> bool:
    return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()


@pytest.fixture(params=["onnx file", "weights file", "outside", "arrays"])
def model(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    if request.param == "outside":
        monkeypatch.setattr(weights_module, "EMBEDDED_BYTES_MAX", 0)
    if request.param == "arrays":
        made = Model.from_tensors(ARRAYS)
    elif request.param == "onnx file":
        made = load(onnx_file(tmp_path / "m.onnx", text=False))
    else:
        save(ARRAYS, tmp_path / "m.onnx")
        made = load(tmp_path / "m.onnx")
    with made:
        yield made


def test_a_model_is_a_mapping_in_the_order_it_came(model: Model) -> None:
    assert list(model) == list(ARRAYS) and len(model) == 4 and "steps" in model and "nothing" not in model
    for name, array in ARRAYS.items():
        assert same(model[name], array)
        assert model.tensors[name].dims == array.shape
    assert [info.dtype.name for info in model.tensors.values()] == ["float32", "bfloat16", "int64", "float16"]
    with pytest.raises(KeyError):
        model["nothing"]


def test_the_digest_is_one_for_all_forms(model: Model) -> None:
    assert model.digest() == Model.from_tensors(dict(reversed(ARRAYS.items()))).digest() == model.digest(threads=3)


def test_assignment_changes_values_and_digest_but_not_the_file(model: Model, tmp_path: Path) -> None:
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    old = model.digest()
    model["layer.10"] = model["layer.10"] + 1
    assert same(model["layer.10"], ARRAYS["layer.10"] + 1)
    assert model.digest() != old
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
    model["layer.10"] = ARRAYS["layer.10"]
    assert model.digest() == old


def test_save_and_load_again(model: Model, tmp_path: Path) -> None:
    model["layer.2"] = np.array([3, 4], ml_dtypes.bfloat16)
    model["steps"] = np.array(8, ">i8")
    model["layer.10"] = np.asfortranarray(ARRAYS["layer.10"] * 2)
    (tmp_path / "other").mkdir()
    path = tmp_path / "other" / "copy.onnx"
    model.save(path)
    onnx.checker.check_model(path, full_check=True)
    with load(path) as copy:
        assert copy.path == path and list(copy) == list(ARRAYS)
        assert same(copy["layer.2"], np.array([3, 4], ml_dtypes.bfloat16))
        assert same(copy["steps"], np.array(8, np.int64))
        assert same(copy["layer.10"], ARRAYS["layer.10"] * 2)
        assert copy.digest() == model.digest()


def test_saving_onto_its_own_file(model: Model, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    for step in range(3):
        model["layer.10"] = np.full((2, 3), step, np.float32)
        model.save(path)
        assert same(model["layer.10"], np.full((2, 3), step, np.float32))
        assert same(model["layer.2"], ARRAYS["layer.2"])
    with load(path) as again:
        assert again.digest() == model.digest()
    assert len(os.listdir(tmp_path)) <= 2


@pytest.mark.parametrize(
    "array",
    [np.zeros((2, 3), np.float64), np.zeros((3, 2), np.float32), np.zeros(6, np.float32), 0.0, [[0.0] * 3] * 2],
)
def test_another_dtype_or_shape_is_refused(model: Model, array: object) -> None:
    with pytest.raises(ArgumentError) as caught:
        model["layer.10"] = array
    assert caught.value.code == "model.array"
    assert same(model["layer.10"], ARRAYS["layer.10"])


def test_a_new_name_is_refused(model: Model) -> None:
    with pytest.raises(ArgumentError) as caught:
        model["new"] = np.zeros(1)
    assert caught.value.code == "model.name"


def test_writing_into_a_tensor_is_refused_instead_of_lost(model: Model) -> None:
    with pytest.raises(ValueError, match="read-only"):
        model["layer.10"][0, 0] = 1


def test_arrays_of_the_caller_stay_writable_and_are_not_copied() -> None:
    mine = np.zeros(3, np.float32)
    model = Model.from_tensors({"w": mine})
    mine[0] = 5
    assert model["w"].tolist() == [5, 0, 0]


def test_strings_count_in_the_digest_but_are_no_arrays(tmp_path: Path) -> None:
    with load(onnx_file(tmp_path / "m.onnx")) as model, load(onnx_file(tmp_path / "n.onnx", text=False)) as other:
        assert "text" in model.tensors and "text" not in list(model)
        assert model.digest() != other.digest()
        model.save(tmp_path / "copy.onnx")
        assert (tmp_path / "copy.onnx").read_bytes() == (tmp_path / "m.onnx").read_bytes()
        with pytest.raises(ArgumentError):
            model["text"] = np.array(["a", "b"])


def test_a_closed_model_says_so(tmp_path: Path) -> None:
    with load(onnx_file(tmp_path / "m.onnx")) as model:
        pass
    with pytest.raises(ArgumentError):
        model["layer.10"]
    model.close()


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"")
    with pytest.raises(InputError):
        load(tmp_path / "m.onnx")
    with pytest.raises(ArgumentError):
        save({}, tmp_path / "out.onnx")
    with pytest.raises(ArgumentError):
        Model.from_tensors({"w": [1.0]})  # type: ignore[dict-item]
    assert os.listdir(tmp_path) == ["m.onnx"]


def test_save_says_what_it_takes(tmp_path: Path) -> None:
    for value in (5, [np.zeros(2)], "w"):
        with pytest.raises(ArgumentError, match="a Model, or a dict of arrays"):
            save(value, tmp_path / "out.onnx")  # type: ignore[arg-type]
    assert os.listdir(tmp_path) == []


class Foreign:
    """An array of another framework, as far as DLPack goes."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __dlpack__(self, **words: object) -> object:
        return self.array.__dlpack__(**words)  # type: ignore[arg-type]

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()


def test_arrays_of_other_frameworks_go_in(tmp_path: Path) -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    save({"w": Foreign(array)}, tmp_path / "w.onnx")  # type: ignore[dict-item]
    with load(tmp_path / "w.onnx") as model:
        assert np.array_equal(model["w"], array)
        model["w"] = Foreign(array + 1)  # type: ignore[assignment]
        assert np.array_equal(model["w"], array + 1)


def test_models_are_equal_only_to_themselves() -> None:
    """Two equal models are found by their digests; == would have to read all values, and arrays have no one truth."""
    model = Model.from_tensors(ARRAYS)
    assert model == model and model != Model.from_tensors(ARRAYS) and len({model}) == 1

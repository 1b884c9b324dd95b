"""Weights files: valid ONNX for the standard's own library and for onnxruntime, and the same bytes every time."""

from __future__ import annotations

import os
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from shoal.errors import ArgumentError, MachineError
from shoal.model import weights as module
from shoal.model.digest import ModelDigest, tensor_digest
from shoal.model.weights import save_weights

FLOATS = [np.float64, np.float32, np.float16, ml_dtypes.bfloat16]
INTEGERS = [np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64, np.bool_]


def one_of_each() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(7)
    tensors: dict[str, np.ndarray] = {}
    for dtype in FLOATS:
        tensors[f"layer.10.{np.dtype(dtype)}"] = rng.standard_normal((3, 5)).astype(dtype)
    for dtype in INTEGERS:
        tensors[f"layer.2.{np.dtype(dtype)}"] = rng.integers(0, 2, (2, 3)).astype(dtype)
    tensors["number"] = np.array(0.5, np.float32)
    tensors["empty"] = np.zeros((0, 4), np.float32)
    tensors["名前/ü"] = np.float32([np.nan, np.inf, -0.0, 1e-45])
    return tensors


def same(left: np.ndarray, right: np.ndarray) -> bool:
    return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()


@pytest.fixture(params=["embedded", "outside"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "outside":
        monkeypatch.setattr(module, "EMBEDDED_BYTES_MAX", 0)
    return request.param


def test_onnx_reads_back_every_bit(tmp_path: Path, form: str) -> None:
    tensors = one_of_each()
    save_weights(tensors, tmp_path / "w.onnx")
    onnx.checker.check_model(tmp_path / "w.onnx", full_check=True)
    model = onnx.load(tmp_path / "w.onnx")
    assert [t.name for t in model.graph.initializer] == list(tensors)
    for tensor in model.graph.initializer:
        assert same(numpy_helper.to_array(tensor), tensors[tensor.name]), tensor.name
    assert (model.ir_version, model.producer_name, model.graph.name) == (10, "shoal", "weights")
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 21)]
    assert not model.graph.node and not model.graph.input
    assert len(os.listdir(tmp_path)) == (1 if form == "embedded" else 2)


def test_onnxruntime_loads_it_and_hands_out_the_weights(tmp_path: Path, form: str) -> None:
    tensors = one_of_each()
    save_weights(tensors, tmp_path / "w.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "w.onnx", providers=["CPUExecutionProvider"])
    assert [o.name for o in session.get_outputs()] == list(tensors)
    asked = [name for name, array in tensors.items() if array.dtype != ml_dtypes.bfloat16]  # numpy cannot take it there
    for name, array in zip(asked, session.run(asked, {}), strict=True):
        assert same(array, tensors[name]), name


def test_the_bytes_are_those_of_protobuf_itself(tmp_path: Path) -> None:
    save_weights(one_of_each(), tmp_path / "w.onnx")
    content = (tmp_path / "w.onnx").read_bytes()
    assert onnx.ModelProto.FromString(content).SerializeToString() == content


def test_the_same_tensors_give_the_same_files(tmp_path: Path, form: str) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        save_weights(one_of_each(), tmp_path / folder / "w.onnx")
    first, second = ({p.name: p.read_bytes() for p in (tmp_path / f).iterdir()} for f in ("a", "b"))
    assert first == second


def test_the_digest_is_that_of_the_tensors_in_any_order(tmp_path: Path, form: str) -> None:
    tensors = one_of_each()
    expected = ModelDigest()
    for name, array in tensors.items():
        expected.add(name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape, tensor_digest(array))
    assert save_weights(tensors, tmp_path / "a.onnx") == expected.digest()
    assert save_weights(dict(reversed(tensors.items())), tmp_path / "b.onnx") == expected.digest()


def test_memory_order_and_byte_order_do_not_show(tmp_path: Path, form: str) -> None:
    plain = np.arange(600_000, dtype=np.float32).reshape(600, 1000)
    for number, array in enumerate([plain, plain.astype(">f4"), np.asfortranarray(plain), np.repeat(plain, 2, 0)[::2]]):
        (tmp_path / str(number)).mkdir()
        save_weights({"w": array}, tmp_path / str(number) / "w.onnx")
    files = [sorted(p.read_bytes() for p in (tmp_path / str(n)).iterdir()) for n in range(4)]
    assert files[1:] == files[:1] * 3


def test_outside_tensors_are_aligned_and_an_old_data_file_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EMBEDDED_BYTES_MAX", 0)
    path = tmp_path / "w.onnx"
    tensors = {"a": np.ones(3, np.float32), "b": np.ones(2**18, np.float32), "c": np.ones(1, np.int8)}
    save_weights(tensors, path)
    (first,) = (p.name for p in tmp_path.iterdir() if p != path)
    model = onnx.load(path, load_external_data=False)
    entries = [{e.key: e.value for e in t.external_data} for t in model.graph.initializer]
    assert [(e["offset"], e["length"]) for e in entries] == [("0", "12"), ("4096", "1048576"), ("1052672", "1")]
    assert {e["location"] for e in entries} == {first}

    stranger = tmp_path / "w.onnx.0123456789abcdef.data"
    stranger.touch()
    tensors["a"] = tensors["a"] * 2
    save_weights(tensors, path)
    names = set(os.listdir(tmp_path))
    assert first not in names
    assert len(names) == 3 and stranger.name in names  # nobody referred to it, so it is not ours to remove
    assert same(numpy_helper.to_array(onnx.load(path).graph.initializer[0]), tensors["a"])


@pytest.mark.parametrize(
    ("tensors", "code"),
    [
        ({}, "weights.count"),
        ({"": np.zeros(1)}, "weights.name"),
        ({"\ud800": np.zeros(1)}, "weights.name"),
        ({"n" * 70_000: np.zeros(1)}, "weights.name"),
        ({"a\0b": np.zeros(1)}, "weights.name"),
        ({"w": [1.0]}, "weights.type"),
        ({1: np.zeros(1)}, "weights.type"),
        ({"w": np.array([None])}, "weights.dtype"),
        ({"w": np.array(["text"])}, "weights.dtype"),
        ({"w": np.zeros(1, "M8[s]")}, "weights.dtype"),
        ({"w": np.zeros(1, np.longdouble)}, "weights.dtype"),
        ({"w": np.zeros(1, [("a", "f4")])}, "weights.dtype"),
    ],
)
def test_what_cannot_be_stored_is_refused(tmp_path: Path, tensors: dict, code: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        save_weights(tensors, tmp_path / "w.onnx")
    assert caught.value.code == code
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    path = tmp_path / "w.onnx"
    save_weights({"w": np.zeros(10, np.float32)}, path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def full(fd: int, data: bytes, at: int) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        with pytest.raises(MachineError) as caught:
            save_weights({"w": np.ones(10, np.float32)}, path)
    assert caught.value.code == "output.disk_full"
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before

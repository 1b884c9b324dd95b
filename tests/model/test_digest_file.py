"""Digests of files: the same for every way to store the same tensors, and with any number of threads."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from shoal.errors import InputError
from shoal.limits import DIGEST_CHUNK_BYTES
from shoal.model.digest import model_digest, tensor_digest
from shoal.model.file import ModelFile

GOLDEN = "e0c4d945d8621981aade94c28db99d2d2d5902e072d585654e6a08f4e4775aff"


def tensors() -> list[TensorProto]:
    """Every kind of element: whole bytes, packed, strings, numbers, empty."""
    return [
        helper.make_tensor("f32", TensorProto.FLOAT, [2, 2], [1, -0.0, 1e-45, float("inf")]),
        helper.make_tensor("f16", TensorProto.FLOAT16, [2], [1, 65504]),
        helper.make_tensor("bf16", TensorProto.BFLOAT16, [2], [1, -3]),
        helper.make_tensor("f64", TensorProto.DOUBLE, [], [0.1]),
        helper.make_tensor("i64", TensorProto.INT64, [3], [-1, 0, 2**62]),
        helper.make_tensor("u8", TensorProto.UINT8, [3], [0, 127, 255]),
        helper.make_tensor("bool", TensorProto.BOOL, [2], [True, False]),
        helper.make_tensor("i4", TensorProto.INT4, [3], np.array([-8, 7, 1], ml_dtypes.int4)),
        helper.make_tensor("text", TensorProto.STRING, [2], ["ä".encode(), b""]),
        helper.make_tensor("empty", TensorProto.FLOAT, [0, 5], []),
    ]


def as_raw(tensor: TensorProto) -> TensorProto:
    if tensor.data_type == TensorProto.STRING:
        return tensor
    raw = numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name)
    assert raw.HasField("raw_data")
    return raw


def write(path: Path, initializers: list[TensorProto], **more: object) -> Path:
    graph = helper.make_graph([], "graph", [], [], initializer=initializers)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(helper.make_model(graph, ir_version=10, **more).SerializeToString())
    return path


def digest(path: Path, **how: object) -> bytes:
    with ModelFile.open(path) as file:
        return model_digest(file, **how)


def outside(path: Path) -> Path:
    initializers = []
    for number, tensor in enumerate(map(as_raw, tensors())):
        if tensor.raw_data:
            (path.parent / f"{number}.bin").write_bytes(b"gap" + tensor.raw_data)
            tensor.external_data.add(key="location", value=f"{number}.bin")
            tensor.external_data.add(key="offset", value="3")
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
        initializers.append(tensor)
    return write(path, initializers)


def test_storage_order_and_producer_do_not_matter(tmp_path: Path) -> None:
    """The golden value never changes: a digest that was signed once must be computable for ever."""
    files = [
        write(tmp_path / "typed", tensors()),
        write(tmp_path / "raw", [as_raw(t) for t in tensors()]),
        write(tmp_path / "turned", tensors()[::-1], producer_name="somebody", doc_string="words"),
        outside(tmp_path / "outside"),
    ]
    assert [digest(path).hex() for path in files] == [GOLDEN] * 4


@pytest.mark.parametrize("name", [t.name for t in tensors() if t.name != "empty"])
def test_every_tensor_counts(tmp_path: Path, name: str) -> None:
    changed = []
    for tensor in tensors():
        if tensor.name == name and tensor.data_type == TensorProto.STRING:
            tensor.string_data[1] = b"x"
        elif tensor.name == name:
            tensor = as_raw(tensor)
            tensor.raw_data = bytes([tensor.raw_data[0] ^ 1]) + tensor.raw_data[1:]
        changed.append(tensor)
    assert digest(write(tmp_path / "changed", changed)).hex() != GOLDEN


def test_strings_cannot_be_cut_in_another_way(tmp_path: Path) -> None:
    first = write(tmp_path / "a", [helper.make_tensor("s", TensorProto.STRING, [2], [b"ab", b"c"])])
    second = write(tmp_path / "b", [helper.make_tensor("s", TensorProto.STRING, [2], [b"a", b"bc"])])
    assert digest(first) != digest(second)


def test_threads_and_replaced_values(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    arrays = {f"w{i}": rng.standard_normal(DIGEST_CHUNK_BYTES // 4 * i + i).astype(np.float32) for i in range(4)}
    path = write(tmp_path / "a", [numpy_helper.from_array(a, n) for n, a in arrays.items()])
    one = digest(path)
    assert digest(path, threads=2) == digest(path, threads=5) == one
    arrays["w2"] = -arrays["w2"]
    other = write(tmp_path / "b", [numpy_helper.from_array(a, n) for n, a in arrays.items()])
    assert digest(path, instead={"w2": arrays["w2"]}, threads=2) == digest(other) != one
    assert tensor_digest(arrays["w2"]) != tensor_digest(-arrays["w2"])


@pytest.mark.parametrize("threads", [1, 3])
def test_a_file_that_became_shorter_ends_all_threads(tmp_path: Path, threads: int) -> None:
    path = write(tmp_path / "a", [numpy_helper.from_array(np.zeros(2**20, np.float32), "w")])
    with ModelFile.open(path) as file:
        with path.open("r+b") as shorter:
            shorter.truncate(1000)
        with pytest.raises(InputError) as caught:
            model_digest(file, threads=threads)
    assert caught.value.code == "file.changed"


def test_the_golden_model_is_what_it_says(tmp_path: Path) -> None:
    """The golden value without a line of our own: docs/FORMAT.md, and the onnx library."""
    import hashlib
    import struct

    def sha(*parts: bytes) -> bytes:
        return hashlib.sha256(b"".join(parts)).digest()

    rows = []
    for tensor in tensors():
        data = as_raw(tensor).raw_data
        if tensor.data_type == TensorProto.STRING:
            data = b"".join(struct.pack("<Q", len(s)) + s for s in tensor.string_data)
        leaves = [sha(b"shoal digest leaf 1\n", data)] if data else []
        whole = sha(b"shoal digest tensor 1\n", struct.pack("<Q", len(data)), *leaves)
        key, dims = tensor.name.encode(), list(tensor.dims)
        rows.append(
            (key, struct.pack("<Q", len(key)), key, struct.pack("<II", tensor.data_type, len(dims)), dims, whole)
        )
    flat = [b"".join((n, k, t, *(struct.pack("<Q", d) for d in dims), w)) for _, n, k, t, dims, w in sorted(rows)]
    assert sha(b"shoal digest model 1\n", struct.pack("<Q", len(rows)), *flat).hex() == GOLDEN
    onnx.checker.check_model(onnx.load(write(tmp_path / "typed", tensors())))

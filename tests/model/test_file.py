"""Reading values by range, from all forms of storage, while files change and threads compete."""

from __future__ import annotations

import os
import threading
import tracemalloc
from pathlib import Path

import corpus
import ml_dtypes
import numpy as np
import onnx
import pytest

from shoal.errors import ArgumentError, InputError
from shoal.model.dtype import DTYPES
from shoal.model.file import ModelFile


@pytest.fixture
def big(tmp_path: Path) -> Path:
    rng = np.random.default_rng(3)
    content = corpus.weights(
        single=rng.normal(size=(100, 70)).astype(np.float32),
        double=rng.normal(size=5000),
        half=rng.normal(size=5000).astype(np.float16),
        brain=rng.normal(size=5000).astype(ml_dtypes.bfloat16),
    )
    content.graph.initializer.append(
        onnx.helper.make_tensor("typed", onnx.TensorProto.FLOAT16, [3000], rng.normal(size=3000).astype(np.float16))
    )
    onnx.save(content, tmp_path / "inside.onnx")
    corpus.save_external(content, tmp_path / "outside.onnx", one_file=True)
    return tmp_path


def test_types_agree_with_the_library() -> None:
    codes = {code: name for name, code in onnx.TensorProto.DataType.items() if code}
    assert set(DTYPES) == set(codes)
    for code, dtype in DTYPES.items():
        if dtype.numpy is not None:
            assert dtype.numpy == onnx.helper.tensor_dtype_to_np_dtype(code)
            assert dtype.bits == 8 * dtype.numpy.itemsize
    assert {d.name for d in DTYPES.values() if d.merged} == {"float64", "float32", "float16", "bfloat16"}


@pytest.mark.parametrize("name", ["inside.onnx", "outside.onnx"])
def test_ranges_equal_slices(name: str, big: Path) -> None:
    with ModelFile.open(big / name) as file:
        for ref in file.tensors.values():
            whole = file.array(ref).reshape(-1)
            for first, count in ((0, 1), (0, whole.size), (whole.size - 1, 1), (17, 100), (whole.size, 0)):
                buffer = np.empty(count, ref.dtype.numpy)
                file.read_into(ref, first, buffer)
                assert buffer.tobytes() == whole[first : first + count].tobytes()


def test_buffers_that_do_not_fit(big: Path) -> None:
    with ModelFile.open(big / "inside.onnx") as file:
        ref = file.tensors["single"]
        fixed = np.empty(4, np.float32)
        fixed.flags.writeable = False
        for first, buffer in (
            (0, np.empty(4, np.float64)),
            (0, np.empty(8, np.float32)[::2]),
            (0, fixed),
            (-1, np.empty(4, np.float32)),
            (6997, np.empty(4, np.float32)),
            (0, np.empty(4, ">f4")),
        ):
            with pytest.raises(ArgumentError):
                file.read_into(ref, first, buffer)


def test_shared_bytes_come_packed(tmp_path: Path) -> None:
    onnx.save(corpus.all_types(), tmp_path / "m.onnx")
    with ModelFile.open(tmp_path / "m.onnx") as file:
        packed = file.array(file.tensors["typed_INT4"])
        assert packed.tolist() == [0x10, 0x01, 0x01]
        with pytest.raises(ArgumentError):
            file.read_into(file.tensors["typed_INT4"], 0, np.empty(5, np.uint8))
        assert file.array(file.tensors["typed_STRING"]).tolist() == [b"a", b"", b"\0\xff", b"\xc3\xa4", b"b"]


def test_same_values(big: Path) -> None:
    with ModelFile.open(big / "inside.onnx") as inside, ModelFile.open(big / "outside.onnx") as outside:
        for key, ref in inside.tensors.items():
            assert inside.same_values(ref, outside, outside.tensors[key])
        assert not inside.same_values(inside.tensors["half"], outside, outside.tensors["brain"])


def test_same_values_are_bits(tmp_path: Path) -> None:
    """-0 is not 0, and a NaN is itself."""
    for name, values in (("a", [0.0, np.nan]), ("b", [-0.0, np.nan]), ("c", [0.0, np.nan])):
        onnx.save(corpus.weights(w=np.array(values, np.float32)), tmp_path / f"{name}.onnx")
    with (
        ModelFile.open(tmp_path / "a.onnx") as a,
        ModelFile.open(tmp_path / "b.onnx") as b,
        ModelFile.open(tmp_path / "c.onnx") as c,
    ):
        assert not a.same_values(a.tensors["w"], b, b.tensors["w"])
        assert a.same_values(a.tensors["w"], c, c.tensors["w"])


def test_threads_read_at_once(big: Path) -> None:
    wrong: list[str] = []
    with ModelFile.open(big / "outside.onnx") as file:
        expected = {key: file.array(ref).tobytes() for key, ref in file.tensors.items()}

        def read() -> None:
            for _ in range(20):
                for key, ref in file.tensors.items():
                    if file.array(ref).tobytes() != expected[key]:
                        wrong.append(key)

        threads = [threading.Thread(target=read) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_a_file_that_becomes_shorter(big: Path) -> None:
    with ModelFile.open(big / "inside.onnx") as file:
        os.truncate(big / "inside.onnx", 1000)
        with pytest.raises(InputError) as caught:
            file.array(file.tensors["double"])
        assert caught.value.code == "file.changed"
        with pytest.raises(InputError):
            file.array(file.tensors["typed"])


@pytest.mark.parametrize("changed", ["outside.onnx", "outside.data"])
def test_a_file_that_changes_is_noticed(changed: str, big: Path) -> None:
    with ModelFile.open(big / "outside.onnx") as file:
        file.check_unchanged()
        with open(big / changed, "r+b") as out:
            out.write(b"\0")
        os.utime(big / changed, ns=(1, 1))
        with pytest.raises(InputError) as caught:
            file.check_unchanged()
        assert caught.value.code == "file.changed"
        assert changed in str(caught.value)


def test_a_replaced_file_is_still_the_old_one(big: Path) -> None:
    with ModelFile.open(big / "inside.onnx") as file:
        before = file.array(file.tensors["single"]).tobytes()
        (big / "new").write_bytes(b"something else")
        os.replace(big / "new", big / "inside.onnx")
        assert file.array(file.tensors["single"]).tobytes() == before
        file.check_unchanged()


def test_raw_range(big: Path) -> None:
    data = (big / "inside.onnx").read_bytes()
    with ModelFile.open(big / "inside.onnx") as file:
        assert file.size == len(data)
        assert file.raw_proto_range(3, 90) == data[3:90]
        with pytest.raises(ArgumentError):
            file.raw_proto_range(0, len(data) + 1)


def test_closed(big: Path) -> None:
    file = ModelFile.open(big / "outside.onnx")
    file.close()
    file.close()
    with pytest.raises(ArgumentError):
        file.fileno()


def test_refusal_closes_everything(big: Path) -> None:
    (big / "bad.onnx").write_bytes(b"\x08")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        with pytest.raises(InputError):
            ModelFile.open(big / "bad.onnx")
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("name", ["inside.onnx", "outside.onnx"])
def test_values_are_the_same_after_sharing_with_a_model_that_stores_them_otherwise(name: str, big: Path) -> None:
    other = "outside.onnx" if name == "inside.onnx" else "inside.onnx"
    with ModelFile.open(big / name) as first, ModelFile.open(big / other) as file:
        before = {key: file.array(ref).copy() for key, ref in file.tensors.items()}
        file.share(first)
        assert list(file.tensors) == list(first.tensors) and file.structure is first.structure
        for key, ref in file.tensors.items():
            assert ref.key == key and ref.dims is first.tensors[key].dims
            assert file.array(ref).tobytes() == before[key].tobytes()


@pytest.mark.parametrize("name", ["odd_forms", "constants", "sparse_weights", "control_flow", "functions"])
def test_sharing_of_all_forms(name: str, tmp_path: Path) -> None:
    onnx.save(getattr(corpus, name)(), tmp_path / "m.onnx")
    with ModelFile.open(tmp_path / "m.onnx") as first, ModelFile.open(tmp_path / "m.onnx") as file:
        before = {key: repr(file.array(ref).tolist()) for key, ref in file.tensors.items()}
        file.share(first)
        for key, ref in file.tensors.items():
            assert repr(file.array(ref).tolist()) == before[key]


def test_sharing_makes_a_tensor_cheap(tmp_path: Path) -> None:
    """A merge of many models with many tensors each stays in its memory: under 400 bytes for one of one model."""
    onnx.save(corpus.weights(**{f"layer.{i}.weight": np.ones(4, np.float32) for i in range(2000)}), tmp_path / "m.onnx")
    with ModelFile.open(tmp_path / "m.onnx") as first:
        tracemalloc.start()
        file = ModelFile.open(tmp_path / "m.onnx")
        file.share(first)
        used, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert used < 2000 * 400
        file.close()

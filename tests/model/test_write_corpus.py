"""Any choice of tensors of any ordinary model, stored in any way, is replaced; all else is as the onnx library saw it."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import corpus
import numpy as np
import onnx
import pytest
from onnx import external_data_helper

from shoal.model.digest import model_digest
from shoal.model.file import ModelFile
from shoal.model.model import load
from shoal.model.tensor import Role, TensorRef
from shoal.model.write import ModelWriter

VALUES = ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data", "external_data")
INDICES = {Role.SPARSE_INDICES, Role.CONSTANT_SPARSE_INDICES}  # of those, not every value makes a valid tensor


def replaceable(ref: TensorRef) -> bool:
    return ref.dtype.numpy is not None and ref.role not in INDICES


def random_array(ref: TensorRef, rng: np.random.Generator) -> np.ndarray:
    dtype = ref.dtype.numpy
    if dtype.kind in "iub":
        return rng.integers(0, 2 if dtype.kind == "b" else 256, (*ref.dims, dtype.itemsize), np.uint8).view(dtype)[
            ..., 0
        ]
    return np.asarray(rng.normal(size=ref.dims)).astype(dtype)


def read(path: Path) -> onnx.ModelProto:
    """The model with all data inside."""
    model = onnx.load(path, load_external_data=False)
    external_data_helper.load_external_data_for_model(model, str(path.parent))
    return model


def without_values(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with the bytes of every tensor taken out, however they were stored."""
    blank = onnx.ModelProto.FromString(model.SerializeToString())
    graphs, nodes = [blank.graph], [n for f in blank.functions for n in f.node]
    tensors: list[onnx.TensorProto] = []
    while graphs or nodes:
        if graphs:
            graph = graphs.pop()
            nodes += graph.node
            tensors += graph.initializer
            tensors += itertools.chain.from_iterable((s.values, s.indices) for s in graph.sparse_initializer)
            continue
        for attribute in nodes.pop().attribute:
            graphs += [attribute.g] if attribute.HasField("g") else []
            graphs += attribute.graphs
            tensors += [attribute.t] if attribute.HasField("t") else []
            if attribute.HasField("sparse_tensor"):
                tensors += [attribute.sparse_tensor.values, attribute.sparse_tensor.indices]
            attribute.ClearField("f")
            attribute.ClearField("floats")
    for tensor in tensors:
        for name in (*VALUES, "data_location"):
            tensor.ClearField(name)
    return blank


@pytest.fixture(params=["inside", "one file", "many files"])
def stored(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    def store(name: str) -> Path:
        model, path = corpus.ORDINARY[name](), tmp_path / "m.onnx"
        if request.param == "inside":
            path.write_bytes(model.SerializeToString())
        else:
            corpus.save_external(model, path, one_file=request.param == "one file")
        return path

    return store


@pytest.mark.parametrize("name", corpus.ORDINARY)
@pytest.mark.parametrize("seed", range(4))
def test_a_random_choice_is_replaced_and_all_else_stays(stored: Any, tmp_path: Path, name: str, seed: int) -> None:
    """Seed 0 replaces nothing, seed 1 all, others some."""
    rng = np.random.default_rng(seed)
    source = stored(name)
    target = tmp_path / "out" / "m.onnx"
    target.parent.mkdir()
    before = corpus.expected(read(source))
    with ModelFile.open(source) as template:
        share = {0: 0.0, 1: 1.0}.get(seed, 0.4)
        chosen = [k for k, ref in template.tensors.items() if replaceable(ref) and rng.random() < share]
        values = {key: random_array(template.tensors[key], rng) for key in chosen}
        with ModelWriter(template, target, chosen) as writer:
            for key in rng.permutation(chosen):
                writer.write(template.tensors[str(key)], 0, values[str(key)])
            writer.commit(model_digest(template, values))
        promised = model_digest(template, values)

    after = corpus.expected(read(target))
    assert after == {
        key: (*row[:3], values[key].tobytes()) if key in values else row for key, row in before.items()
    }  # types, shapes, roles too
    assert without_values(read(target)) == without_values(read(source))
    if not chosen and len(list(target.parent.iterdir())) == 1:
        assert target.read_bytes() == source.read_bytes()
    with ModelFile.open(target) as written:
        assert model_digest(written) == promised


@pytest.mark.parametrize("name", corpus.ORDINARY)
def test_the_digest_does_not_see_the_storage(stored: Any, tmp_path: Path, name: str) -> None:
    path = stored(name)
    inside = tmp_path / "inside.onnx"
    inside.write_bytes(corpus.ORDINARY[name]().SerializeToString())
    with load(path) as one, load(inside) as other:
        assert one.digest() == other.digest(threads=2)

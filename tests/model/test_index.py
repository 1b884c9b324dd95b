"""What the index finds in ordinary models, against the onnx library's own parser."""

from __future__ import annotations

from pathlib import Path

import corpus
import numpy as np
import onnx
import pytest

from shoal.model import _onnx_index
from shoal.model.agree import differences
from shoal.model.file import ModelFile
from shoal.model.tensor import Role, Storage, TensorRef


def values(file: ModelFile, ref: TensorRef) -> bytes | list[bytes]:
    array = file.array(ref)
    return list(array.reshape(-1)) if ref.dtype.bits == 0 else array.tobytes()


def listed(file: ModelFile) -> dict:
    return {k: (r.role.name, r.dtype.code, r.dims, values(file, r)) for k, r in file.tensors.items()}


@pytest.mark.parametrize("name", corpus.ORDINARY)
def test_finds_what_the_library_finds(name: str, tmp_path: Path) -> None:
    content = corpus.ORDINARY[name]()
    onnx.save(content, tmp_path / "m.onnx")
    with ModelFile.open(tmp_path / "m.onnx") as file:
        found = listed(file)
        assert found == corpus.expected(content)
        assert found, "a corpus model without tensors tests nothing"
        assert file.ir_version == 10
        assert file.opsets[""] == 21


def test_models_that_come_with_the_library(tmp_path: Path) -> None:
    """Made by many exporters over the years; read as the library reads them, and equal to themselves written anew."""
    paths = sorted(Path(onnx.__file__).parent.rglob("*.onnx"))
    if not paths:
        pytest.skip("this build of onnx brings no models")
    for path in paths:
        content = onnx.load(path, load_external_data=False)
        (tmp_path / "again.onnx").write_bytes(content.SerializeToString(deterministic=True))
        with ModelFile.open(path) as file, ModelFile.open(tmp_path / "again.onnx") as again:
            assert listed(file) == corpus.expected(content), path
            assert list(differences(file, again)) == [], path


@pytest.mark.parametrize("one_file", [True, False])
@pytest.mark.parametrize("name", ["perceptron", "control_flow", "sparse_weights", "odd_forms"])
def test_external_data_change_only_the_storage(name: str, one_file: bool, tmp_path: Path) -> None:
    content = corpus.ORDINARY[name]()
    onnx.save(content, tmp_path / "inside.onnx")
    corpus.save_external(content, tmp_path / "outside.onnx", one_file=one_file)
    with ModelFile.open(tmp_path / "inside.onnx") as inside, ModelFile.open(tmp_path / "outside.onnx") as outside:
        assert listed(inside) == listed(outside)
        assert any(ref.storage is Storage.EXTERNAL for ref in outside.tensors.values())
        assert list(differences(inside, outside)) == []


@pytest.mark.parametrize("name", corpus.ORDINARY)
def test_enclosing_lengths_lead_to_the_message(name: str, tmp_path: Path) -> None:
    """Each offset holds a length varint whose field contains the next, and the last one's field is the message."""
    data = corpus.ORDINARY[name]().SerializeToString()
    (tmp_path / "m.onnx").write_bytes(data)
    with ModelFile.open(tmp_path / "m.onnx") as file:
        for ref in file.tensors.values():
            outer = (0, len(data))
            for at in ref.enclosing:
                length, width = read_varint(data, at)
                inner = (at + width, at + width + length)
                assert outer[0] < inner[0] <= inner[1] <= outer[1]
                outer = inner
            assert outer == ref.message
            for part in ref.fields:
                assert ref.message[0] <= part.start < part.payload <= part.stop <= ref.message[1]
                tag, _ = read_varint(data, part.start)
                assert tag >> 3 == part.number


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = width = 0
    while True:
        byte = data[at + width]
        value |= (byte & 0x7F) << (7 * width)
        width += 1
        if byte < 0x80:
            return value, width


def test_storage_forms(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(
        corpus.model(
            corpus.graph(
                corpus.tensor("raw"),
                corpus.tensor("packed", raw=None, more=corpus.field(4, b"\1\0\0\0\2\0\0\0")),
                corpus.tensor("split", raw=None, more=corpus.field(4, b"\1\0\0\0") + corpus.field(4, b"\2\0\0\0")),
                corpus.tensor(
                    "single", raw=None, more=corpus.field(4, b"\1\0\0\0", 5) + corpus.field(4, b"\2\0\0\0", 5)
                ),
                corpus.tensor("absent", (0,), raw=None),
            )
        )
    )
    with ModelFile.open(tmp_path / "m.onnx") as file:
        forms = {ref.name: ref.storage for ref in file.tensors.values()}
        assert forms == {
            "raw": Storage.RAW, "packed": Storage.PACKED, "split": Storage.TYPED, "single": Storage.TYPED,
            "absent": Storage.TYPED,
        }  # fmt: skip
        for name in ("packed", "split", "single"):
            assert file.array(file.tensors[name]).view(np.uint32).tolist() == [1, 2], name
        assert len(file.tensors["single"].fields) == 1


def test_absent_value_float_is_zero(tmp_path: Path) -> None:
    nodes = (
        corpus.node("Constant", (), ("zero",), corpus.attribute("value_float", 1)),
        corpus.node("Constant", (), ("none",), corpus.attribute("value_floats", 6)),
        corpus.node("Constant", (), ("two",), corpus.attribute("value_floats", 6, corpus.field(7, b"\0\0\x80?" * 2))),
    )
    (tmp_path / "m.onnx").write_bytes(corpus.model(corpus.graph(nodes=nodes)))
    with ModelFile.open(tmp_path / "m.onnx") as file:
        zero, none, two = file.tensors.values()
        assert (zero.role, zero.storage, zero.dims) == (Role.CONSTANT_FLOAT, Storage.TYPED, ())
        assert file.array(zero) == 0
        assert file.array(none).shape == (0,)
        assert (two.role, two.storage) == (Role.CONSTANT_FLOATS, Storage.PACKED)
        assert file.array(two).tolist() == [1, 1]


def test_quantisation_scales_are_told(tmp_path: Path) -> None:
    h = onnx.helper
    branch = h.make_graph(
        [h.make_node("DequantizeLinear", ["q", "s_main"], ["d"])], "b", [], [corpus.value_info("d")],
    )  # fmt: skip
    nodes = [
        h.make_node("QuantizeLinear", ["x", "s1", "z"], ["q"]),
        h.make_node("QLinearConv", ["q", "s2", "z", "w", "s3", "z", "s4", "z", "b"], ["c"]),
        h.make_node("MatMulNBits", ["x", "w4", "s5"], ["n"], domain="com.microsoft", K=1, N=1),
        h.make_node("QLinearConcat", ["s6", "z", "a", "s7", "z", "b", "s8", "z"], ["k"], domain="com.microsoft"),
        h.make_node("QuantizeLinear", ["x", "not_this"], ["o"], domain="elsewhere"),
        h.make_node("If", ["c"], ["i"], then_branch=branch, else_branch=branch),
    ]
    names = ["s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s_main", "not_this", "x", "w", "z", "b"]
    arrays = [onnx.numpy_helper.from_array(np.array(1, np.float32), name) for name in names]
    onnx.save(corpus.wrap(h.make_graph(nodes, "q", [], [], arrays)), tmp_path / "m.onnx")
    with ModelFile.open(tmp_path / "m.onnx") as file:
        assert file.structure.scales == {"s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s_main"}


def test_deep_nest_is_walked_once(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(corpus.model(corpus.nested(24, corpus.graph(corpus.tensor()))))
    with ModelFile.open(tmp_path / "m.onnx") as file:
        assert len(file.structure.graphs) == 25
        (ref,) = file.tensors.values()
        assert len(ref.scope) <= 256
        assert len(ref.enclosing) == 1 + 24 * 3 + 1


def test_many_functions_may_call_each_other(tmp_path: Path) -> None:
    calls = b"".join(
        corpus.field(
            25, corpus.field(1, f"f{i}") + corpus.field(7, corpus.node(f"f{(i + 1) % 10_000}")) + corpus.field(10, "d")
        )
        for i in range(10_000)
    )
    (tmp_path / "m.onnx").write_bytes(corpus.model(corpus.graph(), more=calls))
    with ModelFile.open(tmp_path / "m.onnx") as file:
        assert len(file.structure.graphs) == 10_001


def test_names_are_only_names(tmp_path: Path) -> None:
    """Paths, line breaks, right-to-left marks and 3,000 characters are legal in a name."""
    names = ["../../etc/passwd", "a\nb", "\u202egnp.exe", "%s%n{0}", "n" * 3000, "a/b:c::d"]
    content = corpus.weights(**{name: np.ones(1, np.float32) for name in names})
    onnx.save(content, tmp_path / "m.onnx")
    with ModelFile.open(tmp_path / "m.onnx") as file:
        assert list(file.tensors) == names


def test_index_from_bytes_and_from_a_file_agree(tmp_path: Path) -> None:
    data = corpus.control_flow().SerializeToString()
    index = _onnx_index.Index("m", -1, 0, data)
    index.model()
    (tmp_path / "m.onnx").write_bytes(data)
    with ModelFile.open(tmp_path / "m.onnx") as file:
        assert list(index.tensors) == list(file.tensors)
        assert {s: g.digests for s, g in index.graphs.items()} == {
            s: g.digests for s, g in file.structure.graphs.items()
        }

"""Which models belong together, and how it is said when they do not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import corpus
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from shoal.errors import InputError
from shoal.model.agree import differences, require_agreement
from shoal.model.file import ModelFile


def compare(a: onnx.ModelProto | bytes, b: onnx.ModelProto | bytes, folder: Path) -> list[str]:
    for name, content in (("a", a), ("b", b)):
        data = content if isinstance(content, bytes) else content.SerializeToString()
        (folder / f"{name}.onnx").write_bytes(data)
    with ModelFile.open(folder / "a.onnx") as first, ModelFile.open(folder / "b.onnx") as other:
        return [text.replace(f"{folder}/", "") for text in differences(first, other)]


def changed(
    change: Callable[[onnx.ModelProto], object], build: Callable[[], onnx.ModelProto] = corpus.perceptron
) -> onnx.ModelProto:
    content = build()
    change(content)
    return content


@pytest.mark.parametrize("name", corpus.ORDINARY)
def test_a_model_agrees_with_itself(name: str, tmp_path: Path) -> None:
    content = corpus.ORDINARY[name]()
    assert compare(content, content, tmp_path) == []


def test_values_do_not_matter(tmp_path: Path) -> None:
    assert compare(corpus.perceptron(1), corpus.perceptron(2), tmp_path) == []


def reorder(content: onnx.ModelProto) -> None:
    tensors = list(content.graph.initializer)[::-1]
    del content.graph.initializer[:]
    content.graph.initializer.extend(tensors)


def store_typed(content: onnx.ModelProto) -> None:
    for value in content.graph.initializer:
        value.CopyFrom(
            helper.make_tensor(value.name, value.data_type, value.dims, numpy_helper.to_array(value).reshape(-1))
        )


UNIMPORTANT = {
    "producer": lambda m: setattr(m, "producer_name", "other"),
    "model version": lambda m: setattr(m, "model_version", 7),
    "documentation": lambda m: setattr(m.graph, "doc_string", "text"),
    "graph name": lambda m: setattr(m.graph, "name", "other"),
    "node names": lambda m: setattr(m.graph.node[0], "name", "other"),
    "node documentation": lambda m: setattr(m.graph.node[0], "doc_string", "other"),
    "input documentation": lambda m: setattr(m.graph.input[0], "doc_string", "other"),
    "value_info": lambda m: m.graph.value_info.append(corpus.value_info("h0", ["b", 5])),
    "metadata": lambda m: m.metadata_props.add(key="k", value="v"),
    "IR version": lambda m: setattr(m, "ir_version", 9),
    "domain written out": lambda m: setattr(m.graph.node[0], "domain", "ai.onnx"),
    "opset domain written out": lambda m: setattr(m.opset_import[0], "domain", "ai.onnx"),
    "order of initialisers": reorder,
    "order of attributes": lambda m: m.graph.node[3].attribute.reverse(),
    "typed fields": store_typed,
}


def two_attributes() -> onnx.ModelProto:
    content = corpus.perceptron()
    content.graph.node[3].attribute.append(helper.make_attribute("beta", 1.0))
    return content


@pytest.mark.parametrize("name", UNIMPORTANT)
def test_what_does_not_matter(name: str, tmp_path: Path) -> None:
    other = changed(UNIMPORTANT[name], two_attributes)
    assert other != two_attributes(), "the change must be one"
    assert compare(two_attributes(), other, tmp_path) == []


def retype(content: onnx.ModelProto) -> None:
    value = content.graph.initializer[0]
    value.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(value).astype(np.float64), value.name))


def reshape(content: onnx.ModelProto) -> None:
    content.graph.initializer[0].dims[:] = [5, 3]


def swap_nodes(content: onnx.ModelProto) -> None:
    nodes = list(content.graph.node)
    del content.graph.node[:]
    content.graph.node.extend([nodes[1], nodes[0], *nodes[2:]])


UNLIKE: dict[str, tuple[Callable[[onnx.ModelProto], object], list[str]]] = {
    "operator": (
        lambda m: setattr(m.graph.node[2], "op_type", "Sigmoid"),
        ["node 2 'bend' is Relu in a.onnx, Sigmoid in b.onnx"],
    ),
    "domain": (
        lambda m: setattr(m.graph.node[2], "domain", "custom"),
        ["node 2 'bend' is Relu in a.onnx, custom.Relu in b.onnx"],
    ),
    "inputs": (
        lambda m: m.graph.node[1].input.reverse(),
        ["node 1 'bias' (Add) reads 'h0', 'b1' in a.onnx, 'b1', 'h0' in b.onnx"],
    ),
    "attribute value": (
        lambda m: setattr(m.graph.node[3].attribute[0], "f", 2.0),
        ["node 3 'second' (Gemm) attribute 'alpha' differs; only initialisers and Constant values are merged"],
    ),
    "attribute missing": (
        lambda m: m.graph.node[3].ClearField("attribute"),
        ["node 3 'second' (Gemm) attribute 'alpha' is missing in b.onnx"],
    ),
    "shape": (reshape, ["initialiser 'w1' is float32[3,5] in a.onnx, float32[5,3] in b.onnx"]),
    "type": (retype, ["initialiser 'w1' is float32[3,5] in a.onnx, float64[3,5] in b.onnx"]),
    "renamed": (
        lambda m: setattr(m.graph.initializer[1], "name", "b9"),
        ["initialiser 'b1' is missing in b.onnx", "initialiser 'b9' is missing in a.onnx"],
    ),
    "opset": (
        lambda m: setattr(m.opset_import[0], "version", 20),
        ["opset 'ai.onnx' has version 21 in a.onnx, 20 in b.onnx"],
    ),
    "one more opset": (
        lambda m: m.opset_import.add(domain="custom", version=1),
        ["opset 'custom' has version none in a.onnx, 1 in b.onnx"],
    ),
    "input name": (
        lambda m: setattr(m.graph.input[0], "name", "z"),
        ["input 0 is 'x' float32[b,3] in a.onnx, 'z' float32[b,3] in b.onnx"],
    ),
    "output shape": (
        lambda m: setattr(m.graph.output[0].type.tensor_type.shape.dim[1], "dim_value", 3),
        ["output 0 is 'y' float32[b,2] in a.onnx, 'y' float32[b,3] in b.onnx"],
    ),
    "node removed": (
        lambda m: m.graph.node.pop(2),
        [
            "the graph has 4 nodes in a.onnx, 3 in b.onnx; first: node 2 'bend' is Relu in a.onnx, Gemm in b.onnx",
        ],
    ),
    "order of nodes": (
        swap_nodes,
        ["node 0 'first' is MatMul in a.onnx, Add in b.onnx", "node 1 'bias' is Add in a.onnx, MatMul in b.onnx"],
    ),
    "quantisation annotation": (
        lambda m: m.graph.quantization_annotation.add(tensor_name="w1"),
        ["quantization annotation of 'w1' is missing in a.onnx"],
    ),
    "training": (
        lambda m: m.training_info.add(algorithm=helper.make_graph([], "t", [], [])),
        ["training_info 1 is missing in a.onnx"],
    ),
}


@pytest.mark.parametrize("name", UNLIKE)
def test_differences_are_told(name: str, tmp_path: Path) -> None:
    change, told = UNLIKE[name]
    assert compare(corpus.perceptron(), changed(change), tmp_path) == told


def test_functions_are_compared(tmp_path: Path) -> None:
    def other_body(content: onnx.ModelProto) -> None:
        content.functions[1].node[2].op_type = "Div"

    def other_default(content: onnx.ModelProto) -> None:
        content.functions[0].attribute_proto[0].f = 0.25

    def gone(content: onnx.ModelProto) -> None:
        del content.functions[1]

    (body,) = compare(corpus.functions(), changed(other_body, corpus.functions), tmp_path)
    assert body == "node 2 'b' of function 'local:Scale:double' is Mul in a.onnx, Div in b.onnx"
    (default,) = compare(corpus.functions(), changed(other_default, corpus.functions), tmp_path)
    assert "default of attribute 'alpha' of function 'local:Scale:'" in default
    missing = compare(corpus.functions(), changed(gone, corpus.functions), tmp_path)
    assert "function 'local:Scale:double' is missing in b.onnx" in missing


def test_inner_graphs_are_compared(tmp_path: Path) -> None:
    def deep(content: onnx.ModelProto) -> None:
        inner = content.graph.node[0].attribute[1].g
        inner.node[-1].op_type = "Sub"

    (told,) = compare(corpus.control_flow(), changed(deep, corpus.control_flow), tmp_path)
    assert "of inner graph 'If:outer/" in told and "is Add in a.onnx, Sub in b.onnx" in told


def test_constants_may_differ_only_in_value(tmp_path: Path) -> None:
    def value(content: onnx.ModelProto) -> None:
        content.graph.node[0].attribute[0].f = 9.0

    def count(content: onnx.ModelProto) -> None:
        content.graph.node[1].attribute[0].floats.append(9.0)

    def whole(content: onnx.ModelProto) -> None:
        content.graph.node[2].attribute[0].i = 9

    assert compare(corpus.constants(), changed(value, corpus.constants), tmp_path) == []
    (told,) = compare(corpus.constants(), changed(count, corpus.constants), tmp_path)
    assert told == "constant 'out_value_floats' is float32[3] in a.onnx, float32[4] in b.onnx"
    (told,) = compare(corpus.constants(), changed(whole, corpus.constants), tmp_path)
    assert told.startswith("node 2 'out_value_int' (Constant) attribute 'value_int' differs")


def test_learned_attributes_of_other_nodes_are_not_merged_silently(tmp_path: Path) -> None:
    def classifier(weight: float) -> onnx.ModelProto:
        node = helper.make_node("LinearClassifier", ["x"], ["y"], "x", domain="ai.onnx.ml", coefficients=[weight, 1.0])
        return corpus.wrap(helper.make_graph([node], "g", [], []))

    (told,) = compare(classifier(1.0), classifier(2.0), tmp_path)
    assert told == (
        "node 0 'x' (ai.onnx.ml.LinearClassifier) attribute 'coefficients' differs; "
        "only initialisers and Constant values are merged"
    )


@pytest.mark.parametrize(
    "code", [TensorProto.FLOAT16, TensorProto.INT64, TensorProto.INT4, TensorProto.FLOAT6E2M3, TensorProto.STRING]
)
def test_tensors_of_attributes_are_compared_by_value(code: int, tmp_path: Path) -> None:
    """Raw or typed is the same; another value is not."""

    def fill(value: onnx.TensorProto) -> onnx.ModelProto:
        return corpus.wrap(helper.make_graph([helper.make_node("Fill", ["s"], ["y"], value=value)], "g", [], []))

    values = [b"a", b"b", b"c"] if code == TensorProto.STRING else [1, 0, 1]
    typed = helper.make_tensor("v", code, [3], values)
    other = helper.make_tensor("v", code, [3], values[::-1] if code == TensorProto.STRING else [1, 1, 1])
    assert len(compare(fill(typed), fill(other), tmp_path)) == 1
    if code != TensorProto.STRING:
        raw = numpy_helper.from_array(numpy_helper.to_array(typed), "v")
        assert raw.HasField("raw_data") and not typed.HasField("raw_data")
        assert compare(fill(typed), fill(raw), tmp_path) == []


def test_packed_or_not_is_the_same(tmp_path: Path) -> None:
    packed = corpus.attribute("axes", 7, corpus.field(8, b"\1\2"))
    single = corpus.attribute("axes", 7, corpus.field(8, 1) + corpus.field(8, 2))
    other = corpus.attribute("axes", 7, corpus.field(8, 2) + corpus.field(8, 1))
    a, b, c = (
        corpus.model(corpus.graph(nodes=(corpus.node("Op", ("x",), ("y",), v),))) for v in (packed, single, other)
    )
    assert compare(a, b, tmp_path) == []
    assert len(compare(a, c, tmp_path)) == 1


def test_large_attributes_are_compared_to_the_end(tmp_path: Path) -> None:
    def node(last: int) -> bytes:
        values = corpus.attribute("v", 3, corpus.field(4, b"\0" * 300_000 + bytes([last])))
        return corpus.model(corpus.graph(nodes=(corpus.node("Op", ("x",), ("y",), values),)))

    assert compare(node(1), node(1), tmp_path) == []
    assert len(compare(node(1), node(2), tmp_path)) == 1


@pytest.mark.parametrize("place", ["model", "graph", "node", "attribute", "tensor"])
def test_unknown_fields_are_compared(place: str, tmp_path: Path) -> None:
    def build(value: int) -> bytes:
        extra = {
            name: corpus.field(1000, value) if name == place else b""
            for name in ("model", "graph", "node", "attribute", "tensor")
        }
        attribute = corpus.attribute("a", 2, corpus.field(3, 1)) + extra["attribute"]
        node = corpus.node("Op", ("x",), ("y",), attribute) + extra["node"]
        tensor = corpus.tensor(more=extra["tensor"])
        return corpus.model(corpus.graph(tensor, nodes=(node,), more=extra["graph"]), more=extra["model"])

    assert compare(build(1), build(1), tmp_path) == []
    assert len(compare(build(1), build(2), tmp_path)) == 1


def test_sparse_dims_are_compared(tmp_path: Path) -> None:
    def other(content: onnx.ModelProto) -> None:
        content.graph.sparse_initializer[0].dims[0] = 10

    (told,) = compare(corpus.sparse_weights(), changed(other, corpus.sparse_weights), tmp_path)
    assert told == "dims of sparse tensor 's1' differs"


def test_ten_differences_are_listed_and_all_counted(tmp_path: Path) -> None:
    arrays = {f"w{i}": np.ones(2, np.float32) for i in range(25)}
    onnx.save(corpus.weights(**arrays), tmp_path / "a.onnx")
    onnx.save(corpus.weights(**{k: np.ones(3, np.float32) for k in arrays}), tmp_path / "b.onnx")
    with ModelFile.open(tmp_path / "a.onnx") as a, ModelFile.open(tmp_path / "b.onnx") as b:
        require_agreement([a, a])
        with pytest.raises(InputError) as caught:
            require_agreement([a, a, b])
    error = caught.value
    assert error.code == "model.differs"
    assert "25 differences" in str(error) and "and 15 more" in str(error)
    assert str(error).count("float32[3]") == 10
    assert str(error).isprintable()

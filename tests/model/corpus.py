"""ONNX files for tests: ordinary ones made with the onnx library, hostile ones made byte by byte."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, external_data_helper, helper, numpy_helper

# --- byte by byte ----------------------------------------------------------------------------------------------------


def varint(value: int) -> bytes:
    value &= 2**64 - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number: int, value: int | str | bytes, wire: int | None = None) -> bytes:
    """A field: an int as varint, text and bytes with their length; with ``wire`` 1 or 5, bytes as they are."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    content = value.encode() if isinstance(value, str) else value
    if wire in (1, 5):
        return varint(number << 3 | wire) + content
    return varint(number << 3 | 2) + varint(len(content)) + content


def tensor(
    name: str | bytes | None = "w", dims: tuple[int, ...] = (2,), code: int = 1, raw: bytes | None = b"\0" * 8, more: bytes = b""
) -> bytes:  # fmt: skip
    """A TensorProto; ``more`` is put behind."""
    head = b"".join(field(1, dim) for dim in dims) + field(2, code)
    return head + (b"" if name is None else field(8, name)) + (b"" if raw is None else field(9, raw)) + more


def external(name: str = "w", dims: tuple[int, ...] = (2,), code: int = 1, **entries: str) -> bytes:
    """A TensorProto with external data; keys are taken as they are."""
    pairs = b"".join(field(13, field(1, key) + field(2, value)) for key, value in entries.items())
    return tensor(name, dims, code, None, pairs + field(14, 1))


def attribute(name: str, kind: int, value: bytes = b"") -> bytes:
    return field(1, name) + value + field(20, kind)


def node(
    op: str = "Identity", ins: tuple[str, ...] = ("x",), outs: tuple[str, ...] = ("y",), *attributes: bytes
) -> bytes:
    names = b"".join(field(1, name) for name in ins) + b"".join(field(2, name) for name in outs)
    return names + field(4, op) + b"".join(field(5, value) for value in attributes)


def graph(*tensors: bytes, nodes: tuple[bytes, ...] = (), more: bytes = b"") -> bytes:
    head = b"".join(field(1, value) for value in nodes) + field(2, "g")
    return head + b"".join(field(5, value) for value in tensors) + more


def model(content: bytes | None = None, *, ir: int | None = 10, opset: int | None = 21, more: bytes = b"") -> bytes:
    """A ModelProto around a graph."""
    version = b"" if ir is None else field(1, ir)
    inside = b"" if content is None else field(7, content)
    return version + inside + (b"" if opset is None else field(8, field(1, "") + field(2, opset))) + more


def nested(levels: int, innermost: bytes) -> bytes:
    """A graph that holds ``innermost`` below so many Ifs."""
    content = innermost
    for level in range(levels):
        branch = attribute("then_branch", 5, field(6, content))
        content = graph(nodes=(node("If", ("c",), (f"o{level}",), branch),))
    return content


# --- with the onnx library -------------------------------------------------------------------------------------------


def value_info(name: str, dims: list[int | str] | None = None, code: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, code, dims if dims is not None else [2])


def wrap(graph: onnx.GraphProto, **more: Any) -> onnx.ModelProto:
    opsets = more.pop("opset_imports", [helper.make_opsetid("", 21)])
    return helper.make_model(graph, opset_imports=opsets, ir_version=10, **more)


def weights(**arrays: np.ndarray) -> onnx.ModelProto:
    """A model of initialisers only."""
    tensors = [numpy_helper.from_array(value, name) for name, value in arrays.items()]
    return wrap(helper.make_graph([], "weights", [], [], tensors))


def perceptron(seed: int = 0, width: int = 5) -> onnx.ModelProto:
    """x[b,3] -> MatMul, Add, Relu, Gemm -> y[b,2]."""
    rng = np.random.default_rng(seed)
    shapes = {"w1": (3, width), "b1": (width,), "w2": (width, 2), "b2": (2,)}
    tensors = [numpy_helper.from_array(rng.normal(size=s).astype(np.float32), n) for n, s in shapes.items()]
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["h0"], name="first"),
        helper.make_node("Add", ["h0", "b1"], ["h1"], name="bias"),
        helper.make_node("Relu", ["h1"], ["h2"], name="bend"),
        helper.make_node("Gemm", ["h2", "w2", "b2"], ["y"], name="second", alpha=1.0),
    ]
    return wrap(
        helper.make_graph(nodes, "net", [value_info("x", ["b", 3])], [value_info("y", ["b", 2])], tensors),
        producer_name="tests",
    )


def all_types() -> onnx.ModelProto:
    """Every element type, in raw data and in its typed field; 5 elements, so that packed types have a rest."""
    tensors = []
    for name, code in TensorProto.DataType.items():
        if name == "UNDEFINED":
            continue
        values: list[Any] = [0, 1, 1, 0, 1]
        if name == "STRING":
            tensors.append(helper.make_tensor("typed_STRING", code, [5], [b"a", b"", b"\0\xff", "ä".encode(), b"b"]))
            continue
        typed = helper.make_tensor(f"typed_{name}", code, [5], values)
        raw = numpy_helper.from_array(numpy_helper.to_array(typed), f"raw_{name}")
        assert raw.data_type == code
        tensors += [typed, raw]
    return wrap(helper.make_graph([], "types", [], [], tensors))


def odd_forms() -> onnx.ModelProto:
    """Scalars, empty tensors, negative and large integers in typed fields, special floats."""
    specials = [0.0, -0.0, float("inf"), float("nan"), 1e-40, 3.4e38]
    tensors = [
        numpy_helper.from_array(np.array(1.5, np.float64), "scalar"),
        numpy_helper.from_array(np.zeros((0, 3), np.float32), "empty_raw"),
        helper.make_tensor("empty_typed", TensorProto.FLOAT, [0], []),
        helper.make_tensor("int8", TensorProto.INT8, [3], [-128, 127, -1]),
        helper.make_tensor("int16", TensorProto.INT16, [3], [-32768, 32767, -1]),
        helper.make_tensor("int32", TensorProto.INT32, [3], [-(2**31), 2**31 - 1, -1]),
        helper.make_tensor("int64", TensorProto.INT64, [3], [-(2**63), 2**63 - 1, -1]),
        helper.make_tensor("uint32", TensorProto.UINT32, [2], [2**32 - 1, 0]),
        helper.make_tensor("uint64", TensorProto.UINT64, [2], [2**64 - 1, 0]),
        helper.make_tensor("floats", TensorProto.FLOAT, [6], specials),
        helper.make_tensor("doubles", TensorProto.DOUBLE, [2, 3], specials),
        helper.make_tensor("halves", TensorProto.FLOAT16, [3], [0.5, -2.0, float("inf")]),
        helper.make_tensor("brains", TensorProto.BFLOAT16, [3], [0.5, -2.0, float("inf")]),
        helper.make_tensor("complex", TensorProto.COMPLEX64, [2], [1 + 2j, -3j]),
    ]
    return wrap(helper.make_graph([], "forms", [], [], tensors))


def constants() -> onnx.ModelProto:
    """Constant nodes of every kind."""
    array = numpy_helper.from_array(np.arange(6, dtype=np.float32).reshape(2, 3), "inner")
    typed = helper.make_tensor("inner", TensorProto.FLOAT16, [2], [1.0, 2.0])
    kinds: dict[str, Any] = {
        "value_float": 1.25,
        "value_floats": [1.0, 2.0, 3.0],
        "value_int": 7,
        "value_ints": [1, 2],
        "value_string": "s",
        "value_strings": ["a", "b"],
        "sparse_value": sparse("", 4, [0, 3], np.float64),
    }
    nodes = [helper.make_node("Constant", [], [f"out_{key}"], **{key: value}) for key, value in kinds.items()]
    nodes += [helper.make_node("Constant", [], [f"out_{t.data_type}"], value=t) for t in (array, typed)]
    return wrap(helper.make_graph(nodes, "constants", [], [value_info("out_1", [2, 3])]))


def sparse(name: str, size: int, places: list[int], dtype: Any = np.float32) -> onnx.SparseTensorProto:
    values = numpy_helper.from_array(np.arange(1, len(places) + 1, dtype=dtype), name)
    return helper.make_sparse_tensor(values, numpy_helper.from_array(np.array(places, np.int64), f"{name}_at"), [size])


def sparse_weights() -> onnx.ModelProto:
    content = helper.make_graph([], "sparse", [], [], [numpy_helper.from_array(np.ones(2, np.float32), "dense")])
    content.sparse_initializer.extend([sparse("s1", 9, [1, 4, 7]), sparse("s2", 5, [])])
    return wrap(content)


def control_flow() -> onnx.ModelProto:
    """If, Loop and Scan, one inside the other; tensors of the same name in sibling graphs."""

    def body(output: str, seed: float, *more: onnx.NodeProto) -> onnx.GraphProto:
        inner = numpy_helper.from_array(np.array([seed, -seed], np.float32), "w")
        constant = helper.make_node("Constant", [], [f"{output}_c"], value_floats=[seed, 2.0])
        add = helper.make_node("Add", ["w", f"{output}_c"], [output])
        return helper.make_graph([*more, constant, add], output, [], [value_info(output)], [inner])

    inner_if = helper.make_node("If", ["c"], ["inner"], then_branch=body("t2", 3.0), else_branch=body("e2", 4.0))
    outer_if = helper.make_node(
        "If", ["c"], ["outer"], then_branch=body("t1", 1.0, inner_if), else_branch=body("e1", 2.0)
    )
    keep = helper.make_node("Identity", ["ci"], ["co"])
    loop = body("lo", 5.0, keep)
    loop.input.extend([value_info("it", [], TensorProto.INT64), value_info("ci", [], TensorProto.BOOL)])
    loop.output.insert(0, value_info("co", [], TensorProto.BOOL))
    nodes = [outer_if, helper.make_node("Loop", ["n", "c"], ["looped"], body=loop)]
    nodes.append(helper.make_node("Scan", ["xs"], ["scanned"], body=body("so", 6.0), num_scan_inputs=1))
    nodes.append(helper.make_node("Many", ["x"], ["many"], domain="custom", paths=[body("p0", 7.0), body("p1", 8.0)]))
    ports = [value_info("c", [], TensorProto.BOOL), value_info("n", [], TensorProto.INT64), value_info("xs", [3, 2])]
    main = numpy_helper.from_array(np.array([9, 9], np.float32), "w_main")
    return wrap(helper.make_graph(nodes, "flow", ports, [value_info("outer")], [main]))


def functions() -> onnx.ModelProto:
    """Two local functions of one name and different overloads, with Constants, a default and a reference."""
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("local", 1)]
    made = []
    for overload, factor in (("", 2.0), ("double", 4.0)):
        constant = helper.make_node("Constant", [], ["k"], value_float=factor)
        passed = helper.make_node("Constant", [], ["given"])
        passed.attribute.add(name="value_float", ref_attr_name="alpha", type=onnx.AttributeProto.FLOAT)
        nodes = [constant, passed, helper.make_node("Mul", ["a", "k"], ["b"])]
        made.append(
            helper.make_function(
                "local", "Scale", ["a"], ["b"], nodes, opsets[:1], overload=overload,
                attribute_protos=[helper.make_attribute("alpha", 0.5)],
            )
        )  # fmt: skip
    call = helper.make_node("Scale", ["x"], ["y"], domain="local")
    content = helper.make_graph([call], "calls", [value_info("x")], [value_info("y")])
    return wrap(content, functions=made, opset_imports=opsets)


ORDINARY = {
    build.__name__: build
    for build in (perceptron, all_types, odd_forms, constants, sparse_weights, control_flow, functions)
}


def save_external(content: onnx.ModelProto, path: Path, *, one_file: bool) -> None:
    """Save with all initialisers and Constant tensors in one other file, or one file each."""
    copy = onnx.ModelProto.FromString(content.SerializeToString())
    external_data_helper.convert_model_to_external_data(copy, one_file, f"{path.stem}.data", 0, convert_attribute=True)
    onnx.save(copy, path)


# --- what the onnx library finds in a model --------------------------------------------------------------------------


def expected(content: onnx.ModelProto) -> dict[str, tuple[str, int, tuple[int, ...], bytes | list[bytes]]]:
    """key -> (role, element type, dims, little-endian values), by the library's own parser."""
    found = {}
    for scope, role, name, value in _walk_model(content):
        key = f"{scope}::{name}" if scope else name
        if role.endswith("INDICES"):
            key += "::indices"
        found[key] = (role, value.data_type, tuple(value.dims), plain_bytes(value))
    return found


def plain_bytes(value: onnx.TensorProto) -> bytes | list[bytes]:
    if value.data_type == TensorProto.STRING:
        return list(value.string_data)
    if 0 in value.dims:
        return b""
    return numpy_helper.from_array(numpy_helper.to_array(value)).raw_data


def _walk_model(content: onnx.ModelProto) -> Iterator[tuple[str, str, str, onnx.TensorProto]]:
    yield from _walk_graph(content.graph, "")
    for function in content.functions:
        yield from _walk_nodes(function.node, f"function:{function.domain}:{function.name}:{function.overload}")


def _walk_graph(content: onnx.GraphProto, scope: str) -> Iterator[tuple[str, str, str, onnx.TensorProto]]:
    for value in content.initializer:
        yield scope, "INITIALIZER", value.name, value
    for value in content.sparse_initializer:
        yield scope, "SPARSE_VALUES", value.values.name, value.values
        yield scope, "SPARSE_INDICES", value.values.name, value.indices
    yield from _walk_nodes(content.node, scope)


def _walk_nodes(nodes: Any, scope: str) -> Iterator[tuple[str, str, str, onnx.TensorProto]]:
    for item in nodes:
        out = next((name for name in item.output if name), "")
        for a in item.attribute:
            inner = f"{scope}/" if scope else ""
            for graph, place in [(a.g, a.name)] * a.HasField("g") + [
                (g, f"{a.name}[{i}]") for i, g in enumerate(a.graphs)
            ]:
                yield from _walk_graph(graph, f"{inner}{item.op_type}:{out}/{place}")
            if item.op_type != "Constant" or a.ref_attr_name:
                continue
            if a.name == "value":
                yield scope, "CONSTANT", out, a.t
            elif a.name == "sparse_value":
                yield scope, "CONSTANT_SPARSE_VALUES", out, a.sparse_tensor.values
                yield scope, "CONSTANT_SPARSE_INDICES", out, a.sparse_tensor.indices
            elif a.name == "value_float":
                yield scope, "CONSTANT_FLOAT", out, numpy_helper.from_array(np.array(a.f, np.float32))
            elif a.name == "value_floats":
                yield scope, "CONSTANT_FLOATS", out, numpy_helper.from_array(np.array(a.floats, np.float32))

"""Writing from a template: only the bytes of replaced tensors change, and the result is a model that others accept."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from interrupts import Interrupts, without_nameless_files
from onnx import TensorProto, helper, numpy_helper

from shoal.errors import ArgumentError, InputError, MachineError
from shoal.model.file import ModelFile
from shoal.model.write import ModelWriter

F32 = TensorProto.FLOAT


def model_of(*initializers: TensorProto, nodes: list[onnx.NodeProto] | None = None) -> onnx.ModelProto:
    """A model that adds all its float32 vectors of length 3, so that onnxruntime keeps and uses them."""
    total, chain = "x", list(nodes or [])
    names = [t.name for t in initializers if t.data_type == F32 and list(t.dims) == [3]]
    names += [output for node in chain for output in node.output]
    for number, name in enumerate(names):
        chain.append(helper.make_node("Add", [total, name], [f"y{number}"]))
        total = f"y{number}"
    graph = helper.make_graph(
        chain,
        "graph",
        [helper.make_tensor_value_info("x", F32, [3])],
        [helper.make_tensor_value_info(total, F32, [3])],
        initializer=list(initializers),
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def raw(name: str, values: object, dtype: object = np.float32) -> TensorProto:
    return numpy_helper.from_array(np.array(values, dtype), name)


def typed(name: str, values: list[float], code: int = F32) -> TensorProto:
    return helper.make_tensor(name, code, [len(values)], values)


def store(model: onnx.ModelProto, path: Path, extra: bytes = b"") -> Path:
    path.write_bytes(model.SerializeToString() + extra)
    return path


def rewrite(source: Path, target: Path, values: dict[str, object], digest: bytes | None = None) -> None:
    """Replace tensors, written backwards in pieces of two elements."""
    with ModelFile.open(source) as template, ModelWriter(template, target, values) as writer:
        for key, value in values.items():
            ref = template.tensors[key]
            flat = np.array(value, ref.dtype.numpy).reshape(-1)
            for first in reversed(range(0, flat.size, 2)):
                writer.write(ref, first, flat[first : first + 2])
        writer.commit(digest)


def run(path: Path) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": np.zeros(3, np.float32)})[0]


def initializers(path: Path) -> dict[str, np.ndarray]:
    return {t.name: numpy_helper.to_array(t, str(path.parent)) for t in onnx.load(path).graph.initializer}


@pytest.mark.parametrize("make", [raw, typed], ids=["raw_data", "float_data"])
def test_plain_bytes_are_overwritten_in_place(tmp_path: Path, make: Callable[..., TensorProto]) -> None:
    model = model_of(make("a", [1, 2, 3]), make("b", [4, 5, 6]))
    source = store(model, tmp_path / "a.onnx")
    rewrite(source, tmp_path / "out.onnx", {"b": [7, 8, 9]})
    expected = source.read_bytes().replace(np.float32([4, 5, 6]).tobytes(), np.float32([7, 8, 9]).tobytes())
    assert (tmp_path / "out.onnx").read_bytes() == expected != source.read_bytes()
    onnx.checker.check_model(tmp_path / "out.onnx", full_check=True)
    assert run(tmp_path / "out.onnx").tolist() == [8, 10, 12]


def test_nothing_replaced_is_a_copy(tmp_path: Path) -> None:
    source = store(model_of(raw("a", [1, 2, 3])), tmp_path / "a.onnx")
    rewrite(source, tmp_path / "out.onnx", {})
    assert (tmp_path / "out.onnx").read_bytes() == source.read_bytes()


def field(number: int, content: bytes) -> bytes:
    assert len(content) < 128
    tag = number << 3 | 2
    return bytes([tag & 127 | 128, tag >> 7, len(content)]) + content


def test_unknown_fields_pass_through_at_every_level(tmp_path: Path) -> None:
    """Also where lengths around them change: `b` holds float16 in int32_data, and becomes raw_data."""
    model = model_of(raw("a", [1, 2, 3]), typed("b", [4, 5, 6], TensorProto.FLOAT16))
    unknown = field(1000, b"unknown")
    with_unknown = onnx.ModelProto.FromString(model.SerializeToString() + unknown)
    with_unknown.graph.MergeFromString(unknown)
    for tensor in with_unknown.graph.initializer:
        tensor.MergeFromString(unknown)
    source = store(with_unknown, tmp_path / "a.onnx")
    assert source.read_bytes().count(unknown) == 4
    rewrite(source, tmp_path / "out.onnx", {"a": [7, 8, 9], "b": [10, 11, 12]})
    result = (tmp_path / "out.onnx").read_bytes()
    assert result.count(unknown) == 4
    expected = onnx.ModelProto.FromString(source.read_bytes())
    expected.graph.initializer[0].raw_data = np.float32([7, 8, 9]).tobytes()
    expected.graph.initializer[1].ClearField("int32_data")
    expected.graph.initializer[1].raw_data = np.float16([10, 11, 12]).tobytes()
    assert onnx.ModelProto.FromString(result) == expected


def typed_forms() -> dict[str, TensorProto]:
    """Tensors whose values do not lie in one piece: they get raw_data instead."""
    unpacked = TensorProto(name="t", data_type=F32, dims=[3])
    unpacked = TensorProto.FromString(
        unpacked.SerializeToString() + b"".join(b"\x25" + np.float32(v).tobytes() for v in (1, 2, 3))
    )
    return {
        "float16 in int32_data": typed("t", [1, 2, 3], TensorProto.FLOAT16),
        "bfloat16 in int32_data": typed("t", [1, 2, 3], TensorProto.BFLOAT16),
        "int64_data": typed("t", [1, 2, 300], TensorProto.INT64),
        "int32_data of a bool": typed("t", [1, 0, 1], TensorProto.BOOL),
        "uint64_data": typed("t", [1, 2, 2**63], TensorProto.UINT64),
    }


@pytest.mark.parametrize("form", typed_forms())
def test_other_typed_fields_become_raw_data(tmp_path: Path, form: str) -> None:
    tensor = typed_forms()[form]
    old = numpy_helper.to_array(tensor)
    model = model_of(raw("a", [1, 2, 3]), tensor, raw("z", [1, 1, 1]))
    source = store(model, tmp_path / "a.onnx")
    new = old[::-1].copy()
    rewrite(source, tmp_path / "out.onnx", {"t": new})
    onnx.checker.check_model(tmp_path / "out.onnx", full_check=True)
    values = initializers(tmp_path / "out.onnx")
    assert values["t"].dtype == old.dtype and values["t"].tobytes() == new.tobytes()
    expected = onnx.ModelProto.FromString(source.read_bytes())
    changed = expected.graph.initializer[1]
    for name in ("int32_data", "int64_data", "uint64_data"):
        changed.ClearField(name)
    changed.raw_data = new.tobytes()
    assert onnx.load(tmp_path / "out.onnx") == expected
    assert run(tmp_path / "out.onnx").tolist() == [2, 3, 4]


def test_unpacked_floats_in_two_runs_become_one_field(tmp_path: Path) -> None:
    """Protobuf allows a repeated field to be unpacked, and interrupted by others."""
    floats = [b"\x25" + np.float32(v).tobytes() for v in (1, 2, 3)]
    head = TensorProto(data_type=F32, dims=[3]).SerializeToString()
    tensor = floats[0] + head + floats[1] + floats[2] + TensorProto(name="t").SerializeToString()
    model = model_of(TensorProto.FromString(tensor)).SerializeToString()
    packed = TensorProto.FromString(tensor).SerializeToString()
    at = model.index(packed)
    from shoal.model.splice import Edit, splice  # the lengths around it, as the builder would write them

    graph_at = model.index(onnx.ModelProto.FromString(model).graph.SerializeToString())
    width = 1 if model[graph_at - 1] < 128 and model[graph_at - 2] == 0x3A else 2
    layout = splice(
        lambda o, n: model[o : o + n], len(model), [Edit(at, at + len(packed), (tensor,), (graph_at - width, at - 1))]
    )
    data = b"".join(p.data if hasattr(p, "data") else model[p.start : p.stop] for p in layout.pieces)
    (tmp_path / "a.onnx").write_bytes(data)
    assert run(tmp_path / "a.onnx").tolist() == [1, 2, 3]
    rewrite(tmp_path / "a.onnx", tmp_path / "out.onnx", {"t": [4, 5, 6]})
    assert onnx.load(tmp_path / "out.onnx").graph.initializer[0] == raw("t", [4, 5, 6])
    assert run(tmp_path / "out.onnx").tolist() == [4, 5, 6]


def test_an_empty_tensor_needs_no_bytes(tmp_path: Path) -> None:
    source = store(model_of(TensorProto(name="e", data_type=F32, dims=[0, 4]), raw("a", [1, 2, 3])), tmp_path / "a")
    rewrite(source, tmp_path / "out", {"e": np.zeros((0, 4)), "a": [3, 2, 1]})
    assert run(tmp_path / "out").tolist() == [3, 2, 1]


def constant(name: str, **value: object) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], **value)


def test_constants_are_replaced_in_every_form(tmp_path: Path) -> None:
    nodes = [
        constant("c", value=raw("", [1, 2, 3])),
        constant("f", value_float=5.0),
        constant("fs", value_floats=[1.0, 2.0, 3.0]),
        constant("zero", value_float=0.0),
    ]
    nodes[3].attribute[0].ClearField("f")  # an absent number is 0
    source = store(model_of(nodes=nodes), tmp_path / "a")
    rewrite(source, tmp_path / "out", {"c": [10, 20, 30], "f": [100], "fs": [1000, 2000, 3000], "zero": [10000]})
    onnx.checker.check_model(tmp_path / "out", full_check=True)
    assert run(tmp_path / "out").tolist() == [11110, 12120, 13130]
    unnamed = onnx.load(tmp_path / "out")
    assert [n.op_type for n in unnamed.graph.node][:4] == ["Constant"] * 4


def model_with_scopes() -> onnx.ModelProto:
    """Weights in both branches of an If, and in a model-local function."""
    branches = []
    for name, scale in (("then", 1.0), ("else", 2.0)):
        body = helper.make_graph(
            [helper.make_node("Add", ["x", "w"], [f"{name}_out"])],
            name,
            [],
            [helper.make_tensor_value_info(f"{name}_out", F32, [3])],
            initializer=[raw("w", [scale] * 3)],
        )
        branches.append(body)
    condition = numpy_helper.from_array(np.array(True), "condition")
    nodes = [
        helper.make_node("If", ["condition"], ["branched"], then_branch=branches[0], else_branch=branches[1]),
        helper.make_node("Shift", ["branched"], ["y"], domain="local"),
    ]
    function = helper.make_function(
        "local",
        "Shift",
        ["a"],
        ["b"],
        [constant("k", value=raw("", [10, 10, 10])), helper.make_node("Add", ["a", "k"], ["b"])],
        [helper.make_opsetid("", 21)],
    )
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", F32, [3])],
        [helper.make_tensor_value_info("y", F32, [3])],
        initializer=[condition],
    )
    imports = [helper.make_opsetid("", 21), helper.make_opsetid("local", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10, functions=[function])


def test_subgraphs_and_functions(tmp_path: Path) -> None:
    source = store(model_with_scopes(), tmp_path / "a")
    assert run(source).tolist() == [11, 11, 11]
    with ModelFile.open(source) as file:
        scoped = [key for key, ref in file.tensors.items() if ref.scope]
    assert len(scoped) == 3
    then = next(key for key in scoped if "then" in key)
    function = next(key for key in scoped if "Shift" in key)
    rewrite(source, tmp_path / "out", {then: [3, 4, 5], function: [100, 100, 100]})
    assert run(tmp_path / "out").tolist() == [103, 104, 105]
    assert (tmp_path / "out").stat().st_size == source.stat().st_size
    onnx.checker.check_model(tmp_path / "out", full_check=True)


def external(path: Path, *, one_file: bool, size: int = 2**18 + 1) -> Path:
    """Three tensors outside, one inside; `big` is above the size from which tensors start at a page."""
    big = np.arange(size, dtype=np.float32)
    model = model_of(raw("a", [1, 2, 3]), raw("big", big), raw("b", [4, 5, 6]), raw("inside", [7, 8, 9]))
    path.parent.mkdir(exist_ok=True)
    for number, tensor in enumerate(list(model.graph.initializer)[:3]):
        name = "shared.bin" if one_file else f"{number}.bin"
        with (path.parent / name).open("ab") as file:
            for key, value in {"location": name, "offset": file.tell(), "length": len(tensor.raw_data)}.items():
                tensor.external_data.add(key=key, value=str(value))
            file.write(tensor.raw_data)
        tensor.data_location = TensorProto.EXTERNAL
        tensor.ClearField("raw_data")
    for tensor in list(model.graph.initializer)[:3]:
        content = (path.parent / tensor.external_data[0].value).read_bytes()
        tensor.external_data.add(key="checksum", value=hashlib.sha1(content).hexdigest())
    return store(model, path)


@pytest.mark.parametrize("one_file", [True, False], ids=["one file", "many files"])
def test_external_data_go_to_one_file_of_the_outputs_own(tmp_path: Path, one_file: bool) -> None:
    source = external(tmp_path / "in" / "a.onnx", one_file=one_file)
    before = {p.name: p.read_bytes() for p in source.parent.iterdir()}
    target = tmp_path / "out" / "b.onnx"
    target.parent.mkdir()
    rewrite(source, target, {"b": [40, 50, 60], "inside": [70, 80, 90]}, b"d" * 32)
    assert {p.name: p.read_bytes() for p in source.parent.iterdir()} == before
    (data,) = (p for p in target.parent.iterdir() if p != target)
    onnx.checker.check_model(target, full_check=True)
    assert run(target).tolist() == [111, 132, 153]
    assert initializers(target)["big"].tolist() == list(range(2**18 + 1))
    written = onnx.load(target, load_external_data=False)
    entries = [{e.key: e.value for e in t.external_data} for t in written.graph.initializer]
    big = 4 * (2**18 + 1)
    end = -(-(4096 + big) // 64) * 64
    assert entries == [
        {"location": data.name, "offset": "0", "length": "12"},
        {"location": data.name, "offset": "4096", "length": str(big)},
        {"location": data.name, "offset": str(end), "length": "12"},
        {},
    ]
    assert data.stat().st_size == end + 12


def test_the_name_of_the_data_file_follows_from_the_digest(tmp_path: Path) -> None:
    names = []
    for folder, digest in (("a", b"1" * 32), ("b", b"1" * 32), ("c", b"2" * 32), ("d", None), ("e", None)):
        source = external(tmp_path / folder / "a.onnx", one_file=True)
        rewrite(source, source, {"a": [9, 9, 9]}, digest)
        names.append({p.name for p in source.parent.iterdir()} - {"a.onnx", "shared.bin"})
    assert names[0] == names[1]
    assert len({name for (name,) in names}) == 4


def test_the_output_may_be_the_template_and_its_old_data_file_goes(tmp_path: Path) -> None:
    path = external(tmp_path / "m" / "a.onnx", one_file=True)
    for step in range(1, 4):
        rewrite(path, path, {"a": [step, step, step]}, bytes([step]) * 32)
        assert run(path).tolist() == [11 + step, 13 + step, 15 + step]
        # The template's first data file is somebody else's; of ours, there is one.
        assert len(os.listdir(path.parent)) == 3 and "shared.bin" in os.listdir(path.parent)


def test_a_data_file_that_another_input_needs_stays(tmp_path: Path) -> None:
    path = external(tmp_path / "m" / "a.onnx", one_file=True)
    rewrite(path, path, {"a": [1, 1, 1]}, b"1" * 32)
    (first,) = (p for p in path.parent.iterdir() if p.name.endswith(".data"))
    with ModelFile.open(path) as template, ModelWriter(template, path, [], keep=[first]) as writer:
        writer.commit(b"2" * 32)
    assert first.exists()


@pytest.mark.parametrize("alias", [False, True])
def test_an_output_is_never_put_over_data_of_an_input(tmp_path: Path, alias: bool) -> None:
    path = external(tmp_path / "m" / "a.onnx", one_file=True)
    target = path.parent / "shared.bin"
    before = target.read_bytes()
    if alias:
        (tmp_path / "link").symlink_to("m")
        target = tmp_path / "link" / "shared.bin"
    with ModelFile.open(path) as template, pytest.raises(ArgumentError) as caught:
        ModelWriter(template, target, [])
    assert caught.value.code == "output.data" and str(target) in str(caught.value)
    plain = store(model_of(raw("a", [1, 2, 3])), tmp_path / "plain.onnx")
    with ModelFile.open(plain) as template, pytest.raises(ArgumentError):
        ModelWriter(template, target, [], keep=[path.parent / "shared.bin"])
    assert (path.parent / "shared.bin").read_bytes() == before
    assert len(os.listdir(path.parent)) == 2


def test_a_model_without_external_data_that_replaces_one_with_removes_its_data_file(tmp_path: Path) -> None:
    path = external(tmp_path / "m" / "a.onnx", one_file=True)
    rewrite(path, path, {}, b"1" * 32)
    plain = store(model_of(raw("a", [1, 2, 3])), tmp_path / "plain")
    rewrite(plain, path, {"a": [3, 2, 1]})
    assert sorted(os.listdir(path.parent)) == ["a.onnx", "shared.bin"]


def test_an_output_that_held_something_else_is_replaced(tmp_path: Path) -> None:
    source = store(model_of(raw("a", [1, 2, 3])), tmp_path / "a")
    (tmp_path / "out").write_text("not a model")
    (tmp_path / "out.0123456789abcdef.data").write_text("nobody's")
    rewrite(source, tmp_path / "out", {"a": [3, 2, 1]})
    assert run(tmp_path / "out").tolist() == [3, 2, 1]
    assert (tmp_path / "out.0123456789abcdef.data").exists()


@pytest.mark.parametrize("name", ["C:out.onnx", "back\\slash", "\udcff"])
def test_a_name_that_no_reader_would_follow_gets_no_data_file(tmp_path: Path, name: str) -> None:
    source = external(tmp_path / "in" / "a.onnx", one_file=True)
    (tmp_path / "out").mkdir()
    with pytest.raises(ArgumentError) as caught:
        rewrite(source, tmp_path / "out" / name, {})
    assert caught.value.code == "output.name"
    assert os.listdir(tmp_path / "out") == []
    plain = store(model_of(raw("a", [1, 2, 3])), tmp_path / "plain")
    rewrite(plain, tmp_path / "out" / name, {})
    assert (tmp_path / "out" / name).read_bytes() == plain.read_bytes()


def test_names_that_only_look_odd_are_fine(tmp_path: Path) -> None:
    source = external(tmp_path / "in" / "a.onnx", one_file=True)
    target = tmp_path / "..%2f ü\n{x}.onnx"
    rewrite(source, target, {"a": [0, 0, 0]})
    assert run(target).tolist() == [11, 13, 15]


def test_wrong_use_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    source = store(model_of(raw("a", [1, 2, 3]), raw("b", [4, 5, 6])), tmp_path / "a")
    values = np.float32([1, 2, 3])
    with ModelFile.open(source) as template:
        a, b = template.tensors["a"], template.tensors["b"]
        wrong: list[tuple[str, Callable[[ModelWriter], None]]] = [
            ("write.key", lambda w: w.write(b, 0, values)),
            ("write.array", lambda w: w.write(a, 0, values.astype(np.float64))),
            ("write.array", lambda w: w.write(a, 0, values.view(np.int32))),
            ("write.array", lambda w: w.write(a, 0, values.astype(">f4"))),
            ("write.array", lambda w: w.write(a, 0, np.zeros(6, np.float32)[::2])),
            ("write.range", lambda w: w.write(a, 1, values)),
            ("write.range", lambda w: w.write(a, -1, values)),
            ("write.incomplete", lambda w: w.commit()),
        ]
        for code, use in wrong:
            with pytest.raises(ArgumentError) as caught, ModelWriter(template, tmp_path / "out", ["a"]) as writer:
                use(writer)
            assert caught.value.code == code
        with pytest.raises(ArgumentError, match="no tensor"):
            ModelWriter(template, tmp_path / "out", ["a", "nothing"])
    assert os.listdir(tmp_path) == ["a"]


def test_strings_cannot_be_replaced(tmp_path: Path) -> None:
    text = helper.make_tensor("s", TensorProto.STRING, [1], [b"text"])
    source = store(model_of(raw("a", [1, 2, 3]), text), tmp_path / "a")
    with ModelFile.open(source) as template, pytest.raises(ArgumentError) as caught:
        ModelWriter(template, tmp_path / "out", ["s"])
    assert caught.value.code == "write.dtype"
    assert os.listdir(tmp_path) == ["a"]


def test_a_template_that_changes_meanwhile_is_noticed(tmp_path: Path) -> None:
    source = store(model_of(raw("a", [1, 2, 3]), raw("b", [4, 5, 6])), tmp_path / "a")
    with ModelFile.open(source) as template, ModelWriter(template, tmp_path / "out", []) as writer:
        with source.open("ab") as file:
            file.write(b"more")
        with pytest.raises(InputError):
            writer.commit()
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1), OSError(28, "No space left on device")])
@pytest.mark.parametrize("after", [False, True], ids=["instead", "after"])
@pytest.mark.parametrize("named", [False, True], ids=["nameless", "named"])
def test_whatever_happens_the_path_holds_the_old_or_the_new_model(
    tmp_path: Path, error: BaseException, after: bool, named: bool
) -> None:
    """At every step; with external data on both sides, the old ones ours."""
    steps, outcomes = 0, set()
    while True:
        steps += 1
        path = external(tmp_path / str(steps) / "a.onnx", one_file=True, size=9)
        rewrite(path, path, {"a": [1, 1, 1]}, b"1" * 32)
        old = set(os.listdir(path.parent))
        with ModelFile.open(path) as template, pytest.MonkeyPatch.context() as patched:
            if named:
                without_nameless_files(patched)
            interrupts = Interrupts(steps, after, error)
            interrupts.install(patched)
            finished = True
            try:
                with ModelWriter(template, path, ["a"]) as writer:
                    writer.write(template.tensors["a"], 0, np.float32([2, 2, 2]))
                    writer.commit(b"2" * 32)
            except (KeyboardInterrupt, SystemExit, MachineError, OSError):
                finished = False
        outcome = run(path).tolist()
        assert outcome in [[12, 14, 16], [13, 15, 17]], f"after step {steps}"
        left = set(os.listdir(path.parent))
        assert not [name for name in left if name.endswith(".tmp")], f"after step {steps}"
        assert outcome[0] == 13 or left == old, f"after step {steps}"
        outcomes.add((outcome[0], finished))
        if interrupts.count < steps:
            assert finished and outcome[0] == 13
            break
    assert (12, False) in outcomes and steps > 15

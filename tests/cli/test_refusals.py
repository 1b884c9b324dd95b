"""Bad input from outside, as a user meets it: one line, exit code 1, nothing written, bounded time and memory.

Each case makes files in a folder and gives the words after `shoal merge`; the last column is what the line must say.
The files are made with the onnx library and by cutting bytes, not by Shoal.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

ROOT = Path(__file__).resolve().parents[2]
Case = Callable[[Path], list[str]]
CASES: dict[str, tuple[Case, str]] = {}


def case(says: str) -> Callable[[Case], Case]:
    def keep(function: Case) -> Case:
        CASES[function.__name__] = (function, says)
        return function

    return keep


def net(seed: int = 0, **changes: object) -> onnx.ModelProto:
    """y = Relu(x W + b), with room for changes."""
    rng = np.random.default_rng(seed)
    weight = numpy_helper.from_array(rng.normal(size=(4, 3)).astype(np.float32), "W")
    bias = numpy_helper.from_array(rng.normal(size=3).astype(np.float32), "b")
    nodes = [
        helper.make_node("Gemm", ["x", "W", "b"], ["h"], name="fc"),
        helper.make_node("Relu", ["h"], ["y"], name="act"),
    ]
    graph = helper.make_graph(
        changes.get("nodes", nodes),  # type: ignore[arg-type]
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [weight, bias, *changes.get("more", [])],  # type: ignore[misc]
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", int(changes.get("opset", 21)))], ir_version=10
    )  # type: ignore[call-overload]


def write(folder: Path, name: str, model: onnx.ModelProto | bytes) -> str:
    data = model if isinstance(model, bytes) else model.SerializeToString()
    (folder / name).write_bytes(data)
    return name


def pair(folder: Path, bad: onnx.ModelProto | bytes) -> list[str]:
    return [write(folder, "good.onnx", net(1)), write(folder, "bad.onnx", bad)]


# --- files -----------------------------------------------------------------------------------------------------------


@case("bad.onnx")
def empty_file(folder: Path) -> list[str]:
    return pair(folder, b"")


@case("a.onnx: has no bytes")
def all_inputs_empty(folder: Path) -> list[str]:
    return [write(folder, "a.onnx", b""), write(folder, "b.onnx", b"")]


for eighth in range(1, 8):

    @case("bad.onnx")
    def cut(folder: Path, eighth: int = eighth) -> list[str]:
        data = net(2).SerializeToString()
        return pair(folder, data[: len(data) * eighth // 8])

    CASES[f"cut_at_{eighth}_of_8"] = CASES.pop("cut")


@case("bad.onnx")
def last_byte_missing(folder: Path) -> list[str]:
    return pair(folder, net(2).SerializeToString()[:-1])


@case("bad.onnx")
def random_bytes(folder: Path) -> list[str]:
    return pair(folder, np.random.default_rng(5).bytes(5000))


@case("bad.onnx")
def text(folder: Path) -> list[str]:
    return pair(folder, b"hello, this is not a model\n" * 20)


@case("bad.onnx")
def json_text(folder: Path) -> list[str]:
    return pair(folder, b'{"weights": [1, 2, 3]}')


@case("bad.onnx")
def pickled(folder: Path) -> list[str]:
    return pair(folder, b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00]\x94(K\x01K\x02e.")


@case("bad.onnx")
def zipped(folder: Path) -> list[str]:
    np.savez(folder / "x.npz", a=np.ones(3))
    return pair(folder, (folder / "x.npz").read_bytes())


@case("bad.onnx")
def trailing_garbage(folder: Path) -> list[str]:
    return pair(folder, net(2).SerializeToString() + b"\xff\xff\xff\xff\xff")


@case("bad.onnx")
def two_models_in_one_file(folder: Path) -> list[str]:
    return pair(folder, net(2).SerializeToString() + net(3).SerializeToString())


@case("missing.onnx")
def missing(folder: Path) -> list[str]:
    return [write(folder, "good.onnx", net(1)), "missing.onnx"]


@case("directory")
def directory(folder: Path) -> list[str]:
    (folder / "dir.onnx").mkdir()
    return [write(folder, "good.onnx", net(1)), "dir.onnx"]


@case("pipe.onnx")
def fifo(folder: Path) -> list[str]:
    os.mkfifo(folder / "pipe.onnx")
    return [write(folder, "good.onnx", net(1)), "pipe.onnx"]


@case("/dev/zero")
def device(folder: Path) -> list[str]:
    return [write(folder, "good.onnx", net(1)), "/dev/zero"]


# --- structure -------------------------------------------------------------------------------------------------------


@case("graph")
def no_graph(folder: Path) -> list[str]:
    model = net(2)
    model.ClearField("graph")
    return pair(folder, model)


@case("opset")
def no_opset(folder: Path) -> list[str]:
    model = net(2)
    model.ClearField("opset_import")
    return pair(folder, model)


@case("ir_version")
def no_ir_version(folder: Path) -> list[str]:
    model = net(2)
    model.ClearField("ir_version")
    return pair(folder, model)


def varint(value: int) -> bytes:
    found = b""
    while True:
        value, low = value >> 7, value & 127
        if not value:
            return found + bytes([low])
        found += bytes([low | 128])


def field(number: int, payload: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(payload)) + payload


@case("nest")
def five_thousand_nested_graphs(folder: Path) -> list[str]:
    inner = b""
    for _ in range(5000):
        attribute = field(1, b"then_branch") + field(6, inner) + varint(20 << 3) + varint(5)
        node = field(2, b"o") + field(4, b"If") + field(5, attribute)
        inner = field(1, node)
    model = b"\x08\x0a" + field(8, varint(2 << 3) + varint(21)) + field(7, inner)
    return pair(folder, model)


@case("two tensors are called 'W'")
def duplicate_initialiser(folder: Path) -> list[str]:
    model = net(2)
    model.graph.initializer.append(model.graph.initializer[0])
    return pair(folder, model)


@case("name")
def unnamed_initialiser(folder: Path) -> list[str]:
    model = net(2)
    model.graph.initializer[0].name = ""
    return pair(folder, model)


# --- tensors ---------------------------------------------------------------------------------------------------------


def broken(change: Callable[[TensorProto], None]) -> onnx.ModelProto:
    model = net(2)
    change(model.graph.initializer[0])
    return model


def tensor_case(name: str, says: str, change: Callable[[TensorProto], None]) -> None:
    CASES[name] = (lambda folder: pair(folder, broken(change)), says)


def cut_raw(t: TensorProto) -> None:
    t.raw_data = t.raw_data[:-4]


def extend_raw(t: TensorProto) -> None:
    t.raw_data = t.raw_data + b"\0\0\0\0"


def two_fields(t: TensorProto) -> None:
    t.float_data.extend([1.0] * 12)


def set_dims(*dims: int) -> Callable[[TensorProto], None]:
    def change(t: TensorProto) -> None:
        t.ClearField("dims")
        t.dims.extend(dims)

    return change


def set_type(code: int) -> Callable[[TensorProto], None]:
    def change(t: TensorProto) -> None:
        t.data_type = code

    return change


def poison(value: float) -> Callable[[TensorProto], None]:
    def change(t: TensorProto) -> None:
        array = numpy_helper.to_array(t).copy()
        array[1, 1] = value
        t.CopyFrom(numpy_helper.from_array(array, t.name))

    return change


tensor_case("raw_data_short", "W", cut_raw)
tensor_case("raw_data_long", "W", extend_raw)
tensor_case("no_data", "W", lambda t: t.ClearField("raw_data"))
tensor_case("two_data_fields", "W", two_fields)
tensor_case("dims_product_overflows", "W", set_dims(2**32, 2**32))
tensor_case("dims_beyond_data", "W", set_dims(2**20, 2**30))
tensor_case("negative_dim", "W", set_dims(-4, -3))
tensor_case("type_zero", "W", set_type(0))
tensor_case("type_999", "W", set_type(999))
tensor_case("string_in_raw_data", "W", set_type(TensorProto.STRING))
tensor_case("nan", "NaN", poison(float("nan")))
tensor_case("inf", "Inf", poison(float("inf")))


@case("bad.onnx")
def nan_names_the_file(folder: Path) -> list[str]:
    return pair(folder, broken(poison(float("nan"))))


@case("counter")
def integers_differ(folder: Path) -> list[str]:
    names = []
    for k in range(2):
        counter = numpy_helper.from_array(np.array(k, np.int64), "counter")
        names.append(write(folder, f"{k}.onnx", net(k, more=[counter])))
    return names


@case("q")
def int8_weights_differ(folder: Path) -> list[str]:
    names = []
    for k in range(2):
        packed = numpy_helper.from_array(np.full(8, k, np.int8), "q")
        names.append(write(folder, f"{k}.onnx", net(k, more=[packed])))
    return names


# --- models that do not belong together --------------------------------------------------------------------------------


@case("fc")
def node_removed(folder: Path) -> list[str]:
    return pair(folder, net(2, nodes=[helper.make_node("Gemm", ["x", "W", "b"], ["y"], name="fc")]))


@case("Sigmoid")
def other_op(folder: Path) -> list[str]:
    nodes = [
        helper.make_node("Gemm", ["x", "W", "b"], ["h"], name="fc"),
        helper.make_node("Sigmoid", ["h"], ["y"], name="act"),
    ]
    return pair(folder, net(2, nodes=nodes))


@case("alpha")
def other_attribute(folder: Path) -> list[str]:
    nodes = [
        helper.make_node("Gemm", ["x", "W", "b"], ["h"], name="fc", alpha=2.0),
        helper.make_node("Relu", ["h"], ["y"], name="act"),
    ]
    return pair(folder, net(2, nodes=nodes))


tensor_case("other_shape_same_size", "W", set_dims(3, 4))
tensor_case(
    "other_dtype", "W", lambda t: t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(t).astype(np.float64), "W"))
)


@case("b")
def initialiser_renamed(folder: Path) -> list[str]:
    model = net(2)
    model.graph.initializer[1].name = "bias"
    return pair(folder, model)


@case("opset")
def other_opset(folder: Path) -> list[str]:
    return pair(folder, net(2, opset=20))


@case("more")
def many_differences(folder: Path) -> list[str]:
    more = [numpy_helper.from_array(np.zeros(1, np.float32), f"extra{k}") for k in range(40)]
    return pair(folder, net(2, more=more))


# --- external data -----------------------------------------------------------------------------------------------------


def external(folder: Path, says: str = "", **entries: str) -> list[str]:
    (folder / "w.bin").write_bytes(bytes(4096))
    model = net(2)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": "w.bin", "offset": "0", "length": "48", **entries}.items():
        tensor.external_data.add(key=key, value=value)
    return pair(folder, model)


def external_case(
    name: str, prepare: Callable[[Path], object] = lambda folder: None, says: str = "W", **entries: str
) -> None:
    def make(folder: Path) -> list[str]:
        inside = folder / "models"
        inside.mkdir()
        words = external(inside, **entries)
        prepare(inside)
        return [f"models/{w}" for w in words]

    CASES[f"external_{name}"] = (make, says)


def outside(folder: Path) -> None:
    (folder.parent / "secret.bin").write_bytes(bytes(4096))


def link(folder: Path) -> None:
    outside(folder)
    (folder / "link.bin").symlink_to(folder.parent / "secret.bin")


def link_folder(folder: Path) -> None:
    outside(folder)
    (folder / "sub").symlink_to(folder.parent)


def hard_link(folder: Path) -> None:
    outside(folder)
    os.link(folder.parent / "secret.bin", folder / "hard.bin")


external_case("parent", outside, location="../secret.bin")
external_case("parent_inside", lambda f: (outside(f), (f / "a").mkdir()), location="a/../../secret.bin")
external_case("absolute", location="/etc/passwd")
external_case("backslash", location="..\\secret.bin")
external_case("symlink", link, location="link.bin")
external_case("symlinked_folder", link_folder, location="sub/secret.bin")
external_case("hard_link", hard_link, location="hard.bin")
external_case("fifo", lambda f: os.mkfifo(f / "pipe.bin"), location="pipe.bin")
external_case("directory", lambda f: (f / "d").mkdir(), location="d")
external_case("missing", location="nowhere.bin")
external_case("empty_location", location="")
external_case("nul", location="w.bin\0.txt", says="NUL")
external_case("offset_beyond", offset="5000")
external_case("length_beyond", offset="4090")
external_case("petabyte", length=str(2**50))
external_case("negative", offset="-8")
external_case("signed", offset="+8")
external_case("space", offset=" 8")
external_case("hexadecimal", offset="0x10")
external_case("huge", offset="1" + "0" * 30)
external_case("too_short", length="44")
external_case("too_long", length="52")
external_case("unknown_key", basepath="/etc")


@case("W")
def external_and_embedded(folder: Path) -> list[str]:
    words = external(folder)
    model = onnx.load(folder / "bad.onnx", load_external_data=False)
    model.graph.initializer[0].raw_data = bytes(48)
    write(folder, "bad.onnx", model)
    return words


@case("share bytes")
def external_overlap(folder: Path) -> list[str]:
    words = external(folder)
    model = onnx.load(folder / "bad.onnx", load_external_data=False)
    bias = model.graph.initializer[1]
    bias.ClearField("raw_data")
    bias.data_location = TensorProto.EXTERNAL
    for key, value in {"location": "w.bin", "offset": "40", "length": "12"}.items():
        bias.external_data.add(key=key, value=value)
    write(folder, "bad.onnx", model)
    return words


# --- weights and options ------------------------------------------------------------------------------------------------


def option_case(name: str, says: str, *words: str) -> None:
    def make(folder: Path) -> list[str]:
        return [write(folder, "a.onnx", net(1)), write(folder, "b.onnx", net(2)), *words]

    CASES[name] = (make, says)


option_case("weights_wrong_number", "3", "--weights", "1,2,3")
option_case("weights_negative", "-1", "--weights", "1,-1")
option_case("weights_all_zero", "0", "--weights", "0,0")
option_case("weights_nan", "nan", "--weights", "1,nan")
option_case("weights_inf", "inf", "--weights", "1,inf")
option_case("weights_text", "many", "--weights", "1,many")
option_case("weights_underscore", "1_0", "--weights", "1,1_0")
option_case("unknown_rule", "average", "--method", "average")
option_case("beta_out_of_range", "beta", "--method", "trimmed-mean", "--beta", "0.7")
option_case("bulyan_too_few", "bulyan", "--method", "bulyan", "--num-malicious-nodes", "1")
option_case("output_folder_missing", "nowhere", "-o", "nowhere/out.onnx")


def limits() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (2 * 2**30, 2 * 2**30))


@pytest.mark.parametrize("name", CASES)
def test_refused(name: str, tmp_path: Path) -> None:
    make, says = CASES[name]
    words = make(tmp_path)
    if "-o" not in words:
        words += ["-o", "out.onnx"]
    (tmp_path / "out.onnx").write_bytes(b"what was there before")
    before = sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*"))
    done = subprocess.run(
        [sys.executable, "-m", "shoal", "merge", *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
        preexec_fn=limits,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "SHOAL_THREADS": "2"},
    )
    lines = done.stderr.strip().splitlines()
    assert done.returncode == 1, f"exit {done.returncode}: {done.stdout}{done.stderr}"
    assert len(lines) == 1 and lines[0].startswith("error: "), done.stderr
    assert says in lines[0], lines[0]
    assert sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*")) == before
    assert (tmp_path / "out.onnx").read_bytes() == b"what was there before"

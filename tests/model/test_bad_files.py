"""Files that are no model, or a damaged one: each gives one error with its code, none is read further."""

from __future__ import annotations

import io
import json
import os
import pickle
import socket
import struct
import zipfile
from pathlib import Path

import corpus
import numpy as np
import pytest

from shoal.errors import InputError, MachineError, ShoalError
from shoal.limits import NESTING_MAX
from shoal.model.file import ModelFile

GOOD = corpus.model(corpus.graph(corpus.tensor()))


def npz() -> bytes:
    out = io.BytesIO()
    np.savez(out, w=np.ones(3))
    return out.getvalue()


def archive() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr("archive/data.pkl", b"x")
    return out.getvalue()


def safetensors() -> bytes:
    head = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    return struct.pack("<Q", len(head)) + head + b"\0" * 4


FOREIGN = {
    "text": (b"hello, these are no weights\n", "a text"),
    "html": (b"<!DOCTYPE html><html><body>404</body></html>", "an HTML or XML page"),
    "json": (b'{"error": "not found"}', "a JSON document"),
    "pickle": (pickle.dumps({"w": [1.0]}), "a Python pickle"),
    "pickle2": (pickle.dumps([1.0], protocol=2), "a Python pickle"),
    "npz": (npz(), "a zip archive"),
    "zip": (archive(), "a zip archive"),
    "safetensors": (safetensors(), "a safetensors file"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "a Git LFS pointer"),
}


def refusal(path: Path) -> ShoalError:
    with pytest.raises(ShoalError) as caught, ModelFile.open(path):
        pass
    message = str(caught.value)
    assert message.isprintable(), "one line, nothing that could move a cursor"
    assert len(message) < 1000
    return caught.value


def refuse(data: bytes, tmp_path: Path) -> ShoalError:
    path = tmp_path / "bad.onnx"
    path.write_bytes(data)
    error = refusal(path)
    assert isinstance(error, InputError)
    assert "bad.onnx" in str(error)
    return error


@pytest.mark.parametrize("name", FOREIGN)
def test_other_kinds_of_file_are_named(name: str, tmp_path: Path) -> None:
    data, kind = FOREIGN[name]
    error = refuse(data, tmp_path)
    assert error.code == "file.not_onnx"
    assert kind in str(error)


MODELS = {
    "file.empty": b"",
    "model.no_graph": corpus.model(),
    "model.no_opset": corpus.model(corpus.graph(), opset=None),
    "model.no_ir_version": corpus.model(corpus.graph(), ir=None),
    "model.ir_version": corpus.model(corpus.graph(), ir=99),
    "model.opset": corpus.model(corpus.graph(), opset=0),
    "file.repeated_field": GOOD + GOOD,
    "function.unnamed": corpus.model(corpus.graph(), more=corpus.field(25, corpus.field(10, "d"))),
    "node.op_type": corpus.model(corpus.graph(nodes=(corpus.field(1, "x"),))),
    "node.no_output": corpus.model(corpus.graph(nodes=(corpus.node("Constant", (), (), corpus.attribute("v", 1)),))),
    "attribute.unnamed": corpus.model(corpus.graph(nodes=(corpus.node("A", (), ("y",), corpus.field(20, 1)),))),
    "name.nul": corpus.model(corpus.graph(corpus.tensor("a\0b"))),
    "name.utf8": corpus.model(corpus.graph(corpus.tensor(b"\xff\xfe"))),
    "name.too_long": corpus.model(corpus.graph(corpus.tensor("n" * 1_000_000))),
    "graph.nesting": corpus.model(corpus.nested(NESTING_MAX + 1, corpus.graph())),
    "graph.type": corpus.model(
        corpus.graph(more=corpus.field(11, corpus.field(1, "x") + corpus.field(2, b"\x0a\0" * 2**20)))
    ),
}


@pytest.mark.parametrize("code", MODELS)
def test_models_that_are_not_whole(code: str, tmp_path: Path) -> None:
    assert refuse(MODELS[code], tmp_path).code == code


@pytest.mark.parametrize("version", range(3, 15))
def test_known_versions_are_read(version: int, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(corpus.model(corpus.graph(corpus.tensor()), ir=version))
    with ModelFile.open(tmp_path / "m.onnx") as file:
        assert file.ir_version == version


DAMAGED = {
    "group": GOOD + b"\x0b\x0c",
    "reserved wire type": GOOD + b"\x0e",
    "field number 0": GOOD + b"\x00\x00",
    "field number above 2**29": GOOD + b"\x80\x80\x80\x80\x80\x01",
    "varint without end": GOOD + b"\x08" + b"\xff" * 11,
    "varint of 65 bits": GOOD + corpus.varint(99 << 3) + b"\xff" * 9 + b"\x02",
    "tag cut off": GOOD + b"\x80",
    "length beyond the end": GOOD + corpus.varint(99 << 3 | 2) + b"\x05abc",
    "length of 2**63": GOOD + corpus.varint(99 << 3 | 2) + corpus.varint(2**63),
    "length of 2**64 - 1": GOOD + corpus.varint(99 << 3 | 2) + corpus.varint(2**64 - 1),
    "fixed field cut off": GOOD + corpus.varint(99 << 3 | 1) + b"1234",
    "graph as a number": corpus.field(1, 10) + corpus.field(7, 5),
    "inner length beyond the outer one": corpus.field(1, 10) + corpus.field(7, corpus.varint(5 << 3 | 2) + b"\x7f"),
    "text behind the model": GOOD + b"\ngarbage\n",
    "zeros behind the model": GOOD + b"\0" * 512,
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_wire_format(name: str, tmp_path: Path) -> None:
    assert refuse(DAMAGED[name], tmp_path).code == "file.damaged"


def test_five_thousand_levels(tmp_path: Path) -> None:
    assert refuse(corpus.model(corpus.nested(5000, corpus.graph())), tmp_path).code == "graph.nesting"


def test_a_deeply_nested_type(tmp_path: Path) -> None:
    kind = b""
    for _ in range(2000):
        kind = corpus.field(4, corpus.field(1, kind))
    ports = corpus.field(11, corpus.field(1, "x") + corpus.field(2, kind))
    assert refuse(corpus.model(corpus.graph(more=ports)), tmp_path).code == "graph.nesting"


def test_two_graphs_of_one_name(tmp_path: Path) -> None:
    branch = corpus.attribute("then_branch", 5, corpus.field(6, corpus.graph()))
    twice = (corpus.node("If", ("c",), ("y",), branch),) * 2
    assert refuse(corpus.model(corpus.graph(nodes=twice)), tmp_path).code == "graph.duplicate"


def test_an_attribute_twice(tmp_path: Path) -> None:
    values = (corpus.attribute("a", 2, corpus.field(3, 1)),) * 2
    data = corpus.model(corpus.graph(nodes=(corpus.node("Op", ("x",), ("y",), *values),)))
    assert refuse(data, tmp_path).code == "node.duplicate_attribute"


def test_an_attribute_of_two_kinds(tmp_path: Path) -> None:
    both = corpus.attribute("a", 2, corpus.field(3, 1) + corpus.field(4, "s"))
    data = corpus.model(corpus.graph(nodes=(corpus.node("Op", ("x",), ("y",), both),)))
    assert refuse(data, tmp_path).code == "attribute.two_values"


def test_every_truncation(tmp_path: Path) -> None:
    """A model cut anywhere is refused: what is left lacks its graph or its opset, which stands last."""
    for data in (GOOD, corpus.control_flow().SerializeToString()):
        for stop in range(len(data)):
            error = refuse(data[:stop], tmp_path)
            assert error.code in ("file.empty", "file.damaged", "model.no_graph", "model.no_opset", "model.opset"), stop


def test_more_than_protobuf_holds(tmp_path: Path) -> None:
    path = tmp_path / "big.onnx"
    path.write_bytes(GOOD)
    os.truncate(path, 2**31)
    assert refusal(path).code == "file.too_large"


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(os.path.relpath(tmp_path / "socket"))
    listener.close()
    for path in (tmp_path, tmp_path / "fifo", tmp_path / "socket", Path("/dev/zero")):
        assert refusal(path).code == "file.not_regular", path
    assert "is a directory" in str(refusal(tmp_path))
    for path in (tmp_path / "missing", Path("a\0b")):
        assert refusal(path).code == "file.missing"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(GOOD)
    (tmp_path / "m.onnx").chmod(0)
    error = refusal(tmp_path / "m.onnx")
    assert isinstance(error, MachineError)
    assert error.code == "file.read"


def test_a_link_to_a_model_is_followed(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(GOOD)
    (tmp_path / "link.onnx").symlink_to("m.onnx")
    with ModelFile.open(tmp_path / "link.onnx") as file:
        assert list(file.tensors) == ["w"]

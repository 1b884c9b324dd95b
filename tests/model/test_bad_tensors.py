"""Tensors that contradict themselves: refused by name, before anything of the model is used."""

from __future__ import annotations

from pathlib import Path

import corpus
import pytest

from shoal.errors import InputError
from shoal.model.file import ModelFile

FLOATS = corpus.field(4, b"\0" * 8)
TENSORS = {
    "raw data too short": ("tensor.size", corpus.tensor(raw=b"\0" * 7)),
    "raw data too long": ("tensor.size", corpus.tensor(raw=b"\0" * 9)),
    "no values": ("tensor.size", corpus.tensor(raw=None)),
    "too few floats": ("tensor.size", corpus.tensor(raw=None, more=corpus.field(4, b"\0" * 4))),
    "too many floats": ("tensor.size", corpus.tensor(raw=None, more=FLOATS * 2)),
    "floats of 5 bytes": ("tensor.size", corpus.tensor(raw=None, more=corpus.field(4, b"\0" * 5))),
    "too few integers": ("tensor.size", corpus.tensor(code=7, raw=None, more=corpus.field(7, b"\1"))),
    "too few strings": ("tensor.size", corpus.tensor(code=8, raw=None, more=corpus.field(6, b"\1"))),
    "values for no elements": ("tensor.size", corpus.tensor(dims=(0,))),
    "two data fields": ("tensor.two_values", corpus.tensor(more=FLOATS)),
    "two typed fields": ("tensor.two_values", corpus.tensor(raw=None, more=FLOATS + corpus.field(7, b"\0\0"))),
    "raw data twice": ("file.repeated_field", corpus.tensor(more=corpus.field(9, b"\0" * 8))),
    "type twice": ("file.repeated_field", corpus.tensor(more=corpus.field(2, 1))),
    "name twice": ("file.repeated_field", corpus.tensor(more=corpus.field(8, "v"))),
    "wrong field for the type": ("tensor.field", corpus.tensor(code=7, raw=None, more=FLOATS)),
    "product of dims wraps to 0": ("tensor.too_large", corpus.tensor(dims=(2**32, 2**32), raw=b"")),
    "product of dims wraps to 2": ("tensor.too_large", corpus.tensor(dims=(2**63 - 1, 2), raw=b"\0" * 8)),
    "2**50 elements": ("tensor.too_large", corpus.tensor(dims=(2**50,), raw=None)),
    "2**47 elements": ("tensor.size", corpus.tensor(dims=(2**47,), raw=b"\0" * 8)),
    "huge dims beside a zero": ("tensor.too_large", corpus.tensor(dims=(0, 2**62, 2**62), raw=b"")),
    "negative dim": ("tensor.dims", corpus.tensor(dims=(-1,))),
    "65 dims": ("tensor.dims", corpus.tensor(dims=(1,) * 65, raw=b"\0" * 4)),
    "a million dims": ("tensor.dims", corpus.tensor(dims=(), more=corpus.field(1, b"\1" * 10**6))),
    "type 0": ("tensor.dtype", corpus.tensor(code=0)),
    "type 999": ("tensor.dtype", corpus.tensor(code=999)),
    "type -1": ("tensor.dtype", corpus.tensor(code=-1)),
    "type 2**32 + 1": ("tensor.dtype", corpus.tensor(code=2**32 + 1)),
    "strings in raw data": ("tensor.raw_strings", corpus.tensor(code=8)),
    "segment": ("tensor.segment", corpus.tensor(more=corpus.field(3, corpus.field(1, 0)))),
    "no name": ("tensor.unnamed", corpus.tensor(None)),
    "empty name": ("tensor.unnamed", corpus.tensor("")),
    "data_location 7": ("tensor.location", corpus.tensor(more=corpus.field(14, 7))),
    "raw data as a number": ("file.damaged", corpus.tensor(raw=None, more=corpus.field(9, 1))),
    "dims as text of a float": ("file.damaged", corpus.tensor(dims=(), more=corpus.field(1, b"\0" * 4, 5))),
    "values in a thousand places": (
        "tensor.fields",
        corpus.tensor(dims=(1000,), raw=None, more=(corpus.field(4, b"\0" * 4, 5) + corpus.field(99, 1)) * 1000),
    ),
}  # fmt: skip


def refusal(data: bytes, tmp_path: Path) -> InputError:
    (tmp_path / "bad.onnx").write_bytes(data)
    with pytest.raises(InputError) as caught, ModelFile.open(tmp_path / "bad.onnx"):
        pass
    assert str(caught.value).isprintable()
    assert "bad.onnx" in str(caught.value)
    return caught.value


@pytest.mark.parametrize("name", TENSORS)
def test_as_initialiser(name: str, tmp_path: Path) -> None:
    code, bad = TENSORS[name]
    error = refusal(corpus.model(corpus.graph(corpus.tensor("fine"), bad)), tmp_path)
    assert error.code == code
    if code.startswith("tensor.") and code != "tensor.unnamed":
        assert "tensor 'w'" in str(error), "also where the fault stands before the name"


#: a tensor may lack its name everywhere but among the initialisers
ELSEWHERE = [name for name, (code, _) in TENSORS.items() if code != "tensor.unnamed"]


@pytest.mark.parametrize("name", ELSEWHERE)
def test_elsewhere(name: str, tmp_path: Path) -> None:
    """The same in a Constant, in another node's attribute, in a branch, in a function, among sparse values."""
    code, bad = TENSORS[name]
    value = corpus.attribute("value", 4, corpus.field(5, bad))
    constant = corpus.node("Constant", (), ("y",), value)
    branch = corpus.attribute("then_branch", 5, corpus.field(6, corpus.graph(nodes=(constant,))))
    function = corpus.field(25, corpus.field(1, "f") + corpus.field(7, constant) + corpus.field(10, "d"))
    indices = corpus.field(2, corpus.tensor("", (2,), 7, b"\0" * 16))
    for data in (
        corpus.model(corpus.graph(nodes=(constant,))),
        corpus.model(corpus.graph(nodes=(corpus.node("ConstantOfShape", ("s",), ("y",), value),))),
        corpus.model(corpus.graph(nodes=(corpus.node("If", ("c",), ("y",), branch),))),
        corpus.model(corpus.graph(), more=function),
        corpus.model(corpus.graph(more=corpus.field(15, corpus.field(1, bad) + indices + corpus.field(3, 9)))),
    ):
        assert refusal(data, tmp_path).code == code


def test_duplicate_names(tmp_path: Path) -> None:
    values = corpus.field(1, corpus.tensor("w"))
    sparse = corpus.field(15, values + corpus.field(2, corpus.tensor("", (2,), 7, b"\0" * 16)) + corpus.field(3, 9))
    constant = corpus.node("Constant", (), ("w",), corpus.attribute("value_float", 1))
    for data in (
        corpus.model(corpus.graph(corpus.tensor("w"), corpus.tensor("w"))),
        corpus.model(corpus.graph(corpus.tensor("w"), more=sparse)),
        corpus.model(corpus.graph(corpus.tensor("w"), nodes=(constant,))),
    ):
        error = refusal(data, tmp_path)
        assert error.code == "tensor.duplicate"
        assert "'w'" in str(error)


SPARSE = {
    "no indices": corpus.field(1, corpus.tensor()),
    "no values": corpus.field(2, corpus.tensor("", (2,), 7, b"\0" * 16)),
    "indices of float": corpus.field(1, corpus.tensor()) + corpus.field(2, corpus.tensor("")),
    "other count": corpus.field(1, corpus.tensor()) + corpus.field(2, corpus.tensor("", (1,), 7, b"\0" * 8)),
    "values of two dims": corpus.field(1, corpus.tensor(dims=(2, 1)))
    + corpus.field(2, corpus.tensor("", (2,), 7, b"\0" * 16)),
}


@pytest.mark.parametrize("name", SPARSE)
def test_sparse_tensors(name: str, tmp_path: Path) -> None:
    data = corpus.model(corpus.graph(more=corpus.field(15, SPARSE[name] + corpus.field(3, 9))))
    assert refusal(data, tmp_path).code == "tensor.sparse"


def test_hostile_names_are_shown_harmlessly(tmp_path: Path) -> None:
    name = "\x1b[2J\n\u202e" + "n" * 3000
    error = refusal(corpus.model(corpus.graph(corpus.tensor(name, raw=b""))), tmp_path)
    assert error.code == "tensor.size"
    assert len(str(error)) < 500

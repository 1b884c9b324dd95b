"""The flat layout: which tensors, in what order, where; its digest has a golden value."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from corpus import all_types, control_flow, sparse_weights

from shoal.errors import ArgumentError
from shoal.model.dtype import DTYPES
from shoal.model.file import ModelFile
from shoal.model.layout import Layout, Placed, selects
from shoal.model.weights import save_weights

ARRAYS = {
    "z": np.zeros((2, 3), np.float32),
    "a": np.zeros((), np.float64),
    "ö": np.zeros(4, np.float16),
    "b": np.zeros((0, 7), np.float32),
    "count": np.zeros(3, np.int64),
    "Z": np.zeros(5, ml_dtypes.bfloat16),
}


def test_order_starts_and_length() -> None:
    layout = Layout.of_arrays(ARRAYS)
    assert [t.key for t in layout.tensors] == ["Z", "a", "b", "z", "ö"]
    assert layout.starts == (0, 5, 6, 6, 12, 16) and layout.elements == 16


def test_golden_digest() -> None:
    assert Layout.of_arrays(ARRAYS).digest.hex() == "f0bf7aceb0446ea7831fc84e196dbf1e58f0298fab4809861d2670fb8b494b67"
    assert Layout(()).digest.hex() == "d398721158f515d2fb1406f70fe1f8639a4c9119ef6d3c19b17cd14dd8212164"


def test_file_and_arrays_agree(tmp_path: Path) -> None:
    save_weights(dict(reversed(ARRAYS.items())), tmp_path / "w.onnx")
    with ModelFile.open(tmp_path / "w.onnx") as file:
        assert Layout.of_file(file) == Layout.of_arrays(ARRAYS)


@pytest.mark.parametrize("change", ["name", "dtype", "dims", "missing"])
def test_digest_depends_on_everything(change: str) -> None:
    other = dict(ARRAYS)
    if change == "name":
        other["y"] = other.pop("z")
    elif change == "dtype":
        other["z"] = other["z"].astype(np.float16)
    elif change == "dims":
        other["z"] = other["z"].T.copy()
    else:
        del other["z"]
    assert Layout.of_arrays(other).digest != Layout.of_arrays(ARRAYS).digest


@pytest.mark.parametrize("make", [all_types, control_flow, sparse_weights])
def test_floating_tensors_of_all_graphs(make: object, tmp_path: Path) -> None:
    onnx.save(make(), tmp_path / "m.onnx")  # type: ignore[operator]
    with ModelFile.open(tmp_path / "m.onnx") as file:
        wanted = {
            k for k, ref in file.tensors.items() if ref.dtype.name in ("float16", "float32", "float64", "bfloat16")
        }
        assert {t.key for t in Layout.of_file(file).tensors} == wanted and wanted
        assert not Layout.of_file(file, lambda _: False).tensors


def test_parts_cover_every_range() -> None:
    layout = Layout.of_arrays(ARRAYS)
    flat = [(t.key, i) for t in layout.tensors for i in range(t.elements)]
    for first in range(17):
        for count in range(17 - first):
            parts = list(layout.parts(first, count))
            found = [(p.tensor.key, p.first + i) for p in parts for i in range(p.count)]
            assert found == flat[first : first + count]
            assert [p.at for p in parts] == [sum(q.count for q in parts[:i]) for i in range(len(parts))]
    assert [(layout.locate(e)[0].key, layout.locate(e)[1]) for e in range(16)] == flat


def test_refused() -> None:
    f32 = DTYPES[1]
    for tensors, code in [
        ((Placed("b", f32, ()), Placed("a", f32, ())), "layout.order"),
        ((Placed("a", f32, ()), Placed("a", f32, (2,))), "layout.order"),
        ((Placed("a", DTYPES[7], ()),), "layout.dtype"),
        ((Placed("a", f32, (2**47,)), Placed("b", f32, (2**47, 2))), "layout.elements"),
    ]:
        with pytest.raises(ArgumentError) as caught:
            Layout(tensors)
        assert caught.value.code == code


def test_globs() -> None:
    assert selects("head.bias", (), ()) and selects("head.bias", ("head.*",), ())
    assert not selects("Head.bias", ("head.*",), ()) and not selects("head.bias", ("head.*",), ("*.bias",))

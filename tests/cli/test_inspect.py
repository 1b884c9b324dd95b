"""shoal inspect: what it lists is what the onnx library finds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import numpy_helper
from small_nets import save_net


def test_json(shoal: Callable, nets: list[np.ndarray]) -> None:
    found = shoal("inspect", "a.onnx", "--format", "json").json
    assert found["opsets"] == {"": 21} and found["ir_version"] == 10 and found["nodes"] == 2
    assert found["file_bytes"] == Path("a.onnx").stat().st_size
    assert (found["parameters"], found["tensor_bytes"]) == (3, 12)
    (row,) = found["tensors"]
    assert row == {
        "name": "w", "dtype": "float32", "shape": [3, 1], "bytes": 12, "role": "initializer", "storage": "raw"
    }  # fmt: skip


def test_digest_is_of_the_parameters(shoal: Callable, nets: list[np.ndarray], tmp_path: Path) -> None:
    def digest(name: str) -> str:
        return str(shoal("inspect", name, "--format", "json").json["digest"])

    merged = shoal("merge", "a.onnx", "b.onnx", "-o", "o.onnx", "--format", "json").json
    assert digest("o.onnx") == merged["digest"] != digest("a.onnx")
    assert digest("a.onnx") in shoal("inspect", "a.onnx").out


def test_stats(shoal: Callable, tmp_path: Path) -> None:
    values = np.array([1.0, -3.0, np.nan, np.inf, -np.inf, 2.0], np.float32)
    large = np.random.default_rng(1).normal(size=300_001).astype(np.float64)
    more = [
        numpy_helper.from_array(values, "mixed"),
        numpy_helper.from_array(np.zeros((0, 4), np.float32), "empty"),
        numpy_helper.from_array(np.array([5, -7], np.int64), "whole"),
        numpy_helper.from_array(large, "large"),
    ]
    save_net(tmp_path / "m.onnx", 0, more=more)
    rows = {r["name"]: r for r in shoal("inspect", tmp_path / "m.onnx", "--stats", "--format", "json").json["tensors"]}

    def stats(name: str) -> list:
        return [rows[name][k] for k in ("min", "max", "norm", "nan", "inf")]

    assert stats("mixed") == [-3, 2, pytest.approx(np.sqrt(14)), 1, 2]
    assert stats("empty") == [None, None, 0, 0, 0]
    assert stats("whole") == [-7, 5, pytest.approx(np.sqrt(74)), 0, 0]
    assert stats("large") == [large.min(), large.max(), pytest.approx(np.linalg.norm(large)), 0, 0]
    assert "nan" in shoal("inspect", tmp_path / "m.onnx", "--stats").out


def test_hostile_tensor_names_are_shown_escaped(shoal: Callable, tmp_path: Path) -> None:
    save_net(tmp_path / "m.onnx", 0, name="[red]w\x1b[2J\u202e")
    done = shoal("inspect", tmp_path / "m.onnx")
    assert done.code == 0 and r"[red]w\x1b[2J\u202e" in done.out and "\x1b" not in done.out


def test_refused(shoal: Callable, tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"nothing")
    for name in ("bad.onnx", "gone.onnx", "."):
        shoal("inspect", tmp_path / name).error()

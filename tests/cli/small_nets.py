"""Small models for the tests of the command line, written and read by the onnx library alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def save_net(path: Path, seed: int, name: str = "w", more: list[TensorProto] | None = None) -> np.ndarray:
    """risk = sigmoid(x . w), x [n, 3]; returns w."""
    weight = np.random.default_rng(seed).normal(size=(3, 1)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", name], ["logit"]), helper.make_node("Sigmoid", ["logit"], ["risk"])],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("risk", TensorProto.FLOAT, ["n", 1])],
        [numpy_helper.from_array(weight, name), *(more or [])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(model, path)
    return weight


def weight_of(path: str | Path, name: str = "w") -> np.ndarray:
    """Read with the onnx library, not with Shoal."""
    return next(numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer if t.name == name)

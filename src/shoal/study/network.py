"""A small network in plain numpy: one hidden layer of rectifiers, one yes/no answer.  Trained here, written as ONNX.

Large enough to need merging, small enough to be read.  Anything that writes ONNX can take its place.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shoal.study.sites import Patients

Parameters = dict[str, npt.NDArray[np.float32]]

NAMES = ("hidden.weight", "hidden.bias", "answer.weight", "answer.bias")
#: ONNX versions that every onnxruntime since 1.20 loads
OPSET, IR = 21, 10


@dataclass(frozen=True)
class Training:
    """hidden  units of the hidden layer
    epochs  passes over a site's patients in one round
    batch   patients per step
    rate    step size of Adam
    decay   pull of the weights towards zero, per step, relative to `rate` (decoupled: AdamW)
    """

    hidden: int = 16
    epochs: int = 2
    batch: int = 32
    rate: float = 0.003
    decay: float = 0.01


def initial(columns: int, hidden: int, seed: int) -> Parameters:
    """Starting parameters, the same for every site: all sites must begin at one point to be merged.

    source  He et al., ICCV 2015: normal weights of variance 2 / inputs
    """
    rng = np.random.default_rng([seed, 3])
    return {
        "hidden.weight": rng.normal(0, np.sqrt(2 / columns), (columns, hidden)).astype(np.float32),
        "hidden.bias": np.zeros(hidden, np.float32),
        "answer.weight": rng.normal(0, np.sqrt(1 / hidden), (hidden, 1)).astype(np.float32),
        "answer.bias": np.zeros(1, np.float32),
    }


def logits(parameters: Parameters, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The answer before the sigmoid: float32[n]."""
    inner = np.maximum(x @ parameters["hidden.weight"] + parameters["hidden.bias"], 0)
    return np.asarray((inner @ parameters["answer.weight"] + parameters["answer.bias"])[:, 0], np.float32)


def gradients(parameters: Parameters, x: npt.NDArray[np.float32], y: npt.NDArray[np.int64]) -> Parameters:
    """Gradient of the mean log loss of these patients, one array per parameter."""
    inner = np.maximum(x @ parameters["hidden.weight"] + parameters["hidden.bias"], 0)
    answer = (inner @ parameters["answer.weight"] + parameters["answer.bias"])[:, 0]
    error = ((0.5 * (np.tanh(0.5 * answer) + 1) - y) / len(y)).astype(np.float32)[:, None]
    back = (error @ parameters["answer.weight"].T) * (inner > 0)
    return {
        "hidden.weight": x.T @ back,
        "hidden.bias": back.sum(axis=0),
        "answer.weight": inner.T @ error,
        "answer.bias": error.sum(axis=0),
    }


def train(start: Parameters, patients: Patients, how: Training, seed: int) -> Parameters:
    """Parameters after `how.epochs` passes over the patients; `start` stays as it is.

    source  Loshchilov and Hutter, ICLR 2019 (AdamW)
    """
    rng = np.random.default_rng(seed)
    now = {k: v.copy() for k, v in start.items()}
    mean = {k: np.zeros_like(v) for k, v in now.items()}
    square = {k: np.zeros_like(v) for k, v in now.items()}
    step = 0
    for _ in range(how.epochs):
        order = rng.permutation(len(patients))
        for first in range(0, len(order), how.batch):
            rows = order[first : first + how.batch]
            step += 1
            for k, g in gradients(now, patients.x[rows], patients.y[rows]).items():
                mean[k] += 0.1 * (g - mean[k])
                square[k] += 0.001 * (g * g - square[k])
                change = (mean[k] / (1 - 0.9**step)) / (np.sqrt(square[k] / (1 - 0.999**step)) + 1e-8)
                shrink = np.float32(how.decay) * now[k] if now[k].ndim > 1 else np.float32(0)
                now[k] -= np.float32(how.rate) * (change + shrink)
    return now


def write_onnx(parameters: Parameters, path: Path) -> None:
    """The network as an ONNX file: float32 `patients` [rows, columns] in, float32 `risk` [rows, 1] in 0..1 out."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    columns = parameters["hidden.weight"].shape[0]
    nodes = [
        helper.make_node("Gemm", ["patients", "hidden.weight", "hidden.bias"], ["inner"]),
        helper.make_node("Relu", ["inner"], ["active"]),
        helper.make_node("Gemm", ["active", "answer.weight", "answer.bias"], ["logit"]),
        helper.make_node("Sigmoid", ["logit"], ["risk"]),
    ]
    graph = helper.make_graph(
        nodes,
        "risk",
        [helper.make_tensor_value_info("patients", TensorProto.FLOAT, ["rows", columns])],
        [helper.make_tensor_value_info("risk", TensorProto.FLOAT, ["rows", 1])],
        [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in parameters.items()],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR, producer_name="shoal-study"
    )
    onnx.save_model(model, str(path))


def read_onnx(path: Path) -> Parameters:
    """The parameters in a file that `write_onnx` or a merge of such files wrote."""
    import shoal

    with shoal.load(path) as model:
        return {name: np.array(model[name]) for name in NAMES}

"""One ONNX model, loaded by onnxruntime and run in batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shoal.errors import ArgumentError, InputError, MachineError, shown

Array = npt.NDArray[np.generic]

#: onnxruntime's word for a tensor's type -> numpy's
DTYPES: dict[str, np.dtype[Any]] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(double)": np.dtype(np.float64),
    "tensor(float16)": np.dtype(np.float16),
    "tensor(int64)": np.dtype(np.int64),
    "tensor(int32)": np.dtype(np.int32),
    "tensor(uint8)": np.dtype(np.uint8),
    "tensor(int8)": np.dtype(np.int8),
    "tensor(bool)": np.dtype(np.bool_),
}
#: rows of one batch where the model leaves the number open
BATCH_ROWS = 1024
#: bytes of all inputs of one batch, at most: rows are fewer where a row is large
BATCH_BYTES_MAX = 64 * 2**20


@dataclass(frozen=True)
class Port:
    """An input or output of a model.

    kind   onnxruntime's word, e.g. "tensor(float)"
    shape  one entry per dimension: a number, or None where the model leaves it open
    """

    name: str
    kind: str
    shape: tuple[int | None, ...]


def runtime() -> Any:
    """The onnxruntime module, its logger silenced (it prints about missing devices to stderr on its own).

    raises  MachineError("onnxruntime.missing")
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MachineError(
            "onnxruntime.missing", "running a model needs onnxruntime: pip install 'shoal[run]'"
        ) from error
    onnxruntime.set_default_logger_severity(4)
    return onnxruntime


class Session:
    """A model ready to run.

    path     ONNX file
    device   "cpu" or "cuda"; cuda is never replaced by the CPU in silence
    threads  0: onnxruntime chooses
    raises   InputError("model.unusable")   onnxruntime refuses the file (its reason is quoted)
             MachineError("device.cuda")    no CUDA provider started
    """

    def __init__(self, path: str | Path, device: str = "cpu", threads: int = 0) -> None:
        self.path = Path(path)
        if device not in ("cpu", "cuda"):
            raise ArgumentError("device.unknown", f"device is {device!r}; expected cpu or cuda")
        if not self.path.is_file():
            raise InputError("file.missing", f"{shown(str(path))}: no such file")
        ort = runtime()
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = threads
        names = ["CPUExecutionProvider"] if device == "cpu" else ["CUDAExecutionProvider", "CPUExecutionProvider"]
        usable = [n for n in names if n in ort.get_available_providers()]
        if device == "cuda" and "CUDAExecutionProvider" not in usable:
            raise MachineError(
                "device.cuda", "this onnxruntime has no CUDA: pip install 'shoal[gpu]' in a fresh environment"
            )
        try:
            self._session = ort.InferenceSession(str(self.path), options, providers=usable)
        except Exception as error:  # onnxruntime's exceptions share no base class
            raise InputError(
                "model.unusable", f"{shown(str(path))}: onnxruntime cannot load it: {shown(str(error), 300)}"
            ) from error
        if device == "cuda" and "CUDAExecutionProvider" not in self._session.get_providers():
            raise MachineError(
                "device.cuda", "onnxruntime could not start CUDA: expected a device, its driver, CUDA and cuDNN"
            )
        self.inputs = [_port(p) for p in self._session.get_inputs()]
        self.outputs = [_port(p) for p in self._session.get_outputs()]

    def output(self, name: str | None) -> Port:
        """The output of this name; without a name, the first one that holds floating numbers."""
        for port in self.outputs:
            if port.name == name or (
                name is None and port.kind in ("tensor(float)", "tensor(double)", "tensor(float16)")
            ):
                return port
        there = ", ".join(f"{shown(p.name)} ({p.kind})" for p in self.outputs)
        wanted = "a floating tensor" if name is None else shown(name)
        raise ArgumentError("eval.output", f"{shown(str(self.path))}: no output {wanted}; it has {there}")

    def batch_rows(self, row_bytes: int) -> int:
        """Rows to give at once: what the model fixes, else as many as BATCH_ROWS and BATCH_BYTES_MAX allow."""
        fixed = {p.shape[0] for p in self.inputs if p.shape and p.shape[0] is not None}
        if fixed:
            return max(1, min(int(n) for n in fixed if n is not None))
        return max(1, min(BATCH_ROWS, BATCH_BYTES_MAX // max(1, row_bytes)))

    def run(self, feed: Mapping[str, Array], output: Port) -> Array:
        """One batch: arrays with the same first axis -> the output's array, one entry per row.

        The arrays are cast to the model's types.  A batch shorter than the model fixes is filled up with its last row,
        and the answers of the filling are dropped.
        raises  InputError("eval.input")  a type or shape that the model does not take
        """
        ready = {p.name: _cast(feed[p.name], p) for p in self.inputs}
        rows = len(next(iter(ready.values())))
        short = self.batch_rows(1) - rows if any(p.shape and p.shape[0] is not None for p in self.inputs) else 0
        if short > 0:
            ready = {k: np.concatenate([a, np.repeat(a[-1:], short, axis=0)]) for k, a in ready.items()}
        try:
            answer = self._session.run([output.name], ready)[0]
        except Exception as error:
            raise InputError(
                "eval.input", f"{shown(str(self.path))}: onnxruntime cannot run it: {shown(str(error), 300)}"
            ) from error
        if not isinstance(answer, np.ndarray) or answer.ndim == 0 or len(answer) < rows:
            found = list(answer.shape) if isinstance(answer, np.ndarray) else type(answer).__name__
            raise InputError(
                "eval.output",
                f"output {shown(output.name)} is {found} for {rows} rows; expected a tensor with one entry per row",
            )
        return answer[:rows]

    def predict(self, features: npt.NDArray[np.floating[Any]], output: str | None = None) -> Array:
        """All rows of one array through a model with one input, in batches: the outputs, one after another."""
        if len(self.inputs) != 1:
            raise ArgumentError("eval.inputs", f"{shown(str(self.path))} has {len(self.inputs)} inputs; expected one")
        port, chosen = self.inputs[0], self.output(output)
        step = self.batch_rows(features.nbytes // max(1, len(features)))
        return np.concatenate([self.run({port.name: batch}, chosen) for batch in _slices(features, step)])


def _slices(array: Array, step: int) -> Iterator[Array]:
    for start in range(0, max(1, len(array)), step):
        yield array[start : start + step]


def _port(argument: Any) -> Port:
    return Port(argument.name, argument.type, tuple(d if isinstance(d, int) else None for d in argument.shape))


def _cast(array: Array, port: Port) -> Array:
    """The array in the model's dtype and, where only an axis of length one is too many or missing, in its shape."""
    dtype = DTYPES.get(port.kind)
    if dtype is None or array.dtype.kind not in "biuf" or (dtype.kind != "f" and array.dtype.kind == "f"):
        raise InputError("eval.input", f"input {shown(port.name)} takes {port.kind}; the data are {array.dtype}")
    if len(port.shape) == array.ndim + 1 and port.shape[-1] in (1, None):
        array = array[..., None]
    fits = len(port.shape) == array.ndim
    if not fits or any(want not in (None, have) for want, have in list(zip(port.shape, array.shape, strict=True))[1:]):
        expected = ["any" if d is None else d for d in port.shape]
        raise InputError(
            "eval.input", f"input {shown(port.name)} takes shape {expected}; the data have {list(array.shape)}"
        )
    ready: Array = np.ascontiguousarray(array, dtype)
    return ready

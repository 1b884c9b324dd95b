"""A model on a data file: which column is what, batches of every size, and models that fix their batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from sklearn.metrics import roc_auc_score

from shoal.errors import ArgumentError, InputError, MachineError
from shoal.evaluate import session
from shoal.evaluate.question import Question, evaluate
from shoal.evaluate.session import Session


def save_model(path: Path, rows: int | str = "n", inputs: int = 1, kind: int = TensorProto.FLOAT) -> None:
    """risk = sigmoid(x . (1, -2, 0.5)); with two inputs x is their concatenation."""
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    weight = numpy_helper.from_array(np.array([[1.0], [-2.0], [0.5]], dtype), "w")
    ports = [("x", 3)] if inputs == 1 else [("x", 2), ("z", 1)]
    nodes = [] if inputs == 1 else [helper.make_node("Concat", ["x", "z"], ["xz"], axis=1)]
    nodes += [
        helper.make_node("MatMul", ["x" if inputs == 1 else "xz", "w"], ["logit"]),
        helper.make_node("Sigmoid", ["logit"], ["risk"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, kind, [rows, width]) for name, width in ports],
        [helper.make_tensor_value_info(name, kind, [rows, 1]) for name in ("risk", "logit")],
        [weight],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)


@pytest.fixture
def data() -> tuple[np.ndarray, np.ndarray, float]:
    rng = np.random.default_rng(4)
    x = rng.normal(size=(101, 3))
    y = (rng.random(101) < 0.5).astype(np.int64)
    return x, y, float(roc_auc_score(y, x @ [1, -2, 0.5]))


@pytest.mark.parametrize("rows", ["n", 1, 7, 101, 200])
def test_batches_of_any_size_give_the_same(tmp_path: Path, rows: int | str, data: tuple) -> None:
    x, y, expected = data
    save_model(tmp_path / "m.onnx", rows)
    np.savez(tmp_path / "d.npz", x=x.astype(np.float32), y=y)
    answer = evaluate(tmp_path / "m.onnx", tmp_path / "d.npz")
    assert (answer.rows, answer.classes, answer.scores) == (101, 2, "probability")
    assert answer.metrics["auc"] == pytest.approx(expected, abs=1e-6)


def test_open_batches_follow_the_limit(tmp_path: Path, data: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, expected = data
    monkeypatch.setattr(session, "BATCH_ROWS", 10)
    save_model(tmp_path / "m.onnx")
    np.savez(tmp_path / "d.npz", x=x, y=y)
    assert evaluate(tmp_path / "m.onnx", tmp_path / "d.npz").metrics["auc"] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.DOUBLE])
def test_csv_columns_side_by_side(tmp_path: Path, data: tuple, kind: int) -> None:
    x, y, expected = data
    save_model(tmp_path / "m.onnx", kind=kind)
    table = np.c_[y, x[:, ::-1]]
    np.savetxt(tmp_path / "d.csv", table, delimiter=",", header="died,c,b,a", comments="")
    question = Question(metrics=("auc",), inputs=("a", "b", "c"), labels="died")
    answer = evaluate(tmp_path / "m.onnx", tmp_path / "d.csv", question)
    assert answer.metrics == {"auc": pytest.approx(expected, abs=1e-6)}


def test_two_inputs_by_name_and_by_option(tmp_path: Path, data: tuple) -> None:
    x, y, expected = data
    save_model(tmp_path / "m.onnx", inputs=2)
    np.savez(tmp_path / "d.npz", x=x[:, :2], z=x[:, 2], label=y)
    np.savez(tmp_path / "other.npz", first=x[:, :2], second=x[:, 2:], label=y)
    assert evaluate(tmp_path / "m.onnx", tmp_path / "d.npz").metrics["auc"] == pytest.approx(expected, abs=1e-6)
    answer = evaluate(tmp_path / "m.onnx", tmp_path / "other.npz", Question(inputs=("first", "second")))
    assert answer.metrics["auc"] == pytest.approx(expected, abs=1e-6)


def test_another_output_read_as_logits(tmp_path: Path, data: tuple) -> None:
    x, y, _ = data
    save_model(tmp_path / "m.onnx")
    np.savez(tmp_path / "d.npz", x=x, y=y)
    answer = evaluate(tmp_path / "m.onnx", tmp_path / "d.npz", Question(output="logit"))
    first = evaluate(tmp_path / "m.onnx", tmp_path / "d.npz")
    assert answer.scores == "logit"
    for name, value in first.metrics.items():
        assert answer.metrics[name] == pytest.approx(value, abs=1e-5)


def test_undefined_metrics_are_none_unless_asked_for(tmp_path: Path, data: tuple) -> None:
    save_model(tmp_path / "m.onnx")
    np.savez(tmp_path / "d.npz", x=data[0], y=np.zeros(101))
    assert evaluate(tmp_path / "m.onnx", tmp_path / "d.npz").metrics["auc"] is None
    with pytest.raises(InputError, match="AUC is not defined"):
        evaluate(tmp_path / "m.onnx", tmp_path / "d.npz", Question(metrics=("auc",)))


@pytest.mark.parametrize(
    ("arrays", "question", "says"),
    [
        ({"x": np.zeros((5, 3))}, Question(), "--labels"),
        ({"p": np.zeros((5, 3)), "q": np.zeros(5), "y": np.zeros(5)}, Question(), "--inputs"),
        ({"x": np.zeros((5, 3)), "y": np.zeros(5)}, Question(inputs=("nope",)), "nope"),
        ({"x": np.zeros((5, 3)), "y": np.zeros(5)}, Question(labels="nope"), "nope"),
        ({"x": np.zeros((5, 3)), "y": np.zeros(5)}, Question(output="nope"), "risk"),
        ({"x": np.zeros((5, 3)), "y": np.zeros(5)}, Question(metrics=("rmse",)), "rmse"),
        ({"x": np.zeros((5, 3)), "y": np.zeros(5)}, Question(scores="guess"), "guess"),
    ],
)
def test_wishes_that_cannot_be_met(tmp_path: Path, arrays: dict, question: Question, says: str) -> None:
    save_model(tmp_path / "m.onnx")
    np.savez(tmp_path / "d.npz", **arrays)
    with pytest.raises(ArgumentError, match=says):
        evaluate(tmp_path / "m.onnx", tmp_path / "d.npz", question)


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"x": np.zeros((5, 4)), "y": np.zeros(5)}, "takes shape"),
        ({"x": np.zeros((5, 3), np.complex64), "y": np.zeros(5)}, "complex64"),
        ({"x": np.zeros((0, 3)), "y": np.zeros(0)}, "no rows"),
        ({"x": np.full((5, 3), np.nan), "y": np.zeros(5)}, "NaN"),
    ],
)
def test_data_that_do_not_fit(tmp_path: Path, arrays: dict, says: str) -> None:
    save_model(tmp_path / "m.onnx")
    np.savez(tmp_path / "d.npz", **arrays)
    with pytest.raises(InputError, match=says):
        evaluate(tmp_path / "m.onnx", tmp_path / "d.npz")


def test_a_file_that_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"not a model")
    with pytest.raises(InputError, match=r"m\.onnx") as error:
        Session(tmp_path / "m.onnx")
    assert error.value.code == "model.unusable" and "\n" not in str(error.value)


def test_cuda_is_never_replaced_in_silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_model(tmp_path / "m.onnx")
    monkeypatch.setattr(session.runtime(), "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(MachineError, match="shoal\\[gpu\\]"):
        Session(tmp_path / "m.onnx", "cuda")


def test_missing_onnxruntime_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_model(tmp_path / "m.onnx")
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(MachineError, match="pip install 'shoal\\[run\\]'"):
        Session(tmp_path / "m.onnx")

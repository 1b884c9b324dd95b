"""Running means and variances: merged like the rest, left out of outer steps, never negative."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import shoal
from shoal.errors import InputError
from shoal.merge.running import Running
from shoal.model.file import ModelFile

OUTERS = ["sgd", "momentum", "nesterov", "adam", "yogi", "adagrad"]
SETTINGS: dict[str, dict[str, Any]] = {"sgd": {"eta": 0.5}, "momentum": {"eta": 0.5}}


def store(path: Path, seed: int) -> Path:
    """y = BatchNormalization(x), with names that say nothing."""
    rng = np.random.default_rng(seed)
    tensors = {n: rng.normal(size=3) for n in ("gain", "shift", "m")} | {"v": rng.uniform(0.001, 0.002, size=3)}
    graph = helper.make_graph(
        [helper.make_node("BatchNormalization", ["x", "gain", "shift", "m", "v"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(a.astype(np.float32), n) for n, a in tensors.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    return path


@pytest.mark.parametrize("outer", OUTERS)
def test_a_step_leaves_them_out(outer: str, tmp_path: Path) -> None:
    models = [store(tmp_path / f"{i}.onnx", i) for i in range(3)]
    base = store(tmp_path / "base.onnx", 9)
    options = shoal.MergeOptions(outer=outer, parameters=SETTINGS.get(outer, {}))
    shoal.merge_files(models, tmp_path / "stepped.onnx", options, base=base)
    shoal.merge_files(models, tmp_path / "mean.onnx")
    with shoal.load(tmp_path / "stepped.onnx") as stepped, shoal.load(tmp_path / "mean.onnx") as mean:
        for key in ("m", "v"):
            assert stepped[key].tobytes() == mean[key].tobytes()
        for key in ("gain", "shift"):
            assert not np.array_equal(stepped[key], mean[key])


@pytest.mark.parametrize("outer", OUTERS)
def test_among_arrays_their_names_tell(outer: str) -> None:
    names = ("bn1.running_mean", "bn1.running_var", "layer/moving_variance:0", "moving_mean")
    models = [{name: np.full(4, 0.01 * (i + 1)) for name in (*names, "w")} for i in range(2)]
    base = {name: np.full(4, 0.5) for name in (*names, "w")}
    stepped = shoal.merge(models, base=base, outer=outer, **SETTINGS.get(outer, {}))
    mean = shoal.merge(models)
    assert all(np.array_equal(stepped[name], mean[name]) for name in names)
    assert not np.array_equal(stepped["w"], mean["w"])


@pytest.mark.parametrize("method", ["task-arithmetic", "ties", "slerp", "mean"])
def test_a_negative_variance_is_refused_by_name(method: str) -> None:
    models = [{"bn.running_var": np.array([4.0, 1.0])} for _ in range(2)]
    base: Any = {"bn.running_var": np.array([9.0, 9.0])}
    more = {"scaling": 2.0} if method in ("task-arithmetic", "ties") else {}
    if not more:
        models, base = [{"bn.running_var": np.array([1.0, -2.0])} for _ in range(2)], None
    with pytest.raises(InputError, match=r"bn\.running_var.* at element \d; expected 0 or more") as caught:
        shoal.merge(models, base=base, method=method, **more)
    assert caught.value.code == "merge.variance"
    shoal.merge(models, base=base, method=method, exclude=["*.running_var"], **more)


def test_they_are_found_by_the_nodes_that_use_them(tmp_path: Path) -> None:
    with ModelFile.open(store(tmp_path / "m.onnx", 1)) as file:
        found = Running.among(file.tensors, file.structure)
    assert found.all == {"m", "v"} and found.variances == {"v"}

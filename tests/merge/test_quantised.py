"""Quantised weights merged as the numbers that they stand for: what onnxruntime computes is the judge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import shoal
from shoal.errors import ArgumentError, InputError
from shoal.limits import DIGEST_CHUNK_BYTES

Array = npt.NDArray[Any]
MERGE = shoal.MergeOptions(quantised="merge")


@dataclass
class Coded:
    """A quantised weight; axis None: one scale."""

    codes: Array
    scale: Array
    zero: Array | None = None
    axis: int | None = None
    name: str = "w"

    def tensors(self) -> list[TensorProto]:
        named = [(self.name, self.codes), (f"{self.name}_scale", self.scale), (f"{self.name}_zero", self.zero)]
        return [numpy_helper.from_array(value, name) for name, value in named if value is not None]

    def node(self) -> onnx.NodeProto:
        inputs = [self.name, f"{self.name}_scale"] + ([f"{self.name}_zero"] if self.zero is not None else [])
        extra = {} if self.axis is None else {"axis": self.axis}
        return helper.make_node("DequantizeLinear", inputs, [f"{self.name}_real"], **extra)

    @property
    def real(self) -> Array:
        shape = [1] * self.codes.ndim
        if self.axis is not None:
            shape[self.axis] = -1
        zero = np.zeros_like(self.scale, np.float64) if self.zero is None else self.zero.astype(np.float64)
        return (self.codes.astype(np.float64) - zero.reshape(shape)) * self.scale.astype(np.float64).reshape(shape)


@dataclass
class Net:
    """y = x + 1 beside the weights, which are outputs, too; and whatever else."""

    weights: list[Coded]
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    tensors: list[TensorProto] = field(default_factory=list)

    def save(self, path: Path) -> Path:
        outputs = [helper.make_tensor_value_info(f"{w.name}_real", _scale_type(w), w.codes.shape) for w in self.weights]
        graph = helper.make_graph(
            [*(w.node() for w in self.weights), helper.make_node("Add", ["x", "one"], ["y"]), *self.nodes],
            "g",
            [helper.make_tensor_value_info("x", 1, [1])],
            [helper.make_tensor_value_info("y", 1, [1]), *outputs],
            [
                numpy_helper.from_array(np.ones(1, "f4"), "one"),
                *(t for w in self.weights for t in w.tensors()),
                *self.tensors,
            ],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, path)
        return path


def _scale_type(weight: Coded) -> int:
    return int(helper.np_dtype_to_tensor_dtype(weight.scale.dtype))


def coded(
    seed: int, dtype: str, shape: tuple[int, ...] = (3, 5, 7), axis: int | None = None, zero: bool = False, **more: Any
) -> Coded:
    """Codes that use the whole range, scales (and codes of 0) of the model's own."""
    rng, info = np.random.default_rng(seed), np.iinfo(dtype)
    wide = {"int32": 10**6}.get(dtype, info.max + 1)
    codes = rng.integers(max(info.min, -wide), wide, shape).astype(dtype)
    count = () if axis is None else (shape[axis],)
    scale = rng.uniform(0.001, 0.05, count).astype(more.pop("scale", "f4"))
    zeros = rng.integers(info.min // 4, info.max // 2, count).astype(dtype) if zero else None
    return Coded(codes, np.asarray(scale), None if zeros is None else np.asarray(zeros), axis, **more)


def saved(folder: Path, nets: Sequence[Net]) -> list[Path]:
    return [net.save(folder / f"{i}.onnx") for i, net in enumerate(nets)]


def read(path: Path) -> dict[str, Array]:
    return {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}


def computed(path: Path, name: str = "w_real") -> Array:
    """What onnxruntime makes of a weight."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.asarray(session.run([name], {"x": np.zeros(1, "f4")})[0])


def assert_near(path: Path, expected: Array, axis: int | None = None) -> None:
    """Half a step of the new scale, and what float32 rounds when onnxruntime multiplies."""
    onnx.checker.check_model(onnx.load(path), full_check=True)
    scale = read(path)["w_scale"].astype(np.float64)
    if axis is not None:
        scale = scale.reshape([-1 if i == axis % expected.ndim else 1 for i in range(expected.ndim)])
    found = computed(path).astype(np.float64)
    assert (np.abs(found - expected) <= scale * 0.5 + np.abs(expected) * 2.0**-22).all()


KINDS = [(dtype, zero) for dtype in ("int8", "uint8", "int16", "uint16") for zero in (False, True)]


@pytest.mark.parametrize(("dtype", "zero"), [*KINDS, ("int32", False)])
@pytest.mark.parametrize("axis", [None, 0, 1, -1])
def test_the_mean_of_the_numbers(dtype: str, axis: int | None, zero: bool, tmp_path: Path) -> None:
    weights = [coded(seed, dtype, axis=axis, zero=zero) for seed in range(3)]
    paths = saved(tmp_path, [Net([w]) for w in weights])
    report = shoal.merge_files(paths, tmp_path / "out.onnx", MERGE)
    assert_near(tmp_path / "out.onnx", np.mean([w.real for w in weights], axis=0), axis)
    assert report.tensors_merged == 2
    with shoal.load(tmp_path / "out.onnx") as model:
        assert model.digest().hex() == report.digest
    codes = read(tmp_path / "out.onnx")["w"].astype(np.int64)
    info = np.iinfo(dtype)
    if zero and info.min == 0:
        assert (codes.min(), codes.max()) == (info.min, info.max)
    elif not zero:
        # Of 32 bits, a scale of float32 reaches all but the last few codes.
        assert info.max * (1 - 2.0**-22) <= np.abs(codes).max() <= info.max


def test_weights_of_the_models_and_models_of_weight_zero(tmp_path: Path) -> None:
    weights = [coded(seed, "int8", axis=0, zero=True) for seed in range(3)]
    weights[0].scale[1] = np.nan
    nets = [Net([w]) for w in weights]
    paths = saved(tmp_path, nets)
    options = shoal.MergeOptions(quantised="merge", weights=[0, 1, 3])
    shoal.merge_files(paths, tmp_path / "out.onnx", options)
    assert_near(tmp_path / "out.onnx", (weights[1].real + 3 * weights[2].real) / 4, 0)
    with pytest.raises(InputError, match=r"0.onnx: quantisation scale w_scale has a NaN or Inf") as caught:
        shoal.merge_files(paths, tmp_path / "out.onnx", MERGE)
    assert caught.value.code == "tensor.nonfinite"


@pytest.mark.parametrize("scale", ["f4", "f2"])
@pytest.mark.parametrize("axis", [None, 1])
def test_equal_models_give_the_same_bits(scale: str, axis: int | None, tmp_path: Path) -> None:
    """Codes that do not use the whole range would change if they were quantised anew."""
    weight = coded(1, "int8", axis=axis, zero=True, scale=scale)
    weight.codes //= 3
    paths = saved(tmp_path, [Net([weight])] * 3)
    for weights in (None, [0, 1, 2]):
        options = shoal.MergeOptions(quantised="merge", weights=weights)
        shoal.merge_files(paths, tmp_path / "out.onnx", options)
        assert (tmp_path / "out.onnx").read_bytes() == paths[0].read_bytes()
    # Only one model counts: its bits are the result, though the template has others.
    other = Net([coded(2, "int8", axis=axis, zero=True, scale=scale)]).save(tmp_path / "other.onnx")
    shoal.merge_files([other, paths[0]], tmp_path / "out.onnx", shoal.MergeOptions(quantised="merge", weights=[0, 1]))
    assert (tmp_path / "out.onnx").read_bytes() == paths[0].read_bytes()


def test_one_scale_as_a_list_beside_a_zero_point_without_dimensions(tmp_path: Path) -> None:
    """As onnxruntime's quantiser writes biases."""
    weights = [coded(seed, "int8", zero=True) for seed in range(2)]
    for w in weights:
        w.scale = w.scale.reshape(1)
    shoal.merge_files(saved(tmp_path, [Net([w]) for w in weights]), tmp_path / "out.onnx", MERGE)
    found = read(tmp_path / "out.onnx")
    assert found["w_scale"].shape == (1,) and found["w_zero"].shape == ()
    assert_near(tmp_path / "out.onnx", np.mean([w.real for w in weights], axis=0))


def test_a_weight_that_is_equal_passes_beside_one_that_is_not(tmp_path: Path) -> None:
    same = coded(7, "int8", name="v")
    same.codes //= 5
    weights = [coded(seed, "uint8", zero=True) for seed in range(2)]
    shoal.merge_files(saved(tmp_path, [Net([same, w]) for w in weights]), tmp_path / "out.onnx", MERGE)
    found = read(tmp_path / "out.onnx")
    assert found["v"].tobytes() == same.codes.tobytes() and found["v_scale"] == same.scale
    assert_near(tmp_path / "out.onnx", np.mean([w.real for w in weights], axis=0))


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_seven_bits_stay_seven_bits(dtype: str, tmp_path: Path) -> None:
    """onnxruntime's reduce_range: sums of 16 bits must not overflow after a merge, either."""
    weights = [coded(seed, dtype, zero=dtype == "uint8") for seed in range(2)]
    high = 64 if dtype == "int8" else 127
    for w in weights:
        w.codes[:] = np.random.default_rng(3).integers(-high if dtype == "int8" else 0, high + 1, w.codes.shape)
        w.codes[0, 0, 0] = high
    shoal.merge_files(saved(tmp_path, [Net([w]) for w in weights]), tmp_path / "out.onnx", MERGE)
    assert np.abs(read(tmp_path / "out.onnx")["w"].astype(int)).max() == high
    assert_near(tmp_path / "out.onnx", np.mean([w.real for w in weights], axis=0))


def test_slices_of_zeros_and_numbers_at_the_edge_of_a_dtype(tmp_path: Path) -> None:
    one = Coded(np.array([[0, 0], [100, -50], [0, 1]], "i1"), np.array([0.25, 1e-45, 3e38], "f4"), axis=0)
    two = Coded(np.array([[0, 0], [-99, 60], [0, 1]], "i1"), np.array([0.5, 1e-45, 1e38], "f4"), axis=0)
    shoal.merge_files(saved(tmp_path, [Net([one]), Net([two])]), tmp_path / "out.onnx", MERGE)
    found = read(tmp_path / "out.onnx")
    assert found["w"][0].tolist() == [0, 0] and found["w_scale"][0] == np.float32(0.25)
    real = Coded(found["w"], found["w_scale"], axis=0).real
    expected = (one.real + two.real) / 2
    assert (np.abs(real - expected) <= found["w_scale"].astype("f8").reshape(-1, 1) / 2).all()


def test_large_tensors_tiles_and_threads(tmp_path: Path) -> None:
    shape = (3, DIGEST_CHUNK_BYTES // 2 + 11)
    weights = [coded(seed, "int8", shape, axis=1) for seed in range(2)]
    nets = [Net([w], tensors=[numpy_helper.from_array(np.full(9, float(i)), "far")]) for i, w in enumerate(weights)]
    paths = saved(tmp_path, nets)
    for threads in (1, 3):
        options = shoal.MergeOptions(quantised="merge", threads=threads)
        report = shoal.merge_files(paths, tmp_path / f"out{threads}.onnx", options)
        assert report.bytes_read == 2 * (weights[0].codes.nbytes + 9 * 8 + 4)
    assert (tmp_path / "out1.onnx").read_bytes() == (tmp_path / "out3.onnx").read_bytes()
    found = read(tmp_path / "out1.onnx")
    real = Coded(found["w"], found["w_scale"], axis=1).real
    assert (np.abs(real - np.mean([w.real for w in weights], axis=0)) <= found["w_scale"] * 0.5000001).all()
    assert found["far"].tolist() == [0.5] * 9


@pytest.mark.parametrize("method", ["median", "trimmed-mean", "geometric-median", "krum", "task-arithmetic", "ties"])
def test_other_rules_see_the_numbers(method: str, tmp_path: Path) -> None:
    weights = [coded(seed, "int8", axis=0) for seed in range(5)]
    base = coded(9, "int8", axis=0)
    paths = saved(tmp_path, [Net([w]) for w in [*weights, base]])
    options = shoal.MergeOptions(method=method, quantised="merge")
    shoal.merge_files(paths[:5], tmp_path / "out.onnx", options, base=paths[5])
    expected = shoal.merge([w.real for w in weights], method=method, base=base.real)
    assert_near(tmp_path / "out.onnx", expected, 0)


def test_outer_optimisers_and_their_memory(tmp_path: Path) -> None:
    weights, base = [coded(seed, "int8") for seed in range(2)], coded(9, "int8")
    paths = saved(tmp_path, [Net([w]) for w in [*weights, base]])
    options = shoal.MergeOptions(quantised="merge", outer="momentum", parameters={"eta": 0.5})
    shoal.merge_files(paths[:2], tmp_path / "out.onnx", options, base=paths[2], outer_state=tmp_path / "state.onnx")
    delta = np.mean([w.real for w in weights], axis=0) - base.real
    assert_near(tmp_path / "out.onnx", base.real + 0.5 * delta)
    assert np.allclose(read(tmp_path / "state.onnx")["momentum/m/w"], delta)


def test_model_objects_with_assigned_scales(tmp_path: Path) -> None:
    weights = [coded(seed, "int8") for seed in range(2)]
    models = [shoal.load(path) for path in saved(tmp_path, [Net([w]) for w in weights])]
    models[1]["w_scale"] = weights[1].scale * 2
    shoal.merge(models, quantised="merge").save(tmp_path / "out.onnx")
    assert_near(tmp_path / "out.onnx", (weights[0].real + 2 * weights[1].real) / 2)


# --- biases ----------------------------------------------------------------------------------------------------------


def quantised_gemm(seed: int, axis: int | None, activation: float = 0.02) -> Net:
    """x -> Gemm -> out as quantisers write it: everything dequantised, the bias with the scale of the product."""
    weight = coded(seed, "int8", (6, 4), axis=axis)
    bias = coded(seed + 50, "int32", (4,), name="b")
    bias.codes //= 200
    bias.scale, bias.axis = np.asarray(np.float32(activation) * weight.scale), None if axis is None else 0
    weight.zero, bias.zero = np.zeros_like(weight.scale, "i1"), np.zeros_like(weight.scale, "i4")
    nodes = [
        helper.make_node("Mul", ["x", "signs"], ["input"]),
        helper.make_node("QuantizeLinear", ["input", "s", "z"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
        helper.make_node("Gemm", ["xd", "w_real", "b_real"], ["sum"]),
        helper.make_node("QuantizeLinear", ["sum", "t", "z"], ["yq"]),
        helper.make_node("DequantizeLinear", ["yq", "t", "z"], ["out"]),
    ]
    values: dict[str, Any] = {"s": np.float32(activation), "t": np.float32(0.2), "z": np.uint8(128)}
    values["signs"] = np.array([[1, -1, 1, 1, -1, 0.5]], "f4")
    return Net([weight, bias], nodes, [numpy_helper.from_array(np.asarray(v), k) for k, v in values.items()])


@pytest.mark.parametrize("axis", [None, 1])
def test_the_scale_of_a_bias_stays_that_of_the_product(axis: int | None, tmp_path: Path) -> None:
    """onnxruntime joins such nodes into one on whole numbers and never looks at the bias's own scale."""
    nets = [quantised_gemm(seed, axis) for seed in range(3)]
    paths = saved(tmp_path, nets)
    shoal.merge_files(paths, tmp_path / "out.onnx", MERGE)
    found = read(tmp_path / "out.onnx")
    np.testing.assert_allclose(found["b_scale"], np.float32(0.02) * found["w_scale"], rtol=2e-7)
    for name, place in (("w_real", 0), ("b_real", 1)):
        expected = np.mean([net.weights[place].real for net in nets], axis=0)
        scale = found[f"{name[0]}_scale"].astype("f8")
        assert (np.abs(computed(tmp_path / "out.onnx", name) - expected) <= scale * 0.501).all()


@pytest.mark.parametrize("axis", [None, 1])
def test_runtimes_that_join_the_nodes_compute_the_same(axis: int | None, tmp_path: Path) -> None:
    shoal.merge_files(saved(tmp_path, [quantised_gemm(seed, axis) for seed in range(3)]), tmp_path / "out.onnx", MERGE)
    model = onnx.load(tmp_path / "out.onnx")
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("out", 1, [1, 4]))
    levels = onnxruntime.GraphOptimizationLevel
    results = []
    for level in (levels.ORT_DISABLE_ALL, levels.ORT_ENABLE_EXTENDED):
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = level
        options.optimized_model_filepath = str(tmp_path / "joined.onnx")
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        results.append(session.run(["out"], {"x": np.full(1, 1.7, "f4")})[0])
    assert "QGemm" in [node.op_type for node in onnx.load(tmp_path / "joined.onnx").graph.node]
    assert np.abs(results[0] - results[1]).max() <= 0.2001 and np.abs(results[0]).max() > 2


def test_a_bias_of_zeros_follows_too(tmp_path: Path) -> None:
    nets = [quantised_gemm(seed, None) for seed in range(2)]
    for net in nets:
        net.weights[1].codes[:] = 0
    nets[1].weights[1].scale = nets[0].weights[1].scale
    shoal.merge_files(saved(tmp_path, nets), tmp_path / "out.onnx", MERGE)
    found = read(tmp_path / "out.onnx")
    assert not found["b"].any()
    assert found["b_scale"] / found["w_scale"] == pytest.approx(0.02, rel=1e-6)


def test_scales_of_activations_must_still_be_equal(tmp_path: Path) -> None:
    paths = saved(tmp_path, [quantised_gemm(0, None), quantised_gemm(1, None, activation=0.03)])
    with pytest.raises(InputError, match=r"1.onnx: quantisation scale s is 0.03") as caught:
        shoal.merge_files(paths, tmp_path / "out.onnx", MERGE)
    assert caught.value.code == "tensor.scales" and not (tmp_path / "out.onnx").exists()


def test_a_bias_too_large_for_its_scale_is_refused(tmp_path: Path) -> None:
    nets = [quantised_gemm(seed, None) for seed in range(2)]
    for net in nets:
        net.weights[1].codes[:] = 2**31 - 1
        net.weights[0].codes //= 100
    with pytest.raises(InputError, match="too large for the scale that w gives it"):
        shoal.merge_files(saved(tmp_path, nets), tmp_path / "out.onnx", MERGE)


# --- refused ---------------------------------------------------------------------------------------------------------


def two_users(seed: int) -> Net:
    net = Net([coded(seed, "int8")])
    net.nodes.append(helper.make_node("Cast", ["w"], ["cast"], to=1))
    return net


def shared_scale(seed: int) -> Net:
    weights = [coded(seed, "int8"), coded(seed + 9, "int8", name="v")]
    net = Net([weights[0]], [helper.make_node("DequantizeLinear", ["v", "w_scale"], ["v_real"])])
    net.tensors.append(numpy_helper.from_array(weights[1].codes, "v"))
    return net


def computed_scale(seed: int) -> Net:
    nodes = [
        helper.make_node("Mul", ["one_scale", "one_scale"], ["made"]),
        helper.make_node("DequantizeLinear", ["v", "made"], ["v_real"]),
    ]
    tensors = [numpy_helper.from_array(coded(seed, "int8").codes, "v")]
    return Net([], nodes, [*tensors, numpy_helper.from_array(np.array(0.5, "f4"), "one_scale")])


def blocks(seed: int) -> Net:
    rng = np.random.default_rng(seed)
    nodes = [helper.make_node("DequantizeLinear", ["v", "v_scale"], ["v_real"], axis=0, block_size=2)]
    values = {"v": rng.integers(-9, 9, (4, 3)).astype("i1"), "v_scale": rng.uniform(0.1, 1, (2, 3)).astype("f4")}
    return Net([], nodes, [numpy_helper.from_array(value, name) for name, value in values.items()])


def four_bits(seed: int) -> Net:
    codes = helper.make_tensor("v", TensorProto.INT4, [4], [1, -2, 3, seed])
    nodes = [helper.make_node("DequantizeLinear", ["v", "v_scale"], ["v_real"])]
    return Net([], nodes, [codes, numpy_helper.from_array(np.array(0.5, "f4"), "v_scale")])


def two_ways(seed: int) -> Net:
    net = Net([coded(seed, "int8")], [helper.make_node("DequantizeLinear", ["w", "other"], ["o"])])
    net.tensors.append(numpy_helper.from_array(np.array(0.5, "f4"), "other"))
    return net


def as_output(seed: int) -> Net:
    weight = coded(seed, "int8")
    weight.name = "y_codes"
    net = Net([coded(seed, "int8")])
    net.nodes.append(helper.make_node("Identity", ["w"], ["same"]))
    return net


def shared_zero(seed: int) -> Net:
    net = Net([coded(seed, "int8", zero=True)])
    net.weights[0].zero = np.asarray(np.int8(3))
    net.nodes.append(helper.make_node("QuantizeLinear", ["x", "w_other", "w_zero"], ["q"]))
    net.tensors.append(numpy_helper.from_array(np.array(0.5, "f4"), "w_other"))
    return net


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (
            two_users,
            r"weight w is not that of .*0.onnx, and it cannot be changed: it \(w\) is used by another node .Cast.",
        ),
        (shared_scale, r"its scale \(w_scale\) is used by another node .DequantizeLinear."),
        (computed_scale, "v .*has a scale that is no initialiser"),
        (blocks, "v .*has scales for blocks"),
        (four_bits, "v .*is int4"),
        (two_ways, "w .*is dequantised in two ways"),
        (as_output, "used by another node .Identity."),
        (shared_zero, "w_zero of quantised weight w, which others use, too, is not 0"),
    ],
)
def test_refused_by_name_with_the_reason(make: Any, says: str, tmp_path: Path) -> None:
    nets = [make(seed) for seed in range(2)]
    (tmp_path / "out.onnx").write_bytes(b"old")
    with pytest.raises(InputError, match=says) as caught:
        shoal.merge_files(saved(tmp_path, nets), tmp_path / "out.onnx", MERGE)
    assert caught.value.code == "tensor.quantised"
    assert (tmp_path / "out.onnx").read_bytes() == b"old"
    # The same in all models is nobody's trouble.
    same = saved(tmp_path, [nets[0]] * 2)
    shoal.merge_files(same, tmp_path / "out.onnx", MERGE)
    assert (tmp_path / "out.onnx").read_bytes() == same[0].read_bytes()


def test_a_code_of_zero_that_others_read_stays_zero(tmp_path: Path) -> None:
    nets = [shared_zero(seed) for seed in range(2)]
    for net in nets:
        net.weights[0].zero = np.asarray(np.int8(0))
    shoal.merge_files(saved(tmp_path, nets), tmp_path / "out.onnx", MERGE)
    assert read(tmp_path / "out.onnx")["w_zero"] == 0
    assert_near(tmp_path / "out.onnx", np.mean([net.weights[0].real for net in nets], axis=0))


def test_unsigned_codes_without_a_code_of_zero_cannot_hold_a_minus(tmp_path: Path) -> None:
    nets = [Net([coded(seed, "uint8")]) for seed in range(2)]
    nets[1].weights[0].scale = -np.asarray(nets[1].weights[0].scale * 9)
    with pytest.raises(InputError, match="w cannot be quantised anew: the result has numbers below 0"):
        shoal.merge_files(saved(tmp_path, nets), tmp_path / "out.onnx", MERGE)


def test_what_must_change_together_is_selected_together(tmp_path: Path) -> None:
    weights = [coded(seed, "int8", zero=True) for seed in range(2)]
    paths = saved(tmp_path, [Net([w]) for w in weights])
    with pytest.raises(ArgumentError, match="w_scale is not selected, but w is"):
        shoal.merge_files(paths, tmp_path / "out.onnx", shoal.MergeOptions(quantised="merge", exclude=("*_scale",)))
    report = shoal.merge_files(paths, tmp_path / "out.onnx", shoal.MergeOptions(quantised="merge", exclude=("w*",)))
    assert report.tensors_local == 3
    assert (tmp_path / "out.onnx").read_bytes() == paths[0].read_bytes()


def test_only_if_asked(tmp_path: Path) -> None:
    paths = saved(tmp_path, [Net([coded(seed, "int8")]) for seed in range(2)])
    with pytest.raises(InputError, match=r"quantised=merge|w of int8"):
        shoal.merge_files(paths, tmp_path / "out.onnx")
    with pytest.raises(ArgumentError, match="quantised is 'yes'"):
        shoal.merge_files(paths, tmp_path / "out.onnx", shoal.MergeOptions(quantised="yes"))  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="arrays have no graph"):
        shoal.merge([{"w": np.ones(3)}], quantised="merge")


def test_weights_in_an_inner_graph_and_in_constants(tmp_path: Path) -> None:
    """Scopes: the inner graph's w is not the outer one's, and reads the outer scale."""

    def net(seed: int) -> onnx.ModelProto:
        outer, inner = coded(seed, "int8", (4,)), coded(seed + 5, "int8", (4,))
        constant = helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(inner.codes))
        dequantise = helper.make_node("DequantizeLinear", ["c", "inner_scale"], ["r"])
        branch = helper.make_graph(
            [constant, dequantise],
            "then",
            [],
            [helper.make_tensor_value_info("r", 1, [4])],
            [numpy_helper.from_array(inner.scale, "inner_scale")],
        )
        other = helper.make_graph(
            [helper.make_node("Identity", ["w_real"], ["e"])], "else", [], [helper.make_tensor_value_info("e", 1, [4])]
        )
        graph = helper.make_graph(
            [outer.node(), helper.make_node("If", ["yes"], ["y"], then_branch=branch, else_branch=other)],
            "g",
            [helper.make_tensor_value_info("yes", TensorProto.BOOL, [])],
            [helper.make_tensor_value_info("y", 1, [4])],
            outer.tensors(),
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)

    for seed in range(2):
        onnx.save(net(seed), tmp_path / f"{seed}.onnx")
    shoal.merge_files([tmp_path / "0.onnx", tmp_path / "1.onnx"], tmp_path / "out.onnx", MERGE)
    session = onnxruntime.InferenceSession(tmp_path / "out.onnx", providers=["CPUExecutionProvider"])
    for yes in (True, False):
        (found,) = session.run(None, {"yes": np.array(yes)})
        expected = np.mean([coded(seed + 5 * yes, "int8", (4,)).real for seed in range(2)], axis=0)
        assert np.abs(found - expected).max() <= np.abs(expected).max() / 127 * 0.501

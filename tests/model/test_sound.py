"""Messages that pass through unread are still walked: what protobuf cannot parse is refused, wherever it lies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper, numpy_helper

from shoal.errors import InputError
from shoal.model.file import ModelFile

LONG = "a text long enough to be damaged in many ways"


def entry(owner: object) -> None:
    owner.metadata_props.add(key="k", value=LONG)  # type: ignore[attr-defined]


def rich() -> onnx.ModelProto:
    """A model that has every message which a merge does not read."""
    weight = numpy_helper.from_array(np.ones((2, 2), np.float32), "w")
    entry(weight)
    info = helper.make_tensor_value_info("h", TensorProto.FLOAT, ["n", 2])
    entry(info)
    node = helper.make_node("MatMul", ["x", "w"], ["h"])
    entry(node)
    sharding = node.device_configurations.add(configuration_id="c").sharding_spec.add(tensor_name="w", device=[1])
    sharding.index_to_device_group_map.add(key=1, value=[2])
    sharding.sharded_dim.add(axis=1).simple_sharding.add(dim_param="n", num_shards=2)
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])]
    entry(inputs[0])
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])]
    nodes = [node, helper.make_node("f", ["h"], ["y"], domain="d")]
    graph = helper.make_graph(nodes, "g", inputs, outputs, [weight], value_info=[info])
    entry(graph)
    graph.quantization_annotation.add(tensor_name="w").quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="s")
    function = helper.make_function(
        "d", "f", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])], [helper.make_opsetid("", 21)]
    )
    function.value_info.add().CopyFrom(helper.make_tensor_value_info("b", TensorProto.FLOAT, ["n", 2]))
    entry(function)
    model = helper.make_model(
        graph,
        functions=[function],
        opset_imports=[helper.make_opsetid("", 21), helper.make_opsetid("d", 1)],
        ir_version=11,
    )
    entry(model)
    model.configuration.add(name="c", num_devices=2, device=["one", "two"])
    training = model.training_info.add()
    training.initialization_binding.add(key="w", value="w0")
    constant = helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.ones(2, np.float32)))
    training.algorithm.CopyFrom(helper.make_graph([constant], "a", inputs, [], [weight]))
    return model


def parses(data: bytes) -> bool:
    try:
        onnx.ModelProto.FromString(data)
    except DecodeError:
        return False
    return True


def test_the_rich_model_is_read(tmp_path: Path) -> None:
    onnx.save(rich(), tmp_path / "m.onnx")
    with ModelFile.open(tmp_path / "m.onnx") as file:
        assert set(file.tensors) == {"w"}


def flips(data: bytes) -> Iterator[bytes]:
    for place in range(len(data)):
        for bit in range(8):
            yield data[:place] + bytes([data[place] ^ (1 << bit)]) + data[place + 1 :]


def bytes_set(data: bytes) -> Iterator[bytes]:
    for place in range(len(data)):
        for value in (0, 0x7F, 0xFF):
            yield data[:place] + bytes([value]) + data[place + 1 :]


@pytest.mark.parametrize("damage", [flips, bytes_set])
def test_what_is_read_can_be_parsed(damage: Callable[[bytes], Iterator[bytes]], tmp_path: Path) -> None:
    """So that a merge's output, which passes the template's bytes on, is a model whenever the merge says it is."""
    read = 0
    for data in damage(rich().SerializeToString()):
        (tmp_path / "m.onnx").write_bytes(data)
        try:
            ModelFile.open(tmp_path / "m.onnx").close()
        except InputError:
            continue
        read += 1
        assert parses(data), data.hex()
    assert read > 100

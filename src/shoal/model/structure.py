"""What a model computes, without the values that are merged: digests to compare, positions to explain."""

from __future__ import annotations

from array import array
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

#: (name, digest of its type, start and stop of its ValueInfoProto in the file)
Port = tuple[str, bytes, int, int]

#: Which inputs of an operator are scales of quantised numbers.
#: source  ONNX operators, opset 25; onnxruntime docs/ContribOperators.md for those of com.microsoft
SCALE_INPUTS: Final[dict[str, Container[int]]] = {
    "QuantizeLinear": (1,),
    "DequantizeLinear": (1,),
    "QLinearConv": (1, 4, 6),
    "QLinearMatMul": (1, 4, 6),
    "QLinearAdd": (1, 4, 6),
    "QLinearMul": (1, 4, 6),
    "QGemm": (1, 4, 7),
    "QLinearLeakyRelu": (1, 3),
    "QLinearSigmoid": (1, 3),
    "QLinearSoftmax": (1, 3),
    "QLinearAveragePool": (1, 3),
    "QLinearGlobalAveragePool": (1, 3),
    "QLinearReduceMean": (1, 3),
    "QLinearWhere": (2, 5, 7),
    "QLinearConcat": range(0, 1_000_000_000, 3),
    "QAttention": (3, 4),
    "QEmbedLayerNormalization": (8, 9, 10, 11, 12),
    "QOrderedMatMul": (1, 3, 5),
    "QMoE": (3, 6, 9),
    "MatMulNBits": (2,),
    "MatMulBnb4": (2,),
    "GatherBlockQuantized": (2,),
    "MatMulIntegerToFloat": (2, 3),
    "DynamicQuantizeMatMul": (2,),
    "DynamicQuantizeLSTM": (8, 10),
}


#: Which inputs of an operator are running means and running variances: measured while training, not learned.
MEAN_INPUTS: Final[dict[str, Container[int]]] = {"BatchNormalization": (3,)}
VARIANCE_INPUTS: Final[dict[str, Container[int]]] = {"BatchNormalization": (4,)}


@dataclass(slots=True)
class Graph:
    """One graph or function.

    scope    str         "" for the main graph
    parent   str         scope of the graph around it; "" for functions and the main graph
    inputs   list[Port]  in order
    outputs  list[Port]
    digests  bytearray   16 bytes for each node, in order
    spans    array       start and stop of each node in the file
    header   dict        name for people -> digest of everything else that must be equal
    """

    scope: str
    parent: str
    inputs: list[Port] = field(default_factory=list)
    outputs: list[Port] = field(default_factory=list)
    digests: bytearray = field(default_factory=bytearray)
    spans: array[int] = field(default_factory=lambda: array("q"))
    header: dict[str, bytes] = field(default_factory=dict)

    @property
    def nodes(self) -> int:
        return len(self.spans) // 2


@dataclass(frozen=True, slots=True)
class Structure:
    """What a model computes.

    opsets  {domain: version}   the domain "ai.onnx" is written ""
    graphs  {scope: Graph}      the main graph, those inside its nodes, and functions
    scales  set of tensor keys  tensors that are scales of quantised numbers: they must be equal, or the numbers would
                                change their meaning.  A scale that comes to its node through other nodes is not seen
    means, variances    sets of tensor keys  running means and variances, found in the same way
    """

    opsets: dict[str, int]
    graphs: dict[str, Graph]
    scales: frozenset[str]
    means: frozenset[str]
    variances: frozenset[str]


def resolve(scope: str, name: str, graphs: Mapping[str, Graph], keys: Container[str]) -> str | None:
    """The key among ``keys`` that a name in a graph means: looked up in the graph, then in those around it."""
    while True:
        key = f"{scope}::{name}" if scope else name
        if key in keys:
            return key
        if not scope or (scope.startswith("function:") and not graphs[scope].parent):
            return None
        scope = graphs[scope].parent


def used_keys(uses: Iterable[tuple[str, str]], graphs: Mapping[str, Graph], tensors: Container[str]) -> frozenset[str]:
    """Keys of the tensors that (scope, name) pairs mean."""
    found = (resolve(scope, name, graphs, tensors) for scope, name in set(uses))
    return frozenset(key for key in found if key is not None)

"""Quantised weights in a graph: which whole numbers, scales and code of 0 belong together, and who else reads them.

Only initialisers (and Constants) that go straight into DequantizeLinear are looked at: there the scale has no other
meaning than that of the numbers.  A weight of QLinearConv, MatMulInteger and the like is not: its scale is part of what
the operator computes.

source  ONNX operators DequantizeLinear, Conv and Gemm, opset 21
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from shoal.errors import InputError, shown
from shoal.model import _onnx_index
from shoal.model.file import ModelFile
from shoal.model.structure import Graph, resolve
from shoal.model.tensor import Role, TensorRef

CODES: Final = ("int8", "uint8", "int16", "uint16", "int32")
SCALES: Final = ("float32", "float16", "bfloat16")
#: operators whose third input is added to the product of the first two.  Runtimes join them with quantised inputs into
#: one operator on whole numbers, where the bias has the scale of the product, whatever its own says.
BIASED: Final = ("Conv", "ConvTranspose", "Gemm")
#: bytes of a DequantizeLinear node: its names, two or three numbers, and metadata.
NODE_BYTES_MAX: Final = 2**20
#: inputs of a node that the index hands out by name; a longer list is cut and ends in one more.
INPUTS_MAX: Final = 1000

_PLAIN = (Role.INITIALIZER, Role.CONSTANT, Role.CONSTANT_FLOAT, Role.CONSTANT_FLOATS)


@dataclass(frozen=True, slots=True)
class Weight:
    """Whole numbers that DequantizeLinear turns into weights: (codes - zero) * scale.

    codes      key of the whole numbers
    scale      key of the scale; "" if it is no initialiser
    zero       key of the code of 0; None if the node has none
    axis       dimension that the scales go along; None: one scale for all
    zero_shared  the code of 0 is read by others, too: it cannot be changed
    follows    int32 biases: key of the codes of the weight whose product they are added to; their scale moves with it
    obstacle   why it cannot be quantised anew, in words; "" if it can
    """

    codes: str
    scale: str
    zero: str | None
    axis: int | None
    zero_shared: bool = False
    follows: str | None = None
    obstacle: str = ""

    @property
    def beside(self) -> tuple[str, ...]:
        """Keys of the tensors that are written along with the codes: the scale, and the code of 0 if it may change."""
        return (self.scale,) if self.zero is None or self.zero_shared else (self.scale, self.zero)


@dataclass(frozen=True, slots=True)
class _Dequant:
    """A DequantizeLinear: keys of its inputs ("" where one is no initialiser), and attributes ("": unreadable)."""

    node: tuple[str, int]
    codes: str
    scale: str
    zero: str | None
    axis: int
    block: int
    unreadable: bool

    @property
    def meaning(self) -> tuple[str, str | None, int, int]:
        return self.scale, self.zero, self.axis, self.block


@dataclass(slots=True)
class _Uses:
    """Who reads the tensors that matter: whole numbers, and scales.

    readers  key -> (node, operator, position of the input); an output of a graph is the reader (("", -1), "", 0)
    outputs  key of what a DequantizeLinear of an initialiser writes -> it
    biased   (scope, names of the three inputs) of the nodes that add a bias
    """

    readers: dict[str, set[tuple[tuple[str, int], str, int]]] = field(default_factory=dict)
    outputs: dict[str, _Dequant] = field(default_factory=dict)
    biased: list[tuple[str, list[str]]] = field(default_factory=list)


def find_weights(file: ModelFile) -> dict[str, Weight]:
    """The quantised weights of a model, by the key of their codes, in the order of their nodes.

    raises  InputError  model.quantised  for a node with so many inputs that who reads what cannot be told
    """
    uses, groups = _Uses(), dict[str, list[_Dequant]]()
    for graph in file.structure.graphs.values():
        for name, *_ in graph.outputs:
            _note(file, uses, graph.scope, name, (("", -1), "", 0))
        for dequant in _walk(file, graph, uses):
            groups.setdefault(dequant.codes, []).append(dequant)
    follows = _follows(file, uses)
    return {codes: _weight(file, uses, group, follows) for codes, group in groups.items()}


def _walk(file: ModelFile, graph: Graph, uses: _Uses) -> Iterator[_Dequant]:
    """Note who reads what; yield the nodes that dequantise an initialiser."""
    for number in range(graph.nodes):
        start, stop = graph.spans[2 * number], graph.spans[2 * number + 1]
        op, domain, _, _, inputs, outputs, _ = _onnx_index.node_parts(file.path, file.fileno(), file.size, start, stop)
        if len(inputs) > INPUTS_MAX:
            raise InputError(
                "model.quantised",
                f"{shown(file.path)}: a node ({shown(op)}) has more than {INPUTS_MAX} inputs; expected fewer where "
                "quantised weights are merged",
            )
        node = (graph.scope, number)
        for position, name in enumerate(inputs):
            _note(file, uses, graph.scope, name, (node, op, position))
        if domain:
            continue
        if op in BIASED and len(inputs) == 3:
            uses.biased.append((graph.scope, inputs))
        elif op == "DequantizeLinear" and outputs and (found := _dequant(file, node, inputs, start, stop)):
            scope = graph.scope
            uses.outputs[f"{scope}::{outputs[0]}" if scope else outputs[0]] = found
            yield found


def _note(file: ModelFile, uses: _Uses, scope: str, name: str, reader: tuple[tuple[str, int], str, int]) -> None:
    key = resolve(scope, name, file.structure.graphs, file.tensors) if name else None
    if key is not None and (key in file.structure.scales or file.tensors[key].dtype.name in CODES):
        uses.readers.setdefault(key, set()).add(reader)


def _dequant(file: ModelFile, node: tuple[str, int], inputs: list[str], start: int, stop: int) -> _Dequant | None:
    """The node, if its first input is an initialiser."""
    keys = [resolve(node[0], name, file.structure.graphs, file.tensors) for name in inputs if name]
    if len(keys) < 2 or keys[0] is None:
        return None
    zero = keys[2] or "" if len(keys) > 2 else None
    numbers = _attributes(file, start, stop)
    if numbers is None:
        return _Dequant(node, keys[0], keys[1] or "", zero, 1, 0, True)
    return _Dequant(node, keys[0], keys[1] or "", zero, numbers.get("axis", 1), numbers.get("block_size", 0), False)


def _attributes(file: ModelFile, start: int, stop: int) -> dict[str, int] | None:
    """The whole-number attributes of a node; None if one is set from outside, or the node is too large."""
    if stop - start > NODE_BYTES_MAX:
        return None
    found = {}
    for number, value in _onnx_index.fields(file.raw_proto_range(start, stop)):
        if number != 5 or not isinstance(value, bytes):
            continue
        attribute = dict(_onnx_index.fields(value))
        if 21 in attribute:
            return None
        name, whole = attribute.get(1, b""), attribute.get(3, 0)
        if isinstance(name, bytes) and isinstance(whole, int):
            found[name.decode("utf-8", "replace")] = whole - 2**64 if whole >= 2**63 else whole
    return found


def _follows(file: ModelFile, uses: _Uses) -> dict[str, set[str]]:
    """Codes of int32 biases -> codes of the weights whose products they are added to."""
    found: dict[str, set[str]] = {}
    for scope, (_, weight, bias) in uses.biased:
        to, added = (resolve(scope, name, file.structure.graphs, uses.outputs) for name in (weight, bias))
        if to is not None and added is not None and file.tensors[uses.outputs[added].codes].dtype.name == "int32":
            found.setdefault(uses.outputs[added].codes, set()).add(uses.outputs[to].codes)
    return found


def _weight(file: ModelFile, uses: _Uses, group: list[_Dequant], biases: Mapping[str, set[str]]) -> Weight:
    one, nodes = group[0], {dequant.node for dequant in group}
    follows, ref = biases.get(one.codes, set()), file.tensors[one.codes]
    if any(dequant.meaning != one.meaning for dequant in group):
        return Weight(one.codes, one.scale, one.zero, None, obstacle="is dequantised in two ways")
    obstacle = (
        _stored(file, one) or _foreign(uses, nodes, one.codes, "it") or _foreign(uses, nodes, one.scale, "its scale")
    )
    if not obstacle and (len(follows) > 1 or follows & biases.keys()):
        obstacle = f"is a bias of several quantised weights, or of a bias ({_names(follows)})"
    if obstacle:
        return Weight(one.codes, one.scale, one.zero, None, obstacle=obstacle)
    axis, obstacle = _axis(ref, file.tensors[one.scale], one)
    followed = next(iter(follows), None)
    if followed is not None and not obstacle:
        obstacle = _unlike(file, file.tensors[one.scale], uses, followed)
    shared = bool(one.zero and _foreign(uses, nodes, one.zero, ""))
    return Weight(one.codes, one.scale, one.zero, axis, shared, followed, obstacle)


def _stored(file: ModelFile, one: _Dequant) -> str:
    """What stands against merging it in how it is stored."""
    ref = file.tensors[one.codes]
    if one.unreadable:
        return "is dequantised by a node whose attributes come from outside, or are too many"
    if ref.dtype.name not in CODES or ref.role not in _PLAIN:
        return f"is {ref}; expected {', '.join(CODES)}, not sparse"
    if not one.scale or file.tensors[one.scale].role not in _PLAIN:
        return "has a scale that is no initialiser"
    if one.zero == "" or (one.zero and file.tensors[one.zero].role not in _PLAIN):
        return "has a zero point that is no initialiser"
    scale, zero = file.tensors[one.scale], file.tensors[one.zero] if one.zero else None
    if scale.dtype.name not in SCALES:
        return f"has a scale of {scale}; expected {', '.join(SCALES)}"
    # Quantisers write one scale as a list of one beside a zero point without dimensions, and runtimes take it.
    if zero is not None and (
        zero.dtype != ref.dtype or (zero.dims != scale.dims and not zero.elements == scale.elements == 1)
    ):
        return f"has a zero point of {zero}; expected {ref.dtype.name}{list(scale.dims)}, as its scale's shape"
    if not ref.elements:
        return "has no elements"
    return ""


def _foreign(uses: _Uses, nodes: set[tuple[str, int]], key: str, what: str) -> str:
    """Who reads a tensor beside these nodes (and these, if more than once)."""
    for node, op, _ in sorted(uses.readers.get(key, ())):
        if node not in nodes:
            reader = f"by another node ({shown(op)})" if op else "as an output of the graph"
            return f"cannot be changed: {what} ({shown(key)}) is used {reader}, too"
    mine = {(node, position) for node, _, position in uses.readers.get(key, ())}
    return f"cannot be changed: {what} ({shown(key)}) is read twice by one node" if len(mine) > len(nodes) else ""


def _axis(ref: TensorRef, scale: TensorRef, one: _Dequant) -> tuple[int | None, str]:
    """The dimension that the scales go along, None for one scale; and what stands against it."""
    if one.block or len(scale.dims) > 1:
        return None, f"has scales for blocks ({scale}); expected one scale, or one for each slice of an axis"
    if scale.elements == 1:
        return None, ""
    rank = len(ref.dims)
    axis = 0 if rank == 1 else one.axis + rank * (one.axis < 0)
    if not 0 <= axis < rank or scale.dims != (ref.dims[axis],):
        return None, f"has scales {scale} along axis {one.axis} of {ref}, which do not fit"
    return axis, ""


def _unlike(file: ModelFile, scale: TensorRef, uses: _Uses, followed: str) -> str:
    """What stands against a bias's scale moving with its weight's."""
    other = next(dequant for dequant in uses.outputs.values() if dequant.codes == followed)
    if not other.scale:
        return ""
    theirs = file.tensors[other.scale]
    if theirs.elements in (1, scale.elements):
        return ""
    return f"has the scale {scale}, the weight that it belongs to ({shown(followed)}) has {theirs}; expected one shape"


def _names(keys: set[str]) -> str:
    return ", ".join(shown(key) for key in sorted(keys)[:3])

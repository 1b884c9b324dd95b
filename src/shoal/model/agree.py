"""Whether models compute the same thing, so that their tensors may be merged, and if not, where they differ.

Not compared, because it changes nothing that is computed: producer, documentation, metadata, names of graphs and nodes,
value_info, order and way of storage of initialisers, the version of the file format, and which devices run a node.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

from shoal.errors import InputError, shown
from shoal.limits import DIFFERENCES_SHOWN_MAX
from shoal.model import _onnx_index
from shoal.model.dtype import DTYPES
from shoal.model.file import ModelFile
from shoal.model.structure import Graph, Port
from shoal.model.tensor import TensorRef

_DIGEST = 16
#: says in words what differs; only called for differences that are shown
_Words = Callable[[], str]


def differences(first: ModelFile, other: ModelFile) -> Iterator[str]:
    """All differences between what two models compute, one line each, without the files' names where not needed.

    Values of tensors that can be merged are not looked at; names, types and shapes of all tensors are.
    """
    return (words() for words in _differences(first, other))


def require_agreement(files: Sequence[ModelFile]) -> None:
    """InputError ``model.differs`` unless all models compute the same as the first.

    The message lists at most DIFFERENCES_SHOWN_MAX differences of the first model that differs, and their count.
    """
    for other in files[1:]:
        found = _differences(files[0], other)
        listed = [words() for words in islice(found, DIFFERENCES_SHOWN_MAX)]
        if not listed:
            continue
        more = sum(1 for _ in found)
        text = "; ".join(listed) + (f"; and {more} more" if more else "")
        raise InputError(
            "model.differs",
            f"{shown(other.path)} does not compute the same as {shown(files[0].path)}: "
            f"{len(listed) + more} difference{'s' if len(listed) + more > 1 else ''}: {text}",
        )


def _differences(first: ModelFile, other: ModelFile) -> Iterator[_Words]:
    yield from _opsets(first, other)
    yield from _tensors(first, other)
    mine, theirs = first.structure.graphs, other.structure.graphs
    for scope, graph in mine.items():
        if scope in theirs:
            yield from _ports(first, other, graph, theirs[scope])
            yield from _headers(first, other, graph, theirs[scope])
            yield from _nodes(first, other, graph, theirs[scope])
        else:
            yield _said(f"{_place(scope)} is missing in {shown(other.path)}")
    for scope in theirs:
        if scope not in mine:
            yield _said(f"{_place(scope)} is missing in {shown(first.path)}")


def _said(text: str) -> _Words:
    return lambda: text


def _quoted(name: str) -> str:
    return shown(repr(name))


def _place(scope: str) -> str:
    if not scope:
        return "the graph"
    return (
        f"{'function' if scope.startswith('function:') else 'inner graph'} {_quoted(scope.removeprefix('function:'))}"
    )


def _within(scope: str) -> str:
    return f" of {_place(scope)}" if scope else ""


def _opsets(first: ModelFile, other: ModelFile) -> Iterator[_Words]:
    for domain in sorted(first.opsets.keys() | other.opsets.keys()):
        mine, theirs = first.opsets.get(domain), other.opsets.get(domain)
        if mine != theirs:
            yield _said(
                f"opset {_quoted(domain or 'ai.onnx')} has version {mine or 'none'} in {shown(first.path)}, "
                f"{theirs or 'none'} in {shown(other.path)}"
            )


def _tensors(first: ModelFile, other: ModelFile) -> Iterator[_Words]:
    for key, ref in first.tensors.items():
        theirs = other.tensors.get(key)
        if theirs is None:
            yield _said(f"{_tensor(ref)} is missing in {shown(other.path)}")
        elif (ref.dtype, ref.dims) != (theirs.dtype, theirs.dims):
            yield _said(f"{_tensor(ref)} is {ref} in {shown(first.path)}, {theirs} in {shown(other.path)}")
        elif ref.role is not theirs.role:
            yield _said(
                f"{_tensor(ref)} is {_role(ref)} in {shown(first.path)}, {_role(theirs)} in {shown(other.path)}"
            )
    for key, ref in other.tensors.items():
        if key not in first.tensors:
            yield _said(f"{_tensor(ref)} is missing in {shown(first.path)}")


def _tensor(ref: TensorRef) -> str:
    kind = "constant" if ref.role.name.startswith("CONSTANT") else "initialiser"
    return f"{kind} {_quoted(ref.key)}"


def _role(ref: TensorRef) -> str:
    return f"stored as {ref.role.name.lower().replace('_', ' ')}"


# --- inputs, outputs and other things of a graph ---------------------------------------------------------------------


def _ports(first: ModelFile, other: ModelFile, mine: Graph, theirs: Graph) -> Iterator[_Words]:
    kinds = (("input", mine.inputs, theirs.inputs), ("output", mine.outputs, theirs.outputs))
    for kind, ours, others in kinds:
        if len(ours) != len(others):
            yield _said(
                f"{_place(mine.scope)} has {len(ours)} {kind}s in {shown(first.path)}, "
                f"{len(others)} in {shown(other.path)}"
            )
        for number, (a, b) in enumerate(zip(ours, others, strict=False)):
            if a[:2] != b[:2]:
                yield lambda kind=kind, number=number, a=a, b=b: (  # type: ignore[misc]
                    f"{kind} {number}{_within(mine.scope)} is {_port(first, a)} in {shown(first.path)}, "
                    f"{_port(other, b)} in {shown(other.path)}"
                )


def _port(file: ModelFile, port: Port) -> str:
    name, _, start, stop = port
    kind = _type(next((v for n, v in _fields(file.raw_proto_range(start, stop)) if n == 2), b""))
    return f"{_quoted(name)} {shown(kind)}".rstrip()


def _fields(message: int | bytes) -> list[tuple[int, int | bytes]]:
    return _onnx_index.fields(message) if isinstance(message, bytes) else []


def _type(message: int | bytes) -> str:
    """A TypeProto in words; types other than tensors by their kind only."""
    kinds = {4: "sequence", 5: "map", 7: "opaque", 9: "optional"}
    for number, value in _fields(message):
        if number in kinds:
            return kinds[number]
        if number in (1, 8):
            found = dict(_fields(value))
            code = found.get(1)
            name = DTYPES[code].name if isinstance(code, int) and code in DTYPES else "unknown"
            return name + ("" if 2 not in found else f"[{','.join(_dim(dim) for _, dim in _fields(found[2]))}]")
    return ""


def _dim(message: int | bytes) -> str:
    for number, value in _fields(message):
        if number in (1, 2):
            return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return "?"


def _headers(first: ModelFile, other: ModelFile, mine: Graph, theirs: Graph) -> Iterator[_Words]:
    for what in sorted(mine.header.keys() | theirs.header.keys()):
        a, b = mine.header.get(what), theirs.header.get(what)
        if a != b:
            where = shown(first.path if a is None else other.path)
            yield _said(f"{what}{_within(mine.scope)} {'differs' if a and b else f'is missing in {where}'}")


# --- nodes -----------------------------------------------------------------------------------------------------------


def _nodes(first: ModelFile, other: ModelFile, mine: Graph, theirs: Graph) -> Iterator[_Words]:
    if mine.nodes != theirs.nodes:
        yield (
            lambda: (
                f"{_place(mine.scope)} has {mine.nodes} nodes in {shown(first.path)}, "
                f"{theirs.nodes} in {shown(other.path)}"
                f"{_first_difference(first, other, mine, theirs)}"
            )
        )
        return
    if mine.digests == theirs.digests:
        return
    for number in _differing(mine, theirs):
        yield lambda number=number: _node(first, other, mine, theirs, number)  # type: ignore[misc]


def _differing(mine: Graph, theirs: Graph) -> Iterable[int]:
    for number in range(min(mine.nodes, theirs.nodes)):
        span = slice(number * _DIGEST, (number + 1) * _DIGEST)
        if mine.digests[span] != theirs.digests[span]:
            yield number


def _first_difference(first: ModelFile, other: ModelFile, mine: Graph, theirs: Graph) -> str:
    number = next(iter(_differing(mine, theirs)), None)
    if number is None:
        return ", which go on alike up to the shorter one's end"
    return f"; first: {_node(first, other, mine, theirs, number)}"


def _node(first: ModelFile, other: ModelFile, mine: Graph, theirs: Graph, number: int) -> str:
    """One node that differs, in words: the operator, else its inputs and outputs, else its attributes."""
    op, domain, overload, name, inputs, outputs, attributes = _parts(first, mine, number)
    op_b, domain_b, overload_b, _, inputs_b, outputs_b, attributes_b = _parts(other, theirs, number)
    node = f"node {number} {_quoted(name or next(filter(None, outputs), ''))}{_within(mine.scope)}"
    a, b = shown(first.path), shown(other.path)
    if (op, domain, overload) != (op_b, domain_b, overload_b):
        return f"{node} is {_operator(op, domain, overload)} in {a}, {_operator(op_b, domain_b, overload_b)} in {b}"
    node = f"{node} ({_operator(op, domain, overload)})"
    if inputs != inputs_b:
        return f"{node} reads {_names(inputs)} in {a}, {_names(inputs_b)} in {b}"
    if outputs != outputs_b:
        return f"{node} writes {_names(outputs)} in {a}, {_names(outputs_b)} in {b}"
    unlike = [
        key for key in sorted(attributes.keys() | attributes_b.keys()) if attributes.get(key) != attributes_b.get(key)
    ]
    if not unlike:
        return f"{node} has fields that this version of ONNX does not know, and they differ"
    key = unlike[0]
    if key not in attributes or key not in attributes_b:
        return f"{node} attribute {_quoted(key)} is missing in {b if key in attributes else a}"
    return f"{node} attribute {_quoted(key)} differs; only initialisers and Constant values are merged"


def _parts(
    file: ModelFile, graph: Graph, number: int
) -> tuple[str, str, str, str, list[str], list[str], dict[str, bytes]]:
    start, stop = graph.spans[2 * number], graph.spans[2 * number + 1]
    return _onnx_index.node_parts(file.path, file.fileno(), file.size, start, stop)


def _operator(op: str, domain: str, overload: str) -> str:
    return shown(".".join(part for part in (domain, op, overload) if part))


def _names(names: list[str]) -> str:
    return shown(", ".join(repr(name) for name in names)) or "nothing"

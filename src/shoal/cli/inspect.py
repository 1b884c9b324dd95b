"""shoal inspect: what is in a file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shoal.cli.show import Format, line, print_json, size, table
from shoal.errors import shown

if TYPE_CHECKING:
    from shoal.model.file import ModelFile
    from shoal.model.tensor import TensorRef

#: elements that are read at a time for statistics
PIECE = 2**18


def inspect(
    file: Annotated[Path, typer.Argument(help="ONNX file or update file.", show_default=False, readable=False)],
    stats: Annotated[
        bool, typer.Option("--stats", help="Read the numbers: smallest, largest, norm, NaN and Inf.")
    ] = False,
    base: Annotated[
        Path | None, typer.Option("--base", help="Of an update: its base, with --new.", readable=False)
    ] = None,
    new: Annotated[
        Path | None,
        typer.Option(
            "--new", help="Of an update: the model that it stands for; says how near it comes.", readable=False
        ),
    ] = None,
    format: Annotated[Format, typer.Option("--format", help="text or json.")] = Format.text,
) -> None:
    """List the tensors of a model: name, type, shape, bytes, where they lie; and its digest.

    Of an update file: codec, size against the model, base, samples, signature.
    """
    if (base is None) != (new is None):
        raise typer.BadParameter("--base and --new go together")
    if _is_update(file):
        from shoal.cli.inspect_update import inspect_update

        inspect_update(file, None if base is None or new is None else (base, new), format)
        return
    if new is not None:
        raise typer.BadParameter("--base and --new are for update files")
    _inspect_model(file, stats, format)


def _is_update(file: Path) -> bool:
    """By its first bytes; what cannot be opened is reported as for a model."""
    import numpy as np

    from shoal.diff.update_format import NAME
    from shoal.model.regular import open_regular, read_at

    descriptor = open_regular(str(file), "an ONNX model or an update file")
    try:
        first = np.zeros(min(len(NAME), os.fstat(descriptor).st_size), np.uint8)
        read_at(descriptor, 0, first, str(file))
    finally:
        os.close(descriptor)
    return first.tobytes() == NAME


def _inspect_model(file: Path, stats: bool, format: Format) -> None:
    from shoal.model.digest import model_digest
    from shoal.model.file import ModelFile

    with ModelFile.open(file) as model:
        rows = [_row(ref) | (_stats(model, ref) if stats else {}) for ref in model.tensors.values()]
        about = {
            "file": str(file),
            "file_bytes": model.size,
            "ir_version": model.ir_version,
            "opsets": dict(model.opsets),
            "producer": dict(model.producer),
            "nodes": sum(graph.nodes for graph in model.structure.graphs.values()),
            "digest": model_digest(model, threads=2).hex(),
            "parameters": sum(ref.elements for ref in model.tensors.values() if ref.dtype.merged),
            "tensor_bytes": sum(row["bytes"] for row in rows),
        }
    if format is Format.json:
        print_json(about | {"tensors": rows})
    else:
        _show(about, rows, stats)


def _row(ref: TensorRef) -> dict[str, Any]:
    return {
        "name": ref.key,
        "dtype": ref.dtype.name,
        "shape": list(ref.dims),
        "bytes": ref.nbytes,
        "role": ref.role.name.lower(),
        "storage": ref.storage.name.lower(),
    }


def _stats(model: ModelFile, ref: TensorRef) -> dict[str, Any]:
    """min, max and norm of the finite numbers, and how many are not; nothing for packed types and strings."""
    import numpy as np

    if ref.dtype.numpy is None or ref.dtype.numpy.kind in "cSUO":
        return {"min": None, "max": None, "norm": None, "nan": None, "inf": None}
    low, high, square, nan, inf = np.inf, -np.inf, 0.0, 0, 0
    buffer = np.empty(min(PIECE, ref.elements), ref.dtype.numpy)
    for first in range(0, ref.elements, PIECE):
        piece = buffer[: ref.elements - first]
        model.read_into(ref, first, piece)
        numbers = piece.astype(np.float64)
        nan, inf = nan + int(np.isnan(numbers).sum()), inf + int(np.isinf(numbers).sum())
        finite = numbers[np.isfinite(numbers)]
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
            square += float(np.dot(finite, finite))
    empty = low > high
    return {
        "min": None if empty else low,
        "max": None if empty else high,
        "norm": float(np.sqrt(square)),
        "nan": nan,
        "inf": inf,
    }


def _show(about: dict[str, Any], rows: list[dict[str, Any]], stats: bool) -> None:
    columns = [("tensor", "left"), ("type", "left"), ("shape", "left"), ("bytes", "right"), ("stored", "left")]
    numbers = ("min", "max", "norm", "nan", "inf") if stats else ()
    columns += [(name, "right") for name in numbers]
    cells = []
    for row in rows:
        stored = row["storage"] if row["role"] == "initializer" else f"{row['storage']} ({row['role']})"
        shape = "x".join(str(d) for d in row["shape"]) or "scalar"
        cells.append([shown(row["name"]), row["dtype"], shape, str(row["bytes"]), stored])
        cells[-1] += ["-" if row[n] is None else format(row[n], ".6g") for n in numbers]
    table(columns, cells)
    opsets = ", ".join(f"{domain or 'ai.onnx'} {version}" for domain, version in about["opsets"].items())
    producer = " ".join(str(v) for v in about["producer"].values() if v)
    line(f"file      {shown(about['file'])}, {size(about['file_bytes'])}")
    line(f"contents  {len(rows)} tensors, {about['parameters']:,} parameters, {size(about['tensor_bytes'])}")
    line(f"graph     {about['nodes']} nodes, opset {shown(opsets)}, IR {about['ir_version']}")
    line(f"producer  {shown(producer) or '-'}")
    line(f"digest    {about['digest']}")

"""shoal inspect of an update file: what it is about, how small it is, and how near it comes to the model."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoal.cli.merge import expected_bytes
from shoal.cli.progress import bar
from shoal.cli.show import Format, line, print_json, size, table
from shoal.errors import shown

if TYPE_CHECKING:
    from shoal.diff.update_file import UpdateFile
    from shoal.model.layout import Placed


def inspect_update(file: Path, models: tuple[Path, Path] | None, format: Format) -> None:
    """Check every byte of an update file and print what it says.

    models  (base, new) to compare it with, or None
    """
    from shoal.diff.measure import measure
    from shoal.diff.update_file import UpdateFile

    with UpdateFile.open(file) as update:
        about = _about(file, update)
        if models is None:
            update.verify()
        else:
            with bar("comparing", expected_bytes(list(models)), format is Format.json) as progress:
                fit = measure(update, *models, progress=progress)
            about |= {"nmse": fit.nmse, "norm": fit.norm, "error_norm": fit.error}
        rows = [_row(tensor) for tensor in update.layout.tensors]
    if format is Format.json:
        print_json(about | {"tensors": rows})
    else:
        _show(about, rows)


def _about(file: Path, update: UpdateFile) -> dict[str, Any]:
    from shoal.ledger.identity import signature_holds

    header, layout = update.header, update.layout
    model_bytes = sum(tensor.elements * tensor.numpy.itemsize for tensor in layout.tensors)
    return {
        "kind": "update",
        "file": str(file),
        "file_bytes": update.size,
        "codec": header.codec,
        "numbers": layout.elements,
        "bits_per_number": 8 * update.size / layout.elements if layout.elements else None,
        "model_bytes": model_bytes,
        "of_model": update.size / model_bytes if model_bytes else None,
        "samples": header.samples,
        "base": header.base.hex(),
        "layout": header.layout.hex(),
        "author": header.author.hex() or None,
        "signature_holds": update.signature_holds(signature_holds),
        "local": [key.decode("utf-8", "backslashreplace") for key in header.local],
        "digest": update.digest.hex(),
    }


def _row(tensor: Placed) -> dict[str, Any]:
    return {"name": tensor.key, "dtype": tensor.dtype.name, "shape": list(tensor.dims), "numbers": tensor.elements}


def _show(about: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    columns = [("tensor", "left"), ("type", "left"), ("shape", "left"), ("numbers", "right")]
    cells = [
        [shown(row["name"]), row["dtype"], "x".join(map(str, row["shape"])) or "scalar", str(row["numbers"])]
        for row in rows
    ]
    table(columns, cells)
    share = "" if about["of_model"] is None else f", {about['of_model']:.2%} of {size(about['model_bytes'])}"
    bits = "" if about["bits_per_number"] is None else f", {about['bits_per_number']:.2f} bits per number"
    line(f"file      {shown(about['file'])}, update, {size(about['file_bytes'])}{share}")
    line(f"contents  {len(rows)} tensors, {about['numbers']:,} numbers as {about['codec']}{bits}")
    line(f"samples   {'not told' if about['samples'] is None else about['samples']}")
    line(f"base      {about['base']}")
    line(f"signature {_signature(about)}")
    if about["local"]:
        line(f"local     {len(about['local'])} tensors are left alone")
    if "nmse" in about:
        root = "" if about["nmse"] is None else f", relative error {math.sqrt(about['nmse']):.3g}"
        line(f"nmse      {'no difference' if about['nmse'] is None else format(about['nmse'], '.4g')}{root}")
    line(f"digest    {about['digest']}")


def _signature(about: dict[str, Any]) -> str:
    if about["author"] is None:
        return "none"
    return f"by {about['author']}: {'holds' if about['signature_holds'] else 'DOES NOT HOLD'}"

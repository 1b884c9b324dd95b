"""shoal inspect: what is in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shoal.cli.show import Format


def inspect(
    file: Annotated[Path, typer.Argument(help="ONNX file.", show_default=False)],
    stats: Annotated[
        bool, typer.Option("--stats", help="Read the numbers: smallest, largest, norm, NaN and Inf.")
    ] = False,
    format: Annotated[Format, typer.Option("--format", help="text or json.")] = Format.text,
) -> None:
    """List the tensors of a model: name, type, shape, bytes, where they lie; and its digest."""

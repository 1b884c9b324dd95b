"""What the commands print, and nothing that a foreign name could turn into an escape sequence or markup."""

from __future__ import annotations

import enum
import json
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from shoal.errors import shown

if TYPE_CHECKING:
    from rich.console import Console


class Format(enum.StrEnum):
    """text: for people.  json: one object on standard output, for programs."""

    text = "text"
    json = "json"


def line(text: str) -> None:
    """One line on standard output; whatever in it is foreign must have gone through `shown`."""
    sys.stdout.write(text + "\n")


def prose(text: str) -> None:
    """A paragraph on standard output, broken at the terminal's width (at most 100 columns)."""
    line(textwrap.fill(text, min(shutil.get_terminal_size((100, 24)).columns, 100), break_on_hyphens=False))


def note(text: str) -> None:
    """One line on standard error: progress and remarks, never results."""
    sys.stderr.write(text + "\n")


def print_json(value: Mapping[str, Any], stream: TextIO | None = None) -> None:
    """One JSON object (RFC 8259), on standard output if no stream is given: NaN and infinities become null."""
    (stream or sys.stdout).write(json.dumps(_plain(value), indent=2, allow_nan=False) + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, str) or value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, Sequence):
        return [_plain(v) for v in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):
        return value if value - value == 0 else None
    return value if isinstance(value, int) else str(value)


def console() -> Console:
    """rich's console for standard output; without a terminal it is plain text, as wide as it needs."""
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False, width=None if sys.stdout.isatty() else 200)


def table(columns: Sequence[tuple[str, str]], rows: Sequence[Sequence[str]], title: str = "") -> None:
    """Print a table.  columns: (heading, "left" or "right"); cells are foreign text and shown as such."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    built = Table(title=Text(title) if title else None, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for heading, side in columns:
        built.add_column(Text(heading), justify="right" if side == "right" else "left", overflow="fold")
    for row in rows:
        built.add_row(*(Text(shown(cell, 1000)) for cell in row))
    console().print(built)


def size(count: float) -> str:
    """Bytes for people: 1234567 -> "1.2 MB" (powers of 1000)."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(count) < 1000 or unit == "TB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError

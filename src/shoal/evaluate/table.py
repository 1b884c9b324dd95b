"""Rows of features and labels from a .npz or .csv file, in batches: memory does not grow with the file.

Nothing in a data file can run: object arrays are refused by their header, before a byte of them is read.
"""

from __future__ import annotations

import csv
import math
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
import numpy.typing as npt

from shoal.errors import InputError, MachineError, shown
from shoal.limits import DECODED_BYTES_MAX, DIMS_MAX, ELEMENTS_MAX

Array = npt.NDArray[np.generic]

#: columns of a CSV file
COLUMNS_MAX = 100_000


class Table(Protocol):
    """Named columns; in a .npz file a column is an array whose first axis counts the rows."""

    names: list[str]

    def row_bytes(self, names: Sequence[str]) -> int: ...

    def batches(self, names: Sequence[str], rows: int) -> Iterator[dict[str, Array]]:
        """Up to `rows` rows of the named columns at a time, in file order."""
        ...


def open_table(path: Path) -> Table:
    """Open a data file by its ending.

    raises  InputError("data.format")    neither .npz nor .csv, or not what the ending says
            InputError("file.missing"), MachineError("file.unreadable")
    """
    if not path.is_file():
        raise InputError("file.missing", f"{shown(str(path))}: no such file")
    try:
        if path.suffix.lower() == ".npz":
            return NpzTable(path)
        if path.suffix.lower() == ".csv":
            return CsvTable(path)
    except OSError as error:
        raise MachineError("file.unreadable", f"{shown(str(path))}: {error.strerror or 'cannot be read'}") from error
    raise InputError("data.format", f"{shown(str(path))}: expected a data file that ends in .npz or .csv")


class NpzTable:
    """Arrays of a .npz file (numpy's zip of .npy members), streamed row by row."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.names: list[str] = []
        self._headers: dict[str, tuple[tuple[int, ...], bool, np.dtype[Any]]] = {}
        try:
            with zipfile.ZipFile(path) as archive:
                for member in archive.infolist():
                    if member.filename.endswith(".npy"):
                        with archive.open(member) as stream:
                            name = member.filename.removesuffix(".npy")
                            self._headers[name] = self._header(stream, name)
                            self.names.append(name)
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, EOFError) as error:
            raise InputError(
                "data.format", f"{shown(str(path))}: not a readable .npz file ({shown(str(error))})"
            ) from error
        if not self.names:
            raise InputError("data.format", f"{shown(str(path))}: no arrays in it")

    def _header(self, stream: IO[bytes], name: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
        version = np.lib.format.read_magic(stream)
        reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = reader(stream)
        sane = len(shape) <= DIMS_MAX and all(d >= 0 for d in shape) and math.prod(shape) <= ELEMENTS_MAX
        if dtype.hasobject or dtype.kind not in "biuf" or not shape or not sane:
            raise InputError(
                "data.array",
                f"{shown(str(self.path))}: array {shown(name)} has dtype {dtype} and shape {list(shape)}; "
                "expected numbers with a first axis of rows",
            )
        if fortran and len(shape) > 1 and math.prod(shape) * dtype.itemsize > DECODED_BYTES_MAX:
            raise InputError(
                "data.array",
                f"{shown(str(self.path))}: array {shown(name)} is stored by columns and too large to turn in memory; "
                "save it with numpy.ascontiguousarray",
            )
        return shape, fortran and len(shape) > 1, dtype

    def row_bytes(self, names: Sequence[str]) -> int:
        found = (self._headers[n] for n in names)
        return sum(math.prod(shape[1:]) * dtype.itemsize for shape, _, dtype in found)

    def batches(self, names: Sequence[str], rows: int) -> Iterator[dict[str, Array]]:
        counts = {n: self._headers[n][0][0] for n in names}
        if len(set(counts.values())) > 1:
            listed = ", ".join(f"{shown(n)}: {c}" for n, c in counts.items())
            raise InputError(
                "data.rows", f"{shown(str(self.path))}: the arrays differ in their number of rows ({listed})"
            )
        with zipfile.ZipFile(self.path) as archive:
            columns = {n: self._column(archive, n, rows) for n in names}
            for _ in range(0, counts[names[0]], rows):
                yield {n: next(column) for n, column in columns.items()}

    def _column(self, archive: zipfile.ZipFile, name: str, rows: int) -> Iterator[Array]:
        shape, fortran, dtype = self._headers[name]
        with archive.open(name + ".npy") as stream:
            self._header(stream, name)
            if fortran:
                whole = self._read(stream, name, dtype, shape[::-1]).T
            for start in range(0, shape[0], rows):
                count = min(rows, shape[0] - start)
                yield whole[start : start + count] if fortran else self._read(stream, name, dtype, (count, *shape[1:]))

    def _read(self, stream: IO[bytes], name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
        wanted = math.prod(shape) * dtype.itemsize
        try:
            data = stream.read(wanted)
        except (zipfile.BadZipFile, OSError, EOFError, RuntimeError) as error:
            raise InputError(
                "data.format", f"{shown(str(self.path))}: array {shown(name)}: {shown(str(error))}"
            ) from error
        if len(data) < wanted:
            raise InputError("data.format", f"{shown(str(self.path))}: array {shown(name)} ends before its last row")
        array: Array = np.frombuffer(data, dtype).reshape(shape)
        return array


class CsvTable:
    """Columns of a comma-separated file with a header line (RFC 4180, UTF-8), every cell a number."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open(encoding="utf-8-sig", newline="") as stream:
            self.names = next(self._lines(stream), [])
        if not self.names or len(self.names) > COLUMNS_MAX or len(set(self.names)) < len(self.names):
            raise InputError(
                "data.format", f"{shown(str(path))}: expected a first line with the columns' names, each once"
            )

    def _lines(self, stream: IO[str]) -> Iterator[list[str]]:
        try:
            yield from csv.reader(stream, strict=True)
        except (csv.Error, UnicodeDecodeError) as error:
            raise InputError("data.format", f"{shown(str(self.path))}: not a CSV file ({shown(str(error))})") from error

    def row_bytes(self, names: Sequence[str]) -> int:
        return 8 * len(names)

    def batches(self, names: Sequence[str], rows: int) -> Iterator[dict[str, Array]]:
        places = {n: self.names.index(n) for n in names}
        with self.path.open(encoding="utf-8-sig", newline="") as stream:
            lines = self._lines(stream)
            next(lines)
            gathered: list[list[float]] = []
            for number, cells in enumerate(lines, start=2):
                if not cells:
                    continue
                gathered.append(self._numbers(cells, number, places))
                if len(gathered) == rows:
                    yield self._batch(gathered, names)
                    gathered = []
            if gathered:
                yield self._batch(gathered, names)

    def _numbers(self, cells: list[str], number: int, places: dict[str, int]) -> list[float]:
        if len(cells) != len(self.names):
            raise InputError(
                "data.cell",
                f"{shown(str(self.path))}: line {number} has {len(cells)} cells; expected {len(self.names)}",
            )
        row = []
        for name, place in places.items():
            try:
                row.append(float(cells[place]))
            except ValueError:
                raise InputError(
                    "data.cell",
                    f"{shown(str(self.path))}: line {number}, column {shown(name)} holds '{shown(cells[place])}'; "
                    "expected a number",
                ) from None
        return row

    @staticmethod
    def _batch(gathered: list[list[float]], names: Sequence[str]) -> dict[str, Array]:
        block = np.array(gathered, np.float64)
        return {n: block[:, i] for i, n in enumerate(names)}

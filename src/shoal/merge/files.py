"""Merging of ONNX files: read, merged and written tile by tile, in memory that does not grow with the files."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from shoal.errors import ArgumentError, InputError, ShoalError, shown
from shoal.merge.as_numbers import AsNumbers
from shoal.merge.engines import Engines
from shoal.merge.options import MergeOptions, Plan, plan
from shoal.merge.report import Report
from shoal.merge.running import Running
from shoal.merge.source import Item, Kind, Source, Stretch, Tensor
from shoal.merge.state import FileMoments
from shoal.merge.tile import Array
from shoal.model.agree import require_agreement
from shoal.model.digest import ModelDigest, TensorDigest, model_digest, stored_digest
from shoal.model.file import ModelFile
from shoal.model.model import Model
from shoal.model.output import place_of
from shoal.model.tensor import Role, Storage, TensorRef
from shoal.model.write import ModelWriter

PathLike = str | os.PathLike[str]

#: bytes between small tensors that are read along with them.
GAPS_BYTES_MAX = 2**16

_INSIDE = frozenset({Storage.RAW, Storage.PACKED})
_INDICES = (Role.SPARSE_INDICES, Role.CONSTANT_SPARSE_INDICES)


class FileSource:
    """The tensors of a model file."""

    in_memory = False

    def __init__(self, file: ModelFile) -> None:
        self.file = file
        self.label = shown(str(file.path))

    @cached_property
    def tensors(self) -> Mapping[str, Tensor]:
        return {key: _tensor(ref) for key, ref in self.file.tensors.items()}

    def place(self, stretch: Stretch, /) -> tuple[int, int] | None:
        found = self.file.place(self.file.tensors[stretch.tensor.key])
        return None if found is None else (found[0], found[1] + stretch.first * stretch.tensor.dtype.itemsize)

    def read(self, item: Item, out: Array | None, /) -> Array:
        assert out is not None
        if len(item) == 1 or not self._read_at_once(item, out):
            offset = 0
            for stretch in item:
                part = out[offset : offset + stretch.count]
                self.file.read_into(self.file.tensors[stretch.tensor.key], stretch.first, part)
                offset += stretch.count
        return out

    def _read_at_once(self, item: Item, out: Array) -> bool:
        """Several whole tensors that lie close together in the model's own file, by one call instead of many."""
        refs = [self.file.tensors[stretch.tensor.key] for stretch in item]
        if any(ref.storage not in _INSIDE for ref in refs):
            return False
        start, stop = min(ref.offset for ref in refs), max(ref.offset + ref.length for ref in refs)
        if stop - start > out.nbytes + GAPS_BYTES_MAX:
            return False
        raw = self.file.raw_proto_range(start, stop)
        offset = 0
        for ref, stretch in zip(refs, item, strict=True):
            part = np.frombuffer(raw, out.dtype, stretch.count, ref.offset - start)
            out[offset : offset + stretch.count] = part
            offset += stretch.count
        return True

    def same(self, tensor: Tensor, other: Source) -> bool:
        assert isinstance(other, FileSource)
        mine, theirs = self.file.tensors[tensor.key], other.file.tensors[tensor.key]
        return self.file.same_values(mine, other.file, theirs)

    def fault(self, code: str, message: str) -> ShoalError:
        return InputError(code, message)


def _tensor(ref: TensorRef) -> Tensor:
    kind: Kind = "fixed"
    if ref.dtype.merged:
        kind = "float"
    elif ref.dtype.numpy is not None and ref.dtype.numpy.kind in "iu" and ref.role not in _INDICES:
        kind = "integer" if ref.dtype.name.lstrip("u").startswith("int") else "fixed"
    if ref.dtype.numpy is None:
        return Tensor(ref.key, kind, np.dtype(np.uint8), ref.nbytes, ref.dims, opaque=True)
    return Tensor(ref.key, kind, ref.dtype.numpy.newbyteorder("="), ref.elements, ref.dims)


class FileSink:
    """Writes merged tensors to the output, and hashes all of them."""

    def __init__(self, writer: ModelWriter, template: ModelFile, written: set[str]) -> None:
        self._writer = writer
        self._template = template
        self._digests = {key: TensorDigest(template.tensors[key].nbytes) for key in written}
        self._kept: dict[str, bytes] = {}

    def place(self, _tensor: Tensor, _first: int, _count: int, /) -> Array | None:
        return None

    def put(self, tensor: Tensor, first: int, values: Array) -> None:
        ref = self._template.tensors[tensor.key]
        if len(values):
            self._digests[tensor.key].add(first * values.itemsize, values.view(np.uint8).data)
            self._writer.write(ref, first, values)

    def keep(self, tensor: Tensor) -> None:
        ref = self._template.tensors[tensor.key]
        self._kept[tensor.key] = stored_digest(self._template, ref)

    def digest(self) -> bytes:
        """Of the merged model."""
        model = ModelDigest()
        for key, ref in self._template.tensors.items():
            found = self._kept.get(key)
            model.add(key, ref.dtype.code, ref.dims, self._digests[key].digest() if found is None else found)
        return model.digest()


def merge_files(
    models: Sequence[PathLike],
    output: PathLike,
    options: MergeOptions | None = None,
    *,
    base: PathLike | None = None,
    outer_state: PathLike | None = None,
) -> Report:
    """Merge ONNX files into one.

    models       paths, in the order of the weights; graph and everything that is not merged come from the first
    output       path; it may be one of the inputs.  It appears whole at the end, or not at all.
    base         the model that all were trained from (rules that need one, outer optimisers)
    outer_state  the outer optimiser's memory: read if the file exists, and written.  It belongs to one base, the output
                 of the merge before; with another base it is refused (remove the file to start anew)
    returns      Report
    raises       ArgumentError  the options are at fault
                 InputError     a file is; nothing was written
                 MachineError   the disk is full, permission is missing ...; the old output is whole
    """
    options = MergeOptions() if options is None else options
    start = time.monotonic()
    checked = plan(options, len(models), base is not None)
    if checked.outer is None and outer_state is not None:
        raise ArgumentError("outer.state", "an optimiser's state is given, but no outer optimiser")
    if outer_state is not None and os.path.realpath(outer_state) == os.path.realpath(output):
        raise ArgumentError("outer.state", f"{shown(str(output))} is both the output and the optimiser's state")
    with ExitStack() as stack:
        files, ground = _opened(models, base, stack)
        everything = files if ground is None else [*files, ground]
        sources, below = [FileSource(file) for file in files], None if ground is None else FileSource(ground)
        numbers = AsNumbers(checked, files[0], sources, below)
        engine = Engines(
            checked,
            [numbers.source(source) for source in sources],
            None if below is None else numbers.source(below),
            files[0].structure.scales,
            Running.among(files[0].tensors, files[0].structure),
        )
        written = engine.rewritten() | numbers.beside()
        writer = stack.enter_context(ModelWriter(files[0], output, written, _kept_data(everything, output)))
        sink = FileSink(writer, files[0], written)
        moments = None
        if checked.outer is not None:
            of_base = b"" if ground is None or outer_state is None else model_digest(ground, threads=engine.threads)
            moments = stack.enter_context(FileMoments(checked.outer, outer_state, engine.floats, of_base))
        target = numbers.sink(sink)
        outcome = engine.run(target, moments)
        target.finish()
        for file in everything:
            file.check_unchanged()
        digest = sink.digest()
        if moments is not None:
            # Before the output, and the state before stays until that is there: whenever the machine stops, the base
            # that is there has its state.
            moments.commit(digest)
        writer.commit(digest)
        if moments is not None:
            moments.finish()
    return Report(
        output=str(Path(output)),
        models=tuple(str(path) for path in models),
        rule=checked.rule.name,
        parameters={**checked.settings, **(checked.outer.settings if checked.outer else {})},
        weights=_all_weights(checked),
        outer=checked.outer.kind.name if checked.outer else None,
        tensors_merged=outcome.merged,
        tensors_passed=outcome.passed,
        tensors_local=outcome.local,
        numbers=outcome.parameters,
        bytes_read=outcome.bytes_read - numbers.extra,
        bytes_written=outcome.bytes_written - target.extra,
        seconds=time.monotonic() - start,
        passes=outcome.passes,
        notes=outcome.notes,
        digest=digest.hex(),
    )


def _opened(
    models: Sequence[PathLike], base: PathLike | None, stack: ExitStack
) -> tuple[list[ModelFile], ModelFile | None]:
    """The models, and the base if there is one; each is compared with the first before the next is opened."""
    files: list[ModelFile] = []
    for path in [*models, *([] if base is None else [base])]:
        files.append(stack.enter_context(ModelFile.open(path)))
        if len(files) > 1:
            require_agreement([files[0], files[-1]])
            files[-1].share(files[0])
    return files[: len(models)], None if base is None else files[-1]


def _all_weights(checked: Plan) -> tuple[float, ...] | None:
    if checked.weights is None:
        return None
    known: Mapping[int, float] = dict(zip(checked.places, checked.weights, strict=True))
    return tuple(known.get(i, 0.0) for i in range(checked.models))


def _kept_data(files: Sequence[ModelFile], output: PathLike) -> set[str]:
    """Data files that must stay: those of the inputs, but for the one whose path the output takes."""
    return {data for file in files if place_of(file.path) != place_of(output) for data in file.data_files()}


def merge_paths(models: Sequence[Any], options: MergeOptions, base: Any, outer_state: Any, out: Any) -> Model:
    """`merge_files` for `shoal.merge`: the result as a Model.

    raises  ArgumentError  if out is no path, or a model or the base is none
    """
    for what, value in [*((f"model {i + 1}", m) for i, m in enumerate(models)), ("base", base), ("out", out)]:
        if not isinstance(value, str | os.PathLike) and not (what == "base" and value is None):
            raise ArgumentError(
                "merge.models",
                f"{what} is a {type(value).__name__}; expected a path, as model 1 is one (out=path, too)",
            )
    merge_files(models, out, options, base=base, outer_state=outer_state)
    return Model(ModelFile.open(out), {})

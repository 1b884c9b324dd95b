"""Applies update files to their base: base + weighted mean of the updates, chunk by chunk, in bounded memory."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from shoal.diff.base import Base, Native, model_digest_of, refuse_nonfinite
from shoal.diff.update_file import UpdateFile
from shoal.diff.update_format import SignatureCheck
from shoal.diff.work import Memory, in_order
from shoal.errors import ArgumentError, InputError, shown
from shoal.kernels import dispatch
from shoal.limits import UPDATES_MAX
from shoal.model.digest import PieceDigest, encode_key, stored_digest
from shoal.model.file import ModelFile
from shoal.model.layout import Layout, Part
from shoal.model.output import place_of
from shoal.model.write import ModelWriter

PathLike = str | os.PathLike[str]
#: (bytes done, bytes to do), called by the thread that called
Progress = Callable[[int, int], None]
#: hexadecimal digits of a digest in messages
_DIGITS = 16


@dataclass(frozen=True, slots=True)
class ApplyOptions:
    """How to apply updates.

    weights   one number per update, finite, >= 0, positive sum; None: the numbers of samples if all updates tell
              theirs, else all count the same
    check     checks signatures; None: signed updates are taken as they are
    threads   0: SHOAL_THREADS or all cores
    progress  called with (bytes made, bytes to make)
    """

    weights: Sequence[float] | None = None
    check: SignatureCheck | None = None
    threads: int = 0
    progress: Progress | None = None


@dataclass(frozen=True, slots=True)
class ApplyReport:
    """What `apply_updates` did.

    output, base, updates   paths
    weights                 of the updates, as given or as their numbers of samples
    weighted_by             "weights" (given), "samples" or "equal"
    tensors, numbers        that changed
    tensors_kept            that did not
    base_digest             of the base (docs/FORMAT.md, "Update files"), hexadecimal
    digest                  of the new model (docs/FORMAT.md, "Digests"), hexadecimal
    seconds                 from opening the first file to the last rename
    """

    output: str
    base: str
    updates: tuple[str, ...]
    weights: tuple[float, ...]
    weighted_by: str
    tensors: int
    numbers: int
    tensors_kept: int
    base_digest: str
    digest: str
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)


def apply_updates(
    base: PathLike, updates: Sequence[PathLike], output: PathLike, options: ApplyOptions | None = None
) -> ApplyReport:
    """Write base + the weighted mean of the updates.

    base     an ONNX file; what the updates leave alone passes through, byte for byte
    updates  update files made from this base, 1 to UPDATES_MAX, of any codecs
    output   path; it may be the base's.  It appears whole at the end, or not at all

    Sums are taken in float64 in the order of the updates' digests, whatever order they are given in, and rounded once
    into the tensor's type.  An update of weight 0 does not enter.

    raises   ArgumentError  the options are at fault
             InputError     a file is: damaged, forged, of another base or layout, or the result is no finite number
             MachineError   the disk is full, permission is missing ...
    """
    options = ApplyOptions() if options is None else options
    start = time.monotonic()
    if not 1 <= len(updates) <= UPDATES_MAX:
        raise ArgumentError("apply.updates", f"{len(updates)} updates given; expected 1 to {UPDATES_MAX}")
    with ExitStack() as stack:
        files = [stack.enter_context(UpdateFile.open(path)) for path in updates]
        for file in files:
            if options.check is not None:
                file.require_signature(options.check)
        _require_one_base(files)
        weights, weighted_by = _weights(options, files)
        model = stack.enter_context(ModelFile.open(base))
        _refuse_update(output, files)
        local = frozenset(key.decode("utf-8", "surrogateescape") for key in files[0].header.local)
        ground = Base(model, lambda key: key not in local)
        require_layout(ground, files[0])
        changed = {tensor.key for tensor in ground.layout.tensors}
        kept = () if place_of(base) == place_of(output) else model.data_files()
        writer = stack.enter_context(ModelWriter(model, output, changed, kept))
        result = _Result(ground, files, weights, writer)
        result.run(options)
        found = ground.digest()
        if found != files[0].header.base:
            raise wrong_base(files[0], base, found)
        digest = result.digest()
        writer.commit(digest)
    return ApplyReport(
        output=str(output),
        base=str(base),
        updates=tuple(str(path) for path in updates),
        weights=weights,
        weighted_by=weighted_by,
        tensors=len(changed),
        numbers=ground.layout.elements,
        tensors_kept=len(model.tensors) - len(changed),
        base_digest=found.hex(),
        digest=digest.hex(),
        seconds=time.monotonic() - start,
    )


# --- what must go together ---


def _require_one_base(files: Sequence[UpdateFile]) -> None:
    first = files[0]
    for other in files[1:]:
        if other.header.layout != first.header.layout:
            raise InputError(
                "update.layout",
                f"{other.name} is about other tensors than {first.name}: {_difference(first.layout, other.layout)}",
            )
        if other.header.local != first.header.local:
            raise InputError(
                "update.layout",
                f"{other.name} leaves other tensors alone than {first.name}; expected the same --exclude",
            )
        if other.header.base != first.header.base:
            raise InputError(
                "update.base",
                f"{other.name} was made from the base {other.header.base.hex()[:_DIGITS]}, {first.name} from "
                f"{first.header.base.hex()[:_DIGITS]}; expected one base",
            )


def wrong_base(update: UpdateFile, base: PathLike, found: bytes) -> InputError:
    """The error for a base of another digest than the update's."""
    return InputError(
        "update.base",
        f"{update.name} was made from the base {update.header.base.hex()[:_DIGITS]}; {shown(str(base))} is "
        f"{found.hex()[:_DIGITS]}",
    )


def require_layout(base: Base, update: UpdateFile) -> None:
    """InputError ``update.layout`` unless the update is about this model's tensors."""
    missing = {*update.header.local} - {encode_key(key) for key in base.file.tensors}
    if base.layout.digest == update.header.layout and not missing:
        return
    said = _difference(update.layout, base.layout)
    if not said:
        said = f"tensor {shown(min(missing).decode('utf-8', 'replace'))} is missing"
    raise InputError("update.layout", f"{update.name} does not fit {shown(base.file.path)}: {said}")


def _difference(one: Layout, two: Layout) -> str:
    """The first tensor that the second layout has not as the first one has it."""
    mine, theirs = ({tensor.key: tensor for tensor in layout.tensors} for layout in (one, two))
    for key in sorted(mine.keys() | theirs.keys(), key=encode_key):
        a, b = mine.get(key), theirs.get(key)
        if a != b:
            found, expected = ("not there" if t is None else f"{t.dtype.name}{list(t.dims)}" for t in (b, a))
            return f"tensor {shown(key)} is {found}; expected {expected}"
    return ""


def _refuse_update(output: PathLike, files: Sequence[UpdateFile]) -> None:
    if place_of(output) in {place_of(file.path) for file in files}:
        raise ArgumentError("apply.output", f"output {shown(str(output))} is one of the updates; expected another path")


def _weights(options: ApplyOptions, files: Sequence[UpdateFile]) -> tuple[tuple[float, ...], str]:
    """One weight for each file, and where they come from."""
    if options.weights is None:
        samples = [file.header.samples for file in files]
        told = [float(count) for count in samples if count is not None]
        return (tuple(told), "samples") if len(told) == len(files) else ((1.0,) * len(files), "equal")
    given = tuple(float(weight) for weight in options.weights)
    if len(given) != len(files):
        raise ArgumentError(
            "apply.weights", f"{len(given)} weights given for {len(files)} updates; expected one for each"
        )
    for number, weight in enumerate(given):
        if not (math.isfinite(weight) and weight >= 0):
            raise ArgumentError(
                "apply.weights", f"weight of update {number + 1} is {weight}; expected a finite number, 0 or more"
            )
    if not any(given):
        raise ArgumentError("apply.weights", "all weights are 0; expected at least one above 0")
    return given, "weights"


# --- the work ---


class _Result:
    """The new model in the making."""

    def __init__(self, base: Base, files: Sequence[UpdateFile], weights: Sequence[float], writer: ModelWriter) -> None:
        self._base = base
        self._writer = writer
        top = max(weights)
        total = math.fsum(weight / top for weight in weights)
        shares = [(file, weight / top / total) for file, weight in zip(files, weights, strict=True) if weight > 0]
        self._shares = sorted(shares, key=lambda share: (share[0].digest, share[1]))
        tensors = base.file.tensors
        self._pieces = {t.key: PieceDigest(tensors[t.key].nbytes) for t in base.layout.tensors}

    def run(self, options: ApplyOptions) -> None:
        chunks = self._shares[0][0].chunks
        done, total = 0, max(chunks.grid.elements, 1)
        for number, _ in enumerate(in_order(chunks.count, self._work, options.threads or dispatch.thread_count())):
            done += chunks.elements(number)[1]
            if options.progress is not None:
                options.progress(self._base.nbytes * done // total, self._base.nbytes)
        for tensor in self._base.layout.tensors:
            if not tensor.elements:
                empty = np.empty(0, tensor.numpy)
                self._writer.write(self._base.file.tensors[tensor.key], 0, empty)

    def _work(self, number: int, memory: Memory) -> None:
        first, count = self._shares[0][0].chunks.elements(number)
        mean = self._mean(number, count, memory)
        for part in self._base.layout.parts(first, count):
            dtype = part.tensor.numpy
            base, out = memory.get("base", dtype, part.count), memory.get("out", dtype, part.count)
            self._base.read(part, base)
            _add(base, mean[part.at : part.at + part.count], out, memory)
            if not np.isfinite(out).all():
                self._refuse(part, base, out)
            self._pieces[part.tensor.key].add(part.first * out.itemsize, out.view(np.uint8).data)
            self._writer.write(self._base.file.tensors[part.tensor.key], part.first, out)

    def _mean(self, number: int, count: int, memory: Memory) -> npt.NDArray[Any]:
        """Weighted mean of one chunk of all updates: float32 as it is of a single one, float64 of several."""
        decoded = memory.get("decoded", np.float32, count)
        if len(self._shares) == 1:
            self._shares[0][0].read(number, decoded)
            return decoded
        total, term = memory.get("total", np.float64, count), memory.get("term", np.float64, count)
        total[:] = 0
        for file, share in self._shares:
            file.read(number, decoded)
            total += np.multiply(decoded, share, out=term, dtype=np.float64)
        return total

    def _refuse(self, part: Part, base: Native, out: Native) -> None:
        refuse_nonfinite(self._base.file, part, base)
        at = int(np.argmin(np.isfinite(out)))
        raise InputError(
            "apply.overflow",
            f"tensor {shown(part.tensor.key)}: base and updates make {out[at]} at element {part.first + at}, which "
            f"{part.tensor.dtype.name} cannot hold; expected a finite number",
        )

    def digest(self) -> bytes:
        """Of the new model; the base has been read as a whole."""
        digests = dict(self._base.digests())
        digests |= {key: pieces.digest() for key, pieces in self._pieces.items()}
        digests |= {key: stored_digest(self._base.file, self._base.file.tensors[key]) for key in self._base.local}
        return model_digest_of(self._base.file, digests)


def _add(base: Native, mean: npt.NDArray[Any], out: Native, memory: Memory) -> None:
    """out = base + mean, rounded once."""
    with np.errstate(over="ignore", invalid="ignore"):
        if base.dtype == np.float32 and mean.dtype == np.float32:
            np.add(base, mean, out=out)
            return
        total = memory.get("sum", np.float64, len(base))
        np.add(base.astype(np.float64, copy=False), mean, out=total)
    dispatch.convert(total, out, threads=1)

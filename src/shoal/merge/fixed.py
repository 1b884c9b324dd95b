"""Tensors that are never averaged: they must be equal in all models, or the option says which to take."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from shoal.errors import shown
from shoal.limits import DIGEST_CHUNK_BYTES
from shoal.merge.options import Integers
from shoal.merge.source import Sink, Source, Stretch, Tensor
from shoal.merge.tile import Array


def rewritten(tensor: Tensor, integers: Integers, first_counts: bool) -> bool:
    """True if the output's value may differ from the first model's, so that it has to be written."""
    if tensor.kind == "fixed":
        return False
    return not first_counts or (integers == "max" and tensor.kind == "integer")


def settle_fixed(
    tensors: Sequence[Tensor],
    active: Sequence[Source],
    first: Source,
    sink: Sink,
    integers: Integers,
    refuse_nonfinite: bool,
) -> None:
    """Compare each of ``tensors`` in all models that count, bit by bit, and hand the sink its value.

    Types that are neither whole numbers nor merged must be equal in the first model, too, if that does not count: its
    bytes are the ones that pass through.

    integers  "require-equal", or "first" (of the models that count) or "max" (of each element) for whole numbers
    refuse_nonfinite    also refuse a NaN or Inf: of float8, complex numbers, scales
    raises    the fault of the first model that differs, naming tensor and element
    """
    first_counts = active[0] is first
    for tensor in tensors:
        write = rewritten(tensor, integers, first_counts)
        how = integers if tensor.kind == "integer" else "require-equal"
        compared = [first, *active] if tensor.kind == "fixed" and not first_counts else active
        if tensor.opaque:
            _require_same(tensor, compared)
        elif write or how != "first":
            _settle(tensor, compared, sink if write else None, how, refuse_nonfinite and _may_be_nan(tensor))
        if not write:
            sink.keep(tensor)


def _require_same(tensor: Tensor, sources: Sequence[Source]) -> None:
    for source in sources[1:]:
        if not sources[0].same(tensor, source):
            raise source.fault(
                "tensor.differs",
                f"{source.label}: tensor {shown(tensor.key)}, which is never averaged, differs from {sources[0].label};"
                " expected equal",
            )


def _may_be_nan(tensor: Tensor) -> bool:
    """True for types that have a NaN or Inf; those of less than a byte have none."""
    return tensor.dtype.kind in "fc" or "float" in tensor.dtype.name


def _settle(tensor: Tensor, active: Sequence[Source], sink: Sink | None, how: Integers, finite: bool) -> None:
    step = DIGEST_CHUNK_BYTES // tensor.dtype.itemsize
    for start in range(0, tensor.elements, step):
        count = min(step, tensor.elements - start)
        value = _read(active[0], tensor, start, count)
        if finite and not bool(np.isfinite(value).all()):
            place = int(np.argmin(np.isfinite(value)))
            raise active[0].fault(
                "tensor.nonfinite",
                f"{active[0].label}: tensor {shown(tensor.key)} has {shown(str(value[place]))} at element "
                f"{start + place} of {tensor.elements}; expected finite numbers",
            )
        for source in active[1:] if how != "first" else ():
            other = _read(source, tensor, start, count)
            if how == "max":
                value = np.maximum(value, other)
            elif value.tobytes() != other.tobytes():
                raise _difference(tensor, start, active[0], value, source, other)
        if sink is not None:
            sink.put(tensor, start, value)
    if not tensor.elements and sink is not None:
        sink.put(tensor, 0, np.empty(0, tensor.dtype))


def _read(source: Source, tensor: Tensor, start: int, count: int) -> Array:
    buffer = None if source.in_memory else np.empty(count, tensor.dtype)
    return source.read((Stretch(tensor, start, count),), buffer)


def _difference(tensor: Tensor, start: int, one: Source, value: Array, two: Source, other: Array) -> Exception:
    unequal = (value.view(np.uint8) != other.view(np.uint8)).reshape(len(value), -1).any(axis=1)
    place = int(np.argmax(unequal))
    found = f"{shown(str(other[place]))} at element {start + place}, {one.label} has {shown(str(value[place]))}"
    if tensor.kind == "float":
        return two.fault(
            "tensor.scales",
            f"{two.label}: quantisation scale {shown(tensor.key)} is {found}; expected the same scale in all models "
            "(only weights of DequantizeLinear may have their own, with quantised=merge)",
        )
    choice = " (or choose with integers=first or max)" if tensor.kind == "integer" else ""
    return two.fault(
        "tensor.differs",
        f"{two.label}: tensor {shown(tensor.key)} of {tensor.dtype}, which is never averaged, is {found}; expected "
        f"equal{choice}",
    )

"""Quantised weights that are merged as the numbers that they stand for: which, and how they are quantised again.

The engine sees one float64 tensor where a model has whole numbers, a scale and a code of 0 (`dequantise`); what comes
out is quantised on its way to the output (`requantise`).  So this takes 9 to 12 bytes for each element of the largest
quantised tensor, and of as many others as there are threads, on top of what a merge takes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from shoal.errors import ArgumentError, InputError, shown
from shoal.limits import DIGEST_CHUNK_BYTES
from shoal.merge.dequantise import DequantisedSource, read_grid, read_whole
from shoal.merge.grid import code_range
from shoal.merge.options import Plan
from shoal.merge.quantised import Weight, find_weights
from shoal.merge.requantise import Requantiser, Scheme
from shoal.merge.source import Sink, Source, Stretch, Tensor
from shoal.model.file import ModelFile


class AsNumbers:
    """The quantised weights of one merge that differ between its models, and so are merged as numbers.

    All others (equal in all models) pass through as they are, scales and all.  None at all if the plan does not ask.

    file     the template
    sources  one for each model, as stored
    base     the base model, if it enters
    raises   InputError     tensor.quantised  for a weight that differs and cannot be quantised anew, with the reason
             ArgumentError  merge.quantised   if only part of what must change together is selected
    """

    def __init__(self, plan: Plan, file: ModelFile, sources: Sequence[Source], base: Source | None) -> None:
        self._plan = plan
        self._sources: list[DequantisedSource] = []
        self._first, self._active = sources[0], [sources[place] for place in plan.places]
        self._compared = [*self._active, *([base] if base is not None and (plan.rule.needs_base or plan.outer) else [])]
        found = find_weights(file) if plan.options.quantised == "merge" else {}
        self.weights: dict[str, Weight] = {}
        for weight in found.values():
            if plan.options.selects(weight.codes) and self._changes(weight):
                self.weights[weight.codes] = weight
        for weight in found.values():
            if weight.follows in self.weights:
                self.weights[weight.codes] = weight
        for weight in self.weights.values():
            self._require_possible(weight)
        self._schemes = {codes: self._scheme(weight) for codes, weight in self.weights.items()}

    def source(self, source: Source) -> Source:
        """The same model with numbers in the place of these weights."""
        if not self.weights:
            return source
        self._sources.append(DequantisedSource(source, self.weights.values()))
        return self._sources[-1]

    @property
    def extra(self) -> int:
        """Bytes of numbers that the sources handed out beyond those that they read."""
        return sum(source.extra for source in self._sources)

    def sink(self, inner: Sink) -> Requantiser:
        """A sink that quantises these weights and hands them on, with their scales and codes of 0."""
        return Requantiser(inner, self.weights, self._schemes, self._first.tensors)

    def beside(self) -> set[str]:
        """Keys of the tensors that are written along with the codes."""
        return {key for weight in self.weights.values() for key in weight.beside}

    # --- which weights, and how --------------------------------------------------------------------------------------

    def _changes(self, weight: Weight) -> bool:
        """False if the weight passes through: it is the same in all models, and no optimiser has a memory of it."""
        stateful = self._plan.outer is not None and self._plan.outer.kind.moments
        if stateful and not weight.obstacle:
            return True
        keys = [key for key in (weight.codes, weight.scale, weight.zero) if key]
        one = self._compared[0]
        other = next((s for s in self._compared[1:] if not all(_equal(one, s, key) for key in keys)), None)
        if other is not None and weight.obstacle:
            raise other.fault(
                "tensor.quantised",
                f"{other.label}: quantised weight {shown(weight.codes)} is not that of {one.label}, and it "
                f"{weight.obstacle}; expected the same in all models",
            )
        return other is not None

    def _require_possible(self, weight: Weight) -> None:
        if weight.obstacle:
            raise InputError(
                "tensor.quantised",
                f"bias {shown(weight.codes)}, whose scale must move with that of {shown(weight.follows or '')}, "
                f"{weight.obstacle}",
            )
        for key in (weight.codes, *weight.beside):
            if not self._plan.options.selects(key):
                raise ArgumentError(
                    "merge.quantised",
                    f"tensor {shown(key)} is not selected, but {shown(weight.follows or weight.codes)} is, and the two "
                    "must change together; expected both or none",
                )
        whole = self._first.tensors[weight.codes].dtype == np.int32
        if weight.zero is not None and (weight.zero_shared or whole):
            why = "which is of int32" if whole else "which others use, too"
            for source in {id(s): s for s in (self._first, *self._compared)}.values():
                if read_whole(source, weight.zero).any():
                    raise source.fault(
                        "tensor.quantised",
                        f"{source.label}: zero point {shown(weight.zero)} of quantised weight {shown(weight.codes)}, "
                        f"{why}, is not 0; expected 0",
                    )

    def _scheme(self, weight: Weight) -> Scheme:
        """Scheme and range of the template; where a grid enters the numbers, that of the first model that counts."""
        tensor = self._first.tensors[weight.codes]
        symmetric = tensor.dtype.kind == "i" and (weight.zero is None or not read_whole(self._first, weight.zero).any())
        codes = code_range(tensor.dtype, _largest(self._first, tensor), symmetric)
        # What a bias follows keeps the template's scale if it is not selected.
        model = self._active[0]
        if weight.follows is not None and not self._plan.options.selects(weight.follows):
            model = self._first
        return Scheme(tensor, read_grid(model, weight), symmetric, codes)


def _pieces(tensor: Tensor) -> Iterable[Stretch]:
    step = DIGEST_CHUNK_BYTES // tensor.dtype.itemsize
    return (Stretch(tensor, at, min(step, tensor.elements - at)) for at in range(0, tensor.elements, step))


def _equal(one: Source, other: Source, key: str) -> bool:
    """True if a tensor has the same bits in both models; read piece by piece."""
    tensor = one.tensors[key]
    if tensor.opaque:
        return one.same(tensor, other)
    mine, theirs = (np.empty(DIGEST_CHUNK_BYTES // tensor.dtype.itemsize, tensor.dtype) for _ in range(2))
    for part in _pieces(tensor):
        a, b = one.read((part,), mine[: part.count]), other.read((part,), theirs[: part.count])
        if not np.array_equal(a.view(np.uint8), b.view(np.uint8)):
            return False
    return True


def _largest(source: Source, tensor: Tensor) -> int:
    """The largest magnitude among the codes of eight bits; 0 for others, where nobody asks."""
    if tensor.dtype.itemsize > 1:
        return 0
    buffer, largest = np.empty(DIGEST_CHUNK_BYTES, tensor.dtype), 0
    for part in _pieces(tensor):
        codes = source.read((part,), buffer[: part.count])
        largest = max(largest, int(codes.max()), -int(codes.min()))
    return largest

"""The difference of two model files, tile by tile: new - base as a flat vector."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from shoal.diff.base import Base, read_part, refuse_nonfinite_range
from shoal.diff.codec import Float32s
from shoal.diff.work import Memory
from shoal.errors import InputError, shown
from shoal.model.agree import require_agreement
from shoal.model.file import ModelFile


class Difference:
    """Two models of one architecture; reading the difference also hashes the base.

    base  Base
    new   ModelFile

    raises  InputError  model.differs: they do not compute the same;  tensor.differs: a tensor that is no part of a
                        difference is not equal in both
    """

    def __init__(self, base: ModelFile, new: ModelFile, selected: Callable[[str], bool]) -> None:
        require_agreement([base, new])
        new.share(base)
        self.base, self.new = Base(base, selected), new
        for ref in self.base.fixed:
            if not base.same_values(ref, new, new.tensors[ref.key]):
                what = f"quantisation scale {shown(ref.key)}" if ref.dtype.merged else f"tensor {shown(ref.key)}"
                raise InputError(
                    "tensor.differs",
                    f"{shown(new.path)}: {what} of {ref.dtype.name}, which no difference is made of, is not that of "
                    f"{shown(base.path)}; expected equal (or leave it out: --exclude)",
                )

    def read(self, first: int, count: int, memory: Memory) -> tuple[Float32s, Float32s]:
        """(x, b), float32[count] each: the difference of elements [first, first + count) is x - b.

        Where the models are float32 these are their numbers; float16 and bfloat16 are widened.  For float64 x is the
        difference, rounded once, and b is 0.  NaN and Inf come through.
        """
        x: Float32s = memory.get("new", np.float32, count)
        b: Float32s = memory.get("base", np.float32, count)
        for part in self.base.layout.parts(first, count):
            place = slice(part.at, part.at + part.count)
            dtype = part.tensor.numpy
            if dtype == np.float32:
                read_part(self.new, part, x[place])
                self.base.read(part, b[place])
                continue
            new, base = memory.get("new part", dtype, part.count), memory.get("base part", dtype, part.count)
            read_part(self.new, part, new)
            self.base.read(part, base)
            with np.errstate(over="ignore", invalid="ignore"):
                x[place], b[place] = (new - base, 0) if dtype == np.float64 else (new, base)
        return x, b

    def refuse(self, first: int, count: int) -> InputError:
        """What to raise when the difference of this range cannot be coded; raises it itself if a model is to blame."""
        for file in (self.new, self.base.file):
            refuse_nonfinite_range(file, self.base.layout, first, count)
        memory = Memory()
        worst, largest = first, np.float32(-1)
        for part in self.base.layout.parts(first, count):
            new, base = (memory.get(what, part.tensor.numpy, part.count) for what in ("new", "base"))
            read_part(self.new, part, new)
            read_part(self.base.file, part, base)
            with np.errstate(over="ignore"):
                gaps = np.abs(new.astype(np.float64) - base.astype(np.float64)).astype(np.float32)
            if gaps.max() > largest:
                worst, largest = first + part.at + int(np.argmax(gaps)), gaps.max()
        tensor, element = self.base.layout.locate(worst)
        return InputError(
            "diff.overflow",
            f"{shown(self.new.path)}: tensor {shown(tensor.key)} differs from {shown(self.base.file.path)} by "
            f"{largest} at element {element}; expected differences whose sums fit into float32",
        )

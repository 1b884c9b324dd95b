"""How near an update comes to the difference that it was made of."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from shoal.diff.apply import require_layout, wrong_base
from shoal.diff.difference import Difference
from shoal.diff.update_file import UpdateFile
from shoal.diff.work import Memory, in_order
from shoal.kernels import dispatch
from shoal.model.file import ModelFile

PathLike = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class Fit:
    """Update against difference, over all numbers.

    norm   of the difference new - base
    error  norm of update - difference
    """

    norm: float
    error: float

    @property
    def nmse(self) -> float | None:
        """Squared error over squared norm; None where there is no difference to compare with."""
        return (self.error / self.norm) ** 2 if self.norm else None


def measure(
    update: UpdateFile,
    base: PathLike,
    new: PathLike,
    threads: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Fit:
    """Decode an update and compare it with new - base; sums in float64, in a fixed order.

    progress  called with (bytes read, bytes to read)
    raises    InputError  as `make_update` and `apply_updates`; the base must be the update's own
    """
    local = frozenset(key.decode("utf-8", "surrogateescape") for key in update.header.local)
    with ModelFile.open(base) as old_file, ModelFile.open(new) as new_file:
        difference = Difference(old_file, new_file, lambda key: key not in local)
        require_layout(difference.base, update)

        def work(number: int, memory: Memory) -> tuple[float, float]:
            first, count = update.chunks.elements(number)
            x, b = difference.read(first, count, memory)
            if not (np.isfinite(x).all() and np.isfinite(b).all()):
                raise difference.refuse(first, count)
            decoded = memory.get("decoded", np.float32, count)
            update.read(number, decoded)
            wanted = x.astype(np.float64) - b
            error = decoded - wanted
            return float(np.dot(wanted, wanted)), float(np.dot(error, error))

        norm = wrong = 0.0
        done, total = 0, difference.base.nbytes
        for number, (square, miss) in enumerate(
            in_order(update.chunks.count, work, threads or dispatch.thread_count())
        ):
            norm, wrong = norm + square, wrong + miss
            done += update.chunks.elements(number)[1]
            if progress is not None:
                progress(total * done // difference.base.layout.elements, total)
        if difference.base.digest() != update.header.base:
            raise wrong_base(update, base, difference.base.digest())
    return Fit(math.sqrt(norm), math.sqrt(wrong))

"""The merge itself: tensors of N sources through a rule into a sink, tile by tile."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from shoal.errors import InputError, shown
from shoal.kernels import dispatch
from shoal.kernels.cuda_staged import staged
from shoal.limits import DIGEST_CHUNK_BYTES
from shoal.merge.fixed import rewritten, settle_fixed
from shoal.merge.moments import Moments
from shoal.merge.options import Plan
from shoal.merge.running import Running
from shoal.merge.runs import SweepRun, TileRun
from shoal.merge.source import Item, Sink, Source, Stretch, Tensor
from shoal.merge.sweep import Sweep
from shoal.merge.tile import Array, Combine, Kernels, Tile
from shoal.merge.tiles import Buffers, cut, items
from shoal.model.file import read_rows

#: elements of a tile of arrays in memory, where numpy and not a kernel does the work.
NUMPY_TILE = 2**18


@dataclass(slots=True)
class Outcome:
    """What a merge did.

    merged, passed, local   tensors that were merged; that are never merged and went through; that were not selected
    parameters              numbers that were merged
    bytes_read, bytes_written    of tensors
    passes                  readings of the data
    notes                   what the rule chose
    """

    merged: int = 0
    passed: int = 0
    local: int = 0
    parameters: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    passes: int = 0
    notes: dict[str, Any] = field(default_factory=dict)


class Engine:
    """One merge.

    plan     checked options
    sources  one for each model, all with the same tensors
    base     the base model, or None
    scales   keys of quantisation scales: floating numbers that must be equal in all models
    running  keys of running statistics; None: found by their names
    only     keys of the tensors to look at; None: all
    """

    def __init__(
        self,
        plan: Plan,
        sources: Sequence[Source],
        base: Source | None = None,
        scales: frozenset[str] = frozenset(),
        running: Running | None = None,
        only: frozenset[str] | None = None,
    ) -> None:
        self.plan = plan
        self.first = sources[0]
        self.active = [sources[i] for i in plan.places]
        self.base = base if plan.rule.needs_base or plan.outer else None
        self.sink: Sink
        self.moments: Moments | None = None
        self.outcome = Outcome()
        self.in_memory = self.first.in_memory
        self.threads = plan.options.threads or dispatch.thread_count()
        self.kernels: Kernels = dispatch if plan.options.device == "cpu" else staged()
        self._lock = threading.Lock()
        self.running = Running.among(self.first.tensors) if running is None else running
        self.floats: list[Tensor] = []  # by key: the order of sums must not depend on the order in a file
        self.fixed: list[Tensor] = []
        self.local: list[Tensor] = []
        for key in sorted(self.first.tensors if only is None else only):
            tensor = self.first.tensors[key]
            if not plan.options.selects(key):
                self.local.append(tensor)
            elif tensor.kind == "float" and key not in scales:
                self.floats.append(tensor)
            else:
                self.fixed.append(tensor)
        rule = plan.rule
        copies = len(self.active) * rule.passes + (0 if self.base is None else 1)
        self.bytes_total = sum(t.nbytes for t in self.floats) * copies

    def rewritten(self) -> set[str]:
        """Keys of the tensors whose value may differ from the first model's."""
        counts = self.active[0] is self.first
        fixed = (t.key for t in self.fixed if rewritten(t, self.plan.options.integers, counts))
        return {*(t.key for t in self.floats), *fixed}

    def run(self, sink: Sink, moments: Moments | None = None) -> Outcome:
        """Merge; the sink has everything when this returns.

        sink     where the result goes
        moments  the outer optimiser's memory; needed if there is an optimiser
        raises  InputError, ArgumentError  naming model and tensor, if the models cannot be merged; the sink is then
                                           half filled and must be thrown away
        """
        self.sink, self.moments = sink, moments
        integers, refuse_nonfinite = self.plan.options.integers, self.plan.refuse_nonfinite
        settle_fixed(self.fixed, self.active, self.first, self.sink, integers, refuse_nonfinite)
        for tensor in self.local:
            self.sink.keep(tensor)
        self.outcome.local, self.outcome.passed = len(self.local), len(self.fixed)
        self.outcome.merged = len(self.floats)
        self.outcome.parameters = sum(t.elements for t in self.floats)
        self._merge()
        self.count_read(None)
        return self.outcome

    # --- measuring and combining -------------------------------------------------------------------------------------

    def _merge(self) -> None:
        per_tensor = self.plan.rule.scope == "tensor"
        combines: dict[str, Combine] = {}
        whole: Combine | None = None
        if per_tensor:
            large = cut(len(self.active) + 1, self.threads).tile_bytes
            most = 0
            for tensor in self.floats:
                if tensor.nbytes > large:
                    combines[tensor.key] = self.plan.rule.build(SweepRun(self, [tensor]))
                most, self.outcome.passes = max(most, self.outcome.passes), 0
            self.outcome.passes = most
        else:
            whole = self.plan.rule.build(SweepRun(self, self.floats))
        self.combine(whole, combines)

    def combine(self, whole: Combine | None, combines: Mapping[str, Combine]) -> None:
        """The last sweep: read, combine, step of the outer optimiser, hand over."""
        native = self.in_memory and self.plan.rule.native and self.plan.outer is None
        count = len(self.active) + (self.base is not None) + 2 * (self.moments is not None)
        size = cut(count, self.threads)
        tile_bytes = NUMPY_TILE * 8 if self.in_memory else size.tile_bytes

        def work(item: Item, buffers: Buffers) -> None:
            if whole is not None and not self.in_memory and len(item) > 1:
                self._combine(whole, item, buffers, 1)
                return
            for stretch in item:
                chosen = (
                    whole or combines.get(stretch.tensor.key) or self.plan.rule.build(TileRun(self, stretch, buffers))
                )
                if native:
                    self._combine(chosen, (stretch,), buffers, self.plan.options.threads)
                else:
                    self._chunk(chosen, stretch, tile_bytes, buffers)

        if native:
            todo: list[Item] = [(Stretch(t, 0, t.elements),) for t in self.floats if t.elements]
            Sweep(todo, Buffers, work).run(1)
        else:
            chosen = {tensor.key for tensor in self.floats}
            as_stored = [tensor for key, tensor in self.first.tensors.items() if key in chosen]
            Sweep(items(as_stored, tile_bytes if self.in_memory else DIGEST_CHUNK_BYTES), Buffers, work).run(
                size.threads
            )
        for tensor in self.floats:
            if not tensor.elements:
                self.sink.put(tensor, 0, np.empty(0, tensor.dtype))
        self.outcome.passes += 1

    def _chunk(self, combine: Combine, stretch: Stretch, tile_bytes: int, buffers: Buffers) -> None:
        """One stretch that may be larger than a tile: combine its tiles, then hand it over as one."""
        tensor, step = stretch.tensor, max(tile_bytes // stretch.tensor.dtype.itemsize // 8, 1) * 8
        out = self._out(stretch, buffers)
        for offset in range(0, stretch.count, step):
            part = Stretch(tensor, stretch.first + offset, min(step, stretch.count - offset))
            self._tile(combine, (part,), out[offset : offset + part.count], buffers, 1)
        self.sink.put(tensor, stretch.first, out)
        with self._lock:
            self.outcome.bytes_written += out.nbytes

    def _combine(self, combine: Combine, item: Item, buffers: Buffers, threads: int) -> None:
        """One or several whole stretches as one tile."""
        total = sum(stretch.count for stretch in item)
        out = self._out(item[0], buffers) if len(item) == 1 else buffers.get("out", item[0].tensor.dtype, total)
        self._tile(combine, item, out, buffers, threads)
        offset = 0
        for stretch in item:
            self.sink.put(stretch.tensor, stretch.first, out[offset : offset + stretch.count])
            offset += stretch.count
        with self._lock:
            self.outcome.bytes_written += out.nbytes

    def _out(self, stretch: Stretch, buffers: Buffers) -> Array:
        place = self.sink.place(stretch.tensor, stretch.first, stretch.count)
        return buffers.get("out", stretch.tensor.dtype, stretch.count) if place is None else place

    def _tile(self, combine: Combine, item: Item, out: Array, buffers: Buffers, threads: int) -> None:
        """Read one tile of every model that is wanted, combine, take the outer step, check what comes out."""
        wanted = range(len(self.active)) if combine.models is None else combine.models
        inputs = self.read_models(wanted, item, buffers)
        base = None if self.base is None else self.read(self.base, item, buffers, "base")
        self.count_read(out.nbytes * (len(inputs) + (base is not None)))
        key, first = (item[0].tensor.key, item[0].first) if len(item) == 1 else ("", 0)
        finite = combine.apply(Tile(key, first, inputs, base, out, threads, self.kernels))
        if self.plan.refuse_nonfinite and not finite:
            self.refuse_nonfinite(item, inputs, [self.active[i] for i in wanted], base)
        outer = self.plan.outer
        if outer is not None and self.moments is not None:
            assert base is not None
            if self.plan.refuse_nonfinite and dispatch.stats(base, threads=1)[2]:
                self.refuse_nonfinite(item, [], [], base)
            held = self.running.held(item, out)
            self.moments.step(outer, item, base, out, buffers)
            for part, values in held:
                out[part] = values
        self.running.refuse_negative(item, out)
        if self.plan.refuse_nonfinite and (outer is not None or not self.plan.rule.convex):
            self._refuse_overflow(item, out)

    # --- reading -----------------------------------------------------------------------------------------------------

    def read(self, source: Source, item: Item, buffers: Buffers, who: object) -> Array:
        """The item's elements in one array: a view of the caller's, or the thread's buffer for ``who``."""
        if source.in_memory:
            return source.read(item, None)
        total = item[0].count if len(item) == 1 else sum(stretch.count for stretch in item)
        return source.read(item, buffers.get(who, item[0].tensor.dtype, total))

    def read_models(self, wanted: Sequence[int], item: Item, buffers: Buffers) -> list[Array]:
        """`read` of several models; stretches that lie in files as they are wanted come by one call for all."""
        places = [self.active[i].place(item[0]) for i in wanted] if len(item) == 1 and not self.in_memory else []
        ready = [place for place in places if place is not None]
        if len(ready) < 2 or len(ready) < len(wanted):
            return [self.read(self.active[i], item, buffers, i) for i in wanted]
        (stretch,) = item
        found = [buffers.get(i, stretch.tensor.dtype, stretch.count) for i in wanted]
        failed = read_rows(ready, [x.view(np.uint8) for x in found])
        if failed >= 0:
            # Once more the slow way: it says what is wrong, or it was a passing fault.
            for k in range(failed, len(found)):
                self.read(self.active[wanted[k]], item, buffers, wanted[k])
        return found

    def count_read(self, nbytes: int | None) -> None:
        """Count bytes that were read; None: done."""
        with self._lock:
            self.outcome.bytes_read += nbytes or 0
            if self.plan.options.progress is not None:
                read = self.outcome.bytes_read
                total = read if nbytes is None else max(self.bytes_total, read)
                self.plan.options.progress(read, total)

    # --- refusing ----------------------------------------------------------------------------------------------------

    def refuse_nonfinite(
        self, item: Item, inputs: Sequence[Array], sources: Sequence[Source], base: Array | None
    ) -> None:
        """Raise the error that names the first NaN or Inf of these arrays; return if there is none."""
        found = list(zip(sources, inputs, strict=True))
        if base is not None and self.base is not None:
            found.append((self.base, base))
        for source, array in found:
            place = dispatch.stats(array, threads=1)[3]
            if place >= 0:
                stretch, element = locate(item, place)
                raise source.fault(
                    "tensor.nonfinite",
                    f"{source.label}: tensor {shown(stretch.tensor.key)} has {spelled(array[place])} at element "
                    f"{element} of {stretch.tensor.elements}; expected finite numbers",
                )

    def _refuse_overflow(self, item: Item, out: Array) -> None:
        place = dispatch.stats(out, threads=1)[3]
        if place >= 0:
            stretch, element = locate(item, place)
            raise InputError(
                "merge.overflow",
                f"tensor {shown(stretch.tensor.key)}: the result at element {element} is {spelled(out[place])}, which "
                f"{out.dtype} cannot hold; expected a finite number",
            )


def spelled(number: Any) -> str:
    """NaN, Inf or -Inf, as people write them."""
    value = float(number)
    return "NaN" if math.isnan(value) else ("Inf" if value > 0 else "-Inf")


def locate(item: Item, place: int) -> tuple[Stretch, int]:
    """The stretch that holds element ``place`` of an item, and the element's place in its tensor."""
    for stretch in item:
        if place < stretch.count:
            return stretch, stretch.first + place
        place -= stretch.count
    raise AssertionError("place outside of the item")

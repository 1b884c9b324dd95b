"""What a rule sees of a merge (`tile.Run`): measuring all tensors is a sweep; measuring a small one is a look at it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from shoal.kernels import dispatch
from shoal.limits import DIGEST_CHUNK_BYTES, GRAM_BLOCK, STREAM_BYTES_MAX
from shoal.merge.exact import ExactSum
from shoal.merge.source import Item, Source, Stretch, Tensor
from shoal.merge.sweep import OrderedSum, Sweep, Total
from shoal.merge.tile import Array, Float64s, Measure, Tile
from shoal.merge.tiles import Buffers, cut, items

if TYPE_CHECKING:
    from shoal.merge.engine import Engine


class _Run:
    """What `SweepRun` and `TileRun` share: the plan, as a rule sees it."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.count = len(engine.active)
        self.places = engine.plan.places
        self.weights = engine.plan.weights
        self.parameters = engine.plan.settings
        self.notes = engine.outcome.notes

    @property
    def models_at_once(self) -> int:
        """Models whose GRAM_BLOCK fits in memory at once."""
        return self.count if self.engine.in_memory else (STREAM_BYTES_MAX - DIGEST_CHUNK_BYTES) // (GRAM_BLOCK * 8) - 1


class SweepRun(_Run):
    """A rule's view of all tensors, or of one large one: measuring is a sweep."""

    def __init__(self, engine: Engine, tensors: Sequence[Tensor]) -> None:
        super().__init__(engine)
        self._tensors = tensors

    def total(self, measure: Measure, models: Sequence[int] | None = None, *, blocks: bool = False) -> Array:
        return self._total(measure, models, blocks, None)

    def _total(self, measure: Measure, models: Sequence[int] | None, blocks: bool, adder: Total | None) -> Array:
        engine = self.engine
        wanted = range(self.count) if models is None else models
        base = engine.base if engine.plan.rule.needs_base else None
        native = engine.in_memory and engine.plan.rule.native
        block = GRAM_BLOCK * max((t.dtype.itemsize for t in self._tensors), default=8)
        size = cut(len(wanted) + (base is not None), 1 if native else engine.threads, block if blocks else 1)

        def work(item: Item, buffers: Buffers) -> list[Array]:
            return [measure(self.tile(stretch, wanted, base, buffers)) for stretch in item]

        todo: list[Item] = [(Stretch(t, 0, t.elements),) for t in self._tensors if t.elements]
        if not native:
            todo = items(self._tensors, size.tile_bytes)
        sweep = Sweep(todo, Buffers, work, adder)
        sweep.run(size.threads)
        engine.outcome.passes += 1
        found = sweep.total.value
        if found is None:  # no element at all: measure nothing of the right shape
            empty = np.empty(0, np.float32)
            return np.asarray(measure(Tile("", 0, [empty] * len(wanted), empty, empty, 1)).sum(axis=0))
        return found

    def gram(self, centre: int) -> Float64s:
        """In one pass over the data; in more where a block of all models is too large."""
        if self.count <= self.models_at_once:
            return self._total(_gram_around(centre), None, True, ExactSum())
        half = (self.models_at_once - 1) // 2
        groups = [range(first, min(first + half, self.count)) for first in range(0, self.count, half)]
        gram = np.zeros((self.count, self.count))
        for i, one in enumerate(groups):
            for two in groups[i + 1 :]:
                models = [centre, *one, *two]
                found = self._total(_gram_around(0), models, True, ExactSum())
                gram[np.ix_(models[1:], models[1:])] = found[1:, 1:]
        return gram

    def tile(self, stretch: Stretch, wanted: Sequence[int], base: Source | None, buffers: Buffers) -> Tile:
        engine = self.engine
        native = engine.in_memory and engine.plan.rule.native
        inputs = engine.read_models(wanted, (stretch,), buffers)
        ground = None if base is None else engine.read(base, (stretch,), buffers, "base")
        engine.count_read(sum(x.nbytes for x in inputs) + (0 if ground is None else ground.nbytes))
        none = np.empty(0, stretch.tensor.dtype)
        threads = engine.plan.options.threads if native else 1
        return Tile(stretch.tensor.key, stretch.first, inputs, ground, none, threads)

    def small(self) -> Tile | None:
        return None

    def nonfinite(self) -> frozenset[int]:
        """Read the data once; the models that have a NaN or Inf.  Raises the error that names it if that is refused."""
        found = self.total(self._count_nonfinite)
        return frozenset(int(i) for i in np.flatnonzero(found))

    def _count_nonfinite(self, tile: Tile) -> Array:
        counts = np.array([[dispatch.stats(x, threads=tile.threads)[2] for x in tile.inputs]], np.int64)
        if counts.any() and self.engine.plan.refuse_nonfinite:
            tensor = self.engine.first.tensors[tile.key]
            item = (Stretch(tensor, tile.first, len(tile.inputs[0])),)
            self.engine.refuse_nonfinite(item, tile.inputs, self.engine.active, None)
        return counts


class TileRun(_Run):
    """A rule's view of one small tensor: measuring looks at it once more, in the thread's own buffers."""

    def __init__(self, engine: Engine, stretch: Stretch, buffers: Buffers) -> None:
        super().__init__(engine)
        self._stretch = stretch
        self._buffers = buffers

    def total(self, measure: Measure, models: Sequence[int] | None = None, *, blocks: bool = False) -> Array:
        assert self._stretch.first == 0 or not blocks
        sums = OrderedSum()
        sums.put(0, [measure(self._tile(models))])
        found = sums.value
        assert found is not None
        return found

    def gram(self, centre: int) -> Float64s:  # noqa: ARG002
        raise AssertionError("no rule that looks at one tensor asks for this")

    def _tile(self, models: Sequence[int] | None) -> Tile:
        wanted = range(self.count) if models is None else models
        run = SweepRun(self.engine, [self._stretch.tensor])
        return run.tile(self._stretch, wanted, self.engine.base, self._buffers)

    def small(self) -> Tile | None:
        return self._tile(None)

    def nonfinite(self) -> frozenset[int]:
        raise AssertionError("no rule that looks at one tensor asks for this")


def _gram_around(centre: int) -> Measure:
    return lambda tile: dispatch.gram(tile.inputs, tile.inputs[centre], threads=tile.threads)

"""Rules for models that were fine-tuned from one base: slerp, task arithmetic, TIES, DARE.

Each tensor is treated by itself.  A *task vector* is model - base.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Callable, Iterator

import numpy as np

from shoal.kernels import dispatch
from shoal.merge.tile import TILE_ALIGNMENT, Array, Combine, Float64s, Run, Tile

#: elements that are worked on at a time, so that float64 temporaries stay in the cache.
PIECE = 32_768
#: above this cosine two tensors count as parallel and slerp becomes linear (as in mergekit).
PARALLEL = 0.9995
#: bits of a task vector's magnitude (float32 without its sign: 31) that one pass over the data settles.
LEVEL_BITS = (11, 10, 10)


def slerp(run: Run) -> Combine:
    """Spherical linear interpolation from the first model (t = 0) to the second (t = 1), tensor by tensor.

    Nearly parallel or zero tensors are interpolated linearly.

    source  Shoemake, SIGGRAPH 1985; as in mergekit: angles between the tensors, their lengths are not normalised
    """
    t = run.parameters["t"]
    if t in (0.0, 1.0):
        return Combine(_mean([1.0]), (int(t),))
    gram = run.total(lambda tile: dispatch.gram(tile.inputs, threads=tile.threads), blocks=True)
    with np.errstate(all="ignore"):
        cosine = float(gram[0, 1] / (np.sqrt(gram[0, 0]) * np.sqrt(gram[1, 1])))
    if not abs(cosine) <= PARALLEL:
        return Combine(_mean([1.0 - t, t]))
    angle = math.acos(cosine)
    # Libraries of mathematics differ in the last bits of sin and acos; 40 bits are the same everywhere.
    coefficients = [_rounded(math.sin(part * angle) / math.sin(angle)) for part in (1.0 - t, t)]
    return Combine(lambda tile: dispatch.combine(None, tile.inputs, coefficients, tile.out, threads=tile.threads))


def _mean(weights: list[float]) -> Callable[[Tile], bool]:
    return lambda tile: dispatch.weighted_mean(tile.inputs, weights, tile.out, threads=tile.threads)


def _rounded(x: float) -> float:
    mantissa, exponent = math.frexp(x)
    return math.ldexp(round(mantissa * 2**40), exponent - 40)


def task_arithmetic(run: Run) -> Combine:
    """base + scaling * sum_i w_i (model_i - base); weights as given (not normalised), 1 each if none are given.

    source  Ilharco et al., ICLR 2023, section 2
    """
    scaling = run.parameters["scaling"]
    coefficients = [scaling * w for w in run.weights or (1.0,) * run.count]
    run.notes["coefficients"] = dict(zip(run.places, coefficients, strict=True))

    def apply(tile: Tile) -> bool:
        return dispatch.combine(tile.base, tile.inputs, coefficients, tile.out, threads=tile.threads)

    return Combine(apply)


def ties(run: Run) -> Combine:
    """Trim, elect sign, and merge.

    Of each task vector the `density` share of largest magnitude is kept (magnitudes compared as float32; all that equal
    the last one kept stay, too).  The sign of a coordinate is that of the weighted sum (+ if it is 0); the weighted
    mean of the task vectors of that sign, times scaling, is added to the base.

    source  Yadav et al., NeurIPS 2023, section 3.2; per tensor and with weights as in mergekit
    """
    limits = _thresholds(run, _densities(run))

    def trim(i: int, _tile: Tile, _piece: slice, delta: Float64s) -> Float64s:
        return np.where(np.abs(delta.astype(np.float32)) >= limits[i], delta, 0.0)

    return Combine(_elected(run, trim))


def dare(run: Run) -> Combine:
    """Drop each coordinate of a task vector with probability 1 - density, divide the rest by density; then as
    task-arithmetic.

    What is dropped follows from (seed, the model's place, the tensor's key, the coordinate) alone.

    source  Yu et al., ICML 2024, section 3.2
    """
    weights, scaling = run.weights or (1.0,) * run.count, run.parameters["scaling"]
    drop = _dropper(run)

    def total(deltas: Iterator[Float64s]) -> Float64s:
        found: Float64s | float = 0.0
        for weight, delta in zip(weights, deltas, strict=True):
            found = found + (weight * scaling) * delta
        return np.asarray(found)

    return Combine(lambda tile: _over_pieces(tile, drop, total))


def dare_ties(run: Run) -> Combine:
    """Drop and rescale as dare does, then elect signs and merge as ties does.

    source  Yu et al., ICML 2024, section 4.3 (DARE with TIES)
    """
    return Combine(_elected(run, _dropper(run)))


#: (model, tile, piece of the tile, its task vector) -> the same, with some coordinates set to zero
Sparsify = Callable[[int, Tile, slice, Float64s], Float64s]


def _over_pieces(tile: Tile, sparsify: Sparsify, total: Callable[[Iterator[Float64s]], Float64s]) -> bool:
    """tile.out = base + total(sparse task vectors), piece by piece, in float64 and rounded once."""
    assert tile.base is not None
    finite = True
    with np.errstate(all="ignore"):
        for start in range(0, len(tile.out), PIECE):
            piece = slice(start, min(start + PIECE, len(tile.out)))
            base = tile.base[piece].astype(np.float64)
            finite = finite and bool(np.isfinite(base).all())

            def deltas(piece: slice = piece, base: Float64s = base) -> Iterator[Float64s]:
                nonlocal finite
                for i, x in enumerate(tile.inputs):
                    delta = x[piece].astype(np.float64) - base
                    finite = finite and bool(np.isfinite(x[piece]).all())
                    yield sparsify(i, tile, piece, delta)

            moved = total(deltas())
            # Not base + 0: that would turn -0 into +0, and a model equal to the base must come back bit for bit.
            dispatch.convert(np.where(moved == 0.0, base, base + moved), tile.out[piece], threads=1)
    return finite


def _elected(run: Run, sparsify: Sparsify) -> Callable[[Tile], bool]:
    """The second and third step of TIES: elect signs, mean of those that agree."""
    weights, scaling = run.weights or (1.0,) * run.count, run.parameters["scaling"]

    def total(deltas: Iterator[Float64s]) -> Float64s:
        # Sums of the positive and of the negative parts, and of their weights: no need to keep all task vectors.
        above: Array = np.zeros(2)
        below: Array = np.zeros(2)
        for weight, delta in zip(weights, deltas, strict=True):
            if above.ndim == 1:
                above, below = np.zeros((2, len(delta))), np.zeros((2, len(delta)))
            above += weight * np.stack([np.maximum(delta, 0.0), delta > 0])
            below += weight * np.stack([np.minimum(delta, 0.0), delta < 0])
        up = above[0] + below[0] >= 0
        part, share = np.where(up, above, below)
        mean: Float64s = np.divide(part, share, out=np.zeros(part.shape), where=share > 0)
        return np.asarray(scaling * mean)

    return lambda tile: _over_pieces(tile, sparsify, total)


def _densities(run: Run) -> Float64s:
    """float64[N]: the share that each model keeps."""
    return np.broadcast_to(np.asarray(run.parameters["density"], np.float64), (run.count,))


def _thresholds(run: Run, density: Float64s) -> Array:
    """float32[N]: the magnitude of the last coordinate that each task vector keeps in this tensor.

    Found exactly and in bounded memory: histograms of the leading bits of the magnitudes, then of the next bits of
    those that share the leading ones.  (Non-negative floats sort as their bits do.)
    """
    if bool((density >= 1.0).all()):
        return np.zeros(run.count, np.float32)
    small = run.small()
    if small is not None:
        return _exact_thresholds(small, density)
    prefix = np.zeros(run.count, np.int64)
    wanted = np.zeros(run.count, np.int64)
    settled = 0
    for bits in LEVEL_BITS:
        counts = run.total(_histogram(prefix, settled, bits))
        if settled == 0:
            wanted = np.maximum((counts.sum(axis=1) * density).astype(np.int64), 1)
        from_top = np.cumsum(counts[:, ::-1], axis=1)
        place = np.argmax(from_top >= wanted[:, None], axis=1)
        above = np.where(place > 0, np.take_along_axis(from_top, np.maximum(place - 1, 0)[:, None], axis=1)[:, 0], 0)
        wanted = wanted - above
        prefix = (prefix << bits) | (2**bits - 1 - place)
        settled += bits
    return prefix.astype(np.uint32).view(np.float32)


def _exact_thresholds(tile: Tile, density: Float64s) -> Array:
    """The same for a tensor that is in memory, by selection."""
    assert tile.base is not None
    base, count = tile.base.astype(np.float64), len(tile.base)
    wanted = np.maximum((count * density).astype(np.int64), 1)
    with np.errstate(all="ignore"):
        sizes = [np.abs((x.astype(np.float64) - base).astype(np.float32)) for x in tile.inputs]
    # As bits, not as numbers: NaN must have its place, too.
    found = [
        np.partition(size.view(np.uint32), count - keep)[count - keep]
        for size, keep in zip(sizes, wanted.tolist(), strict=True)
    ]
    return np.array(found, np.uint32).view(np.float32)


def _histogram(prefix: Array, settled: int, bits: int) -> Callable[[Tile], Array]:
    """Counts of the next `bits` bits of those magnitudes whose first `settled` (of 31) bits are `prefix`."""
    prefix, rest = prefix.copy(), 31 - settled - bits

    def measure(tile: Tile) -> Array:
        assert tile.base is not None
        counts = np.zeros((1, len(tile.inputs), 2**bits), np.int64)
        for start in range(0, len(tile.base), PIECE):
            piece = slice(start, start + PIECE)
            base = tile.base[piece].astype(np.float64)
            for i, x in enumerate(tile.inputs):
                with np.errstate(all="ignore"):
                    size = np.abs((x[piece].astype(np.float64) - base).astype(np.float32)).view(np.uint32)
                if settled:
                    size = size[(size >> (31 - settled)) == prefix[i]]
                counts[0, i] += np.bincount((size >> rest) & (2**bits - 1), minlength=2**bits)
        return counts

    return measure


def _dropper(run: Run) -> Sparsify:
    """Drop by Philox4x64-10 (Salmon et al., SC 2011): a count gives 8 words of 32 bits; element e takes word e % 8 of
    count e // 8 + 1 (docs/FORMAT.md, "DARE's random numbers")."""
    densities, seed, places = _densities(run).tolist(), run.parameters["seed"], run.places

    def drop(i: int, tile: Tile, piece: slice, delta: Float64s) -> Float64s:
        density = densities[i]
        if density >= 1.0:
            return delta
        below = min(int(density * 2**32), 2**32 - 1)
        name = tile.key.encode("utf-8", "surrogatepass")
        key = hashlib.sha256(b"shoal dare 1\n" + struct.pack("<QQ", seed, places[i]) + name).digest()
        first = tile.first + piece.start
        random = np.random.Philox(key=np.frombuffer(key[:16], "<u8"), counter=first // TILE_ALIGNMENT)
        words = random.random_raw(-(-len(delta) // 2)).astype("<u8", copy=False).view("<u4")[: len(delta)]
        return np.where(words < below, delta / density, 0.0)

    return drop

"""What coding costs in accuracy and in bytes, measured: for the pictures of `plots.py`.

NMSE = |merged - mean|^2 / mean of the participants' |x|^2.  Updates are drawn with fixed seeds: *independent* ones, or
*aligned*, the same for all.  lognormal: exp of a normal number; student-t: 3 degrees of freedom.  The scales of the
summable codings are those that a swarm would use: from one slot of statistics, with the room for growth.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from random import Random

import numpy as np
import numpy.typing as npt

from shoal.diff.codec import CODECS, Tile
from shoal.diff.grid import Grid
from shoal.diff.scales import Scales
from shoal.diff.weights import Weighting
from shoal.kernels.coding import Blocks
from shoal.limits import UPDATE_CHUNK_ELEMENTS
from shoal.swarm.slot import EVERYTHING, GATHER, UPLOAD
from shoal.swarm.slot_coding import SlotCoding, Terms, scales_after
from shoal.swarm.slots import Settings, Slots

Float32s = npt.NDArray[np.float32]
Draw = Callable[[np.random.Generator, int], npt.NDArray[np.float64]]

SOURCES: dict[str, Draw] = {
    "normal": lambda rng, d: rng.standard_normal(d),
    "lognormal": lambda rng, d: rng.lognormal(size=d),
    "student-t": lambda rng, d: rng.standard_t(3, d),
}
PLAIN = tuple(name for name in CODECS if name != "float32")


def updates(source: str, elements: int, participants: int, *, aligned: bool) -> list[Float32s]:
    """float32[elements] of each participant."""
    rng = np.random.default_rng(sum(map(ord, source)) + elements)
    count = 1 if aligned else participants
    drawn = [SOURCES[source](rng, elements).astype(np.float32) for _ in range(count)]
    return drawn * participants if aligned else drawn


def nmse(merged: Float32s, diffs: list[Float32s]) -> float:
    mean = np.zeros(len(merged))
    for x in diffs:
        mean += x
    mean /= len(diffs)
    power = sum(float(np.sum(x.astype(np.float64) ** 2)) for x in diffs) / len(diffs)
    return float(np.sum((merged - mean) ** 2)) / power


def secure_nmse(diffs: list[Float32s], bits: int, scale: float = 1.0, *, alone: bool = False) -> float:
    """Of the mean of all, coded in a ring; ``scale``: all clips are wrong by this factor.  Masks cancel: left out.

    alone  of one update instead, in a round planned for all
    """
    grid, n = Grid.of(len(diffs[0])), len(diffs)
    rid = hashlib.sha256(f"{bits} {n}".encode()).digest()
    seed = hashlib.sha256(b"plan").digest()
    terms, without = (Terms.of(n, b, Weighting.UNIFORM, seed) for b in (bits, None))
    table = Scales(grid, 1.0, np.zeros(grid.blocks, np.float32))
    for _ in range(2):
        found = _merged(SlotCoding(without, rid, table, range(n), n), diffs).statistics
        table = scales_after(table, found, terms)
    table = Scales(grid, table.factor, table.clips * np.float32(scale))
    survivors = diffs[:1] if alone else diffs
    merged = _merged(SlotCoding(terms, rid, table, range(n), n), survivors).diff
    assert merged is not None
    return nmse(merged, survivors)


def _merged(coding: SlotCoding, diffs: list[Float32s]):  # type: ignore[no-untyped-def]
    uploads = [coding.encode(p, x).data for p, x in enumerate(diffs)]
    sums = [
        coding.reduce(shard, {p: data[span] for p, data in enumerate(uploads)}, None)
        for shard, span in enumerate(coding.spans)
    ]
    return coding.decode(sums, range(len(diffs)))


def plain_nmse(diffs: list[Float32s], name: str) -> tuple[float, float, float]:
    """(bits of one element, NMSE of one participant's update, NMSE of the mean): a codec of update files."""
    codec, size = CODECS[name], 0
    decoded = [np.empty_like(x) for x in diffs]
    for who, x in enumerate(diffs):
        size = 0
        for at in range(0, len(x), UPDATE_CHUNK_ELEMENTS):
            part = x[at : at + UPDATE_CHUNK_ELEMENTS]
            key = hashlib.sha256(f"{who} {at}".encode()).digest()
            tile = Tile(len(part), _blocks(len(part)), key)
            raw = np.empty(codec.size(tile), np.uint8)
            codec.encode(part, None, tile, raw)
            codec.decode(raw, tile, decoded[who][at : at + len(part)])
            size += raw.size
    mean = np.mean(np.stack(decoded), axis=0, dtype=np.float64).astype(np.float32)
    return 8 * size / len(diffs[0]), nmse(decoded[0], diffs[:1]), nmse(mean, diffs)


def _blocks(count: int) -> Blocks:
    return Grid.of(count).within(0, count)


def wire_bytes(participants: int, elements: int, bits: int | None = None) -> dict[str, float]:
    """Bytes that one participant sends in a secure slot, in the mean, for each element of the model; counted.

    both legs  masked words and sums;  all  shares, opened seeds, statistics and statements too
    """
    settings = Settings(bits=bits, weighting=Weighting.UNIFORM, feedback=False)
    slots = Slots(participants, elements, settings, Random(participants).randbytes)
    grid = slots.grid
    slots.scales = Scales(grid, 4.0, np.full(grid.blocks, 4.0, np.float32))
    x = np.random.default_rng(participants).standard_normal(elements).astype(np.float32)
    outcome = slots.merge([x] * participants)
    words = sum(part.size for part in outcome.sums[:-1]) * 8 / elements
    legs = sum(c[UPLOAD] + c[GATHER] for c in outcome.sent)
    everything = sum(c[leg] for c in outcome.sent for leg in EVERYTHING)
    return {
        "bits": round(words),
        "both legs": legs / participants / elements,
        "all": everything / participants / elements,
    }

"""Property: any bytes give the numbers of an update or one documented error, in bounded memory.

The mutator changes small updates of every codec; half of the time it repairs the layout's digest and all checksums, so
that what lies behind them is reached.  Options: campaign.py.
"""

from __future__ import annotations

import contextlib
import random
import struct
import sys
import tempfile
from functools import cache
from pathlib import Path

import msgspec
import zstandard
from campaign import run

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "diff"))

from pairs import read_all, save_pair, small, trained
from test_update_file import MAGIC, built

from shoal.diff.codec import CODECS
from shoal.diff.make import DiffOptions, make_update
from shoal.errors import InputError, ShoalError
from shoal.model.dtype import DTYPES
from shoal.model.layout import Layout, Placed

FOLDER = Path(tempfile.mkdtemp(prefix="shoal-fuzz-"))


@cache
def seeds() -> list[bytes]:
    base = small()
    pair = save_pair(FOLDER, base, trained(base))
    found = []
    for codec in CODECS:
        make_update(*pair, FOLDER / "u.shoal", DiffOptions(codec, seed=1, samples=3, exclude=("w",)))
        found.append((FOLDER / "u.shoal").read_bytes())
    return found


def mutate(draw: random.Random) -> bytes:
    data = draw.choice(seeds())
    return _forged(draw, data) if draw.random() < 0.5 else _scratched(draw, data)


def _scratched(draw: random.Random, data: bytes) -> bytes:
    """Some bytes changed, taken out or doubled."""
    changed = bytearray(data)
    for _ in range(1 << draw.randrange(4)):
        at = draw.randrange(len(changed) + 1)
        end = min(len(changed), at + draw.randrange(1, 1 << draw.randrange(1, 8)))
        changed[at:end] = draw.choice([b"", draw.randbytes(end - at), bytes(changed[at:end]) * 2, b"\xff" * (end - at)])
    return bytes(changed)


def _forged(draw: random.Random, data: bytes) -> bytes:
    """Header or chunk changed, and everything that is computed from them computed anew."""
    (length,) = struct.unpack_from("<I", data, len(MAGIC))
    start = len(MAGIC) + 4
    fields = msgspec.msgpack.decode(data[start : start + length])
    stored, form = struct.unpack_from("<IB", data, start + length)
    chunk = data[start + length + 37 : start + length + 37 + stored]
    if form:
        chunk = zstandard.decompress(chunk)
    kind = draw.randrange(4)
    if kind == 0:
        fields[draw.randrange(len(fields))] = draw.choice([None, b"", 2**63, "eden-1", [[b"w", 1, [2**30]]], bytes(32)])
    elif kind == 1:
        fields[6] = [[row[0], draw.choice([1, 10, 11, 16]), [draw.randrange(40) for _ in row[2]]] for row in fields[6]]
    else:
        chunk = _scratched(draw, chunk)
    # What is no layout has no digest either.
    with contextlib.suppress(ShoalError, ValueError, TypeError, AttributeError, KeyError, struct.error):
        fields[1] = Layout(tuple(Placed(k.decode(), DTYPES[d], tuple(dims)) for k, d, dims in fields[6])).digest
    packed = (1, zstandard.compress(chunk)) if draw.random() < 0.3 else (0, chunk)
    return built(dict(enumerate(fields)), [packed])  # type: ignore[arg-type]


def walk(data: bytes) -> bool:
    path = FOLDER / "fuzzed.shoal"
    path.write_bytes(data)
    try:
        read_all(path)
    except InputError as error:
        assert error.code.startswith("update.") and str(error).isprintable(), error
        return False
    return True


if __name__ == "__main__":
    sys.exit(run("update", mutate, walk))

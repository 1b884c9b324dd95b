"""Property: any bytes give a model or one documented error, in bounded memory and linear time.

The mutator makes seeded changes of ordinary models.  Options: campaign.py.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "model"))

from campaign import run
from test_index_bytes import SEEDS, SMALL, walk

#: lengths, tags and numbers at which parsers break
ODD = [
    b"\0",
    b"\x7f",
    b"\x80",
    b"\xff" * 9 + b"\x01",
    b"\xff" * 10,
    b"\x80" * 10,
    b"\xff\xff\xff\xff\x0f",
    b"\x0a",
    b"\x3a",
]


def mutate(draw: random.Random) -> bytes:
    """One or two models, changed in a few places."""
    seeds = [SMALL, *SEEDS]
    data = bytearray(draw.choice(seeds))
    for _ in range(1 << draw.randrange(6)):
        at = draw.randrange(len(data) + 1)
        end = min(len(data), at + draw.randrange(1, 1 << draw.randrange(1, 8)))
        other = draw.choice(seeds)
        start = draw.randrange(len(other))
        data[at:end] = draw.choice(
            [
                b"",
                draw.choice(ODD),
                draw.randbytes(end - at),
                bytes(data[at:end]) * 2,
                other[start : start + draw.randrange(64)],
                bytes(byte ^ 1 << draw.randrange(8) for byte in data[at:end][:1]) + bytes(data[at + 1 : end]),
            ]
        )
        if not data:
            break
    return bytes(data)


if __name__ == "__main__":
    sys.exit(run("index", mutate, walk))

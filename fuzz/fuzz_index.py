"""Property: any bytes give a model or one documented error, in bounded memory and linear time.

    python fuzz/fuzz_index.py [--seconds 60] [--seed 1]      by itself: seeded changes of ordinary models
    python fuzz/fuzz_index.py CORPUS_DIR [libFuzzer flags]   with atheris, where it is installed

By itself it prints its seed, so that a run that fails can be repeated, and leaves the bytes that failed in
fuzz/crash-index.
"""

from __future__ import annotations

import argparse
import random
import resource
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "model"))

from test_index_bytes import SEEDS, SMALL, walk

#: bytes of address space beyond which the property is broken
MEMORY_MAX = 2 * 2**30
#: seconds for one input of a few kilobytes
SECONDS_MAX = 2.0
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


def run(seconds: float, seed: int) -> int:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_MAX, MEMORY_MAX))
    draw = random.Random(seed)
    print(f"seed {seed}")
    models = tries = 0
    stop = time.monotonic() + seconds
    while (before := time.monotonic()) < stop:
        data = mutate(draw)
        try:
            models += walk(data)
            if time.monotonic() - before > SECONDS_MAX:
                raise TimeoutError(f"{len(data)} bytes took more than {SECONDS_MAX} s")
        except BaseException:
            (Path(__file__).parent / "crash-index").write_bytes(data)
            print(f"failed at try {tries} of seed {seed}; bytes in fuzz/crash-index")
            raise
        tries += 1
    print(f"{tries} tries, {models} of them models")
    return 0


def main() -> int:
    try:
        import atheris
    except ImportError:
        atheris = None
    if atheris is not None and not any(argument.startswith("--s") for argument in sys.argv[1:]):
        atheris.Setup(sys.argv, walk_quietly)
        atheris.Fuzz()
        return 0
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    return run(options.seconds, options.seed)


def walk_quietly(data: bytes) -> None:
    walk(data)


if __name__ == "__main__":
    sys.exit(main())

"""Runs one fuzz target: for so many seconds from a seed, or under atheris where it is installed.

    python fuzz/fuzz_X.py [--seconds 60] [--seed 1]      by itself: what the target's own mutator makes
    python fuzz/fuzz_X.py CORPUS_DIR [libFuzzer flags]   with atheris

By itself it prints its seed, so that a run that fails can be repeated, and leaves the bytes that failed in
fuzz/crash-NAME.
"""

from __future__ import annotations

import argparse
import random
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

#: bytes of address space beyond which the property is broken
MEMORY_MAX = 2 * 2**30
#: seconds for one input of a few kilobytes
SECONDS_MAX = 2.0


def run(name: str, mutate: Callable[[random.Random], bytes], walk: Callable[[bytes], object]) -> int:
    """``walk`` raises nothing for any bytes; what it returns is true if they meant something."""
    try:
        import atheris
    except ImportError:
        atheris = None
    if atheris is not None and not any(argument.startswith("--s") for argument in sys.argv[1:]):

        def quietly(data: bytes) -> None:
            walk(data)

        atheris.Setup(sys.argv, quietly)
        atheris.Fuzz()
        return 0
    parser = argparse.ArgumentParser(description=f"fuzz {name}")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_MAX, MEMORY_MAX))
    draw = random.Random(options.seed)
    print(f"{name}: seed {options.seed}")
    good = tries = 0
    stop = time.monotonic() + options.seconds
    while (before := time.monotonic()) < stop:
        data = mutate(draw)
        try:
            good += bool(walk(data))
            if time.monotonic() - before > SECONDS_MAX:
                raise TimeoutError(f"{len(data)} bytes took more than {SECONDS_MAX} s")
        except BaseException:
            (Path(__file__).parent / f"crash-{name}").write_bytes(data)
            print(f"failed at try {tries} of seed {options.seed}; bytes in fuzz/crash-{name}")
            raise
        tries += 1
    print(f"{tries} tries, {good} of them got through")
    return 0

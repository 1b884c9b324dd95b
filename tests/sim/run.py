"""Run histories from the command line: `make sim SEED=7`, `make sim SEEDS=5000 STEPS=500`, `make sim MUTATE=all`.

One seed with its whole history, many seeds in two processes, or mutations until each is caught.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext

from cluster import history
from invariants import Violation
from mutations import ALL, LIAR_MUTATIONS, mutated, search
from rich.console import Console
from rich.progress import track
from rich.table import Table
from seeds import batch
from trial import trial


def many(first: int, seeds: int, steps: int, processes: int, liar: bool, size: int = 50) -> Iterable[str]:
    """The result of each batch, as it comes."""
    jobs = [(at, min(size, first + seeds - at), steps, liar) for at in range(first, first + seeds, size)]
    if processes < 2:
        yield from map(batch, jobs)
        return
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        yield from pool.imap(batch, jobs)


def show(seed: int, steps: int, mutation: str | None, liar: bool) -> int:
    """Print one history as it happens."""
    run: Callable[..., object] = trial if liar or mutation in LIAR_MUTATIONS else history
    try:
        with mutated(mutation) if mutation else nullcontext():
            run(seed, steps, trace=print)
    except Violation as found:
        print(f"seed {seed}: {found}")
        return 1
    print(f"seed {seed}: every invariant held for {steps} steps, and the healed cluster went on")
    return 0


def sweep(first: int, seeds: int, steps: int, processes: int, liar: bool) -> int:
    console = Console(stderr=True)
    start = time.monotonic()
    size = 50
    for found in track(
        many(first, seeds, steps, processes, liar, size), "histories", -(-seeds // size), console=console
    ):
        if found:
            print(found)
            return 1
    print(f"{seeds} seeds of {steps} steps: every invariant held ({time.monotonic() - start:.1f} s)")
    return 0


def hunt(job: tuple[str, int, int]) -> tuple[str, int, str]:
    name, seeds, steps = job
    return (name, *search(name, seeds, steps))


def hunts(names: list[str], seeds: int, steps: int, processes: int) -> int:
    """Print the table of mutations; 1 if one was not caught."""
    table = Table("mutation", "rule that is off", "seeds until caught", "caught by")
    missed = 0
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        jobs = [(name, seeds, steps) for name in names]
        for name, tried, caught in track(pool.imap(hunt, jobs), "mutations", len(jobs), console=Console(stderr=True)):
            missed += not caught
            table.add_row(name, ALL[name][0], str(tried) if caught else f"none in {tried}", caught or "NOT CAUGHT")
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    return 1 if missed else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, help="print this one history")
    parser.add_argument("--seeds", type=int, help="how many histories (default 2000; for mutations 20000 at most each)")
    parser.add_argument("--first", type=int, default=0, help="number of the first seed")
    parser.add_argument("--steps", type=int, default=500, help="events in a history")
    parser.add_argument("--mutate", choices=["all", *ALL], help="switch off one rule, or each in turn")
    parser.add_argument("--liar", action="store_true", help="histories in which one member lies")
    parser.add_argument("--processes", type=int, default=2)
    a = parser.parse_args()
    if a.seed is not None:
        return show(a.seed, a.steps, a.mutate, a.liar)
    if a.mutate:
        names = list(ALL) if a.mutate == "all" else [a.mutate]
        return hunts(names, a.seeds or 20_000, a.steps, a.processes)
    return sweep(a.first, a.seeds or 2000, a.steps, a.processes, a.liar)


if __name__ == "__main__":
    sys.exit(main())

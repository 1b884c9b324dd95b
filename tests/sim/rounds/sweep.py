"""Histories of rounds from the command line: `make sim ROUNDS=5000`, `make sim ROUNDS=1 SEED=7`.

One seed with its whole history, many seeds in two processes, or rules switched off until each is missed (MUTATE=all).
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time

from batches import batch, large
from breaches import BREACHES, search
from history import Violation, betrayal, history
from rich.console import Console
from rich.progress import track
from rich.table import Table

#: of each sweep one history has so many members, in the clear and with masks
LARGE = (16, 40, 100)


def show(seed: int, traitor: bool) -> int:
    """Print one history as it happens."""
    try:
        (betrayal if traitor else history)(seed, trace=print)
    except Violation as found:
        print(f"seed {seed}: {found}")
        return 1
    print(f"seed {seed}: every law held, and the healed swarm went on")
    return 0


def many(first: int, seeds: int, processes: int, traitor: bool, size: int = 25) -> int:
    console, start = Console(stderr=True), time.monotonic()
    jobs = [(at, min(size, first + seeds - at), traitor) for at in range(first, first + seeds, size)]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for found, _ in track(pool.imap(batch, jobs), "histories", len(jobs), console=console):
            if found:
                print(found)
                return 1
    print(f"{seeds} seeds: every law held ({time.monotonic() - start:.1f} s)")
    return 0


def crowds(first: int) -> int:
    for members in LARGE:
        for secure in (False, True):
            start = time.monotonic()
            found = history(first, large(first, members, secure)).laws.seen
            kind = "with masks" if secure else "in the clear"
            print(f"{members} members {kind}: {found['rounds']} rounds held ({time.monotonic() - start:.1f} s)")
    return 0


def hunt(job: tuple[str, int]) -> tuple[str, int, str]:
    return (job[0], *search(*job))


def hunts(names: list[str], seeds: int, processes: int) -> int:
    """Print the table of breaches; 1 if one was not missed."""
    table = Table("breach", "rule that is off", "histories until missed", "law that broke")
    unseen = 0
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        jobs = [(name, seeds) for name in names]
        for name, tried, caught in track(pool.imap(hunt, jobs), "breaches", len(jobs), console=Console(stderr=True)):
            unseen += not caught
            table.add_row(name, BREACHES[name][0], str(tried) if caught else f"none in {tried}", caught or "NOT MISSED")
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    return 1 if unseen else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, help="print this one history")
    parser.add_argument("--seeds", type=int, default=1000, help="how many histories")
    parser.add_argument("--first", type=int, default=0, help="number of the first seed")
    parser.add_argument("--crowds", action="store_true", help="a few histories with up to 100 members, too")
    parser.add_argument("--traitor", action="store_true", help="histories in which one member lies")
    parser.add_argument("--mutate", choices=["all", *BREACHES], help="switch off one rule, or each in turn")
    parser.add_argument("--processes", type=int, default=2)
    a = parser.parse_args()
    if a.seed is not None:
        return show(a.seed, a.traitor)
    if a.mutate:
        return hunts(list(BREACHES) if a.mutate == "all" else [a.mutate], max(a.seeds, 1000), a.processes)
    return many(a.first, a.seeds, a.processes, a.traitor) or (crowds(a.first) if a.crowds else 0)


if __name__ == "__main__":
    sys.exit(main())

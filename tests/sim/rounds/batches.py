"""Many histories of rounds, and what to say of one that fails."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random

from history import Hazards, History, betrayal, history

LINES_SHOWN = 300  # of a failing history; all of it with ROUNDS= SEED=


def failure(seed: int, met: Counter[str] | None = None, traitor: bool = False) -> str:
    """ "" if the seed's history holds; else the seed, what broke, the end of its history, and how to see it again.

    met  what happened in it is added
    """
    run: Callable[..., History] = betrayal if traitor else history
    try:
        found = run(seed)
    except Exception as error:
        lines: list[str] = []
        try:
            run(seed, trace=lines.append)
        except Exception as again:
            same = repr(again) == repr(error)
            lines.append(f"{type(again).__name__}: {again}{'' if same else ' (the replay differs!)'}")
        cut = [f"... {len(lines) - LINES_SHOWN} lines before"] if len(lines) > LINES_SHOWN else []
        again = f"again, from its start: make sim ROUNDS=1 SEED={seed}{' ARGS=--traitor' if traitor else ''}"
        return "\n".join(
            [f"seed {seed} fails", *lines[:1], *cut, *lines[-LINES_SHOWN:], f"seed {seed}: {error}", again]
        )
    if met is not None:
        met.update(found.laws.seen)
    return ""


def batch(job: tuple[int, int, bool]) -> tuple[str, Counter[str]]:
    """First failure among the seeds first .. first + count - 1, or "", and what happened in them."""
    first, count, traitor = job
    met: Counter[str] = Counter()
    return next(filter(None, (failure(seed, met, traitor) for seed in range(first, first + count))), ""), met


def large(seed: int, members: int, secure: bool) -> Hazards:
    """The faults of a history with many members."""
    return Hazards.draw(Random(seed), secure, members)

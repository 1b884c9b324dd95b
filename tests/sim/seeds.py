"""Many seeds at once, and what to say of one that fails."""

from __future__ import annotations

from collections.abc import Callable

from cluster import history
from trial import trial

HISTORY_SHOWN = 400  # lines of a failing history; all of it with SEED=


def failure(seed: int, steps: int, liar: bool = False) -> str:
    """ "" if the seed's history holds; else the seed, what broke, the end of its history, and how to see it again."""
    run: Callable[..., object] = trial if liar else history
    try:
        run(seed, steps)
    except Exception as error:
        lines: list[str] = []
        try:
            run(seed, steps, trace=lines.append)
        except Exception as again:
            same = repr(again) == repr(error)
            lines.append(f"{type(again).__name__}: {again}{'' if same else ' (the replay differs!)'}")
        cut = [f"... {len(lines) - HISTORY_SHOWN} lines before"] if len(lines) > HISTORY_SHOWN else []
        again = f"again, from its start: make sim SEED={seed} STEPS={steps}{' ARGS=--liar' if liar else ''}"
        return "\n".join([f"seed {seed} fails", *cut, *lines[-HISTORY_SHOWN:], f"seed {seed}: {error}", again])
    return ""


def batch(job: tuple[int, int, int, bool]) -> str:
    """First failure among the seeds first .. first + count - 1, or ""."""
    first, count, steps, liar = job
    return next(filter(None, (failure(seed, steps, liar) for seed in range(first, first + count))), "")

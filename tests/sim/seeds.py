"""Many seeds at once, and what to say of one that fails."""

from __future__ import annotations

from cluster import history

HISTORY_SHOWN = 400  # lines of a failing history; all of it with SEED=


def failure(seed: int, steps: int) -> str:
    """ "" if the seed's history holds; else the seed, what broke, the end of its history, and how to see it again."""
    try:
        history(seed, steps)
    except Exception as error:
        lines: list[str] = []
        try:
            history(seed, steps, lines.append)
        except Exception as again:
            same = repr(again) == repr(error)
            lines.append(f"{type(again).__name__}: {again}{'' if same else ' (the replay differs!)'}")
        cut = [f"... {len(lines) - HISTORY_SHOWN} lines before"] if len(lines) > HISTORY_SHOWN else []
        again = f"again, from its start: make sim SEED={seed} STEPS={steps}"
        return "\n".join([f"seed {seed} fails", *cut, *lines[-HISTORY_SHOWN:], f"seed {seed}: {error}", again])
    return ""


def batch(job: tuple[int, int, int]) -> str:
    """First failure among the seeds first .. first + count - 1, or ""."""
    first, count, steps = job
    return next(filter(None, (failure(seed, steps) for seed in range(first, first + count))), "")

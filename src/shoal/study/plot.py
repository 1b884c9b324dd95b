"""The picture of a study: AUC by round of every model, and what the merged one gains over each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from shoal.errors import MachineError
from shoal.study.demo import SIMULATED, WHOLE, Result

#: line styles: Okabe and Ito's colours, which colour-blind readers can tell apart
COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#F0E442", "#D55E00")
MERGED, POOLED = "#0072B2", "#555555"


def save_plot(result: Result, path: Path) -> None:
    """Write the picture as PNG.

    raises  MachineError("matplotlib.missing")
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MachineError("matplotlib.missing", "a plot needs matplotlib: pip install 'shoal[plot]'") from error
    figure = Figure(figsize=(11, 6), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    styles = _styles(result)
    _curves(left, result, styles)
    _gains(right, result, styles)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=10, frameon=False)
    figure.suptitle(f"{result.cohort}: {result.question} - {SIMULATED}", fontsize=13)
    figure.savefig(path, dpi=150)


def _styles(result: Result) -> dict[str, dict[str, Any]]:
    names = [row.model for row in result.rows if row.model not in WHOLE]
    styles: dict[str, dict[str, Any]] = {
        name: {"color": COLOURS[i % len(COLOURS)], "linewidth": 1.5} for i, name in enumerate(names)
    }
    for name, line in (("federated", ":"), ("swarm", "-")):
        styles[name] = {"color": MERGED, "linewidth": 3 if name == result.merged else 2, "zorder": 5, "linestyle": line}
    styles["pooled"] = {"color": POOLED, "linewidth": 2, "linestyle": "--", "zorder": 4}
    return styles


def _label(result: Result, name: str) -> str:
    row = next(r for r in result.rows if r.model == name)
    if name in ("federated", "swarm"):
        return f"{name}: {row.about}"
    if name == "pooled":
        return f"pooled: all {row.trained} patients in one place"
    return f"{name} alone: {row.about} ({row.trained} patients)"


def _curves(axes: Any, result: Result, styles: dict[str, dict[str, Any]]) -> None:
    for name, curve in result.curves.items():
        values = [float("nan") if v is None else v for v in curve]
        axes.plot(range(1, len(curve) + 1), values, label=_label(result, name), **styles[name])
    axes.set_xlabel("round")
    axes.set_ylabel(f"AUC on {result.held_out} held-out patients of all hospitals")
    axes.set_title("after each round", fontsize=11)
    axes.grid(alpha=0.3)
    axes.xaxis.get_major_locator().set_params(integer=True)


def _gains(axes: Any, result: Result, styles: dict[str, dict[str, Any]]) -> None:
    """Paired differences: their intervals are far narrower than those of the AUCs, and they are the question."""
    others = [row for row in reversed(result.rows) if row.gain is not None]
    axes.axvline(0, color="black", linewidth=1)
    for place, row in enumerate(others):
        gain, colour = row.gain, styles[row.model]["color"]
        if gain is None or gain.value is None or gain.low is None or gain.high is None:
            continue
        axes.plot([gain.low, gain.high], [place, place], color=colour, linewidth=3, alpha=0.6)
        axes.plot([gain.value], [place], "o", color=colour, markersize=8)
        axes.annotate(
            f"{gain.value:+.3f}", (gain.value, place), (0, 8), textcoords="offset points", ha="center", fontsize=9
        )
    names = [row.model if row.model in WHOLE else f"{row.model} alone" for row in others]
    axes.set_yticks(range(len(names)), [f"against {name}" for name in names])
    axes.set_ylim(-0.5, len(names) - 0.4)
    axes.set_xlabel("AUC gained by merging (95 % interval)")
    axes.set_title(f"what merging gains, after round {result.rounds}", fontsize=11)
    axes.grid(axis="x", alpha=0.3)

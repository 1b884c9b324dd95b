"""Draw what `quality.py` measures: docs/nmse.png and docs/bytes.png.

usage: python bench/plots.py [--elements N] [--folder docs]
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import quality

#: Okabe and Ito's colours, which colour-blind readers can tell apart
BLUE, ORANGE, GREEN, PINK, GREY = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#555555"
FAMILIES = {
    "eden": ("plain, 1 to 8 bits (EDEN)", ORANGE, "s"),
    "int": ("plain, int4 / int8 in runs", GREEN, "D"),
    "float": ("plain, bfloat16 / float16", GREY, "^"),
}
PARTICIPANTS = 10


def family(codec: str) -> str:
    return "float" if "float" in codec else "int" if codec.startswith("int") else "eden"


def save(figure: Figure, path: Path) -> None:
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=110)
    print(path)


def style(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)


def nmse(elements: int, path: Path) -> None:
    """Error of the mean of ten participants against the bits that each uploads for a parameter."""
    figure = Figure(figsize=(9.5, 4.6), layout="constrained")
    for axes, source in zip(figure.subplots(1, 2, sharey=True), ("normal", "student-t"), strict=True):
        independent = quality.updates(source, elements, PARTICIPANTS, aligned=False)
        aligned = quality.updates(source, elements, PARTICIPANTS, aligned=True)
        for kind, (label, colour, marker) in FAMILIES.items():
            points = sorted(quality.plain_nmse(independent, c)[::2] for c in quality.PLAIN if family(c) == kind)
            axes.plot(*zip(*points, strict=True), marker=marker, color=colour, label=label)
        for diffs, label, colour in (
            (independent, "secure, independent updates", BLUE),
            (aligned, "secure, aligned updates", PINK),
        ):
            rings = (8, 12, 16)
            axes.plot(
                rings, [quality.secure_nmse(diffs, b) for b in rings],
                marker="o", linewidth=2.5, color=colour, label=label,
            )  # fmt: skip
        axes.set_yscale("log")
        axes.set_xticks((1, 2, 3, 4, 8, 12, 16))
        axes.set_xlabel("bits uploaded for each parameter")
        axes.set_title(f"{source} updates", fontsize=11)
        style(axes)
    figure.axes[0].set_ylabel(f"NMSE of the mean of {PARTICIPANTS}")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    save(figure, path)


def wire(elements: int, path: Path) -> None:
    """Bytes that one participant sends for each parameter, both legs, against the number of participants."""
    figure = Figure(figsize=(9.5, 4.2), layout="constrained")
    axes = figure.subplots()
    numbers = (3, 5, 7, 10, 15, 16, 25, 40, 60, 100)
    found = [quality.wire_bytes(n, elements) for n in numbers]
    axes.plot(numbers, [8 * (n - 1) / n for n in numbers], "--", color=GREY, label="float32, in the clear (8 f)")
    axes.plot(numbers, [4 * (n - 1) / n for n in numbers], ":", color=GREY, label="bfloat16, in the clear (4 f)")
    axes.plot(
        numbers, [row["all"] for row in found],
        marker="s", color=ORANGE, label=f"secure, all traffic, {elements / 1e6:.1f} M parameters",
    )  # fmt: skip
    axes.plot(
        numbers, [row["both legs"] for row in found],
        marker="o", linewidth=2.5, color=BLUE, label="secure, words both ways (counted)",
    )  # fmt: skip
    for n, row, before in zip(numbers, found, [None, *found], strict=False):
        if before is None or before["bits"] != row["bits"]:
            axes.annotate(
                f"{row['bits']:.0f}-bit ring", (n, row["both legs"]), xytext=(6, -18), textcoords="offset points",
                fontsize=9, ha="left",
            )  # fmt: skip
    axes.set_xscale("log")
    axes.set_xticks(numbers, [str(n) if n != 16 else "" for n in numbers])
    axes.minorticks_off()
    axes.set_ylim(0, 8.6)
    axes.set_xlabel("participants")
    axes.set_ylabel("bytes sent for each parameter")
    axes.legend(frameon=False, fontsize=9, loc="center right", bbox_to_anchor=(1.0, 0.68))
    style(axes)
    save(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--elements", type=int, default=2**20)
    parser.add_argument("--folder", type=Path, default=Path(__file__).resolve().parents[1] / "docs")
    chosen = parser.parse_args()
    nmse(chosen.elements, chosen.folder / "nmse.png")
    wire(chosen.elements, chosen.folder / "bytes.png")


if __name__ == "__main__":
    main()

"""Put what `planning.py --json` found into docs/PERFORMANCE.md ("Planning past one machine") and docs/planning.png.

usage: python bench/planning_page.py FOUND.json [MORE.json ...]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from plots import BLUE, GREY, ORANGE, save, style

DOCS = Path(__file__).resolve().parents[1] / "docs"
FIRST, LAST = "<!-- planning: written by bench/planning_page.py -->", "<!-- planning ends -->"
HEAD = """| members | parameters | Mbit/s | mode | round, s | of it on the wire, s | MB sent by a peer | of it control | phases, s |
|---:|---:|---:|---|---:|---:|---:|---:|---|"""


def read(paths: list[str]) -> list[dict[str, Any]]:
    """What was found, each case once: the last word counts."""
    lines = [json.loads(line) for path in paths for line in Path(path).read_text().splitlines()]
    latest = {tuple(str(v) for v in found["case"].values()): found for found in lines}
    return sorted(latest.values(), key=lambda f: [f["case"][k] for k in ("members", "parameters", "mbits", "secure")])


def wire_s(found: dict[str, Any]) -> float:
    """What the bytes of the busiest peer take on its link, one after the other."""
    return float(found["sent_most"] * 8 / (found["case"]["mbits"] * 1e6))


def row(found: dict[str, Any]) -> str:
    case = found["case"]
    phases = [f"{name.lower()} {seconds:.1f}" for name, seconds in found["phases"].items() if name != "LINGER"]
    cells = (
        case["members"], f"{case['parameters'] / 1e6:,.0f} M", f"{case['mbits']:,.0f}",
        f"secure, {found['bits']} bit" if case["secure"] else "plain", f"{found['round_s']:,.1f}",
        f"{wire_s(found):,.1f}", f"{found['sent'] / 1e6:,.0f}", f"{found['control'] / 1e6:.2f}", ", ".join(phases),
    )  # fmt: skip
    return "| " + " | ".join(map(str, cells)) + " |"


def draw(all_found: list[dict[str, Any]], path: Path) -> None:
    """Seconds of a round against members, a panel for each rate."""
    rates = sorted({found["case"]["mbits"] for found in all_found})
    sizes = sorted({found["case"]["parameters"] for found in all_found})
    figure = Figure(figsize=(10.5, 4.2), layout="constrained")
    for axes, rate in zip(figure.subplots(1, len(rates), sharey=True, squeeze=False)[0], rates, strict=True):
        for size, colour in zip(sizes, (GREY, BLUE, ORANGE), strict=False):
            for secure, line in ((False, "--"), (True, "-")):
                points = [
                    (f["case"]["members"], f["round_s"])
                    for f in all_found
                    if (f["case"]["mbits"], f["case"]["parameters"], f["case"]["secure"]) == (rate, size, secure)
                ]
                label = f"{size / 1e6:,.0f} M, {'secure' if secure else 'plain'}"
                if points:
                    axes.plot(*zip(*points, strict=True), line, marker="o", color=colour, label=label)
        axes.set_xscale("log")
        axes.set_yscale("log")
        members = sorted({f["case"]["members"] for f in all_found})
        axes.set_xticks(members, [str(n) for n in members])
        axes.minorticks_off()
        axes.set_xlabel("members")
        axes.set_title(f"{rate:,.0f} Mbit/s", fontsize=11)
        style(axes)
    figure.axes[0].set_ylabel("seconds of a round")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    save(figure, path)


def main() -> int:
    found = read(sys.argv[1:])
    draw(found, DOCS / "planning.png")
    page = DOCS / "PERFORMANCE.md"
    text = page.read_text()
    before, rest = text.split(FIRST)
    after = rest.split(LAST)[1]
    page.write_text("\n".join([before + FIRST, HEAD, *map(row, found), LAST + after]))
    return 0


if __name__ == "__main__":
    sys.exit(main())

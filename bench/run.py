"""Run every bench and show the results as tables; with --write also put them into docs/PERFORMANCE.md.

Tables of modules that were not run (--only) stay as they are.

usage: python bench/run.py [--write] [--only WORD] [-- more words for pytest]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "PERFORMANCE.md"
MARK = "<!-- everything below this line is written by `make bench ARGS=--write` -->"


def measure(only: str | None, more: list[str]) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "bench.json"
        words = [
            "-m",
            "pytest",
            str(ROOT / "bench"),
            "-o",
            "python_files=bench_*.py",
            "-o",
            "addopts=",
            "--timeout=1800",
        ]
        words += [
            "--benchmark-only",
            f"--benchmark-json={target}",
            "--benchmark-quiet",
            "-q",
            *(["-k", only] if only else []),
        ]
        done = subprocess.run([sys.executable, *words, *more], cwd=ROOT)
        if done.returncode:
            raise SystemExit(done.returncode)
        found: list[dict[str, Any]] = json.loads(target.read_text())["benchmarks"]
        return found


def number(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def groups(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        module = row["fullname"].split("::")[0].split("/")[-1].removesuffix(".py")
        found.setdefault(module, []).append(row)
    return found


def columns(rows: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(key for row in rows for key in row["extra_info"]))


def name(row: dict[str, Any]) -> str:
    return str(row["name"].removeprefix("test_").replace("_", " "))


def show(rows: list[dict[str, Any]]) -> None:
    console = Console(width=None if sys.stdout.isatty() else 160)
    for module, part in groups(rows).items():
        if len(columns(part)) > 2 * len(part):
            show_each(console, part)
            continue
        table = Table(title=module)
        table.add_column("bench")
        table.add_column("median, ms", justify="right")
        for key in columns(part):
            table.add_column(key, justify="right")
        for row in part:
            cells = [number(row["extra_info"].get(key, "")) for key in columns(part)]
            table.add_row(escape(name(row)), number(row["stats"]["median"] * 1e3), *cells)
        console.print(table)


def show_each(console: Console, part: list[dict[str, Any]]) -> None:
    """One small table a bench: few benches with many figures."""
    for row in part:
        table = Table("figure", title=escape(name(row)))
        table.add_column("value", justify="right")
        table.add_row("median, ms", number(row["stats"]["median"] * 1e3))
        for key, value in row["extra_info"].items():
            table.add_row(key, number(value))
        console.print(table)


def machine() -> str:
    model = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    from shoal.kernels import dispatch

    count = len(os.sched_getaffinity(0))
    return f"{model}, {count} cores, level {dispatch.level()}, Python {platform.python_version()}, {date.today().isoformat()}"


def sections(text: str) -> dict[str, str]:
    """The tables of a page by module: text from each heading to the next."""
    found: dict[str, str] = {}
    for part in text.split("\n## ")[1:]:
        module, _, body = part.partition("\n")
        found[module] = body.strip("\n")
    return found


def section(part: list[dict[str, Any]]) -> str:
    """The machine, and one table."""
    keys = columns(part)
    lines = [
        f"Machine: {machine()}",
        "",
        "| bench | median, ms | " + " | ".join(keys) + " |",
        "|---" * (2 + len(keys)) + "|",
    ]
    for row in part:
        cells = [number(row["extra_info"].get(key, "")) for key in keys]
        lines.append(f"| {name(row)} | {number(row['stats']['median'] * 1e3)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def page(old: str, rows: list[dict[str, Any]]) -> str:
    """The page with the tables of the modules that were run; those of others stay."""
    head, _, tables = old.partition(MARK)
    found = sections(tables) | {module: section(part) for module, part in groups(rows).items()}
    return head + MARK + "\n" + "".join(f"\n## {module}\n\n{found[module]}\n" for module in sorted(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write docs/PERFORMANCE.md")
    parser.add_argument("--only", help="only benches whose name has this word")
    parser.add_argument("more", nargs="*", help="words for pytest")
    chosen = parser.parse_args()
    rows = measure(chosen.only, chosen.more)
    show(rows)
    if chosen.write:
        PAGE.write_text(page(PAGE.read_text() if PAGE.exists() else "# Performance\n\n", rows))
        print(f"written: {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()

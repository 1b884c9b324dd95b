"""shoal doctor: is everything well for this site's node?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shoal.cli.show import Format, console, line, print_json

if TYPE_CHECKING:
    from shoal.swarm.finding import Finding

_COLOURS = {"ok": "green", "warning": "yellow", "fault": "red"}


def doctor(
    settings: Annotated[Path, typer.Argument(help="This site's settings.", readable=False)] = Path("site.toml"),
    model: Annotated[
        Path | None,
        typer.Option("--model", "-m", help="The swarm's base model, before the first start.", readable=False),
    ] = None,
    wait: Annotated[
        float, typer.Option("--wait", min=0, max=3600, help="Seconds for members that do not answer.")
    ] = 15.0,
    format: Annotated[Format, typer.Option("--format", help="text or json.")] = Format.text,
) -> None:
    """Examine this site before its node starts: keys, model, disk, ports, and every member that answers.

    Members answer that run their node, or the doctor at the same time. Exit code 1 if there is a fault.
    """
    from shoal.config import read_site
    from shoal.swarm.doctor import examine
    from shoal.swarm.finding import LEVELS, worst

    site = read_site(settings)
    findings = examine(site, model, wait)
    level = worst(findings)
    if format is Format.json:
        rows = [{"level": f.level, "check": f.check, "found": f.found, "advice": f.advice} for f in findings]
        print_json({"site": site.name, "level": level, "findings": rows})
    else:
        _print(findings)
        counts = [sum(f.level == each for f in findings) for each in LEVELS]
        line(f"{counts[0]} ok, {counts[1]} warnings, {counts[2]} faults")
    if level == "fault":
        raise typer.Exit(1)


def _print(findings: list[Finding]) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    built = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("", "check", "found, and what to do"):
        built.add_column(Text(heading), overflow="fold")
    for finding in findings:
        found = Text(finding.found)
        if finding.advice:
            found.append(f"\n-> {finding.advice}", style="bold" if finding.level != "ok" else "dim")
        built.add_row(Text(finding.level, style=_COLOURS[finding.level]), Text(finding.check), found)
    console().print(built)

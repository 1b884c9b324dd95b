"""shoal status: what this site's node does, once or as long as somebody looks."""

from __future__ import annotations

import sys
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shoal.cli.show import Format, console, line, print_json, size
from shoal.errors import shown

if TYPE_CHECKING:
    from rich.console import RenderableType

    from shoal.swarm.node import MemberStatus, Status

#: phases of a round in their order, as `Status.seconds` calls them
_PHASES = ("share", "upload", "reduce", "commit")
#: seconds over which rates are taken, and between two looks
_RATE_S, _LOOK_S = 5.0, 0.5
#: notices shown
_NOTICES = 6


def status(
    settings: Annotated[Path, typer.Argument(help="This site's settings.", readable=False)] = Path("site.toml"),
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on looking until stopped.")] = False,
    format: Annotated[Format, typer.Option("--format", help="text or json.")] = Format.text,
) -> None:
    """What this site's node is doing: members, leader, round, phase, bytes, rates, time left, last notices.

    With --watch --format json: one object a line.
    """
    from shoal.config import read_site
    from shoal.swarm.door import Caller

    site = read_site(settings)
    with Caller(Path(site.data)) as caller:
        if format is Format.json:
            _json(caller.status(), one_line=watch)
            while watch:
                sys.stdout.flush()
                time.sleep(1)
                _json(caller.status(), one_line=True)
        elif not watch:
            console().print(View().of(caller.status(), time.monotonic()))
        else:
            _watch(lambda: caller.status())


def _json(found: Status, one_line: bool) -> None:
    import json

    import msgspec

    facts = msgspec.to_builtins(found)
    if one_line:
        line(json.dumps(facts))
    else:
        print_json(facts)


def _watch(look: object) -> None:
    """Draw over and over; Ctrl-C is how it ends."""
    from rich.live import Live

    assert callable(look)
    view = View()
    with Live(console=console(), auto_refresh=False, transient=False) as live:
        while True:
            live.update(view.of(look(), time.monotonic()), refresh=True)
            time.sleep(_LOOK_S)


class View:
    """What a person sees.  Keeps what it takes to tell rates."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int, int]] = deque()

    def of(self, found: Status, now_s: float) -> RenderableType:
        """All of it, as of now."""
        from rich.console import Group
        from rich.text import Text

        lines = [
            f"swarm    {shown(found.swarm)}, round {found.round} certified, {doing(found)}",
            f"model    {found.model[:16]}{' (behind: fetching the certified one)' if found.behind else ''}",
            f"ledger   term {found.term}, {found.decided} entries decided",
            f"bytes    {size(found.sent_bytes)} sent, {size(found.received_bytes)} received{self._rates(found, now_s)}",
            f"update   {'waits to be merged' if found.waiting else 'none waits'}",
        ]
        if found.measured:
            means = ", ".join(f"{shown(m.metric)} {m.value:.4f}" for m in found.measured)
            of = found.measured[0]
            lines.append(f"measured round {of.round}: {means} ({of.sites} sites, {of.samples} samples)")
        if found.best is not None:
            lines.append(f"best     round {found.best.round}: {shown(found.best.metric)} {found.best.value:.4f}")
        notices = [_notice(text) for text in found.notices[-_NOTICES:]]
        return Group(*map(Text, lines), _members(found.members), *notices)

    def _rates(self, found: Status, now_s: float) -> str:
        """Of the last seconds; "" at the first look."""
        self._seen.append((now_s, found.sent_bytes, found.received_bytes))
        while self._seen[-1][0] - self._seen[0][0] > _RATE_S:
            self._seen.popleft()
        then_s, sent, received = self._seen[0]
        passed_s = now_s - then_s
        if passed_s <= 0 or found.sent_bytes < sent:
            return ""
        up, down = (found.sent_bytes - sent) / passed_s, (found.received_bytes - received) / passed_s
        return f" ({size(up)}/s out, {size(down)}/s in)"


def doing(found: Status) -> str:
    """What goes on between the last certified round and the next."""
    if found.slot < 0:
        return "between rounds"
    if not found.phase:
        return f"slot {found.slot}, not followed here"
    left = time_left(found)
    told = f"slot {found.slot}, {found.phase.lower()} for {found.phase_s:.1f} s"
    return told + (f", about {left:.1f} s left" if left is not None else "")


def time_left(found: Status) -> float | None:
    """Seconds until the open round ends if it goes as the former ones did on average; None if there were none."""
    rounds, phase = found.results.get("merged", 0) + found.results.get("missed", 0), found.phase.lower()
    if not rounds or phase not in _PHASES:
        return None
    mean = {each: found.seconds.get(each, 0.0) / rounds for each in _PHASES}
    later = sum(mean[each] for each in _PHASES[_PHASES.index(phase) + 1 :])
    return max(0.0, mean[phase] - found.phase_s) + later


def _members(members: list[MemberStatus]) -> RenderableType:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    built = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("member", "id", "", "", ""):
        built.add_column(Text(heading), overflow="fold")
    for m in members:
        state = Text("connected") if m.connected else Text("NOT CONNECTED", style="red")
        leads = Text("leads" if m.leads else "", style="green")
        built.add_row(Text(shown(m.name)), m.id[:16], "voter" if m.voter else "learner", leads, state)
    return built


def _notice(text: str) -> RenderableType:
    from rich.text import Text

    style = "red" if text.startswith("fault") else "yellow" if text.startswith("warning") else ""
    return Text(shown(text, 300), style=style)

"""A site examined before its node starts: its machine (checkup.py), then every member, over the transport itself.

While it runs, the doctor listens where the node would and answers as one: the doctors of two sites examine each other.
Where this site's node runs already, that has the keys and the ports, and the doctor lets it examine the others.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from shoal import __version__
from shoal.config import Site
from shoal.errors import MachineError, ShoalError, shown
from shoal.ledger.registry import Member
from shoal.ledger.state import State
from shoal.swarm.checkup import Checkup, check_up
from shoal.swarm.curve_transport import CurveTransport
from shoal.swarm.door import SOCKET_FILE, Caller
from shoal.swarm.finding import Finding
from shoal.swarm.node import Status
from shoal.swarm.probe import PROBE, Found, Host, Out, decode
from shoal.swarm.transport import Bulk, Endpoint, Received
from shoal.swarm.visit import Seen, Visit

#: a clock that is further off is worth a word; nothing in the protocol follows from clocks
SKEW_MS_MAX: Final = 1000.0
#: bytes per second below which a large model takes long
_SLOW_LINK: Final = 1.25e6
#: seconds for which a node that runs may keep us waiting
_DOOR_S: Final = 3.0
_TURN_S: Final = 0.02


def clock_ms() -> int:
    return time.time_ns() // 1_000_000


def examine(site: Site, model: Path | None, wait_s: float) -> list[Finding]:
    """All findings about this site.

    model   the swarm's base model, where the node has none yet
    wait_s  how long to wait at most for members that do not answer
    """
    checkup = Checkup(site, model)
    findings = check_up(checkup)
    running = node_status(Path(site.data))
    if checkup.me is None or checkup.state is None:
        return findings
    members = {i: m for i, m in checkup.state.registry.members.items() if i != checkup.me[0].id}
    mine = checkup.state.registry.members[checkup.me[0].id]
    if running is not None:
        findings.append(Finding("ok", "ports", "this site's node runs and has them"))
        return findings + of_members(members, seen_by_node(Path(site.data), wait_s), mine.address, checkup.state)
    try:
        transport = CurveTransport(checkup.me[1].secret(), site.listen)
    except ShoalError as error:
        advice = "stop what holds it (ss -ltnp), or set `listen` to another port, and the one after it"
        return [*findings, Finding("fault", "ports", shown(str(error), 300), advice)]
    if site.listen:
        findings.append(Finding("ok", "ports", f"{shown(site.listen)} and the port after it are free"))
    try:
        seen = look_around(transport, checkup.state, members, wait_s)
        versions = transport.counters["refused.version"]
    finally:
        transport.close()
    if versions:
        told = "a member speaks another version of the transport"
        findings.append(Finding("fault", "versions", told, "install the same version of Shoal at all sites"))
    return findings + of_members(members, seen, mine.address, checkup.state)


def node_status(folder: Path) -> Status | None:
    """What this site's node says, if it runs."""
    if not (folder / SOCKET_FILE).exists():
        return None
    try:
        with Caller(folder) as caller:
            return caller.status(_DOOR_S)
    except MachineError:
        return None


def seen_by_node(folder: Path, wait_s: float) -> dict[bytes, Seen]:
    """What this site's node sees when it examines the others."""
    with Caller(folder) as caller:
        return caller.examine(wait_s)


def look_around(
    transport: CurveTransport, state: State, members: Mapping[bytes, Member], wait_s: float
) -> dict[bytes, Seen]:
    """Meet the members and ask them, until all is known or ``wait_s`` seconds are over; answer those that ask."""
    host, visit = Host(lambda: state, clock_ms), Visit(members, clock_ms, time.monotonic() + wait_s)
    transport.allow({who: Endpoint(m.curve, m.address) for who, m in members.items()})
    while not visit.over(time.monotonic()):
        out: list[Out] = []
        for event in transport.poll(_TURN_S):
            now_s = time.monotonic()
            if isinstance(event, Received) and event.data[:1] == PROBE:
                said = decode(event.data)
                if said is not None:
                    visit.heard(event.peer, said, now_s)
                    out += host.heard(event.peer, said, now_s)
            elif isinstance(event, Bulk) and event.header[:1] == PROBE:
                visit.chunk(event.peer, event.header, now_s)
                out += host.chunk(event.peer, event.header)
        for each in (*out, *visit.turn(transport.ways, time.monotonic())):
            if len(each) == 2:
                transport.send(*each)
            elif not transport.send_bulk(*each):
                visit.unsent(each[0])
    return visit.seen


# --- what it means ----------------------------------------------------------------------------------------------------


def of_members(members: Mapping[bytes, Member], seen: Mapping[bytes, Seen], mine: str, state: State) -> list[Finding]:
    """Findings about all, by name."""
    findings = []
    for who, member in sorted(members.items(), key=lambda item: item[1].name):
        findings += of_member(member, seen.get(who, Seen()), mine, state)
    return findings + _of_all({who: seen.get(who, Seen()) for who in members})


def of_member(member: Member, seen: Seen, mine: str, state: State) -> list[Finding]:
    """Findings about one member.

    mine   the address that the others dial this site at; "" if they do not
    state  of this site's ledger
    """
    name, found = f"member {shown(member.name)}", seen.found
    where = shown(member.address) or "no address"
    if not (seen.dialled or seen.accepted):
        advice = "start its node or its doctor; else see to its address, and that its firewall lets both ports in"
        return [Finding("warning", name, f"{where}: no answer", advice)]
    findings = [_ways(name, member, seen, mine)]
    told = found.told
    if told is None:
        findings.append(Finding("warning", name, "met, but it answers no question", "install the same version there"))
        return findings
    findings.append(_agreement(name, found, state))
    if told.version != __version__:
        words = f"shoal {shown(told.version)} there, {__version__} here"
        findings.append(Finding("warning", name, words, "install the same version at all sites"))
    words = f"{1000 * found.rtt_s:.1f} ms, {_rate(found.down)} from it, {_rate(found.up)} to it"
    if not (found.down and found.up):
        advice = "the port after the address's carries the chunks: open it, too; else give --wait more seconds"
        findings.append(Finding("warning", name, f"{words}: chunks do not get through", advice))
    elif min(found.down, found.up) < _SLOW_LINK:
        findings.append(Finding("warning", name, words, "rounds of large models take long over this link"))
    else:
        findings.append(Finding("ok", name, words))
    words = f"its clock is {abs(found.ahead_ms) / 1000:.3f} s {'ahead' if found.ahead_ms > 0 else 'behind'}"
    if abs(found.ahead_ms) > SKEW_MS_MAX + 1000 * found.rtt_s:
        advice = "let both keep time by NTP (timedatectl set-ntp true): times in the ledger are for people, but read"
        findings.append(Finding("warning", name, words, advice))
    else:
        findings.append(Finding("ok", name, words))
    return findings


def _ways(name: str, member: Member, seen: Seen, mine: str) -> Finding:
    where = shown(member.address) or "no address"
    if member.address and not seen.dialled:
        advice = "it reached this site, but not the other way round: its firewall, its `listen`, or its address"
        return Finding("warning", name, f"{where}: cannot be reached from here", advice)
    if mine and not seen.accepted:
        advice = f"let {shown(mine)} and the port after it in (firewall, NAT); else it works as long as this site dials"
        return Finding("warning", name, f"{where}: reached, but it did not reach this site", advice)
    ways = "both ways" if seen.dialled and seen.accepted else "one way, as meant"
    return Finding("ok", name, f"{where}: keys shown, {ways}")


def _agreement(name: str, found: Found, state: State) -> Finding:
    told = found.told
    assert told is not None
    if told.genesis != state.genesis:
        words = f"its ledger is of genesis {told.genesis.hex()[:16]}, this one of {state.genesis.hex()[:16]}"
        return Finding("fault", name, words, "join the same genesis: compare its digest by telephone")
    here = state.head if told.index == state.index else state.recent.get(told.index, (b"", b""))[0]
    if here and here != told.head:
        words = f"entry {told.index} is {told.head.hex()[:16]} there, {here.hex()[:16]} here"
        return Finding("fault", name, words, "two histories: export both ledgers, and `shoal ledger compare` them")
    if state.models.get(told.round, told.model) != told.model:
        words = f"another certified model of round {told.round}"
        return Finding("fault", name, words, "export both ledgers, and `shoal ledger compare` them")
    return Finding("ok", name, f"same genesis, entry {told.index}, round {told.round}")


def _of_all(seen: Mapping[bytes, Seen]) -> list[Finding]:
    """Does enough of the swarm answer to elect a leader?"""
    met = sum(one.dialled or one.accepted for one in seen.values())
    words = f"{met + 1} of {len(seen) + 1} members, with this one"
    if 2 * (met + 1) > len(seen) + 1:
        return [Finding("ok", "swarm", words)]
    return [Finding("warning", "swarm", words, "a round needs more than half: start the other nodes")]


def _rate(rate: float) -> str:
    return f"{8 * rate / 1e6:.0f} Mbit/s" if rate else "nothing"

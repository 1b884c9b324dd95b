"""What the ledger commands print: tables for people, plain values for programs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from shoal.cli.show import line, table
from shoal.errors import shown

if TYPE_CHECKING:
    from shoal.ledger.chronicle import RoundRecord
    from shoal.ledger.entry import Entry
    from shoal.ledger.statement import Statement
    from shoal.ledger.verify import Report


def summary(report: Report) -> dict[str, Any]:
    state = report.state
    outcomes = [r.outcome for r in report.rounds]
    return {
        "swarm": state.swarm,
        "genesis": state.genesis.hex(),
        "secure": bool(state.policy and state.policy.secure),
        "rule": state.policy.rule if state.policy else "",
        "layout": state.layout.hex(),
        "accepted": report.entries,
        "signatures": report.signatures,
        "terms": state.term,
        "head": f"{state.index}:{state.head.hex()}" if report.fault is None else None,
        "members": [
            {"id": i.hex(), "name": m.name, "address": m.address, "voter": m.voter, "since": m.since}
            for i, m in sorted(state.registry.members.items())
        ],
        "certified": outcomes.count("certified"),
        "aborted": outcomes.count("aborted"),
        "open": outcomes.count("open"),
    }


def print_summary(report: Report) -> None:
    facts = summary(report)
    members = facts["members"]
    how = "sums under masks" if facts["secure"] else "in the clear"
    voters = sum(m["voter"] for m in members)
    line(f"swarm     {shown(facts['swarm'])}: {shown(facts['rule'])}, {how}")
    line(f"genesis   {facts['genesis']}")
    line(f"entries   {facts['accepted']}, {facts['terms']} leaders' terms")
    line(f"members   {len(members)} now, {voters} of them voters")
    opened = f", {facts['open']} open" if facts["open"] else ""
    line(f"rounds    {facts['certified']} certified, {facts['aborted']} attempts given up{opened}")
    if facts["head"]:
        line(f"head      {facts['head']}")


def print_members(report: Report) -> None:
    columns = [("member", "left"), ("id", "left"), ("address", "left"), ("role", "left"), ("since entry", "right")]
    rows = [
        [m.name, i.hex()[:16], m.address or "-", "voter" if m.voter else "learner", str(m.since)]
        for i, m in sorted(report.state.registry.members.items(), key=lambda item: (item[1].since, item[1].name))
    ]
    line("")
    table(columns, rows, "members now")


def _when(time_ms: int) -> str:
    """The author's clock in UTC; it is for people only, so a senseless one is shown as nothing."""
    if not 0 < time_ms < 253_402_300_800_000:
        return "-"
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")


def print_rounds(report: Report, rounds: list[RoundRecord]) -> None:
    columns = [
        ("round", "right"),
        ("when (UTC)", "left"),
        ("took part", "right"),
        ("samples", "right"),
        ("fell out, and why", "left"),
        ("result", "left"),
        ("evaluation", "left"),
    ]
    rows = [_cells(r) for r in rounds]
    count = f" (the last {len(rounds)} of {len(report.rounds)} attempts; --last 0: all)"
    table(columns, rows, "rounds" + (count if len(rounds) < len(report.rounds) else ""))


def _cells(r: RoundRecord) -> list[str]:
    result = r.model.hex()[:16] if r.outcome == "certified" else r.outcome + (f": {r.reason}" if r.reason else "")
    scores = [
        f"{name} {value:.4f} ({s.by}, {s.samples} samples)" if at == 0 else f"{name} {value:.4f}"
        for s in r.scores
        for at, (name, value) in enumerate(s.metrics)
    ]
    return [
        f"{r.round}" + (f" attempt {r.attempt}" if r.attempt else ""),
        _when(r.time_ms),
        f"{len(r.took_part)} of {len(r.planned)}",
        str(r.samples) if r.samples else "-",
        "; ".join(f"{f.peer.name}: {f.reason}" for f in r.fallen) or "-",
        result,
        ", ".join(scores) or "-",
    ]


def round_facts(r: RoundRecord) -> dict[str, Any]:
    def peers(some: Any) -> list[dict[str, Any]]:
        return [{"id": p.id.hex(), "name": p.name, "samples": p.samples} for p in some]

    return {
        "round": r.round,
        "attempt": r.attempt,
        "slot": r.slot,
        "entries": [r.first, r.last],
        "time_ms": r.time_ms,
        "outcome": r.outcome,
        "reason": r.reason,
        "base": r.base.hex(),
        "model": r.model.hex() or None,
        "planned": peers(r.planned),
        "took_part": peers(r.took_part),
        "samples": r.samples,
        "fell_out": [{"id": f.peer.id.hex(), "name": f.peer.name, "reason": f.reason} for f in r.fallen],
        "votes": [v.hex() for v in r.votes],
        "evaluations": [{"by": s.by, "samples": s.samples, "metrics": dict(s.metrics)} for s in r.scores],
    }


def entry_facts(entry: Entry, statement: Statement) -> dict[str, Any]:
    from shoal.ledger.body import TYPES
    from shoal.ledger.entry import entry_hash

    return {
        "index": entry.index,
        "term": entry.term,
        "type": TYPES[statement.type][1],
        "author": statement.author.hex(),
        "time_ms": statement.time_ms,
        "bytes": len(entry.payload),
        "sealed": bool(entry.seal),
        "hash": entry_hash(entry).hex(),
    }


def print_entries(listed: list[dict[str, Any]], names: dict[bytes, str]) -> None:
    columns = [
        ("entry", "right"),
        ("term", "right"),
        ("type", "left"),
        ("author", "left"),
        ("when (UTC)", "left"),
        ("bytes", "right"),
        ("sealed", "left"),
        ("hash", "left"),
    ]
    rows = [
        [
            str(e["index"]),
            str(e["term"]),
            e["type"],
            names.get(bytes.fromhex(e["author"]), e["author"][:16]),
            _when(e["time_ms"]),
            str(e["bytes"]),
            "yes" if e["sealed"] else "-",
            e["hash"][:16],
        ]
        for e in listed
    ]
    table(columns, rows, "entries")

"""Messages and disks as one line of a history."""

from __future__ import annotations

from disk import Disk

from shoal.ledger.members import NOBODY


def shown(m: object) -> str:
    """One line for one message."""
    fields = []
    for name in m.__struct_fields__:  # type: ignore[attr-defined]
        value = getattr(m, name)
        if name in ("to", "sender"):
            continue
        if name == "entries":
            value = " ".join(f"{e.index}:{e.term}:{e.payload.decode()}" for e in value) or "-"
        elif name == "generation":
            value = value >> 32
        elif name == "head":
            value = f"{value.index}:{value.term}"
        elif isinstance(value, bytes):
            value = value.hex()[:6]
        fields.append(f"{name}={value}")
    return f"{m.sender.decode()} {type(m).__name__} {' '.join(fields)}"  # type: ignore[attr-defined]


def shown_disk(disk: Disk) -> str:
    h = disk.hard
    log = " ".join(f"{e.index}:{e.term}" for e in disk.entries)
    vote = h.vote.decode() if h.vote != NOBODY else "-"
    return f"term {h.term} vote {vote} commit {h.commit} floor {disk.floor} log {log}"

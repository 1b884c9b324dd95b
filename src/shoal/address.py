"""Where a peer is heard: "tcp://host:port"; chunks go to the port after it."""

from __future__ import annotations

import re
from typing import Final

_ADDRESS: Final = re.compile(r"tcp://(\[[0-9A-Fa-f:.]+(?:%[0-9A-Za-z_.-]+)?\]|[0-9A-Za-z._-]+|\*):([0-9]{1,5})")


def parse_address(address: str) -> tuple[str, int] | None:
    """(host, port) of "tcp://host:port"; None if it is none, or if there is no port after it.

    host  a name, an IPv4 address, an IPv6 address in brackets, or "*" (all of this machine's)
    """
    found = _ADDRESS.fullmatch(address)
    return (found[1], int(found[2])) if found and int(found[2]) < 65535 else None


def dial_fault(address: str) -> str:
    """Why others cannot dial this address; "" if they can, or if it is "" (nobody is to dial)."""
    if not address:
        return ""
    found = parse_address(address)
    if found is None:
        return "no address; expected tcp://host:port"
    if found[0] == "*" or found[1] == 0:
        return "an address to listen at, not one that others can dial"
    return ""

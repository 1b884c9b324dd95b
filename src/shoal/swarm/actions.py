"""What a round asks its node to do: plain values, taken with `Round.take` and done in order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from shoal.ledger.body import Body
from shoal.swarm.messages import AnySaid, ChunkHead


@dataclass(frozen=True, slots=True)
class Send:
    """Say this to a peer, on the control plane.  It may get lost: a round repeats what has had no effect."""

    to: bytes
    said: AnySaid


@dataclass(frozen=True, slots=True)
class SendChunk:
    """Send a chunk, on the data plane.  If it cannot leave now it is dropped; the peer asks again."""

    to: bytes
    head: ChunkHead
    chunk: memoryview


@dataclass(frozen=True, slots=True)
class Propose:
    """Make this the node's own statement in the ledger, by way of the leader."""

    body: Body


@dataclass(frozen=True, slots=True)
class Compute:
    """Run this, where it holds up nothing, and give what it returns (or the ShoalError that it raises) to
    `Round.computed` under its name."""

    name: str
    run: Callable[[], Any]


Action = Send | SendChunk | Propose | Compute

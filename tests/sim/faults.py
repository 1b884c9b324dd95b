"""Which faults one history has: each seed draws a few (swarm testing: Groce et al., ISSTA 2012)."""

from __future__ import annotations

from random import Random

import msgspec

from shoal.ledger.raft import Options


class Swarm(msgspec.Struct):
    """The faults and the shape of one history."""

    nodes: int
    spare: int
    drop: float
    twice: float
    window: int
    partitions: float
    crashes: float
    torn: bool
    crash_inside: float
    slow_disk: float
    changes: float
    transfers: float
    compactions: float
    reads: float
    strikes: float
    bounces: float
    proposals: float
    ticks: float
    rates: tuple[int, ...]
    options: Options
    backups: float = 0.0
    restores: float = 0.0

    @classmethod
    def draw_restores(cls, rng: Random) -> Swarm:
        """One machine comes back with old copies of its disk, again and again.  Nothing else is lost, so that those who
        know better can say so in time: where they cannot be heard nobody can find it (ledger/life.py)."""
        nodes = rng.choice((3, 3, 5))
        options = Options(
            election_ticks=rng.choice((5, 8)),
            pre_vote=rng.random() < 0.5,
            check_quorum=rng.random() < 0.5,
            announce=True,
        )
        quiet = {
            "drop": 0.0,
            "twice": 0.0,
            "window": 1,
            "partitions": 0.0,
            "crashes": 0.0,
            "torn": False,
            "slow_disk": 0.0,
        }
        rare = {
            "crash_inside": 0.0,
            "changes": 0.0,
            "transfers": 0.03,
            "compactions": 0.01,
            "reads": 0.0,
            "strikes": 0.0,
        }
        return cls(
            nodes=nodes, spare=0, **quiet, **rare, bounces=0.01, proposals=0.1, ticks=0.15, rates=(1,) * nodes,
            options=options, backups=0.02, restores=0.02,
        )  # type: ignore[arg-type]  # fmt: skip

    @classmethod
    def draw(cls, rng: Random) -> Swarm:
        r = rng.random

        def sometimes(chance: float, value: float) -> float:
            return value if r() < chance else 0.0

        nodes = rng.choice((3, 3, 3, 3, 4, 5, 5, 2, 1))
        crashing = r() < 0.6
        storm = r() < 0.5  # leaders fall as soon as they stand
        calm = 0.4 if storm else 0.7
        changes = sometimes(0.5, rng.choice((0.04, 0.12)))
        if changes and r() < 0.4:
            nodes = 4  # with even numbers majorities overlap least
        options = Options(
            election_ticks=2 if storm else rng.choice((3, 4, 6)),
            heartbeat_ticks=1,
            pre_vote=r() < calm,
            check_quorum=r() < calm,
            announce=r() < (0.3 if storm else 0.6),
            append_entries=rng.choice((1, 1, 1, 8) if storm else (1, 2, 8)),
            append_bytes=rng.choice((8, 10_000)),
            in_flight=rng.choice((1, 3, 16)),
            chunk_bytes=rng.choice((16, 60, 1000)),
            behind_max=rng.choice((0, 3, 50)),
        )
        return cls(
            nodes=nodes,
            spare=2,
            drop=sometimes(0.5, rng.choice((0.02, 0.1, 0.25))),
            twice=sometimes(0.4, 0.1),
            window=rng.choice((1, 1, 3, 10, 1000)),
            partitions=sometimes(0.5, 0.02),
            crashes=0.012 if crashing else 0.0,
            torn=r() < 0.5,
            crash_inside=0.01 if crashing and r() < 0.5 else 0.0,
            slow_disk=sometimes(0.3, 0.3),
            changes=changes,
            transfers=sometimes(0.3, 0.02),
            compactions=sometimes(0.4, 0.03),
            reads=sometimes(0.3, 0.04),
            strikes=rng.choice((0.03, 0.06)) if storm else 0.0,
            bounces=rng.choice((0.02, 0.06)) if crashing and r() < 0.5 else 0.0,
            proposals=rng.choice((0.05, 0.12)),
            ticks=rng.choice((0.15, 0.25, 0.4)),
            rates=tuple(rng.choice((1, 1, 2, 3)) for _ in range(nodes + 2)) if r() < 0.5 else (1,) * (nodes + 2),
            options=options,
        )

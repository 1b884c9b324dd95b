"""Which faults a history of rounds has: each seed draws a few, so that it is rich in them (Groce et al., ISSTA 2012)."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import msgspec

from shoal.swarm.memory import Weather

#: whom a strike meets, and in which phase of a round
ROLES = ("owner", "backup", "leader", "coordinator", "onlooker", "straggler", "anybody", "everybody")
PHASES = ("PLAN", "SHARE", "UPLOAD", "REDUCE", "COMMIT", "LINGER")


class Strike(msgspec.Struct, frozen=True):
    """Once, in this phase, the machine in this role loses its power: after so many more writes and messages."""

    role: str
    phase: str
    after: int


class Hazards(msgspec.Struct, frozen=True):
    """One history's shape and faults.  Chances are per tick of the swarm.

    rounds       certified rounds after which the faults end, if ``ticks`` have not passed before
    absent       numbers of machines that never have an update;  broken  whose updates hold NaN
    late         of machines that start later;  slow  that train for long
    down_ticks   that a machine without power stays so, at most
    """

    members: int
    secure: bool
    rule: str
    elements: int
    weather: Weather
    rounds: int = 2
    ticks: int = 100
    crashes: float = 0.0
    pauses: float = 0.0
    partitions: float = 0.0
    strikes: tuple[Strike, ...] = ()
    blackout: bool = False
    absent: frozenset[int] = frozenset()
    broken: frozenset[int] = frozenset()
    late: frozenset[int] = frozenset()
    slow: frozenset[int] = frozenset()
    down_ticks: int = 30
    compute_ticks: int = 0
    disk_ticks: int = 0
    lies: frozenset[str] = frozenset()
    scale: float = 0.1

    def training(self, number: int) -> tuple[int, int]:
        """Ticks of training, least and most; (-1, -1): it never trains."""
        if number in self.absent:
            return -1, -1
        return (15, 40) if number in self.slow else (0, 6)

    @classmethod
    def draw(cls, rng: Random, secure: bool | None = None, members: int | None = None) -> Hazards:
        r = rng.random

        def sometimes(chance: float, value: float) -> float:
            return value if r() < chance else 0.0

        n = members or rng.choice((3, 3, 3, 4, 4, 4, 4, 5, 5, 6, 7, 8))
        secure = r() < 0.4 if secure is None else secure
        delay = rng.choice((0.0, 0.03, 0.12))
        idle = r()  # one of these at most: who is left must be enough for a round
        strikes = tuple(
            Strike(rng.choice(ROLES), rng.choice(PHASES), rng.choice((0, 1, 2, 3, 5, 8, 13, 21)))
            for _ in range(rng.choice((0, 1, 1, 2, 3)))
        )
        spare = -(-n // 3) - 1  # that may be missing from a round

        def some(wanted: bool) -> frozenset[int]:
            return frozenset(rng.sample(range(n), spare)) if spare and wanted else frozenset()

        return cls(
            members=n,
            secure=secure,
            rule="mean" if secure else rng.choice(("mean", "mean", "mean", "median", "trimmed-mean")),
            elements=rng.choice((7, 64, 65, 200, 300, 64 * n + 5)),
            weather=Weather((0.0, delay), sometimes(0.4, rng.choice((0.02, 0.1, 0.2))), sometimes(0.4, 0.1)),
            crashes=sometimes(0.3, 0.03),
            pauses=sometimes(0.25, 0.02),
            partitions=sometimes(0.3, 0.04),
            strikes=strikes,
            absent=some(idle < 0.1),
            broken=some(idle > 0.9),
            late=some(r() < 0.15),
            slow=some(r() < 0.3),
            down_ticks=rng.choice((1, 15, 60)),
            compute_ticks=rng.choice((0, 0, 2)),
            disk_ticks=rng.choice((0, 0, 3)),
        )  # fmt: skip

    @classmethod
    def draw_traitor(cls, rng: Random, lies: Sequence[str], secure: bool | None = None) -> Hazards:
        """One member lies, in up to three ways, and little else is wrong: whoever is left is enough for a round."""
        calm = cls.draw(rng, secure, rng.choice((4, 4, 5, 6)))
        weather = Weather(calm.weather.delay_s, calm.weather.drop / 2, calm.weather.twice)
        chosen = frozenset(rng.sample(sorted(lies), min(len(lies), rng.choice((1, 2, 3)))))
        none: frozenset[int] = frozenset()
        return msgspec.structs.replace(
            calm, weather=weather, lies=chosen, rule="mean", crashes=calm.crashes / 3, partitions=0.0, strikes=(),
            absent=none, broken=none, late=none, ticks=120,
        )  # fmt: skip

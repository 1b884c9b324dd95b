"""kill -9 at every step of a round, of the leader and of a follower, of one and of all; the swarm goes on each time.

A scenario: the victim is started with a failpoint, everybody hands a model in, the victim dies at the point (if it does
not, the scenario fails), the others end the round, the victim is started again, all make another round together.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from live_swarm import LiveSwarm, Wrong

from shoal.failpoint import POINTS

pytestmark = pytest.mark.faults

#: points that only the one who coordinates comes by
LEADS = ("plan.propose", "share.set", "survivors.ask", "survivors.certify", "commit.propose")
#: points that no healthy round has: other scenarios reach them
ELSEWHERE = ("handover", "open.half", "catchup.restore", "ledger.snapshot")
#: which time of many: writes and messages that a start makes come before those of a round
TIMES_BY = {
    "ledger.append.before": (1, 3, 9, 17), "ledger.append.inside": (1, 4, 10), "ledger.append.after": (1, 3, 9, 17),
    "replica.send": (2, 9, 25), "replica.apply": (2, 9, 25), "journal.write.before": (2, 3, 5),
    "journal.write.after": (2, 3, 5), "send.control": (2, 60, 150), "send.bulk": (1, 3, 9),
    "model.rename.before": (1,), "model.rename.after": (1,),
}  # fmt: skip
ROUND_POINTS = [name for name in POINTS if name not in ELSEWHERE]
SPECS = [f"{name}:{nth}:kill" for name in ROUND_POINTS for nth in TIMES_BY.get(name, (1,))]


@pytest.fixture(scope="module")
def swarm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveSwarm]:
    with LiveSwarm(tmp_path_factory.mktemp("kills"), 4, secure=True) as made:
        yield made
        made.export_and_verify()


def back_to_work(swarm: LiveSwarm, told: dict) -> None:
    """All run, agree and make another round, with everybody in it."""
    swarm.heal()
    before = swarm.check()
    ended = swarm.round()
    after = swarm.check()
    told["round"] = after
    late = [i for i, end in ended.items() if not end.took_part]
    if after <= before or len(ended) != swarm.n or late:
        raise Wrong(f"round {before} before, {after} after, {len(ended)} merged models, without those of {late}")


def rounds_until_dead(swarm: LiveSwarm, victims: list[int], spec: str, told: dict) -> None:
    """Rounds until the victims have died, three at most."""
    for number in range(1, 4):
        swarm.round(victims=victims)
        if not set(victims) & set(swarm.alive()):
            told["died in"] = number
            return
        swarm.together()
    raise Wrong(f"nobody came by {spec}")


@pytest.mark.parametrize("spec", [s for s in SPECS if not s.startswith(LEADS)])
def test_follower_dies(swarm: LiveSwarm, told: dict, spec: str) -> None:
    swarm.heal()
    victim = next(i for i in range(swarm.n) if i != swarm.leader())
    swarm.restart(victim, spec)
    if swarm.settled(victim):
        rounds_until_dead(swarm, [victim], spec, told)
    back_to_work(swarm, told)


@pytest.mark.parametrize("spec", SPECS)
def test_leader_dies(swarm: LiveSwarm, told: dict, spec: str) -> None:
    swarm.heal()
    victim = swarm.highest()
    swarm.restart(victim, spec)
    if swarm.settled(victim):
        swarm.make_lead(victim)
        rounds_until_dead(swarm, [victim], spec, told)
    back_to_work(swarm, told)

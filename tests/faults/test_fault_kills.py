"""kill -9 at every step of a round, of the leader and of a follower, of one and of all; the swarm goes on each time.

A scenario: the victim is started with a failpoint, everybody hands a model in, the victim dies at the point (if it does
not, the scenario fails), the others end the round, the victim is started again, all make another round together.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from live_swarm import LiveSwarm, Wrong, until

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
    "node.rename.before": (1, 2), "node.rename.after": (1, 2), "statistics.rename.before": (1, 2),
}  # fmt: skip
ROUND_POINTS = [name for name in POINTS if name not in ELSEWHERE]
SPECS = [f"{name}:{nth}:kill" for name in ROUND_POINTS for nth in TIMES_BY.get(name, (1,))]


@pytest.fixture(scope="module")
def swarm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveSwarm]:
    with LiveSwarm(tmp_path_factory.mktemp("kills"), 4, secure=True) as made:
        yield made
        made.export_and_verify()


def rounds_until_dead(swarm: LiveSwarm, victims: list[int], spec: str, told: dict) -> None:
    """Rounds until the victims have died, three at most."""
    for number in range(1, 4):
        swarm.round(victims=victims)
        if not swarm.settled(victims):
            told["died in"] = number
            return
    raise Wrong(f"nobody came by {spec}")


def back_to_work(swarm: LiveSwarm, told: dict) -> None:
    swarm.heal()
    swarm.good_round(told)


@pytest.mark.parametrize("spec", [s for s in SPECS if not s.startswith(LEADS)])
def test_follower_dies(swarm: LiveSwarm, told: dict, spec: str) -> None:
    swarm.heal()
    victim = next(i for i in range(swarm.n) if i != swarm.leader())
    swarm.restart(victim, spec)
    if swarm.settled([victim]):
        rounds_until_dead(swarm, [victim], spec, told)
    back_to_work(swarm, told)


@pytest.mark.parametrize("spec", SPECS)
def test_leader_dies(swarm: LiveSwarm, told: dict, spec: str) -> None:
    swarm.heal()
    victim = swarm.highest()
    swarm.restart(victim, spec)
    if swarm.settled([victim]) and swarm.leads(victim):
        rounds_until_dead(swarm, [victim], spec, told)
    back_to_work(swarm, told)


#: owner and backup of one shard, and others: more than the quorum can spare
TOGETHER = (
    "upload.commit",
    "receipt.propose",
    "survivors.sign",
    "open.seed",
    "sum.propose",
    "check.vouch",
    "vote.send",
)


@pytest.mark.parametrize("name", TOGETHER)
def test_two_die_together(swarm: LiveSwarm, told: dict, name: str) -> None:
    """Two of four: nothing can be decided until one comes back; then it goes on."""
    swarm.heal()
    victims = [i for i in range(swarm.n) if i != swarm.leader()][:2]
    for i in victims:
        swarm.restart(i, f"{name}:1:kill")
    if swarm.settled(victims):
        die_in_a_round(swarm, victims, told)
    back_to_work(swarm, told)


#: also what nobody survives: from the vote on the model must not be lost
ALL = ("share.claim", "upload.commit", "survivors.sign", "open.certify", "sum.propose", "vote.settle", "vote.send",
       "commit.decided", "adopt.before", "adopt.after", "node.rename.before", "node.rename.after")  # fmt: skip


@pytest.mark.parametrize("name", ALL)
def test_all_die(swarm: LiveSwarm, told: dict, name: str) -> None:
    """Each at the point, or, where a quorum is gone before it gets there, of a power cut."""
    swarm.heal()
    everybody = list(range(swarm.n))
    for i in everybody:
        swarm.restart(i, f"{name}:1:kill")
    swarm.together()
    die_in_a_round(swarm, everybody, told)
    back_to_work(swarm, told)


def die_in_a_round(swarm: LiveSwarm, victims: list[int], told: dict) -> None:
    """Everybody hands in; those that have not died some seconds after the first one are killed."""
    swarm.hand_in()
    until("the first one has died", 60, lambda: bool(set(victims) - set(swarm.alive())))
    time.sleep(4)
    told["died of it"] = len(set(victims) - set(swarm.alive()))
    for i in set(victims) & set(swarm.alive()):
        swarm.kill(i)

"""kill -9 at every step of a round, of the leader and of a follower, of one and of all; the swarm goes on each time.

A scenario: the victim is started with a failpoint, everybody hands a model in, the victim dies at the point (if it does
not, the scenario fails), the others end the round, the victim is started again, all make another round together.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import pytest
from live_swarm import START_S, LiveSwarm, Wrong, until

from shoal.failpoint import POINTS

pytestmark = pytest.mark.faults

#: points that only the one who coordinates comes by
LEADS = ("plan.propose", "share.set", "survivors.ask", "survivors.certify", "commit.propose")
#: points that no healthy round has: scenarios of their own reach them (a snapshot comes after 10,000 entries only)
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


def test_a_leader_dies_while_it_hands_over(swarm: LiveSwarm, told: dict) -> None:
    swarm.heal()
    victim = swarm.highest()
    swarm.restart(victim, "handover:1:kill")
    swarm.together()
    assert swarm.leads(victim)
    swarm.signal(victim, signal.SIGTERM)
    if swarm.gone(victim, 20) != -signal.SIGKILL:
        raise Wrong("it did not come by handover")
    swarm.round()
    back_to_work(swarm, told)


def test_a_site_dies_while_it_catches_up(swarm: LiveSwarm, told: dict) -> None:
    swarm.heal()
    victim = next(i for i in range(swarm.n) if i != swarm.leader())
    swarm.stop(victim)
    swarm.round()
    swarm.start(victim, "catchup.restore:1:kill")
    if swarm.gone(victim, START_S) != -signal.SIGKILL:
        raise Wrong("it did not come by catchup.restore")
    back_to_work(swarm, told)


def test_a_holder_dies_with_half_a_secret(swarm: LiveSwarm, told: dict) -> None:
    """One falls out after it has shared its secrets; another dies when it is about to tell its half of them."""
    swarm.heal()
    fallen, holder = [i for i in range(swarm.n) if i != swarm.leader()][:2]
    swarm.restart(fallen, "upload.commit:1:kill")
    swarm.restart(holder, "open.half:1:kill")
    swarm.together()
    swarm.hand_in()
    until("the holder has died", 60, lambda: holder not in swarm.alive())
    back_to_work(swarm, told)


#: writes that fail: the node says so and ends, or says so and goes on without its vote; never as if they had not
FAIL = ("journal.write.before:3:error", "ledger.append.before:9:error", "ledger.append.inside:9:error",
        "model.rename.before:1:error", "node.rename.before:1:error", "statistics.rename.before:1:error")  # fmt: skip


@pytest.mark.parametrize("spec", FAIL)
def test_a_disk_that_fails(swarm: LiveSwarm, told: dict, spec: str) -> None:
    """EIO from one write of a follower."""
    swarm.heal()
    victim = next(i for i in range(swarm.n) if i != swarm.leader())
    before = len(swarm.log(victim))
    swarm.restart(victim, spec)
    swarm.together()
    swarm.round(victims=[victim])

    def said() -> list[str]:
        """What it says after the line that tells of the fault."""
        return [x for x in swarm.log(victim)[before:].partition("failpoint ")[2].splitlines()[1:] if "fault" in x]

    until("it says so", 20, lambda: bool(said()))
    told["said"], told["ended"] = said()[0][9:80], victim not in swarm.alive()
    back_to_work(swarm, told)

"""The cheapest real fault, quick enough for every day: the leader of three processes dies with the certificate in hand."""

from __future__ import annotations

from pathlib import Path

from live_swarm import LiveSwarm, Wrong


def test_the_leader_dies_before_it_certifies(tmp_path: Path, told: dict) -> None:
    with LiveSwarm(tmp_path, 3, secure=False) as swarm:
        victim = swarm.highest()
        swarm.restart(victim, "commit.propose:1:kill")
        swarm.together()
        swarm.leads(victim)
        swarm.round(victims=[victim])
        if swarm.settled([victim]):
            raise Wrong("it did not die")
        swarm.heal()
        swarm.good_round(told)
        swarm.export_and_verify()

"""Bad networks between real processes: cut in two, one way only, slow, lossy, far away; then good again."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import wide_switch
from live_swarm import LiveSwarm, Wrong
from wide_switch import Switch

pytestmark = pytest.mark.faults

#: for links of 200 ms there and back
TIMES = """
[times]
tick_ms = 50
election_ms = 1500
progress_timeout_s = 3.0
straggler_grace_s = 3.0
"""


@pytest.fixture(scope="module")
def switch() -> Iterator[Switch]:
    reason = wide_switch.why_not()
    if reason:
        pytest.skip(reason)
    with Switch(4) as made:
        yield made


@pytest.fixture(scope="module")
def far(switch: Switch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveSwarm]:
    addresses = [f"tcp://{switch.address(i)}:7700" for i in range(4)]
    folder = tmp_path_factory.mktemp("far")
    with LiveSwarm(
        folder, 4, secure=True, elements=100_000, addresses=addresses, prefix=switch.prefix, times=TIMES
    ) as made:
        yield made
        made.export_and_verify()


@pytest.fixture(autouse=True)
def fair_weather(switch: Switch, far: LiveSwarm) -> Iterator[None]:
    switch.everywhere()
    far.heal()
    yield
    switch.everywhere()


@pytest.mark.parametrize("role", ["leader", "follower"])
def test_one_is_cut_off(switch: Switch, far: LiveSwarm, told: dict, role: str) -> None:
    leader = far.leader()
    alone = leader if role == "leader" else next(i for i in range(4) if i != leader)
    rest = set(range(4)) - {alone}
    switch.cut({alone}, rest)
    ended = far.round(sorted(rest))
    told["without it"] = max(end.round for end in ended.values())
    switch.everywhere()
    far.good_round(told)


def test_cut_in_the_middle_of_a_round(switch: Switch, far: LiveSwarm, told: dict) -> None:
    """Everybody hands in; one is cut off once the round has begun."""
    import threading

    alone = next(i for i in range(4) if i != far.leader())
    before = far.status(alone).slot

    def cut() -> None:
        while far.status(alone).slot == before and not done.is_set():
            time.sleep(0.01)
        switch.cut({alone}, set(range(4)) - {alone})

    done = threading.Event()
    watcher = threading.Thread(target=cut)
    watcher.start()
    try:
        far.round(victims=[alone])
    finally:
        done.set()
        watcher.join()
    switch.everywhere()
    far.good_round(told)


def test_two_halves(switch: Switch, far: LiveSwarm, told: dict) -> None:
    """Neither half is a quorum: nothing is certified until they meet again."""
    before = far.together().round
    switch.cut({0, 1}, {2, 3})
    with pytest.raises(Wrong, match="no merged model"):
        far.round(seconds=12)
    if any(far.status(i).round != before for i in range(4)):
        raise Wrong("a half has certified a round")
    switch.everywhere()
    until = time.monotonic() + 90
    while far.status(0).round == before and time.monotonic() < until:
        time.sleep(0.2)  # what was handed in is merged now
    if far.check() <= before:
        raise Wrong("what was handed in before is lost")
    far.good_round(told)


def test_one_way_only(switch: Switch, far: LiveSwarm, told: dict) -> None:
    """One hears the others and is not heard."""
    deaf = far.leader()
    rest = set(range(4)) - {deaf}
    switch.cut({deaf}, rest, both_ways=False)
    far.round(sorted(rest))
    switch.everywhere()
    far.good_round(told)


def test_no_direct_link_between_two(switch: Switch, far: LiveSwarm, told: dict) -> None:
    """Two cannot reach each other; both reach the rest.  The round may leave one of them out, and goes on."""
    a, b = [i for i in range(4) if i != far.leader()][:2]
    switch.cut({a}, {b})
    ended = far.round(victims=[a, b])
    told["took part"] = sum(end.took_part for end in ended.values())
    switch.everywhere()
    far.good_round(told)


@pytest.mark.parametrize(
    ("name", "weather"),
    [
        ("far", {"delay_s": 0.1}),
        ("lossy", {"loss": 0.05, "delay_s": 0.005}),
        ("slow", {"rate_bps": 10e6, "delay_s": 0.005}),
        ("all of it", {"rate_bps": 10e6, "delay_s": 0.1, "loss": 0.02}),
    ],
)
def test_bad_weather(switch: Switch, far: LiveSwarm, told: dict, name: str, weather: dict) -> None:
    switch.everywhere(**weather)
    terms, lost = far.status(0).term, switch.lost
    began = time.monotonic()
    for _ in range(3):
        far.round()
    told["seconds a round"] = round((time.monotonic() - began) / 3, 1)
    far.check()
    told["elections"] = far.status(0).term - terms
    told["packets lost"] = switch.lost - lost
    if "loss" in weather and switch.lost == lost:
        raise Wrong("no packet was lost")
    switch.everywhere()
    far.good_round(told)

"""What happens to machines: stopped, full, restored from a backup, cloned, with a clock that jumps; and to sites."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from live_swarm import LiveSwarm, Wrong, free_ports, until

from shoal.errors import InputError
from shoal.model.model import save
from shoal.swarm.door import Caller, Submit, Taken

pytestmark = pytest.mark.faults


@pytest.fixture(scope="module")
def swarm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveSwarm]:
    with LiveSwarm(tmp_path_factory.mktemp("world"), 4, secure=True) as made:
        yield made
        made.export_and_verify()


def others(swarm: LiveSwarm, i: int) -> list[int]:
    return [j for j in range(swarm.n) if j != i]


@pytest.mark.parametrize("role", ["leader", "follower"])
def test_a_process_that_is_stopped(swarm: LiveSwarm, told: dict, role: str, request: pytest.FixtureRequest) -> None:
    """SIGSTOP, longer than any patience of the others; then it goes on as if nothing had been."""
    swarm.heal()
    leader = swarm.leader()
    victim = leader if role == "leader" else others(swarm, leader)[0]
    swarm.signal(victim, signal.SIGSTOP)
    began = time.monotonic()
    ended = swarm.round(others(swarm, victim))
    told["without it"] = max(end.round for end in ended.values())
    time.sleep(max(0.0, request.config.getoption("pause", 6.0) - (time.monotonic() - began)))
    told["stopped for"] = round(time.monotonic() - began, 1)
    swarm.signal(victim, signal.SIGCONT)
    swarm.good_round(told)


@pytest.mark.parametrize("point", ["share.hold", "upload.offer", "survivors.sign", "sum.propose", "vote.send"])
def test_a_process_that_is_stopped_in_a_round(swarm: LiveSwarm, told: dict, point: str) -> None:
    """It stops itself at a point, and goes on when the others have long gone on without it."""
    swarm.heal()
    victim = others(swarm, swarm.leader())[0]
    swarm.restart(victim, f"{point}:1:stop")
    swarm.together()
    swarm.round(victims=[victim])
    if f"failpoint {point}" not in swarm.log(victim):
        raise Wrong("it did not stop")
    time.sleep(2)
    swarm.signal(victim, signal.SIGCONT)
    swarm.good_round(told)


def test_a_disk_from_a_backup(told: dict, tmp_path: Path) -> None:
    """A site comes back with what it had three rounds ago: the others do not listen to it, it says why, and the members
    let it in anew, by a vote."""
    with LiveSwarm(tmp_path, 4, secure=True) as swarm:
        swarm.round()
        victim = others(swarm, swarm.leader())[0]
        swarm.stop(victim)
        swarm.copy_folder(victim, tmp_path / "backup")
        swarm.start(victim)
        swarm.together()
        for _ in range(3):
            swarm.round()
        swarm.stop(victim)
        shutil.rmtree(swarm.data(victim))
        shutil.copytree(tmp_path / "backup", swarm.data(victim))
        swarm.start(victim)
        until("it says what is wrong", 30, lambda: "an earlier state" in swarm.log(victim))
        told["said"] = next(line for line in swarm.log(victim).splitlines() if "an earlier state" in line)[9:60]
        told["without it"] = max(end.round for end in swarm.round(others(swarm, victim)).values())
        swarm.stop(victim)
        let_in_anew(swarm, victim)
        swarm.good_round(told)
        # It votes again: without another one there still is a quorum.
        swarm.kill(others(swarm, victim)[0])
        swarm.round()
        swarm.heal()
        swarm.good_round(told)
        swarm.export_and_verify()


def let_in_anew(swarm: LiveSwarm, victim: int) -> None:
    """As docs say: removed by a vote, an empty folder, `join --new`, let in and promoted by votes."""
    name, voters = swarm.names[victim], others(swarm, victim)
    vote(swarm, voters, "remove", name)
    members = lambda: {m.name: m.voter for m in swarm.status(voters[0]).members}  # noqa: E731
    until("it is removed", 30, lambda: name not in members())
    shutil.rmtree(swarm.data(victim))
    genesis = str(swarm.folder / "genesis.shoal-ledger")
    swarm.shoal("join", str(swarm.settings(victim)), genesis, "--digest", swarm.genesis, "--new")
    swarm.start(victim)
    vote(swarm, voters, "approve", str(swarm.folder / name / f"{name}.card"))
    until("it is let in", 30, lambda: name in members())
    swarm.together(seconds=90)
    until(
        "it may be promoted", 30, lambda: vote(swarm, voters, "promote", name) is None and soon(lambda: members()[name])
    )
    swarm.together()


def soon(done: Callable[[], bool]) -> bool:
    """Within a few seconds."""
    end = time.monotonic() + 5
    while not done() and time.monotonic() < end:
        time.sleep(0.1)
    return done()


def vote(swarm: LiveSwarm, voters: list[int], change: str, what: str) -> None:
    """A ballot goes from site to site until enough have approved; the last one hands the statement to its node."""
    for number, i in enumerate(voters):
        ballot = str(swarm.folder / f"{change}-{number}")
        said = json.loads(
            swarm.shoal("members", change, str(swarm.settings(i)), what, "-o", ballot, "--format", "json").stdout
        )
        if "statement" in said:
            if not said["handed"]:
                raise Wrong(f"{change}: the node did not take the statement")
            return
        change, what = "approve", ballot
    raise Wrong(f"{change} {what}: {len(voters)} approvals are not enough")


def test_two_processes_on_one_folder(swarm: LiveSwarm, told: dict) -> None:
    swarm.heal()
    done = swarm.shoal("node", str(swarm.settings(0)), check=False)
    if done.returncode != 1 or "another process" not in done.stderr:
        raise Wrong(f"exit {done.returncode}: {done.stderr}")
    told["said"] = done.stderr.strip().splitlines()[-1][-60:]
    swarm.good_round(told)


def test_two_processes_with_one_identity(swarm: LiveSwarm, told: dict, tmp_path: Path) -> None:
    """A clone on another machine: the others let in only the one that was there first, and say so."""
    swarm.heal()
    clone = tmp_path / "clone"
    swarm.stop(0)
    shutil.copytree(swarm.folder / swarm.names[0], clone, ignore=shutil.ignore_patterns("*.sock", "node.log"))
    swarm.start(0)
    swarm.together()
    settings = clone / "site.toml"
    text = settings.read_text()
    listen = next(line for line in text.splitlines() if line.startswith("listen"))
    settings.write_text(text.replace(listen, f'listen = "tcp://127.0.0.1:{free_ports(1)[0]}"'))
    with (tmp_path / "clone.log").open("wb") as log:
        twin = subprocess.Popen(
            [os.sys.executable, "-m", "shoal", "node", str(settings)], env=swarm.environment(), stdout=log, stderr=log
        )  # fmt: skip
    try:
        until("a twin is refused", 30, lambda: any(refused_twins(swarm, i) for i in others(swarm, 0)))
        told["refused"] = sum(refused_twins(swarm, i) for i in others(swarm, 0))
        for _ in range(2):
            swarm.good_round(told)
    finally:
        twin.kill()
        twin.wait()


def refused_twins(swarm: LiveSwarm, i: int) -> int:
    return swarm.status(i).refused.get("refused.twin", 0)


def test_a_full_disk(swarm: LiveSwarm, told: dict) -> None:
    """A node whose disk is full says so; when there is room again it goes on from what it had."""
    swarm.heal()
    victim = others(swarm, swarm.leader())[0]
    data = swarm.data(victim)
    swarm.stop(victim)
    kept = data.with_name("kept")
    data.rename(kept)
    data.mkdir(mode=0o700)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size_of(kept) + 600_000},mode=700", "tmpfs", str(data)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    try:
        if mounted.returncode:
            pytest.skip(f"no tmpfs for us: {mounted.stderr.strip()}")
        shutil.copytree(kept, data, dirs_exist_ok=True)
        swarm.start(victim)
        swarm.together()
        filler = data / "filler"
        fill(filler)
        swarm.round(victims=[victim])
        told["said"] = said(swarm, victim)
        filler.unlink()
        if victim in swarm.alive():
            swarm.stop(victim)
        swarm.start(victim)
        swarm.good_round(told)
    finally:
        if victim in swarm.alive():
            swarm.kill(victim)
        if not mounted.returncode:
            shutil.rmtree(kept)
            shutil.copytree(data, kept, ignore=shutil.ignore_patterns("*.sock", "filler"))
            subprocess.run(["umount", "-l", str(data)], check=False)
        data.rmdir()
        kept.rename(data)
    swarm.heal()


def fill(path: Path) -> None:
    """Take all room that the file system has left."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    for size in (65536, 512):
        try:
            while os.write(descriptor, bytes(size)):
                pass
        except OSError:
            pass
    os.close(descriptor)


def test_a_model_too_large_for_the_disk(told: dict, tmp_path: Path) -> None:
    """One site cannot write models of this size (a limit of 8 MB for one file): it says so, the others certify without
    it, it holds the model in memory; once it may write again, it has it on its disk."""
    with LiveSwarm(tmp_path, 3, secure=False, elements=4_000_000) as swarm:
        swarm.round()
        victim = others(swarm, swarm.leader())[0]
        swarm.stop(victim)
        swarm.start(victim, before=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (8 * 10**6,) * 2))
        swarm.together()
        with pytest.raises(InputError) as raised:
            swarm.round([victim])
        assert raised.value.code == "output.disk_full", raised.value
        told["without it"] = max(end.round for end in swarm.round(others(swarm, victim)).values())
        until("it has the model in memory", 60, lambda: swarm.status(victim).model == swarm.model)
        until("it says so", 30, lambda: "not kept" in swarm.log(victim))
        told["said"] = next(line for line in swarm.log(victim).splitlines() if "File too large" in line)[9:90]
        swarm.restart(victim)
        swarm.good_round(told)
        swarm.export_and_verify()


def size_of(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*"))


def said(swarm: LiveSwarm, victim: int) -> str:
    """The line in which a node tells that its disk is full.  raises  Wrong"""
    found = [line for line in swarm.log(victim).splitlines() if "full" in line or "No space" in line]
    if not found:
        raise Wrong(f"no line about the disk:\n{swarm.log(victim)[-1500:]}")
    return found[-1][-90:]


def test_a_site_that_does_not_come_back(swarm: LiveSwarm, told: dict) -> None:
    swarm.heal()
    victim = others(swarm, swarm.leader())[-1]
    swarm.kill(victim)
    rounds = [max(end.round for end in swarm.round().values()) for _ in range(3)]
    told["without it"] = len(rounds)
    if rounds != sorted(set(rounds)):
        raise Wrong(f"rounds {rounds}")
    swarm.start(victim)
    swarm.good_round(told)


@pytest.mark.parametrize(
    ("value", "code"), [(np.nan, "diff.nonfinite"), (np.inf, "diff.nonfinite"), (1e30, "diff.large")]
)
def test_a_model_that_diverged(swarm: LiveSwarm, told: dict, value: float, code: str) -> None:
    """The site that hands it in is told at once; the others merge theirs."""
    swarm.heal()
    bad = {**swarm.now, "w": np.where(np.arange(swarm.now["w"].size) == 77, value, swarm.now["w"]).astype(np.float32)}
    path = swarm.folder / swarm.names[1] / "local.onnx"
    save(bad, path)
    with Caller(swarm.data(1)) as caller:
        caller.ask(Submit(str(path), 10))
        with pytest.raises(InputError) as raised:
            while True:
                assert not isinstance(caller.answer(5.0), Taken)
    assert raised.value.code == code, raised.value
    told["said"] = str(raised.value)[:70]
    swarm.round(others(swarm, 1))
    swarm.good_round(told)


#: what is called by Python before anything else of the process: another clock
_SHIM = """
import itertools, time
steps = itertools.cycle([0, 3600, -3600, 3 * 86400, -3 * 86400, 10 * 365 * 86400, -10 * 365 * 86400])
real = time.time_ns
time.time_ns = lambda: max(0, real() + next(steps) * 10**9)
time.time = lambda: time.time_ns() / 1e9
"""


def test_a_clock_that_jumps(swarm: LiveSwarm, told: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock on the wall of one site jumps by hours, days and years at each look.

    Nothing follows from it: ticks come from a monotonic clock, which the kernel never sets back or forward; the wall's
    stands in statements, for people.
    """
    swarm.heal()
    (tmp_path / "sitecustomize.py").write_text(_SHIM)
    plain = swarm.environment

    def environment(failpoint: str = "") -> dict[str, str]:
        found = plain(failpoint)
        return {**found, "PYTHONPATH": f"{tmp_path}{os.pathsep}{found['PYTHONPATH']}"}

    terms = swarm.status(0).term
    with monkeypatch.context() as patch:
        patch.setattr(swarm, "environment", environment)
        swarm.restart(1)
        swarm.together()
        for _ in range(3):
            swarm.good_round(told)
        told["elections"] = swarm.status(0).term - terms
        swarm.stop(1)
    swarm.heal()

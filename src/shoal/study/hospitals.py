"""Hospitals that run for real: a folder, keys and a node process each, on this machine, set up by the commands that a
site uses.

One of them can be killed in the middle of everything, and comes back.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from shoal.config import read_site
from shoal.errors import MachineError, ShoalError
from shoal.model.model import load
from shoal.study.ways import Round
from shoal.swarm.door import SOCKET_FILE, Caller, Ended, Submit
from shoal.swarm.node import Status

#: seconds in which a node must come up, and a round must end
_START_S, _ROUND_S = 60.0, 120.0
#: times for four nodes that share one small machine
_TIMES = """
[times]
tick_ms = 50
election_ms = 600
progress_timeout_s = 3.0
straggler_grace_s = 2.0
"""


def shoal(*words: str) -> str:
    """Run a command of Shoal's; what it printed.

    raises  MachineError  ``study.command``
    """
    done = subprocess.run([sys.executable, "-m", "shoal", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise MachineError("study.command", f"shoal {words[0]}: {done.stderr.strip()}")
    return done.stdout


class Hospitals:
    """Nodes below ``folder``, one for each name; use as a context manager.

    base      the model that all begin with
    rule      "mean": sums under masks, in a swarm; else in the clear by that rule
    tell      is called with one line when somebody is killed or comes back
    topology  "swarm", or "federated": the first hospital is the coordinator
    """

    def __init__(
        self,
        folder: Path,
        names: Sequence[str],
        base: Path,
        rule: str,
        tell: Callable[[str], None],
        topology: str = "swarm",
    ) -> None:
        self.folder = folder
        self.names = list(names)
        self.settings = [folder / name / "site.toml" for name in names]
        self.genesis = ""
        self._base = base
        self._tell = tell
        self._nodes: list[subprocess.Popen[bytes] | None] = [None] * len(self.names)
        self._found(rule, topology)

    def _found(self, rule: str, topology: str) -> None:
        """Keys and cards at each hospital, the genesis at the first one, `join` at each."""
        ports = _free_ports(len(self.names))
        for name, port in zip(self.names, ports, strict=True):
            shoal("keys", str(self.folder / name), "--name", name, "--address", f"tcp://127.0.0.1:{port}")
            settings = self.folder / name / "site.toml"
            text = settings.read_text().replace(f"tcp://*:{port}", f"tcp://127.0.0.1:{port}")
            settings.write_text(text + _TIMES)
        cards = [str(self.folder / name / f"{name}.card") for name in self.names[1:]]
        genesis = self.folder / "genesis.shoal-ledger"
        secure = rule == "mean" and topology == "swarm"
        mode = ["--secure"] if secure else ["--plain", "--rule", rule]
        mode += ["--topology", topology, "--peers-min", "3"]
        words = ["--model", str(self._base), "--name", "demo", "-o", str(genesis), *mode, "--format", "json"]
        made = json.loads(shoal("init", str(self.settings[0]), *cards, *words))
        self.genesis = made["digest"]
        for settings in self.settings:
            shoal("join", str(settings), str(genesis), "--digest", self.genesis)

    def __enter__(self) -> Hospitals:
        for at in range(len(self.names)):
            self.start(at)
        for at in range(len(self.names)):
            self._await(at)
        return self

    def __exit__(self, *_: object) -> None:
        for node in self._nodes:
            if node is not None:
                node.terminate()
        for node in self._nodes:
            if node is not None:
                try:
                    node.wait(10)
                except subprocess.TimeoutExpired:
                    node.kill()
                    node.wait()

    # --- one hospital -------------------------------------------------------------------------------------------------

    def start(self, at: int) -> None:
        """Start a hospital's node; what it says goes to node.log in its folder."""
        place = self.folder / self.names[at]
        (place / "data" / SOCKET_FILE).unlink(missing_ok=True)
        with (place / "node.log").open("ab") as log:
            words = ["node", str(self.settings[at]), "--model", str(self._base)]
            self._nodes[at] = subprocess.Popen(
                [sys.executable, "-m", "shoal", *words], stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )

    def kill(self, at: int) -> None:
        """As a power cut would: no goodbye."""
        node = self._nodes[at]
        if node is not None:
            os.kill(node.pid, signal.SIGKILL)
            node.wait()
        self._nodes[at] = None
        self._tell(f"hospital {self.names[at]} was killed")

    def running(self, at: int) -> bool:
        return self._nodes[at] is not None

    def status(self, at: int) -> Status:
        """raises  MachineError  it does not answer"""
        with Caller(self._data(at)) as caller:
            return caller.status()

    def caught_up(self, at: int, round_: int, seconds: float = _START_S) -> Status:
        """Wait until a hospital has the certified model of ``round_`` or a later one."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            try:
                found = self.status(at)
                if found.round >= round_ and not found.behind:
                    return found
            except ShoalError:
                pass
            time.sleep(0.1)
        raise MachineError("study.behind", f"hospital {self.names[at]} has not caught up with round {round_}")

    def _await(self, at: int) -> None:
        until = time.monotonic() + _START_S
        while time.monotonic() < until:
            node = self._nodes[at]
            if node is None or node.poll() is not None:
                break
            try:
                if len([m for m in self.status(at).members if m.connected]) > len(self.names) // 2:
                    return
            except ShoalError:
                pass
            time.sleep(0.1)
        log = (self.folder / self.names[at] / "node.log").read_text(errors="replace")[-500:]
        raise MachineError("study.node", f"hospital {self.names[at]} did not come up: {log}")

    def _data(self, at: int) -> Path:
        return Path(read_site(self.settings[at]).data)

    # --- a round ------------------------------------------------------------------------------------------------------

    def meet(self, round_: Round, method: str) -> list[Path]:  # noqa: ARG002  (the swarm's policy says the rule)
        """A round's meeting, as ways.Meeting: everybody that runs submits its file, all go on with the merged one.

        Who does not run goes on with what it began with, until it is back.
        """
        with ExitStack() as stack:
            callers: dict[int, Caller] = {}
            for at in range(len(self.names)):
                if self.running(at):
                    callers[at] = stack.enter_context(Caller(self._data(at)))
                    callers[at].ask(Submit(str(round_.files[at].resolve()), round_.samples[at]))
            ended = {at: self._ended(at, caller) for at, caller in callers.items()}
        first = ended[min(ended)]
        with load(round_.files[min(ended)]) as form, load(first.path) as merged:
            for name in merged:
                form[name] = merged[name]
            form.save(round_.output)
        digests = {one.digest for one in ended.values()}
        if len(digests) != 1:
            raise MachineError("study.differ", f"hospitals came out with {len(digests)} different models")
        return [round_.output] * len(self.names)

    def _ended(self, at: int, caller: Caller) -> Ended:
        until = time.monotonic() + _ROUND_S
        while time.monotonic() < until:
            answer = caller.answer(1.0)
            if isinstance(answer, Ended):
                return answer
        raise MachineError("study.round", f"hospital {self.names[at]}: no merged model within {_ROUND_S:g} s")

    def export(self, path: Path) -> Path:
        """The ledger of the first hospital, for anybody to verify."""
        ledger = self._data(0) / "ledger.db"
        path.unlink(missing_ok=True)
        shoal("ledger", "export", str(ledger), "-o", str(path))
        return path


def _free_ports(count: int) -> list[int]:
    """Pairs of neighbouring ports that are free now, the first of each."""
    found: list[int] = []
    port = 20_000 + os.getpid() % 20_000
    while len(found) < count:
        port += 2
        try:
            for one in (port, port + 1):
                with socket.socket() as tried:
                    tried.bind(("127.0.0.1", one))
        except OSError:
            continue
        found.append(port)
    return found

"""A swarm of node processes in folders of this machine, set up and run by the commands that a site uses.

The harness trains (adds noise), hands models in at each node's door, kills, stops and restarts processes, and checks
what must hold afterwards: one model everywhere, one history that verifies, each result the mean of what is listed.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np

from shoal.diff.residual import ROUNDS_MISSED_MAX
from shoal.errors import ShoalError
from shoal.ledger.archive import Archive
from shoal.ledger.entry import entry_hash
from shoal.ledger.verify import verify
from shoal.model.model import Model, load, save
from shoal.swarm.door import SOCKET_FILE, Caller, Ended, Submit
from shoal.swarm.node import Status

SOURCE = Path(__file__).resolve().parents[2] / "src"
TIMES = """
[times]
tick_ms = 30
election_ms = 500
progress_timeout_s = 1.5
straggler_grace_s = 1.0
"""
#: seconds in which a process must come up, a round end, a member catch up
START_S, ROUND_S, BACK_S = 40.0, 90.0, 60.0
#: error of a quantised mean that is the right one, in units of the spread; one of four counted twice gives 0.15 or more
ERROR_MAX = 0.1


class Wrong(AssertionError):
    """Something that must hold does not."""


def until(what: str, seconds: float, done: Callable[[], bool]) -> None:
    """Wait for a thing.  raises  Wrong  it did not come about"""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with suppress(ShoalError):
            if done():
                return
        time.sleep(0.05)
    raise Wrong(f"not within {seconds:g} s: {what}")


def free_ports(count: int) -> list[int]:
    """The first of as many pairs of free neighbouring ports."""
    found: list[int] = []
    port = 21_000 + os.getpid() % 18_000 // 2 * 2
    while len(found) < count:
        port += 2
        with suppress(OSError):
            for one in (port, port + 1):
                with socket.socket() as tried:
                    tried.bind(("127.0.0.1", one))
            found.append(port)
    return found


class LiveSwarm:
    """n nodes; use as a context manager.

    secure     sums under masks, else plain means
    addresses  where each is reached ("tcp://host:port"); None: ports of the loopback
    prefix     words before a node's command, by number: `ip netns exec NAME`
    """

    def __init__(
        self,
        folder: Path,
        n: int,
        *,
        secure: bool,
        elements: int = 4000,
        addresses: Sequence[str] | None = None,
        prefix: Callable[[int], list[str]] = lambda _: [],
        times: str = TIMES,
    ) -> None:
        self.folder, self.n, self.secure = folder, n, secure
        self.names = [f"site-{i}" for i in range(n)]
        self.nodes: list[subprocess.Popen[bytes] | None] = [None] * n
        self.armed = [""] * n  # the failpoints that each process was started with
        self.prefix = prefix
        self.times = times
        rng = np.random.default_rng(5)
        self.base = folder / "base.onnx"
        self.now = {"w": rng.standard_normal(elements).astype(np.float32), "steps": np.array([7], np.int64)}
        save(self.now, self.base)
        self._handed: dict[tuple[str, str], list[dict[str, np.ndarray]]] = {}  # (digest of the base, site) -> models
        self._draws = 0
        self._found(addresses or [f"tcp://127.0.0.1:{port}" for port in free_ports(n)])
        self.checked = 0  # the last round that `check` saw
        self.void = 0  # updates that were handed in again, because an attempt was given up
        self.means = 0  # rounds whose results were compared with the means

    def shoal(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "shoal", *words], env=self.environment(), capture_output=True, text=True, check=False
        )
        if check and done.returncode:
            raise Wrong(f"shoal {' '.join(words)}: {done.stderr}")
        return done

    @staticmethod
    def environment(failpoint: str = "") -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(SOURCE), "SHOAL_THREADS": "1", "SHOAL_FAILPOINT": failpoint}

    def _found(self, addresses: Sequence[str]) -> None:
        for name, address in zip(self.names, addresses, strict=True):
            self.shoal("keys", str(self.folder / name), "--name", name, "--address", address)
            settings = self.folder / name / "site.toml"
            port = address.rpartition(":")[2]
            settings.write_text(settings.read_text().replace(f"tcp://*:{port}", address) + self.times)
        cards = [str(self.folder / name / f"{name}.card") for name in self.names[1:]]
        genesis = str(self.folder / "genesis.shoal-ledger")
        mode = "--secure" if self.secure else "--plain"
        words = [str(self.settings(0)), *cards, "--model", str(self.base), "--name", "faults", "-o", genesis, mode]
        self.genesis = json.loads(self.shoal("init", *words, "--format", "json").stdout)["digest"]
        for i in range(self.n):
            self.shoal("join", str(self.settings(i)), genesis, "--digest", self.genesis)

    def settings(self, i: int) -> Path:
        return self.folder / self.names[i] / "site.toml"

    def data(self, i: int) -> Path:
        return self.folder / self.names[i] / "data"

    def log(self, i: int) -> str:
        path = self.folder / self.names[i] / "node.log"
        return path.read_text(errors="replace") if path.exists() else ""

    # --- processes ----------------------------------------------------------------------------------------------------

    def __enter__(self) -> LiveSwarm:
        for i in range(self.n):
            self.start(i)
        try:
            self.together()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for node in self.nodes:
            if node is not None:
                with suppress(ProcessLookupError):
                    node.send_signal(signal.SIGCONT)
                node.terminate()
        for i, node in enumerate(self.nodes):
            if node is not None:
                try:
                    node.wait(10)
                except subprocess.TimeoutExpired:
                    node.kill()
                    node.wait()
            self.nodes[i] = None

    def start(self, i: int, failpoint: str = "", before: Callable[[], None] | None = None) -> None:
        """``before``: called in the new process before it becomes the node."""
        if self.nodes[i] is not None:
            raise Wrong(f"{self.names[i]} runs already")
        (self.data(i) / SOCKET_FILE).unlink(missing_ok=True)
        self.armed[i] = failpoint
        with (self.folder / self.names[i] / "node.log").open("ab") as log:
            words = [*self.prefix(i), sys.executable, "-m", "shoal", "node", str(self.settings(i))]
            self.nodes[i] = subprocess.Popen(
                [*words, "--model", str(self.base)],
                env=self.environment(failpoint), stdout=log, stderr=log, stdin=subprocess.DEVNULL, preexec_fn=before,
            )  # fmt: skip

    def pid(self, i: int) -> int:
        node = self.nodes[i]
        if node is None:
            raise Wrong(f"{self.names[i]} does not run")
        return node.pid

    def signal(self, i: int, number: int) -> None:
        os.kill(self.pid(i), number)

    def kill(self, i: int) -> None:
        self.signal(i, signal.SIGKILL)
        self.gone(i, 10)

    def stop(self, i: int) -> None:
        """SIGTERM: it hands over and leaves."""
        self.signal(i, signal.SIGTERM)
        self.gone(i, 20)

    def gone(self, i: int, seconds: float) -> int:
        """Wait for the end of a process; its exit code."""
        node = self.nodes[i]
        assert node is not None
        try:
            code = node.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Wrong(f"{self.names[i]} is still there after {seconds:g} s:\n{self.log(i)[-2000:]}") from None
        self.nodes[i] = None
        return code

    def restart(self, i: int, failpoint: str = "") -> None:
        if self.nodes[i] is not None:
            self.stop(i)
        self.start(i, failpoint)

    def alive(self) -> list[int]:
        """Those whose process runs."""
        for i, node in enumerate(self.nodes):
            if node is not None and node.poll() is not None:
                self.nodes[i] = None
        return [i for i, node in enumerate(self.nodes) if node is not None]

    def settled(self, victims: Iterable[int]) -> bool:
        """Wait until all agree, or the victims have died of what they were started with; whether one lives."""
        these = set(victims)

        def done() -> bool:
            return not these & set(self.alive()) or self._agreed(self.alive()) is not None

        until(f"{[self.names[i] for i in these]} are up, or dead", BACK_S, done)
        return bool(these & set(self.alive()))

    def heal(self) -> None:
        """All run and agree, without failpoints, whatever was before."""
        for i in range(self.n):
            if i in self.alive() and self.armed[i]:
                self.kill(i)
            if i not in self.alive():
                self.start(i)
        self.check()

    # --- looking ------------------------------------------------------------------------------------------------------

    def status(self, i: int) -> Status:
        with Caller(self.data(i)) as caller:
            return caller.status(3.0)

    def leader(self) -> int:
        """Whom a majority of the living take for the leader.  raises  Wrong"""
        found = -1

        def agreed() -> bool:
            nonlocal found
            told = [next((m.name for m in self.status(i).members if m.leads), "") for i in self.alive()]
            best = max(set(told), key=told.count)
            found = self.names.index(best) if best else -1
            return bool(best) and told.count(best) > len(told) // 2

        until("a leader", START_S, agreed)
        return found

    def highest(self) -> int:
        """The member with the highest id: to whom a leader that leaves hands over."""
        told = {m.name: m.id for m in self.status(self.alive()[0]).members}
        return max(range(self.n), key=lambda i: told[self.names[i]])

    def leads(self, i: int) -> bool:
        """Hand the lead on until ``i``, the highest, has it; False if it dies meanwhile, of what it was started with."""
        for _ in range(6):
            now = self.leader()
            if now == i or i not in self.alive():
                return i in self.alive()
            self.restart(now, self.armed[now])
            self.settled([i])
        raise Wrong(f"{self.names[i]} does not become leader")

    def together(self, who: Iterable[int] | None = None, seconds: float = BACK_S) -> Status:
        """Wait until these are connected with each other, have the same round and model, and are not behind."""
        these = list(self.alive() if who is None else who)
        found: Status | None = None

        def agreed() -> bool:
            nonlocal found
            found = self._agreed(these)
            return found is not None

        try:
            until(f"{[self.names[i] for i in these]} agree", seconds, agreed)
        except Wrong as wrong:
            raise Wrong(f"{wrong}\n{self.story(these)}") from None
        assert found is not None
        return found

    def _agreed(self, these: list[int]) -> Status | None:
        names = {self.names[i] for i in these}
        told = [self.status(i) for i in these]
        same = len({(s.round, s.model, s.slot) for s in told}) == 1 and not any(s.behind for s in told)
        linked = all(m.connected for s in told for m in s.members if m.name in names)
        return told[0] if same and linked and any(m.leads for m in told[0].members) else None

    def story(self, these: Iterable[int]) -> str:
        """What these nodes say, for whoever reads why a scenario failed."""
        lines = []
        for i in these:
            lines.append(
                f"--- {self.names[i]}, {'runs' if i in self.alive() else 'does not run'}\n{self.log(i)[-1500:]}"
            )
            with suppress(ShoalError):
                lines.append(str(self.status(i)))
        return "\n".join(lines)

    # --- rounds -------------------------------------------------------------------------------------------------------

    def local(self, i: int, digest: str) -> Path:
        """A model that this site has trained from the one in force; its weight is 100 + i."""
        self._draws += 1
        rng = np.random.default_rng((self._draws, i))
        w = self.now["w"] + 0.1 * rng.standard_normal(self.now["w"].shape).astype(np.float32)
        made = {**self.now, "w": w.astype(np.float32)}
        self._handed.setdefault((digest, self.names[i]), []).append(made)
        path = self.folder / self.names[i] / "local.onnx"
        save(made, path)
        return path

    def hand_in(self) -> None:
        """Train at all that run and hand in, and do not wait."""
        with ExitStack() as stack:
            callers = {i: stack.enter_context(Caller(self.data(i))) for i in self.alive()}
            for i, caller in callers.items():
                caller.ask(Submit(str(self.local(i, self.model)), 100 + i))
            for caller in callers.values():
                caller.answer(5.0)

    @property
    def model(self) -> str:
        """Digest of the model in force, as the harness knows it."""
        return Model.from_tensors(self.now).digest().hex()

    def round(
        self, who: Iterable[int] | None = None, victims: Iterable[int] = (), seconds: float = ROUND_S
    ) -> dict[int, Ended]:
        """One round: these train and hand in; wait until all but the victims have the merged model.

        raises  Wrong  no merged model in time, or different ones
        """
        handed = list(self.alive() if who is None else who)
        waiting, ended, base = set(handed) - set(victims), {}, self.model
        end = time.monotonic() + seconds
        with ExitStack() as stack:
            callers = {i: stack.enter_context(Caller(self.data(i))) for i in handed}
            for i, caller in callers.items():
                caller.ask(Submit(str(self.local(i, base)), 100 + i))
            while waiting:
                for i in sorted(waiting):
                    answer = callers[i].answer(0.05)
                    if isinstance(answer, Ended) and answer.digest.hex() == base and not answer.took_part:
                        # The attempt was given up when its sums were open already: this update is void.
                        self._handed.pop((base, self.names[i]), None)
                        callers[i].ask(Submit(str(self.local(i, base)), 100 + i))
                        self.void += 1
                    elif isinstance(answer, Ended):
                        ended[i] = answer
                        waiting.discard(i)
                if waiting and time.monotonic() > end:
                    told = f"no merged model at {sorted(waiting)} within {seconds:g} s"
                    raise Wrong(f"{told}\n{self.story(range(self.n))}")
        if len({e.digest for e in ended.values()}) > 1:
            raise Wrong(f"different models: { {self.names[i]: e.digest.hex()[:16] for i, e in ended.items()} }")
        first = min(ended)
        with load(ended[first].path) as merged:
            if merged.digest() != ended[first].digest:
                raise Wrong(f"{self.names[first]} answered a model that its file does not hold")
        self.take(first)
        return ended

    def take(self, i: int) -> None:
        """Go on from the model that a site keeps."""
        with load(self.data(i) / "certified.onnx") as kept:
            self.now = {name: np.array(kept[name]) for name in kept}

    def good_round(self, told: dict[str, object]) -> None:
        """A round with everybody in it: the first one, or, where the machine is busy, one of the next two."""
        for late in range(3):
            before = self.check()
            ended = self.round()
            told["round"] = after = self.check()
            told["means"] = self.means
            if after <= before or len(ended) != len(self.alive()):
                raise Wrong(f"round {before} before, {after} after, {len(ended)} merged models")
            if all(end.took_part for end in ended.values()):
                return
            told["late"] = late + 1
        raise Wrong(f"somebody stays out: {[self.names[i] for i, end in ended.items() if not end.took_part]}")

    # --- what must hold -----------------------------------------------------------------------------------------------

    def check(self, signatures: bool = False) -> int:
        """All sites agree in memory, on disk and in history; each result is the mean of what is listed; the round."""
        status = self.together()
        for i in self.alive():
            path = self.data(i) / "certified.onnx"

            def same(path: Path = path) -> bool:
                with load(path) as kept:
                    return kept.digest().hex() == status.model

            until(f"{path} holds model {status.model[:16]}", 10, same)
        self.take(self.alive()[0])
        self._check_histories(status.round, signatures)
        return status.round

    def _check_histories(self, round_: int, signatures: bool) -> None:
        histories = []
        for i in range(self.n):
            archive = Archive(self.data(i) / "ledger.db")
            try:
                entries = list(archive)
            finally:
                archive.close()
            histories.append([entry_hash(entry) for entry in entries])
            if i == 0 or signatures:
                report = verify(entries, bytes.fromhex(self.genesis), signatures=signatures)
                if report.fault is not None:
                    raise Wrong(f"the ledger of {self.names[i]} does not verify: {report.fault}")
                numbers = [r.round for r in report.rounds if r.outcome == "certified"]
                if numbers != list(range(1, len(numbers) + 1)):
                    raise Wrong(f"certified rounds {numbers}: expected one of each")
                if i == 0:
                    self._check_means([r for r in report.rounds if r.outcome == "certified" and r.round <= round_])
        shortest = min(len(history) for history in histories)
        if len({tuple(history[:shortest]) for history in histories}) != 1:
            raise Wrong("two histories")

    def _check_means(self, rounds: list) -> None:
        """The last round's model is the weighted mean of what those that are listed handed in, each once."""
        last = rounds[-1] if rounds else None
        if last is None or last.round == self.checked:
            return
        self.checked = last.round
        candidates = [self._handed.get((last.base.hex(), peer.name), []) for peer in last.took_part]
        # A site that came back handed in anew: which of the two is in the sum, nobody can tell from outside.  Nor what
        # a site carries from a round that it missed (diff/residual.py).
        who = {peer.id for peer in last.took_part}
        missed = any(r.attempt or not who <= {p.id for p in r.took_part} for r in rounds[-2 - ROUNDS_MISSED_MAX :])
        if last.model.hex() != self.model or any(len(c) != 1 for c in candidates) or missed:
            return
        handed = [c[0] for c in candidates]
        self.means += 1
        weights = np.array([peer.samples for peer in last.took_part], np.float64)
        mean = sum(w * h["w"].astype(np.float64) for w, h in zip(weights, handed, strict=True)) / weights.sum()
        spread = np.linalg.norm(np.stack([h["w"] - mean for h in handed]), axis=1).max()
        error = np.linalg.norm(self.now["w"] - mean) / spread
        if error > ERROR_MAX:
            raise Wrong(f"round {last.round}: the model is off the mean of what is listed by {error:.3f} of the spread")

    def export_and_verify(self) -> None:
        """`shoal ledger export` and `shoal ledger verify` at each site."""
        for i in range(self.n):
            path = self.folder / f"{self.names[i]}.shoal-ledger"
            self.shoal("ledger", "export", str(self.data(i) / "ledger.db"), "-o", str(path))
            self.shoal("ledger", "verify", str(path), "--genesis", self.genesis)
            path.unlink()

    def copy_folder(self, i: int, to: Path) -> None:
        shutil.copytree(self.data(i), to, ignore=shutil.ignore_patterns(SOCKET_FILE))

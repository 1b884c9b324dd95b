"""From a site's settings to its running node: keys, ledger, journal, sockets, model."""

from __future__ import annotations

import logging
import os
import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import numpy as np

from shoal.config import Evaluate, Site, read_site
from shoal.errors import InputError, PeerError, shown
from shoal.ledger.curve_key import CurveKey
from shoal.ledger.identity import Identity
from shoal.ledger.registry import Registry
from shoal.ledger.sqlite_store import SqliteStore
from shoal.model.arrays import as_array
from shoal.model.model import load
from shoal.secure.journal_file import JournalFile
from shoal.swarm.curve_transport import CurveTransport
from shoal.swarm.door import Door
from shoal.swarm.node import Node, Status, Times
from shoal.swarm.peer import Notice
from shoal.swarm.referee import Measure, Referee, measure_by
from shoal.swarm.replica import Replica
from shoal.swarm.shelf import MODEL_FILE
from shoal.swarm.site_keys import Pair, in_use, read_pairs
from shoal.swarm.transport import Back, Endpoint

#: With this in the environment chunks go unsealed, and the operator is told.  bench/bench_swarm.py sets it: what it
#: compares with encrypts nothing.  A node that seals exchanges no chunks with one that does not.
UNSEALED: Final = ("SHOAL_UNSEALED", "only to measure")


def times_of(site: Site) -> Times:
    """The settings' times as a node takes them."""
    times = site.times
    return Times(times.tick_ms / 1000, times.election_ms / 1000, times.progress_timeout_s, times.straggler_grace_s)


def open_node(site: Site, model: Path | None = None, measure: Measure | None = None) -> Node:
    """A node for these settings, not yet started.

    model    the swarm's base model; may be left out once the data folder holds a certified one
    measure  how to measure certified models, if not as the settings say
    raises  InputError    ``site.model``: it is missing;  ``site.genesis``: another swarm's ledger;  ``node.layout``
            MachineError  keys, files, ports
    """
    folder = Path(site.data)
    ledger_path = folder / "ledger.db"
    if not ledger_path.exists():
        raise InputError("site.ledger", f"{ledger_path}: is not there; begin it with `shoal join`")
    if model is None and not (folder / MODEL_FILE).exists():
        raise InputError("site.model", f"{folder}: holds no model yet; name the swarm's base model with --model")
    times = times_of(site)
    pairs = read_pairs(site)
    with ExitStack() as undo:  # what is open when something fails would keep the process from ending
        store = SqliteStore(ledger_path)
        undo.callback(store.close)
        replica = _replica(pairs[0][0], store, times)
        genesis = replica.ledger.state.genesis.hex()
        if site.genesis and genesis != site.genesis:
            raise InputError("site.genesis", f"{ledger_path}: of swarm {genesis[:16]}; expected {site.genesis[:16]}")
        (me, curve), waiting, member = _known(pairs, replica.ledger.state.registry)
        if me.public != pairs[0][0].public:
            replica = _replica(me, store, times)
        journal = JournalFile(folder / "journal.db")
        undo.callback(journal.close)
        sealed = os.environ.get(UNSEALED[0]) != UNSEALED[1]
        if waiting is not None and not _connects(me, curve, replica, site.listen):
            # The others know the newer keys already, if any: this site was cut off before it heard so.
            curve = waiting[1] if _connects(me, waiting[1], replica, site.listen) else curve
        transport = CurveTransport(curve.secret(), site.listen, sealed=sealed)
        undo.callback(transport.close)
        referee = None
        if site.evaluate is not None or measure is not None:
            settings = site.evaluate or Evaluate()
            referee = Referee(folder, measure or measure_by(settings), settings.best)
        node = Node(me, replica, journal, transport, model or folder / MODEL_FILE, folder, times, referee, site.exclude)
        undo.pop_all()
    if not member:
        node.warn("the ledger here knows no key of this site: it waits for the members to let it in, and connect")
    if not sealed:
        node.warn(f"{UNSEALED[0]} is set: updates go over the network unencrypted and unauthenticated")
    return node


def _known(pairs: list[Pair], registry: Registry) -> tuple[Pair, Pair | None, bool]:
    """The keys to go by, newer ones that wait to be decided, and whether the ledger here knows the former.

    A site that comes in learns from the members' ledger, which they bring to it once they let it in, that it is one.
    """
    try:
        return *in_use(pairs, registry), True
    except PeerError:
        return pairs[0], None, False


def _connects(me: Identity, curve: CurveKey, replica: Replica, listen: str) -> bool:
    """Whether any member lets this key in now."""
    transport = CurveTransport(curve.secret(), listen)
    try:
        members = {i: m for i, m in replica.members.items() if i != me.id}
        transport.allow({i: Endpoint(m.curve, m.address) for i, m in members.items()})
        until = time.monotonic() + _CONNECT_S
        while time.monotonic() < until:
            if any(isinstance(event, Back) for event in transport.poll(0.1)):
                return True
        return False
    finally:
        transport.close()


def _replica(me: Identity, store: SqliteStore, times: Times) -> Replica:
    return Replica(me, store, secrets.randbelow, times.options(), lambda: time.time_ns() // 1_000_000)


#: of a notice, as Python's logging calls it
_LEVELS: Final = {"info": logging.INFO, "warning": logging.WARNING, "fault": logging.ERROR}
#: seconds in which a member must let a key in, where it is not known which of two the others know
_CONNECT_S: Final = 5.0
#: seconds between two looks for a mean that is waited for
_LOOK_S: Final = 0.05


class Swarm:
    """A node inside this process: what `join` gives.  Use as a context manager, or call `close`.

    What the node has to say to its operator goes to the logger "shoal", with ``site``, ``code``, ``slot`` and ``peer``
    in each record.
    """

    def __init__(self, node: Node, site: Site) -> None:
        self.node = node
        self._times = site.times
        self._sites = 0  # that measured the last round that `mean` was asked of
        node.on_notice = lambda notice: _log(site.name, notice)
        with ExitStack() as undo:
            node.start()
            undo.callback(node.stop)
            undo.enter_context(Door(node, Path(site.data)))
            if site.metrics.listen:
                from shoal.swarm.metrics import Metrics

                undo.enter_context(Metrics(node.status, site.name, site.metrics.listen))
            self._open = undo.pop_all()

    def merge(self, tensors: Mapping[str, Any], samples: int, wait_s: float | None = None) -> dict[str, np.ndarray]:
        """Hand in what was trained, wait until a round with it is certified, get the merged tensors.

        tensors  name -> array of any framework, as the base model names them; tensors that are not floats must be as
                 they were, but for those that stay at this site (``exclude``): these come back as they are
        samples  how many samples it was trained on: its weight
        wait_s   how long to wait; None: as the settings say
        raises   ArgumentError  the tensors are not of this swarm's model, or hold NaN;  MachineError  no round in time
        """
        local = {name: np.asarray(as_array(value, "model", name)) for name, value in tensors.items()}
        merged = self.node.merge(local, samples, self._times.submit_wait_s if wait_s is None else wait_s)
        return {name: local[name] if name in self.node.local else array for name, array in merged.items()}

    @property
    def tensors(self) -> dict[str, np.ndarray]:
        """The model in force: what training begins with.  Copies."""
        return {name: array.copy() for name, array in self.node.arrays.items()}

    def mean(self, metric: str, wait_s: float = 0.0) -> float | None:
        """The mean over sites of a metric of the last round that was measured, weighted by their samples; None if none.

        The same at all sites, as soon as they have the same entries of the ledger.

        wait_s  how long to wait until as many sites have measured the last certified round as did before; at first, all
                members
        """
        until = time.monotonic() + wait_s
        while True:
            status, over = self.node.status(), time.monotonic() >= until
            found = next((m for m in (status.measured if status else []) if m.metric == metric), None)
            if status is not None and found is not None and found.round == status.round:
                expected = self._sites or len(status.members)
                if found.sites >= expected or over:
                    self._sites = found.sites
                    return found.value
            if over:
                return None if found is None else found.value
            time.sleep(_LOOK_S)

    @property
    def status(self) -> Status | None:
        """What the node is doing."""
        return self.node.status()

    def close(self) -> None:
        """Leave: let a round that this site is in end, hand leadership over, close everything.  The swarm goes on."""
        self.node.leave(self._times.progress_timeout_s)
        self._open.close()

    def __enter__(self) -> Swarm:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def join(
    settings: str | Path,
    model: str | Path | None = None,
    evaluate: Callable[[dict[str, np.ndarray]], tuple[int, Mapping[str, float]]] | None = None,
) -> Swarm:
    """Start this site's node inside this process, in the background.

    settings  its site.toml
    model     the swarm's base model, an ONNX file; needed at the first start only
    evaluate  is given the tensors of each certified model, on a thread of its own, and says on how many of this site's
              samples it measured what; that goes into the ledger.  None: as the settings say under [evaluate]
    raises    InputError, MachineError  see `open_node`

        with shoal.join("site.toml") as swarm:
            for epoch in range(20):
                train(net)
                net.load(swarm.merge(net.tensors(), samples=812))
    """
    site = read_site(Path(settings))
    node = open_node(site, None if model is None else Path(model), None if evaluate is None else _on_tensors(evaluate))
    return Swarm(node, site)


def _log(site: str, notice: Notice) -> None:
    about = {"site": site, "code": notice.code, "slot": notice.slot, "peer": notice.peer.hex()}
    logging.getLogger("shoal").log(_LEVELS[notice.level], "%s", shown(notice.text, 500), extra=about)


def _on_tensors(evaluate: Callable[[dict[str, np.ndarray]], tuple[int, Mapping[str, float]]]) -> Measure:
    def measure(path: Path) -> tuple[int, Mapping[str, float]]:
        with load(path) as model:
            return evaluate({name: model[name].copy() for name in model})

    return measure

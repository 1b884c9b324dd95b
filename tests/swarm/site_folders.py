"""Sites as `shoal keys`, `init` and `join` leave them, made in this process: folders with keys, card, settings, ledger."""

from __future__ import annotations

import copy
import itertools
import json
import secrets
import shutil
import socket
from pathlib import Path

import numpy as np

from shoal.config import Site, read_site
from shoal.ledger.body import Genesis, Policy
from shoal.ledger.sqlite_store import SqliteStore
from shoal.model.digest import model_digest
from shoal.model.file import ModelFile
from shoal.model.layout import Layout, selects
from shoal.model.model import save
from shoal.swarm.card import SignedCard, make_card, write_card
from shoal.swarm.founding import Founded, found_swarm
from shoal.swarm.replica import found
from shoal.swarm.site_keys import Pair, create_pair

#: from anywhere below those that the kernel gives to connections: other runs of these tests take some, too
_PORTS = itertools.count(10_000 + 2 * secrets.randbelow(10_000), 2)
TIMES = """
[times]
tick_ms = 20
election_ms = 300
progress_timeout_s = 2.0
straggler_grace_s = 0.5
submit_wait_s = 60
"""


def free_port() -> int:
    """A port that is free now, with the next one."""
    for port in _PORTS:
        try:
            for one in (port, port + 1):
                with socket.socket() as tried:
                    tried.bind(("127.0.0.1", one))
        except OSError:
            continue
        return port
    raise AssertionError


class SiteFolders:
    """names  of the sites, all of them first members"""

    def __init__(
        self,
        folder: Path,
        names: tuple[str, ...],
        secure: bool = False,
        model: Path | None = None,
        exclude: tuple[str, ...] = (),
    ) -> None:
        self.folder, self.names = folder, names
        self.model = model or folder / "base.onnx"
        if model is None:
            rng = np.random.default_rng(0)
            save({"w": rng.standard_normal(3000).astype(np.float32), "steps": np.array([3], np.int64)}, self.model)
        made = [self._keys(name, exclude) for name in names]
        with ModelFile.open(self.model) as file:
            layout = Layout.of_file(file, lambda name: selects(name, (), exclude)).digest
            base = model_digest(file)
        policy = Policy(secure, "mean", 1, 3 if secure else 2, 2)
        cards = tuple(card.card for _, card in made)
        self.founded: Founded = found_swarm(made[0][0][0], Genesis("test", bytes(16), policy, layout, base, cards), 0)
        for name in names:
            self._join(name)

    def newcomer(self, name: str) -> SignedCard:
        """A site more, that nobody has let in yet."""
        _, card = self._keys(name, ())
        self._join(name)
        return card

    def _keys(self, name: str, exclude: tuple[str, ...]) -> tuple[Pair, SignedCard]:
        place, address = self.folder / name, f"tcp://127.0.0.1:{free_port()}"
        place.mkdir(mode=0o700)
        pair = create_pair(place / "identity.pem", place / "curve.pem")
        card = make_card(name, address, *pair)
        (place / f"{name}.card").write_text(write_card(card))
        first = f'name = "{name}"\nlisten = "{address}"\nexclude = {json.dumps(list(exclude))}\n'
        (place / "site.toml").write_text(first + TIMES)
        return pair, card

    def _join(self, name: str) -> None:
        data = self.folder / name / "data"
        data.mkdir(mode=0o700)
        store = SqliteStore(data / "ledger.db")
        found(store, self.founded.entry)
        store.close()

    def clone(self, folder: Path) -> SiteFolders:
        """A copy for one test: making keys and ledgers takes a while."""
        made = copy.copy(self)
        shutil.copytree(self.folder, folder)
        made.folder, made.model = folder, folder / self.model.name
        return made

    def settings(self, name: str) -> Path:
        return self.folder / name / "site.toml"

    def site(self, name: str) -> Site:
        return read_site(self.settings(name))

    def append(self, name: str, text: str) -> None:
        """More tables, after all else."""
        with self.settings(name).open("a") as file:
            file.write("\n" + text)

    def add(self, name: str, text: str) -> None:
        """More settings, before the tables."""
        path = self.settings(name)
        path.write_text(text + "\n" + path.read_text())

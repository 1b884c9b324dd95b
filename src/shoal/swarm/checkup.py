"""What can be said of a site before its node starts, by looking at this machine alone: keys, card, ledger, model, room.

Each check is a function that gives findings and raises nothing that is a site's fault; CHECKS is their order.  What
the machine offers is in room.py, what needs other nodes in doctor.py.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import msgspec
import zmq

from shoal import __version__
from shoal.address import parse_address
from shoal.config import Site
from shoal.errors import ShoalError, shown
from shoal.evaluate.metrics import METRICS
from shoal.evaluate.table import open_table
from shoal.ledger.archive import latest
from shoal.ledger.state import State
from shoal.limits import CARD_BYTES_MAX
from shoal.model.digest import model_digest
from shoal.model.file import ModelFile
from shoal.model.layout import Layout, selects
from shoal.swarm.card import SignedCard, read_card
from shoal.swarm.finding import Finding
from shoal.swarm.room import Room, look
from shoal.swarm.shelf import MODEL_FILE
from shoal.swarm.site_keys import Pair, in_use, numbered, read_pairs


class Checkup(msgspec.Struct):
    """A site, and what the checks have learned about it so far.

    model  the base model, as given; else the one in the data folder
    """

    site: Site
    model: Path | None = None
    pairs: list[Pair] = []
    card: SignedCard | None = None
    state: State | None = None
    me: Pair | None = None

    @property
    def folder(self) -> Path:
        return Path(self.site.data)


Findings = Iterator[Finding]


def check_up(checkup: Checkup) -> list[Finding]:
    """All checks, in order."""
    return [finding for check in CHECKS for finding in check(checkup)]


# --- what the swarm knows this site by --------------------------------------------------------------------------------


def _versions(checkup: Checkup) -> Findings:  # noqa: ARG001
    words = f"shoal {__version__}, Python {platform.python_version()}, libzmq {zmq.zmq_version()}"
    if zmq.has("curve") and zmq.zmq_version_info() >= (4, 3, 5):
        yield Finding("ok", "versions", words)
    else:
        yield Finding("fault", "versions", words, "install a pyzmq whose libzmq is 4.3.5 or newer, with CURVE")


def _keys(checkup: Checkup) -> Findings:
    site = checkup.site
    try:
        checkup.pairs = read_pairs(site)
    except ShoalError as error:
        advice = {
            "key.exposed": f"chmod 600 {shown(site.identity)} {shown(site.curve)}",
            "key.read": "make them with `shoal keys`, or name them in the settings (identity, curve)",
        }
        yield Finding("fault", "keys", shown(str(error), 300), advice.get(error.code, "put back this site's own key"))
        return
    names = ", ".join(Path(numbered(p, len(checkup.pairs))).name for p in (site.identity, site.curve))
    yield Finding("ok", "keys", f"{names}: readable by their owner alone")


def _card(checkup: Checkup) -> Findings:
    path = Path(checkup.site.card)
    try:
        with path.open("rb") as file:
            checkup.card = card = read_card(file.read(CARD_BYTES_MAX + 1), shown(str(path)))
    except OSError as error:
        told = f"{shown(str(path))}: {error.strerror}"
        yield Finding("warning", "card", told, "put this site's card there, so that it can be sent again")
        return
    except ShoalError as error:
        yield Finding("fault", "card", shown(str(error), 300), "take the card that `shoal keys` made")
        return
    if checkup.pairs and card.card.signing != checkup.pairs[0][0].public:
        yield Finding("fault", "card", "it is of other keys than these", "take the card that was made with these keys")
    elif card.card.name != checkup.site.name:
        told = f"it calls the site {shown(card.card.name)}, the settings {shown(checkup.site.name)}"
        yield Finding("fault", "card", told, "set `name` as on the card")
    else:
        yield Finding("ok", "card", f"fingerprint {card.fingerprint}")


def _ledger(checkup: Checkup) -> Findings:
    path = checkup.folder / "ledger.db"
    if not path.exists():
        yield Finding("fault", "ledger", f"{shown(str(path))}: is not there", "begin it with `shoal join`")
        return
    try:
        state = latest(path).state
    except ShoalError as error:
        advice = "set the data folder aside and join anew with --new: an old copy must never be put back"
        yield Finding("fault", "ledger", shown(str(error), 300), advice)
        return
    genesis = state.genesis.hex()
    if checkup.site.genesis and checkup.site.genesis != genesis:
        told = f"of swarm {genesis[:16]}; the settings name {checkup.site.genesis[:16]}"
        yield Finding("fault", "ledger", told, "set `data` to this swarm's folder, or correct `genesis`")
        return
    checkup.state = state
    words = f"{shown(state.swarm)}: {state.index} entries, round {state.round}"
    if checkup.site.genesis:
        yield Finding("ok", "ledger", words)
    else:
        yield Finding("ok", "ledger", words, f'pin the swarm: genesis = "{genesis}" in the settings')


def _member(checkup: Checkup) -> Findings:
    if checkup.state is None or not checkup.pairs:
        return
    try:
        checkup.me, waiting = in_use(checkup.pairs, checkup.state.registry)
    except ShoalError:
        advice = "send the card to a member, who lets this site in with `shoal members approve`"
        yield Finding("warning", "member", "the ledger here knows none of these keys", advice)
        return
    member = checkup.state.registry.members[checkup.me[0].id]
    words = f"{shown(member.name)}, {'voter' if member.voter else 'learner'} of {len(checkup.state.registry.members)}"
    if waiting is not None:
        yield Finding("warning", "member", f"{words}; newer keys wait", "hand over the statement of `members rotate`")
    else:
        yield Finding("ok", "member", words)


def _address(checkup: Checkup) -> Findings:
    """Do the settings listen where the ledger (or the card) sends the others?"""
    if checkup.state is not None and checkup.me is not None:
        told = checkup.state.registry.members[checkup.me[0].id].address
    elif checkup.card is not None:
        told = checkup.card.card.address
    else:
        return
    listen = checkup.site.listen
    if not told and not listen:
        yield Finding("ok", "address", "this site dials the others and is dialled by nobody")
    elif not told:
        advice = 'listen = "" opens no port; an address comes with a new card'
        yield Finding("warning", "address", f"{shown(listen)} listens, and nobody knows the address", advice)
    elif not listen:
        yield Finding("fault", "address", f"the others dial {shown(told)}, and nothing listens", "set `listen`")
    else:
        there, here = parse_address(told), parse_address(listen)
        if there and here and there[1] != here[1]:
            advice = "unless something forwards the ports (both of them), set `listen` to the same port"
            yield Finding("warning", "address", f"the others dial {shown(told)}; here {shown(listen)} listens", advice)
        else:
            yield Finding("ok", "address", f"{shown(told)}, listening at {shown(listen)}")


# --- the model and the room for it ------------------------------------------------------------------------------------


def _model(checkup: Checkup) -> Findings:
    kept = checkup.folder / MODEL_FILE
    path = kept if kept.exists() else checkup.model
    checkup.model = path
    if path is None:
        yield Finding("fault", "model", "none is here yet", "name the swarm's base model: --model BASE.onnx")
        return
    name = shown(str(path))
    try:
        with ModelFile.open(path) as model:
            layout = Layout.of_file(model, lambda key: selects(key, (), checkup.site.exclude)).digest
            digest = model_digest(model, threads=2)
    except ShoalError as error:
        checkup.model = None
        yield Finding("fault", "model", shown(str(error), 300), "take the base model of the swarm, as it was sent")
        return
    state = checkup.state
    if state is None:
        yield Finding("ok", "model", f"{name}: {digest.hex()[:16]}, layout {layout.hex()[:16]}")
    elif layout != state.layout:
        told = f"{name}: layout {layout.hex()[:16]}, the swarm's is {state.layout.hex()[:16]}"
        yield Finding("fault", "model", told, "take the swarm's base model, and the same `exclude` as everybody")
    elif digest == state.model:
        what = f"the certified one of round {state.round}" if state.round else "the swarm's base"
        yield Finding("ok", "model", f"{name}: {digest.hex()[:16]}, {what}")
    elif path == kept:
        yield Finding("ok", "model", f"{name}: {digest.hex()[:16]}; the node will fetch {state.model.hex()[:16]}")
    elif not state.round:
        told = f"{name}: {digest.hex()[:16]}, the genesis names {state.model.hex()[:16]}"
        yield Finding("fault", "model", told, "take the base model that the swarm began with")
    else:
        yield Finding("ok", "model", f"{name}: of the swarm's layout; the node will fetch round {state.round}'s")


def _evaluate(checkup: Checkup) -> Findings:
    """Can this site measure certified models, if its settings say that it does?"""
    settings = checkup.site.evaluate
    if settings is None:
        return
    if not settings.data:
        yield Finding("ok", "evaluate", "measures nothing, keeps what others find best")
        return
    if find_spec("onnxruntime") is None:
        yield Finding("warning", "evaluate", "onnxruntime is not installed", "pip install 'shoal[run]'")
        return
    unknown = [name for name in settings.metrics if name not in METRICS]
    if unknown:
        told = f"no metric {shown(unknown[0])}"
        yield Finding("warning", "evaluate", told, f"name some of {', '.join(METRICS)} in [evaluate] metrics")
        return
    try:
        names = open_table(Path(settings.data)).names
    except ShoalError as error:
        yield Finding("warning", "evaluate", shown(str(error), 300), "correct `data` in [evaluate]")
        return
    yield Finding("ok", "evaluate", f"{shown(settings.data)}: {len(names)} columns")


def _metrics(checkup: Checkup) -> Findings:
    """Can Prometheus be answered, if the settings say so?"""
    listen = checkup.site.metrics.listen
    if not listen:
        return
    if find_spec("prometheus_client") is None:
        yield Finding("fault", "metrics", "prometheus_client is not installed", "pip install 'shoal[metrics]'")
    else:
        yield Finding("ok", "metrics", f"{shown(listen)}: whoever reaches it is told")


def _model_bytes(checkup: Checkup) -> int:
    """Bytes of the model with its data files; 0 if there is none."""
    if checkup.model is None:
        return 0
    try:
        with ModelFile.open(checkup.model) as model:
            return sum(ref.nbytes for ref in model.tensors.values())
    except ShoalError:
        return 0


def _room(checkup: Checkup) -> Findings:
    members = len(checkup.state.registry.members) if checkup.state is not None else 3
    yield from look(Room(checkup.site, _model_bytes(checkup), members))


CHECKS: Final[tuple[Callable[[Checkup], Findings], ...]] = (
    _versions,
    _keys,
    _card,
    _ledger,
    _member,
    _address,
    _model,
    _evaluate,
    _metrics,
    _room,
)

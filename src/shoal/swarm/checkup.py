"""What can be said of a site before its node starts, by looking at this machine alone: keys, card, ledger, model, room.

Each check is a function that gives findings and raises nothing that is a site's fault; CHECKS is their order.  What
needs other nodes is in doctor.py.
"""

from __future__ import annotations

import contextlib
import math
import os
import platform
import resource
import stat
import statistics
import tempfile
import time
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
from shoal.kernels import dispatch
from shoal.ledger.archive import latest
from shoal.ledger.state import State
from shoal.limits import CARD_BYTES_MAX
from shoal.model.digest import model_digest
from shoal.model.file import ModelFile
from shoal.model.layout import Layout, selects
from shoal.swarm.card import SignedCard, read_card
from shoal.swarm.finding import Finding
from shoal.swarm.shelf import MODEL_FILE
from shoal.swarm.site_keys import Pair, in_use, numbered, read_pairs

#: free bytes that the ledger and its journal want: years of rounds
LEDGER_ROOM: Final = 256 * 10**6
#: copies of the model that the disk must take: the one in force, the next, and what a training script hands in; and
#: with evaluation the last but one and the best
MODEL_COPIES: Final = 3
KEPT_COPIES: Final = 2
#: and that memory must take: a node's own 2.5, and what hands a model in
MODEL_IN_MEMORY: Final = 4
#: descriptors of a node that talks to nobody, and for each member: control and bulk, both ways, twice while they change
FILES_ALONE: Final = 64
FILES_EACH: Final = 8
#: syncs that are timed; and how many an election's time should hold: a node that waits for its disk says nothing
SYNCS: Final = 5
SYNCS_IN_ELECTION: Final = 10


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


def _disk(checkup: Checkup) -> Findings:
    folder = checkup.folder
    there = next(p for p in (folder, *folder.parents) if p.exists())
    try:
        about = os.statvfs(there)
    except OSError as error:
        yield Finding("fault", "disk", f"{shown(str(there))}: {error.strerror}", "make the data folder usable")
        return
    free, model = about.f_bavail * about.f_frsize, _model_bytes(checkup)
    copies = MODEL_COPIES + (0 if checkup.site.evaluate is None else KEPT_COPIES)
    need = copies * model + LEDGER_ROOM
    words = f"{_size(free)} free, {_size(need)} wanted: {copies} models and the ledger"
    if not os.access(there, os.W_OK | os.X_OK):
        yield Finding("fault", "disk", f"{shown(str(there))}: cannot be written to", "give it to the node's user")
    elif free < model + LEDGER_ROOM // 8:
        yield Finding("fault", "disk", words, "make room, or set `data` to a larger disk")
    elif free < need:
        yield Finding("warning", "disk", words, "make room, or set `data` to a larger disk")
    else:
        yield Finding("ok", "disk", words)
    if folder.exists() and stat.S_IMODE(folder.stat().st_mode) & 0o077:
        advice = f"chmod 700 {shown(str(folder))}"
        yield Finding("warning", "folder", f"{shown(str(folder))}: others of this machine may look into it", advice)


def _syncs(checkup: Checkup) -> Findings:
    """How long what is written takes to be on the disk.  Rounds wait for it, and a leader's heartbeats do."""
    there = next(p for p in (checkup.folder, *checkup.folder.parents) if p.exists())
    try:
        took_ms = 1000 * statistics.median(_sync_s(there) for _ in range(SYNCS))
    except OSError:
        return  # what is wrong with the folder was said
    election_ms = checkup.site.times.election_ms
    words = f"a sync to the disk takes {took_ms:.1f} ms, elections {election_ms} ms"
    if took_ms * SYNCS_IN_ELECTION > election_ms:
        wanted = math.ceil(took_ms * SYNCS_IN_ELECTION / 100) * 100
        advice = (
            f"use a quicker disk, or set election_ms = {wanted} or more at every site: leaders would change needlessly"
        )
        yield Finding("warning", "syncs", words, advice)
    else:
        yield Finding("ok", "syncs", words)


def _sync_s(folder: Path) -> float:
    """Seconds that 4 KiB take."""
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(bytes(4096))
        file.flush()
        begin = time.perf_counter()
        os.fsync(file.fileno())
        return time.perf_counter() - begin


def _memory(checkup: Checkup) -> Findings:
    free, need = _memory_free(), MODEL_IN_MEMORY * _model_bytes(checkup)
    if not free:
        return
    words = f"{_size(free)} free, {_size(need)} wanted: {MODEL_IN_MEMORY} models"
    if free < need:
        yield Finding("warning", "memory", words, "use a larger machine, or let training free its own before a merge")
    else:
        yield Finding("ok", "memory", words)


def _memory_free() -> int:
    """Bytes that the kernel could give; 0 if it does not say."""
    with contextlib.suppress(OSError, ValueError, IndexError), open("/proc/meminfo", encoding="ascii") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 0


def _files(checkup: Checkup) -> Findings:
    members = len(checkup.state.registry.members) if checkup.state is not None else 3
    limit, need = resource.getrlimit(resource.RLIMIT_NOFILE)[0], FILES_ALONE + FILES_EACH * members
    words = f"at most {limit} open files, {need} wanted for {members} members"
    if 0 <= limit < need:
        yield Finding("fault", "files", words, "raise the limit: ulimit -n 4096, or LimitNOFILE= in the systemd unit")
    else:
        yield Finding("ok", "files", words)


def _cpu(checkup: Checkup) -> Findings:  # noqa: ARG001
    try:
        level, cores = dispatch.level(), len(os.sched_getaffinity(0))
    except ShoalError as error:
        yield Finding("fault", "cpu", shown(str(error), 300), "unset SHOAL_LEVEL, or build Shoal on this machine")
        return
    words = f"{cores} cores, kernels {level}"
    if level == "portable":
        advice = "results are the same, rounds slower; a CPU with AVX2 is about ten times as fast"
        yield Finding("warning", "cpu", words, advice)
    elif not _has_aes():
        yield Finding("warning", "cpu", f"{words}, no AES instructions", "sealing will limit fast networks")
    else:
        yield Finding("ok", "cpu", f"{words}, AES instructions")


def _has_aes() -> bool:
    """Whether the kernel lists AES instructions; True where it lists nothing."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
        for line in file:
            if line.lower().startswith(("flags", "features")):
                return "aes" in line.split()
    return True


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 10**8 else f"{count / 1e6:.1f} MB"


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
    _disk,
    _syncs,
    _memory,
    _files,
    _cpu,
)

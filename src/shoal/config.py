"""site.toml: what one site decides for itself.  What the swarm agreed on stands in its ledger.

The file is TOML 1.0.  Paths are relative to its folder.  A setting that is unknown, spelled in a second way, of another
type or out of range is refused by its name and line.  ``Site`` below lists every setting with its meaning and default;
docs/FORMAT.md, "Site file", shows one.
"""

from __future__ import annotations

import os
import re
import stat
import tomllib
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from shoal.address import dial_fault, parse_address
from shoal.errors import InputError, MachineError, shown
from shoal.limits import (
    LEDGER_ADDRESS_CHARS_MAX,
    LEDGER_MEMBERS_MAX,
    LEDGER_METRICS_MAX,
    LEDGER_NAME_CHARS_MAX,
    SITE_FILE_BYTES_MAX,
    SITE_GLOBS_MAX,
)

#: what a site is called: also the name of files
NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z"

_Name = Annotated[str, Meta(pattern=NAME)]
_Path = Annotated[str, Meta(min_length=1, max_length=4096, pattern=r"^[^\x00]*\Z")]
_Address = Annotated[str, Meta(max_length=LEDGER_ADDRESS_CHARS_MAX)]
_Metric = Annotated[str, Meta(min_length=1, max_length=LEDGER_NAME_CHARS_MAX)]
_Column = Annotated[str, Meta(min_length=1, max_length=1024)]
_Glob = Annotated[str, Meta(min_length=1, max_length=1024)]


class Times(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All times that can be set.  The defaults suit a local network and the internet alike.

    tick_ms             how often a leader is heard
    election_ms         without a leader for this long (to twice as long), another is elected; 5 ticks or more
    progress_timeout_s  a peer from which neither bytes nor answers came for this long is left out of the round
    straggler_grace_s   how long a round that could begin waits for members that are still training
    submit_wait_s       how long `shoal submit` waits for the merged model
    """

    tick_ms: Annotated[int, Meta(ge=10, le=10_000)] = 100
    election_ms: Annotated[int, Meta(ge=50, le=600_000)] = 1000
    progress_timeout_s: Annotated[float, Meta(ge=1, le=86_400)] = 20.0
    straggler_grace_s: Annotated[float, Meta(ge=0, le=2_592_000)] = 30.0
    submit_wait_s: Annotated[float, Meta(ge=1, le=2_592_000)] = 3600.0


class Peer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A member that a new site can find before its ledger says who is one.

    card     its card
    address  where it is heard from here, if not where its card says
    """

    card: _Path
    address: _Address = ""


class Metrics(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """listen  where Prometheus may ask, "127.0.0.1:9100"; "" for nowhere.  Whoever reaches it is told."""

    listen: _Address = ""


class Evaluate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Certified models are measured on this site's own validation data, and the values go into the ledger.

    data     .npz or .csv, as for `shoal eval`; "": this site measures nothing, and keeps what the others find best
    metrics  auc, accuracy, f1, loss; none named: all that are defined for the labels
    best     the metric that says which round was best; "": the first that is there of auc, accuracy, f1, loss
    inputs, labels, output, scores   as for `shoal eval`
    """

    data: Annotated[str, Meta(max_length=4096, pattern=r"^[^\x00]*\Z")] = ""
    metrics: Annotated[tuple[_Metric, ...], Meta(max_length=LEDGER_METRICS_MAX)] = ()
    best: Annotated[str, Meta(max_length=LEDGER_NAME_CHARS_MAX)] = ""
    inputs: Annotated[tuple[_Column, ...], Meta(max_length=SITE_GLOBS_MAX)] = ()
    labels: Annotated[str, Meta(max_length=1024)] = ""
    output: Annotated[str, Meta(max_length=1024)] = ""
    scores: Literal["auto", "probability", "logit"] = "auto"


class Site(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The settings, paths as written; ``read_site`` makes them absolute.

    name      this site, as on its card
    identity  its Ed25519 key: a PEM file that only its owner can read
    curve     its CURVE key: the same
    card      its public card
    data      folder of the ledger and of everything else that must survive a restart
    listen    where to listen, "tcp://*:7700" for all of this machine's addresses; the port after it is needed, too.
              "" listens nowhere: then this site dials the others
    genesis   digest of the swarm's genesis, 64 hexadecimal digits: no other ledger is taken
    exclude   globs of tensors that stay at this site; they must give the layout that the genesis names
    peers     who to find first
    times     see Times
    metrics   see Metrics
    evaluate  see Evaluate; without it certified models are not measured
    """

    name: _Name
    identity: _Path = "identity.pem"
    curve: _Path = "curve.pem"
    card: _Path = ""
    data: _Path = "data"
    listen: _Address = "tcp://*:7700"
    genesis: Annotated[str, Meta(pattern=r"^([0-9a-f]{64})?\Z")] = ""
    exclude: Annotated[tuple[_Glob, ...], Meta(max_length=SITE_GLOBS_MAX)] = ()
    peers: Annotated[tuple[Peer, ...], Meta(max_length=LEDGER_MEMBERS_MAX)] = ()
    times: Times = Times()
    metrics: Metrics = Metrics()
    evaluate: Evaluate | None = None


def read_site(path: Path) -> Site:
    """The settings in a file, all paths absolute.

    raises  InputError    ``site.missing``, ``site.format``: no TOML; ``site.unknown``: a setting that is not known;
                          ``site.value``: one that is missing, of another type or out of range
            MachineError  ``site.read``
    """
    name, text = shown(str(path)), _read(path)
    try:
        tables = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError("site.format", f"{name}: no TOML: {shown(str(error))}") from None
    _check_names(name, text, tables)
    try:
        site = msgspec.convert(tables, Site)
    except msgspec.ValidationError as error:
        raise InputError("site.value", _told(name, text, str(error))) from None
    for setting, fault in _faults(site):
        raise InputError("site.value", f"{name}{_line(text, setting)}: {setting}: {fault}")
    folder = path.absolute().parent
    return msgspec.structs.replace(
        site,
        identity=str(folder / site.identity),
        curve=str(folder / site.curve),
        card=str(folder / (site.card or f"{site.name}.card")),
        data=str(folder / site.data),
        evaluate=_evaluate(site.evaluate, folder),
        peers=tuple(Peer(str(folder / peer.card), peer.address) for peer in site.peers),
    )


def _evaluate(evaluate: Evaluate | None, folder: Path) -> Evaluate | None:
    if evaluate is None or not evaluate.data:
        return evaluate
    return msgspec.structs.replace(evaluate, data=str(folder / evaluate.data))


def _read(path: Path) -> str:
    name = shown(str(path))
    try:
        # Not blocking: the name may be that of a pipe, which has no end to wait for.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise InputError("site.missing", f"{name}: is not there; expected a site file") from None
    except (OSError, ValueError) as error:
        raise MachineError("site.read", f"{name}: {getattr(error, 'strerror', 'no path')}") from None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise InputError("site.format", f"{name}: is no regular file; expected a site file")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            data = file.read(SITE_FILE_BYTES_MAX + 1)
    except OSError as error:
        raise MachineError("site.read", f"{name}: {error.strerror}") from None
    finally:
        os.close(descriptor)
    if len(data) > SITE_FILE_BYTES_MAX:
        raise InputError("site.format", f"{name}: more than {SITE_FILE_BYTES_MAX} bytes; expected a site file")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise InputError("site.format", f"{name}: no UTF-8 at byte {error.start}; expected TOML") from None


def _check_names(name: str, text: str, tables: dict[str, Any]) -> None:
    """raises  InputError  ``site.unknown``"""
    for kind, found in _structs(tables):
        known = {_plain(field): field for field in kind.__struct_fields__}
        for setting in found.keys() - set(kind.__struct_fields__):
            meant = known.get(_plain(setting))
            also = f"; it is written {meant}" if meant else f"; known are {', '.join(kind.__struct_fields__)}"
            where = f"{name}{_line(text, setting)}"
            raise InputError("site.unknown", f"{where}: unknown setting {shown(setting, 60)!r}{also}")


def _structs(tables: dict[str, Any]) -> list[tuple[type[Any], dict[str, Any]]]:
    found: list[tuple[type[Any], dict[str, Any]]] = [(Site, tables)]
    for name, kind in (("times", Times), ("metrics", Metrics), ("evaluate", Evaluate)):
        if isinstance(tables.get(name), dict):
            found.append((kind, tables[name]))
    peers = tables.get("peers")
    return found + [(Peer, peer) for peer in (peers if isinstance(peers, list) else []) if isinstance(peer, dict)]


def _plain(setting: str) -> str:
    """Two spellings of one setting give the same."""
    return re.sub(r"[-_. ]", "", setting).casefold()


def _line(text: str, setting: str) -> str:
    """ " line N", where a setting is given for the first time; "" if that is not found."""
    pattern = re.compile(rf"""^\s*(?:\[+\s*)?["']?{re.escape(setting)}["']?\s*(?:=|\]|\.)""")
    lines = text.splitlines()
    return next((f" line {n}" for n, line in enumerate(lines, 1) if pattern.match(line)), "")


def _told(name: str, text: str, message: str) -> str:
    """msgspec's words with the line of the setting that they are about."""
    what, _, place = message.partition(" - at `$")
    setting = place.strip("`.").split(".")[-1].partition("[")[0]
    if "missing required field" in what:
        return f"{name}: {shown(what.replace('Object missing required field', 'lacks the setting'))}"
    return f"{name}{_line(text, setting)}: {shown(setting)}: {shown(what[:1].lower() + what[1:])}"


def _faults(site: Site) -> list[tuple[str, str]]:
    """What the types alone do not tell: (setting, what is wrong)."""
    faults = []
    if site.listen and parse_address(site.listen) is None:
        faults.append(
            ("listen", f"{shown(site.listen)!r} is no address to listen at; expected tcp://*:7700 or like it")
        )
    if site.times.election_ms < 5 * site.times.tick_ms:
        found = f"{site.times.election_ms}, expected at least 5 ticks of {site.times.tick_ms}"
        faults.append(("election_ms", found))
    for peer in site.peers:
        fault = dial_fault(peer.address)
        if fault:
            faults.append(("address", f"{shown(peer.address)!r} is {fault}"))
    if len({peer.card for peer in site.peers}) < len(site.peers):
        faults.append(("peers", "a card is named twice"))
    if len({site.identity, site.curve}) < 2:
        faults.append(("curve", "the same file as identity"))
    return faults

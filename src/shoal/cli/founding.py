"""shoal init, shoal join: a swarm's first entry, made by one site and taken by each."""

from __future__ import annotations

import enum
import io
import secrets
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shoal.cli import put
from shoal.cli.show import Format, line, print_json, table
from shoal.errors import ArgumentError, InputError, MachineError, shown

if TYPE_CHECKING:
    from shoal.config import Site
    from shoal.ledger.body import Policy
    from shoal.swarm.card import SignedCard
    from shoal.swarm.founding import Founded
    from shoal.swarm.site_keys import Pair

_Settings = Annotated[Path, typer.Argument(help="This site's settings (site.toml).", show_default=False)]
_Json = Annotated[Format, typer.Option("--format", help="text or json.")]


class Profile(enum.StrEnum):
    default = "default"
    light = "light"
    crash = "crash"


class Topology(enum.StrEnum):
    swarm = "swarm"
    federated = "federated"


class Admission(enum.StrEnum):
    any = "any"
    majority = "majority"


def init(
    settings: _Settings,
    cards: Annotated[list[Path], typer.Argument(help="The cards of the other first members.", show_default=False)],
    model: Annotated[Path, typer.Option("--model", help="The model that all begin with: ONNX or a weights file.")],
    swarm: Annotated[str, typer.Option("--name", help="What the swarm is called.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write the genesis.")],
    secure: Annotated[
        bool, typer.Option("--secure/--plain", help="Sums under masks: nobody sees an update. Or in the clear.")
    ] = True,
    rule: Annotated[str, typer.Option("--rule", help="How updates are merged; under masks: mean.")] = "mean",
    outer: Annotated[
        str, typer.Option("--outer", help="Step by what the rule gives: sgd, momentum, nesterov, adam, yogi, adagrad.")
    ] = "",
    param: Annotated[
        list[str] | None,
        typer.Option("--param", "-p", help="A parameter of rule or optimiser: NAME=VALUE; repeatable."),
    ] = None,
    private_samples: Annotated[
        int | None,
        typer.Option(
            "--private-samples",
            metavar="CAP",
            min=1,
            help="Nobody is told how many samples a site has; who has CAP or more counts fully. Under masks only.",
        ),
    ] = None,
    peers_min: Annotated[
        int | None, typer.Option("--peers-min", min=2, max=255, help="Members that a round needs. Default 3, plain 2.")
    ] = None,
    profile: Annotated[Profile, typer.Option("--profile", help="How many may lie or fall out.")] = Profile.default,
    admission: Annotated[
        Admission, typer.Option("--admission", help="Who lets members in and out: any voter, or a majority.")
    ] = Admission.majority,
    topology: Annotated[
        Topology,
        typer.Option(
            "--topology", help="swarm: all are equal. federated: this site alone orders and merges the rounds."
        ),
    ] = Topology.swarm,
    format: _Json = Format.text,
) -> None:
    """Make a swarm of this site and the sites of these cards: writes its genesis and prints its digest.

    Compare the fingerprints that are printed with what each site reads to you over the telephone. Then send the genesis
    to all, and read them its digest: `shoal join` takes it by that.
    """
    import msgspec

    from shoal.cli.merge import parse_parameters
    from shoal.config import read_site
    from shoal.ledger.body import Genesis
    from shoal.merge.outer import find_outer
    from shoal.swarm.founding import found_swarm
    from shoal.swarm.policy import settings_of

    if not 1 <= len(swarm) <= 64 or not swarm.isprintable():
        raise typer.BadParameter(f"the name of a swarm has 1 to 64 printable characters, found {shown(swarm)!r}")
    site = read_site(settings)
    (identity, _), mine = _own(site)
    others = [_card(path) for path in cards]
    everybody = [mine, *(card for card in others if card != mine)]
    policy = _policy(secure, rule, peers_min, profile, admission)
    policy = msgspec.structs.replace(
        policy,
        settings=settings_of(rule, outer, parse_parameters(param or [])),
        topology=1 if topology is Topology.swarm else 2,
        outer=find_outer(outer, {}).kind.name if outer else "",
        cap=private_samples or 0,
    )
    layout, base, about = _model(model, site.exclude)
    first = tuple(card.card for card in everybody)
    body = Genesis(swarm, secrets.token_bytes(16), policy, layout, base, first)
    founded = found_swarm(identity, body, time.time_ns() // 1_000_000)
    _export(output, founded)
    facts = {"genesis": str(output), "digest": founded.digest.hex(), "swarm": swarm, "layout": layout.hex()}
    if format is Format.json:
        members = [{"name": c.card.name, "fingerprint": c.fingerprint} for c in everybody]
        print_json({**facts, "model": base.hex(), "members": members})
        return
    rows = [[c.card.name, c.card.address or "dials out only", c.fingerprint] for c in everybody]
    table([("first member", "left"), ("address", "left"), ("fingerprint", "left")], rows)
    line(f"model    {base.hex()}: {about}")
    line(f"genesis  {shown(str(output))}: send it to all first members")
    line(f"digest   {founded.digest.hex()}: read it to them over the telephone")


def join(
    settings: _Settings,
    genesis: Annotated[
        Path, typer.Argument(help="The genesis, or an exported ledger that begins with it.", show_default=False)
    ],
    digest: Annotated[
        str | None, typer.Option("--digest", metavar="DIGEST", help="The genesis digest, from a source you trust.")
    ] = None,
    new: Annotated[bool, typer.Option("--new", help="This site is no first member: it asks to be let in.")] = False,
    format: _Json = Format.text,
) -> None:
    """Take a swarm's genesis: check it by its digest, find this site in it, begin this site's ledger file.

    A site that is not among the first members goes on with --new: it begins its ledger, and the members let it in with
    `shoal members approve`.
    """
    from shoal.config import read_site
    from shoal.ledger.sqlite_store import SqliteStore
    from shoal.swarm.founding import place_of
    from shoal.swarm.replica import found

    site = read_site(settings)
    expected = _expected(site, digest)
    _, mine = _own(site)
    founded = _first_entry(genesis)
    if founded.digest != expected:
        told = f"its digest is {founded.digest.hex()}, expected {expected.hex()}"
        raise InputError("join.digest", f"{shown(str(genesis))}: {told}: it was changed, or is another swarm's")
    fault = place_of(mine.card, founded.body)
    if fault and not new:
        told = f"{fault}; to be let in later, join with --new and send your card to the members"
        raise InputError("join.member", f"{shown(str(genesis))}: {told}")
    put.folder(Path(site.data))
    path = Path(site.data) / "ledger.db"
    store = SqliteStore(path)
    try:
        begun = not store.last_index
        if begun:
            found(store, founded.entry)
    finally:
        store.close()
    if not begun:
        _check_same(path, founded)
    if format is Format.json:
        facts = {"ledger": str(path), "swarm": founded.body.swarm, "digest": founded.digest.hex(), "begun": begun}
        print_json({**facts, "member": not fault, "members": [card.name for card in founded.body.members]})
        return
    names = ", ".join(shown(card.name) for card in founded.body.members)
    line(f"swarm   {shown(founded.body.swarm)} of {names}")
    line(f"ledger  {shown(str(path))}{'' if begun else ': was begun before'}")
    if fault:
        line(f"card    {shown(site.card)}: send it to a member, who lets you in: shoal members approve")


# --- what both need ---


def _own(site: Site) -> tuple[Pair, SignedCard]:
    """This site's keys, and its card, which must be of these keys."""
    from shoal.swarm.site_keys import read_pairs

    pair, card = read_pairs(site)[0], _card(Path(site.card))
    if (card.card.signing, card.card.curve) != (pair[0].public, pair[1].public):
        raise InputError("card.key", f"{shown(site.card)}: not the card of the keys that the settings name")
    if card.card.name != site.name:
        told = f"the card of {card.card.name}, the settings name {site.name}"
        raise InputError("card.name", f"{shown(site.card)}: {told}")
    return pair, card


def _card(path: Path) -> SignedCard:
    from shoal.limits import CARD_BYTES_MAX
    from shoal.swarm.card import read_card

    return read_card(put.read(path, CARD_BYTES_MAX, "a site's card"), shown(str(path)))


def _policy(secure: bool, rule: str, peers_min: int | None, profile: Profile, admission: Admission) -> Policy:
    from shoal.ledger.body import Policy
    from shoal.merge.rules import find
    from shoal.thresholds import PROFILES

    name = find(rule).name
    number = next(n for n, known in PROFILES.items() if known == profile.value)
    least = (3 if secure else 2) if peers_min is None else peers_min
    return Policy(secure, name, number, least, 1 if admission is Admission.any else 2)


def _model(path: Path, exclude: Sequence[str]) -> tuple[bytes, bytes, str]:
    """Digest of the flat layout without the excluded tensors, digest of the model, and words about it."""
    from shoal.model.digest import model_digest
    from shoal.model.file import ModelFile
    from shoal.model.layout import Layout, selects

    with ModelFile.open(path) as model:
        layout = Layout.of_file(model, lambda key: selects(key, (), exclude))
        if not layout.elements:
            raise ArgumentError("init.model", f"{shown(str(path))}: no floating numbers are left to merge")
        kept = len(Layout.of_file(model).tensors) - len(layout.tensors)
        words = f"{layout.elements} numbers in {len(layout.tensors)} tensors"
        return layout.digest, model_digest(model, threads=2), words + (f", {kept} stay at each site" if kept else "")


def _export(path: Path, founded: Founded) -> None:
    from shoal.ledger.export import Header, write_export

    stream = io.BytesIO()
    write_export(stream, Header(founded.digest, 1, 1, founded.digest), [founded.entry])
    put.replace(path, stream.getvalue())


def _first_entry(path: Path) -> Founded:
    from shoal.ledger.export import ExportReader
    from shoal.model.regular import open_regular
    from shoal.swarm.founding import taken

    name = shown(str(path))
    with open(open_regular(str(path), "a genesis"), "rb") as file:
        reader = ExportReader(file, name)
        if reader.header.first != 1:
            raise InputError("join.genesis", f"{name}: begins with entry {reader.header.first}, not with the genesis")
        entries = iter(reader)
        founded = taken(next(entries))
        for _ in entries:  # to the end, so that a damaged file is told
            pass
    return founded


def _expected(site: Site, digest: str | None) -> bytes:
    from shoal.cli.ledger import parse_digest

    told = None if digest is None else parse_digest(digest, "a genesis digest")
    named = bytes.fromhex(site.genesis) if site.genesis else None
    if told is None and named is None:
        raise typer.BadParameter("--digest is needed: the genesis digest, as the founder read it to you")
    if told is not None and named is not None and told != named:
        raise InputError("join.digest", f"--digest {told.hex()}, but the settings name genesis {named.hex()}")
    expected = named if told is None else told
    assert expected is not None
    return expected


def _check_same(path: Path, founded: Founded) -> None:
    from shoal.ledger.archive import latest

    held = latest(path).state.genesis
    if held != founded.digest:
        raise MachineError("join.exists", f"{shown(str(path))}: holds another swarm's ledger, of genesis {held.hex()}")

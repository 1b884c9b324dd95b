"""shoal members: who is in, and the votes by which sites come, gain a vote, go, and change their keys.

A vote travels as a small file, a ballot, by mail or however the sites like.  What is decided is said in the ledger by a
statement, which this site's node, if it runs, takes at its door (swarm/door.py) and brings to the leader.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shoal.cli import put
from shoal.cli.show import Format, line, print_json, table
from shoal.errors import ArgumentError, InputError, MachineError, PeerError, shown

if TYPE_CHECKING:
    from shoal.config import Site
    from shoal.ledger.body import Body
    from shoal.ledger.identity import Identity
    from shoal.ledger.validator import Ledger
    from shoal.swarm.ballot import Ballot

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Who is in the swarm; votes to let sites in and out; new keys for this site.",
)
_Settings = Annotated[Path, typer.Argument(help="This site's settings (site.toml).", show_default=False)]
_Json = Annotated[Format, typer.Option("--format", help="text or json.")]
_Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="Where the ballot or statement goes; default: its name, here.")
]
#: what becomes of a statement, by whether the node has taken it
_HANDED = {True: "handed to this site's node", False: "no node is running here; hand it over with shoal members say"}
#: seconds for which a node may keep a command waiting before it counts as none
_HAND_S = 5.0
_Who = Annotated[str, typer.Argument(help="A member's name, or the beginning of its id.", show_default=False)]


@app.command("list")
def list_members(settings: _Settings, format: _Json = Format.text) -> None:
    """List the members as this site's ledger has them."""
    site, ledger = _opened(settings)
    members = ledger.state.registry.members
    rows: list[dict[str, Any]] = [
        {"name": m.name, "id": who.hex(), "address": m.address, "voter": m.voter, "since": m.since}
        for who, m in sorted(members.items(), key=lambda item: (item[1].since, item[1].name))
    ]
    if format is Format.json:
        print_json({"swarm": ledger.state.swarm, "index": ledger.state.index, "site": site.name, "members": rows})
        return
    columns = [("member", "left"), ("id", "left"), ("address", "left"), ("role", "left"), ("since entry", "right")]
    role = {True: "voter", False: "learner"}
    cells = [
        [r["name"], r["id"][:16], r["address"] or "dials out only", role[r["voter"]], str(r["since"])] for r in rows
    ]
    table(columns, cells, f"{shown(ledger.state.swarm)} after entry {ledger.state.index}")


@app.command("approve")
def approve(
    settings: _Settings,
    files: Annotated[
        list[Path], typer.Argument(help="A new site's card, or ballots about one change.", show_default=False)
    ],
    fingerprint: Annotated[
        str | None,
        typer.Option("--fingerprint", help="Of the new site's card, as it was read to you: must be the same."),
    ] = None,
    output: _Output = None,
    format: _Json = Format.text,
) -> None:
    """Approve a change: with a card, that its site is let in; with a ballot, what the ballot says.

    Writes the ballot with this site's approval: send it to the next voter. When enough have approved it writes the
    statement instead.
    """
    from shoal.ledger.identity import member_id
    from shoal.swarm.ballot import open_ballot, put_together

    site, ledger = _opened(settings)
    found = [_card_or_ballot(path) for path in files]
    ballots = [f if _is_ballot(f) else open_ballot(ledger.state, "add", member_id(f.card.signing), f) for f in found]
    ballot = put_together(ballots)
    _check_fingerprint(ballot, fingerprint)
    _decide(site, ledger, ballot, output, format)


@app.command("promote")
def promote(settings: _Settings, who: _Who, output: _Output = None, format: _Json = Format.text) -> None:
    """Approve that a learner becomes a voter."""
    _begin(settings, "promote", who, output, format)


@app.command("remove")
def remove(settings: _Settings, who: _Who, output: _Output = None, format: _Json = Format.text) -> None:
    """Approve that a member goes; a site that names itself leaves by its own word."""
    _begin(settings, "remove", who, output, format)


@app.command("rotate")
def rotate(settings: _Settings, output: _Output = None, format: _Json = Format.text) -> None:
    """Make new keys for this site, beside the present ones, and the statement that makes them its own.

    The present keys are good until that is decided; keep their files until then. A rotation that was begun goes on with
    the keys that it made.
    """
    from shoal.swarm.site_keys import create_pair, in_use, numbered, read_pairs, rotation

    site, ledger = _opened(settings)
    pairs = read_pairs(site)
    (identity, _), waiting = in_use(pairs, ledger.state.registry)
    if waiting is None:
        number = len(pairs) + 1
        waiting = create_pair(numbered(site.identity, number), numbered(site.curve, number))
    body = rotation(waiting, identity.id, ledger.state.genesis)
    path = output or Path(f"rotate-{site.name}.statement")
    handed = _hand(site, _said(ledger, identity, body, path))
    if format is Format.json:
        facts = {"statement": str(path), "member": identity.id.hex(), "signing": waiting[0].public.hex()}
        print_json({**facts, "handed": handed})
        return
    line(f"statement  {shown(str(path))}: {_HANDED[handed]}")
    line("then       the node ends when it is decided; started again, it takes the new keys")


@app.command("say")
def say(
    settings: _Settings,
    statement: Annotated[Path, typer.Argument(help="A statement (.statement).", show_default=False)],
    format: _Json = Format.text,
) -> None:
    """Hand a statement to this site's running node, which brings it to the leader until it is decided."""
    from shoal.config import read_site
    from shoal.ledger.statement import read_statement
    from shoal.limits import LEDGER_ENTRY_BYTES_MAX

    site = read_site(settings)
    payload = put.read(statement, LEDGER_ENTRY_BYTES_MAX, "a statement")
    read_statement(payload)
    if not _hand(site, payload):
        raise MachineError("members.node", f"{shown(site.data)}: no node is running there; start it with shoal node")
    if format is Format.json:
        print_json({"statement": str(statement), "handed": True})
        return
    line(f"statement  {shown(str(statement))}: {_HANDED[True]}")


# --- inside ---


def _opened(settings: Path) -> tuple[Site, Ledger]:
    """The settings, and the ledger as far as this site's file knows it to be decided."""
    from shoal.config import read_site
    from shoal.ledger.archive import latest

    site = read_site(settings)
    path = Path(site.data) / "ledger.db"
    if not path.exists():
        raise InputError("members.ledger", f"{shown(str(path))}: is not there; shoal join begins it")
    ledger = latest(path)
    if site.genesis and ledger.state.genesis.hex() != site.genesis:
        told = f"the ledger of genesis {ledger.state.genesis.hex()}, the settings name {site.genesis}"
        raise InputError("members.ledger", f"{shown(str(path))}: {told}")
    return site, ledger


def _me(site: Site, ledger: Ledger) -> Identity:
    from shoal.swarm.site_keys import in_use, read_pairs

    (identity, _), _ = in_use(read_pairs(site), ledger.state.registry)
    return identity


def _member(ledger: Ledger, who: str) -> bytes:
    """The id of the member of this name, or whose id begins so."""
    members = ledger.state.registry.members
    found = [i for i, m in members.items() if m.name == who]
    found = found or [i for i in members if len(who) >= 8 and i.hex().startswith(who.lower())]
    if len(found) != 1:
        raise ArgumentError("members.who", f"{shown(who)!r} names {len(found)} members; shoal members list shows them")
    return found[0]


def _card_or_ballot(path: Path) -> Any:
    """A SignedCard or a Ballot; a ballot is the one that says what changes."""
    from shoal.limits import BALLOT_BYTES_MAX
    from shoal.swarm.ballot import read_ballot
    from shoal.swarm.card import read_card

    data, name = put.read(path, BALLOT_BYTES_MAX, "a card or a ballot"), shown(str(path))
    return read_ballot(data, name) if b"\nchange = " in data else read_card(data, name)


def _is_ballot(found: Any) -> bool:
    from shoal.swarm.ballot import Ballot

    return isinstance(found, Ballot)


def _check_fingerprint(ballot: Ballot, told: str | None) -> None:
    if told is None:
        return
    if ballot.card is None:
        raise ArgumentError("members.fingerprint", "--fingerprint is of a new site's card; this is about a member")
    expected = ballot.card.fingerprint.replace(" ", "")
    if "".join(told.split()).lower() != expected:
        raise InputError(
            "members.fingerprint", f"the card's fingerprint is {ballot.card.fingerprint}, not {shown(told)}"
        )


def _begin(settings: Path, change: Any, who: str, output: Path | None, format: Format) -> None:
    from shoal.swarm.ballot import open_ballot

    site, ledger = _opened(settings)
    _decide(site, ledger, open_ballot(ledger.state, change, _member(ledger, who)), output, format)


def _decide(site: Site, ledger: Ledger, ballot: Ballot, output: Path | None, format: Format) -> None:
    """Approve; write the statement if that is enough, else the ballot."""
    from shoal.swarm.ballot import approvals_needed, approve, check_ballot, write_ballot

    me, state = _me(site, ledger), ledger.state
    needed = approvals_needed(state)
    leaves = ballot.change == "remove" and ballot.member == me.id
    if needed and not leaves:
        ballot = approve(ballot, me, state)
    else:
        check_ballot(ballot, state)
    name = ballot.card.card.name if ballot.card else state.registry.members[ballot.member].name
    given = len(ballot.approvals)
    done = leaves or given >= needed
    path = output or Path(f"{ballot.change}-{_as_file(name)}.{'statement' if done else 'ballot'}")
    handed = False
    if done:
        handed = _hand(site, _said(ledger, me, ballot.body, path))
    else:
        put.replace(path, write_ballot(ballot).encode())
    facts = {"change": ballot.change, "name": name, "member": ballot.member.hex(), "approvals": given, "needed": needed}
    if format is Format.json:
        print_json({**facts, "statement" if done else "ballot": str(path), "handed": handed})
        return
    line(f"change     {ballot.change} {shown(name)}")
    if ballot.card is not None:
        line(f"address    {shown(ballot.card.card.address) or 'dials out only'}")
        line(f"fingerprint  {ballot.card.fingerprint}: must be what that site reads to you over the telephone")
    if needed and not leaves:
        line(f"approvals  {given} of {needed}")
    if done:
        line(f"statement  {shown(str(path))}: {_HANDED[handed]}")
    else:
        line(f"ballot     {shown(str(path))}: send it to the next voter")


def _said(ledger: Ledger, me: Identity, body: Body, path: Path) -> bytes:
    """Write the statement that says ``body``, after trying it on the ledger as it is here; gives its bytes."""
    from shoal.ledger.entry import Entry
    from shoal.ledger.statement import Seen, make_statement

    state = ledger.state
    payload = make_statement(body, me, state.genesis, Seen(state.index, state.head), time.time_ns() // 1_000_000)
    try:
        ledger.copy().admit(Entry(state.index + 1, state.term, state.head, payload))
    except (InputError, PeerError) as error:
        raise PeerError(error.code, f"the members would refuse it: {error}") from None
    put.replace(path, payload)
    return payload


def _hand(site: Site, payload: bytes) -> bool:
    """Hand a statement to this site's node; False if none is running."""
    from shoal.swarm.door import SOCKET_FILE, Caller, Say, Taken

    if not (Path(site.data) / SOCKET_FILE).exists():
        return False
    with Caller(Path(site.data)) as caller:
        caller.ask(Say(payload))
        return isinstance(caller.answer(_HAND_S), Taken)


def _as_file(name: str) -> str:
    """A member's name as part of a file's name: genesis cards of other tools may hold any letters."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in name).lstrip(".") or "member"

"""A vote on the members that goes from site to site as a small file of TOML, until enough have approved.

    version = 1
    genesis = "..."        the swarm's
    change = "add"         or "promote", "remove"
    changes = 7            changes of the members before this one: a ballot is good until the next
    member = "..."         the id of whom it is about
    [card]                 of a new site, as it made and signed it (card.py)
    [approvals]            id of a voter = signature over H("admission", ...), ledger/certificate.py

Two copies that were approved apart are put together.  When a majority of the voters has approved, what the ballot says
is a statement that any member may make.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from shoal.errors import InputError, PeerError, shown
from shoal.ledger.body import TAGS, Body, LearnerAdded, MemberAdded, MemberRemoved, Vote
from shoal.ledger.certificate import admission_statement, collect, vote
from shoal.ledger.identity import Identity, member_id, signature_holds
from shoal.ledger.state import State
from shoal.limits import BALLOT_BYTES_MAX, LEDGER_MEMBERS_MAX
from shoal.swarm.card import Hex32, Hex64, SignedCard, WrittenCard, card_lines, check_written

VERSION: Final = 1
Change = Literal["add", "promote", "remove"]
_KINDS: Final[dict[str, type[Body]]] = {"add": LearnerAdded, "promote": MemberAdded, "remove": MemberRemoved}


class Ballot(msgspec.Struct, frozen=True):
    """``card`` of a new site, else None; ``approvals`` by voter."""

    genesis: bytes
    change: Change
    changes: int
    member: bytes
    card: SignedCard | None = None
    approvals: dict[bytes, Vote] = {}

    @property
    def statement(self) -> bytes:
        """What an approval signs."""
        what = self.member if self.card is None else msgspec.msgpack.encode(self.card.card)
        return admission_statement(self.genesis, TAGS[_KINDS[self.change]], self.changes, what)

    @property
    def body(self) -> Body:
        """What a member says once enough have approved."""
        votes = collect(self.approvals)
        if self.card is not None:
            return LearnerAdded(self.card.card, votes)
        return MemberAdded(self.member, votes) if self.change == "promote" else MemberRemoved(self.member, votes)


def open_ballot(state: State, change: Change, member: bytes, card: SignedCard | None = None) -> Ballot:
    """A new one, with nobody's approval.  raises  PeerError  ``ballot.member``"""
    ballot = Ballot(state.genesis, change, state.registry.changes, member, card)
    check_ballot(ballot, state)
    return ballot


def check_ballot(ballot: Ballot, state: State) -> None:
    """Is this a vote that can be decided now, and is every approval in it good?

    raises  PeerError  ``ballot.swarm``, ``ballot.stale``, ``ballot.member``, ``ballot.approval``
    """
    members = state.registry.members
    if ballot.genesis != state.genesis:
        raise PeerError("ballot.swarm", f"the ballot belongs to another swarm: {ballot.genesis.hex()[:16]}")
    if ballot.changes != state.registry.changes:
        found = f"{ballot.changes} changes of the members before it, there were {state.registry.changes}"
        raise PeerError("ballot.stale", f"the ballot was made at another time ({found}): begin it anew")
    name, known = ballot.member.hex()[:16], members.get(ballot.member)
    if ballot.change == "add":
        if known is not None:
            raise PeerError("ballot.member", f"{shown(known.name)} is a member already")
    elif known is None:
        raise PeerError("ballot.member", f"{name} is no member")
    elif ballot.change == "promote" and known.voter:
        raise PeerError("ballot.member", f"{shown(known.name)} is a voter already")
    voters = state.registry.voter_keys
    for who, approval in ballot.approvals.items():
        if who not in voters or not signature_holds(voters[who], approval.signature, ballot.statement):
            raise PeerError("ballot.approval", f"the approval of {who.hex()[:16]} does not hold, or it has no vote")


def approve(ballot: Ballot, me: Identity, state: State) -> Ballot:
    """With this voter's approval.  raises  PeerError  ``ballot.voter``, and what `check_ballot` does"""
    check_ballot(ballot, state)
    if me.id not in state.registry.voter_keys:
        raise PeerError("ballot.voter", "this site has no vote: only voters approve")
    return msgspec.structs.replace(ballot, approvals=ballot.approvals | {me.id: vote(ballot.statement, me)})


def put_together(ballots: Sequence[Ballot]) -> Ballot:
    """One ballot with the approvals of all.  raises  PeerError  ``ballot.other``: they are about different things"""
    first = ballots[0]
    if any(b.statement != first.statement for b in ballots):
        raise PeerError("ballot.other", "these ballots are not about the same change")
    approvals = {who: each for b in ballots for who, each in b.approvals.items()}
    return msgspec.structs.replace(first, approvals=approvals)


def approvals_needed(state: State) -> int:
    """How many must approve; 0 where the genesis lets any voter decide."""
    assert state.policy is not None
    return 0 if state.policy.admission == 1 else len(state.registry.voter_keys) // 2 + 1


# --- as text ----------------------------------------------------------------------------------------------------------


class _Written(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: Literal[1]
    genesis: Hex32
    change: Change
    changes: Annotated[int, Meta(ge=0, le=2**63 - 1)]
    member: Hex32
    card: WrittenCard | None = None
    approvals: Annotated[dict[Hex32, Hex64], Meta(max_length=LEDGER_MEMBERS_MAX)] = {}


def write_ballot(ballot: Ballot) -> str:
    lines = [
        "# A vote on the members of a Shoal swarm.  Look at it and approve it: shoal members approve SITE.toml FILE",
        f"version = {VERSION}",
        f'genesis = "{ballot.genesis.hex()}"',
        f'change = "{ballot.change}"',
        f"changes = {ballot.changes}",
        f'member = "{ballot.member.hex()}"',
    ]
    if ballot.card is not None:
        lines += ["", "[card]", *card_lines(ballot.card)]
    lines += ["", "[approvals]"]
    lines += [f'"{who.hex()}" = "{ballot.approvals[who].signature.hex()}"' for who in sorted(ballot.approvals)]
    return "\n".join(lines) + "\n"


def read_ballot(data: bytes, name: str) -> Ballot:
    """The ballot in a file called ``name``.  raises  InputError  ``ballot.format``, ``card.*``"""
    if len(data) > BALLOT_BYTES_MAX:
        raise InputError("ballot.format", f"{name}: more than {BALLOT_BYTES_MAX} bytes; expected a ballot")
    try:
        written = msgspec.convert(tomllib.loads(data.decode()), _Written)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError, msgspec.ValidationError) as error:
        raise InputError("ballot.format", f"{name}: no ballot: {shown(str(error))}") from None
    member, card = bytes.fromhex(written.member), None
    if (written.change == "add") != (written.card is not None):
        raise InputError("ballot.format", f"{name}: a card belongs to the ballot of a new site, and only there")
    if written.card is not None:
        card = check_written(written.card, name)
        if member_id(card.card.signing) != member:
            raise InputError("ballot.format", f"{name}: the card is another site's than the ballot says")
    votes = {bytes.fromhex(who): bytes.fromhex(signature) for who, signature in written.approvals.items()}
    approvals = {who: Vote(who, signature) for who, signature in votes.items()}
    return Ballot(bytes.fromhex(written.genesis), written.change, written.changes, member, card, approvals)

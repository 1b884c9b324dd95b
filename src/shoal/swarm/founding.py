"""A swarm's first entry: made by one of the first members from everybody's cards, taken by each by its digest."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import msgspec
import numpy as np

from shoal.errors import ArgumentError, InputError, shown
from shoal.ledger.body import Genesis, MemberCard, Policy
from shoal.ledger.digest import ZERO_DIGEST
from shoal.ledger.entry import GENESIS_INDEX, GENESIS_PREV, GENESIS_TERM, Entry, entry_hash
from shoal.ledger.identity import Identity, member_id
from shoal.ledger.statement import Seen, make_statement, read_statement
from shoal.ledger.validator import Ledger
from shoal.limits import GRAM_MODELS_MAX, LEDGER_MEMBERS_MAX
from shoal.merge.library import merge
from shoal.swarm.policy import outer_of, rule_of
from shoal.thresholds import PROFILES, thresholds


class Founded(msgspec.Struct, frozen=True):
    """A genesis as an entry, its digest, and what it says."""

    entry: Entry
    digest: bytes
    body: Genesis


def same_in_two(cards: Sequence[MemberCard]) -> str:
    """What two of these cards have in common that must be one's alone; "" if nothing."""
    for a, b in combinations(cards, 2):
        who = f"{shown(a.name)} and {shown(b.name)}"
        if a.signing == b.signing:
            return f"{who} have the same signing key"
        if a.curve == b.curve:
            return f"{who} have the same CURVE key"
        if a.name == b.name:
            return f"two sites are called {shown(a.name)}"
        if a.address and a.address == b.address:
            return f"{who} have the same address, {a.address}"
    return ""


def found_swarm(founder: Identity, body: Genesis, time_ms: int) -> Founded:
    """The genesis of a swarm, signed by one of its first members.

    body    its members in any order
    raises  ArgumentError  ``founding.members``: too few, too many, something is there twice, or the founder is not
                           among them; ``founding.policy``: the policy does not fit them
    """
    cards = body.members
    fault = same_in_two(cards)
    if fault:
        raise ArgumentError("founding.members", fault)
    if not 2 <= len(cards) <= LEDGER_MEMBERS_MAX:
        raise ArgumentError("founding.members", f"{len(cards)} first members; expected 2 to {LEDGER_MEMBERS_MAX}")
    if all(card.signing != founder.public for card in cards):
        raise ArgumentError("founding.members", "the founder's own card is not among the first members'")
    fault = policy_fault(body.policy, len(cards))
    if fault:
        raise ArgumentError("founding.policy", fault)
    first = tuple(sorted(cards, key=lambda card: member_id(card.signing)))
    payload = make_statement(msgspec.structs.replace(body, members=first), founder, ZERO_DIGEST, Seen(), time_ms)
    return taken(Entry(GENESIS_INDEX, GENESIS_TERM, GENESIS_PREV, payload))


def policy_fault(policy: Policy, members: int) -> str:
    """Why no round could ever come about, or would not be safe; "" if it can."""
    if policy.secure and policy.rule != "mean":
        return f"secure aggregation gives the mean; rule {shown(policy.rule)} needs updates in the clear"
    if policy.secure and policy.peers_min < 3:
        return f"a secure round of {policy.peers_min} would tell each what the other sent; expected at least 3"
    if policy.cap and not policy.secure:
        return "samples are private only under masks: in the clear each member says how much its update weighs"
    if policy.peers_min > members:
        return f"rounds of at least {policy.peers_min}, and {members} first members"
    try:
        survivors = policy.peers_min - thresholds(policy.peers_min, PROFILES[policy.profile]).d_max
        for models in (members, survivors):
            _try_rule(policy, models)
    except ArgumentError as error:
        return str(error)
    return ""


def _try_rule(policy: Policy, models: int) -> None:
    """Merge some zeros as a round of so many survivors would.

    raises  ArgumentError  the rule or its settings are not known, or are not for so many
    """
    outer_of(policy)
    rule, settings = rule_of(policy)
    if rule.scope == "model" and models > GRAM_MODELS_MAX:
        raise ArgumentError("plan.rule", f"rule {rule.name} compares at most {GRAM_MODELS_MAX} members, found {models}")
    zeros = np.zeros(8, np.float32)
    parameters: dict[str, Any] = settings
    merge([zeros] * models, method=rule.name, base=zeros if rule.needs_base else None, **parameters)


def taken(entry: Entry) -> Founded:
    """What a first entry says, its signature and rules checked.  raises  InputError, PeerError"""
    Ledger().apply(entry)
    body = read_statement(entry.payload)[1]
    if not isinstance(body, Genesis):
        raise InputError("ledger.genesis", "the first entry is no genesis")
    return Founded(entry, entry_hash(entry), body)


def place_of(card: MemberCard, genesis: Genesis) -> str:
    """Why the site with this card cannot take part as one of the first members; "" if it can."""
    mine = next((c for c in genesis.members if c.signing == card.signing), None)
    if mine is None:
        other = next((c for c in genesis.members if c.name == card.name or c.curve == card.curve), None)
        if other is not None:
            return f"its first members know {shown(other.name)} by another signing key: were the keys made anew?"
        return "this site is not among its first members"
    if mine.curve != card.curve:
        return f"its first members know {shown(card.name)} by another CURVE key: were the keys made anew?"
    return ""

"""The rules: what may be said, by whom, when; and that a refused entry changes nothing."""

from __future__ import annotations

import math
from collections.abc import Callable

import msgspec
import numpy as np
import pytest
from swarm_builder import SwarmBuilder, card, exchange_key, identity, seed

from shoal.errors import InputError, PeerError
from shoal.ledger.attempt import dropped
from shoal.ledger.body import (
    TAGS,
    Abort,
    Body,
    Check,
    Complaint,
    EpochKey,
    Evaluation,
    Genesis,
    Gram,
    KeyBatch,
    KeysRotated,
    LearnerAdded,
    Masked,
    MemberAdded,
    MemberRemoved,
    Metric,
    ModelCertificate,
    Nonce,
    Noop,
    Note,
    Opened,
    Receipt,
    RoundPlan,
    Setting,
    Shard,
    ShardOwner,
    Share,
    ShareSet,
    SurvivorCertificate,
    Vote,
    bitmap,
)
from shoal.ledger.certificate import (
    admission_statement,
    collect,
    model_statement,
    round_id,
    survivors_statement,
    vote,
)
from shoal.ledger.digest import digest
from shoal.ledger.entry import Entry, entry_hash
from shoal.ledger.identity import Identity
from shoal.ledger.members import Change, Configuration
from shoal.ledger.registry import Context, apply_change, change_of
from shoal.ledger.statement import Seen, make_statement, read_statement
from shoal.ledger.validator import Ledger, make_seal
from shoal.limits import LEDGER_SEEN_WINDOW
from shoal.thresholds import Thresholds, thresholds

replace = msgspec.structs.replace


def swarm(**options: object) -> SwarmBuilder:
    return SwarmBuilder(**{"members": 5, "check": True, **options})  # type: ignore[arg-type]


def refused(built: SwarmBuilder, entry: Entry, code: str) -> str:
    """The entry is refused with this code, named, and leaves no trace."""
    before = built.ledger.encode()
    with pytest.raises((PeerError, InputError)) as caught:
        built.ledger.apply(entry)
    assert caught.value.code == code, str(caught.value)
    assert str(caught.value).startswith(f"entry {entry.index} (")
    assert built.ledger.encode() == before
    return str(caught.value)


def refuses(built: SwarmBuilder, body: Body, code: str, author: Identity | None = None) -> str:
    return refused(built, built.entry(body, author or built.leader), code)


# --- chain, terms, seals ----------------------------------------------------------------------------------------------


def test_chain() -> None:
    built = swarm()
    good = built.entry(Note("next"), identity(1))
    refused(built, replace(good, index=good.index + 1), "ledger.chain")
    refused(built, replace(good, index=good.index - 1), "ledger.chain")
    refused(built, replace(good, prev=seed("x")), "ledger.chain")
    refused(built, replace(good, term=0, seal=b""), "ledger.chain")
    refused(built, replace(good, term=2, seal=b""), "ledger.term")
    refused(built, replace(good, payload=b"", seal=b""), "ledger.statement")
    built.push(good)
    refused(built, good, "ledger.chain")


def test_a_term_begins_with_its_leaders_noop() -> None:
    built = swarm()
    refuses(built, Noop(1), "ledger.term")
    refused(built, built.entry(Note("x"), identity(1), term=2, sealed=False), "ledger.term")
    refused(built, built.entry(Noop(3), identity(1), term=2, sealed=False), "ledger.term")
    learner = built.add_learner(60)
    refused(built, built.entry(Noop(2), learner, term=2, sealed=False), "ledger.author")
    built.elect(identity(1))
    built.say(Note("under the new leader"), identity(2), sealed=True)


def test_only_the_terms_leader_seals() -> None:
    built = swarm()
    other = next(p for p in built.voters() if p.id != built.leader.id)
    entry = built.entry(Note("x"), other, sealed=False)
    hash_ = entry_hash(entry)
    refused(built, replace(entry, seal=make_seal(hash_, other)), "ledger.seal")
    refused(built, replace(entry, seal=built.leader.id + other.sign(digest("seal", hash_))), "ledger.signature")
    refused(built, replace(entry, seal=built.leader.id + built.leader.sign(hash_)), "ledger.signature")
    refused(built, replace(entry, seal=make_seal(seed("other"), built.leader)), "ledger.signature")
    built.push(replace(entry, seal=make_seal(hash_, built.leader)))


def test_a_removed_leader_seals_to_the_end_of_its_term() -> None:
    """Raft: it leads until its removal is committed (Ongaro 2014, 4.2.2)."""
    built = swarm()
    leader, other = built.leader, next(p for p in built.voters() if p.id != built.leader.id)
    approvals = built.approvals(MemberRemoved, leader.id)
    built.say(MemberRemoved(leader.id, approvals), other)
    built.say(Note("still in its term"), other, sealed=True)
    refuses(built, Note("but it is no member"), "ledger.author", leader)


def test_statements_of_another_swarm_are_refused() -> None:
    built, other = swarm(), swarm(members=4)
    state = built.ledger.state
    payload = make_statement(Note("x"), identity(1), other.genesis, Seen(state.index, state.head))
    refused(built, Entry(state.index + 1, state.term, state.head, payload), "ledger.genesis")


def test_an_author_tells_what_it_saw() -> None:
    built = swarm()
    state = built.ledger.state
    for seen in (Seen(state.index, seed("another")), Seen(state.index + 1, state.head), Seen(0, bytes(32))):
        payload = make_statement(Note("x"), identity(1), state.genesis, seen)
        refused(built, Entry(state.index + 1, state.term, state.head, payload), "ledger.seen")
    # an older one is fine, as long as it is within the window
    payload = make_statement(Note("x"), identity(1), state.genesis, Seen(1, state.genesis))
    built.push(Entry(state.index + 1, state.term, state.head, payload))


def test_what_was_seen_too_long_ago_is_refused() -> None:
    built = SwarmBuilder(members=3, seal_every=1000)
    while built.ledger.state.index <= LEDGER_SEEN_WINDOW:
        built.say(Note("filler"))
    state = built.ledger.state
    assert len(state.recent) == LEDGER_SEEN_WINDOW
    payload = make_statement(Note("x"), identity(1), state.genesis, Seen(1, state.genesis))
    refused(built, Entry(state.index + 1, state.term, state.head, payload), "ledger.seen")


def test_a_replayed_statement_is_refused() -> None:
    built = swarm()
    said = built.say(Note("once"), identity(1))
    state = built.ledger.state
    refused(built, Entry(state.index + 1, state.term, state.head, said.payload), "ledger.replay")
    # also by a node that started from a snapshot
    again = Ledger.decode(built.ledger.encode())
    with pytest.raises(PeerError, match="already"):
        again.apply(Entry(state.index + 1, state.term, state.head, said.payload))


# --- genesis ----------------------------------------------------------------------------------------------------------


def founding(change: Callable[[Genesis], Genesis], author: int = 0, **entry: object) -> Entry:
    built = SwarmBuilder(members=3)
    _, body = read_statement(built.entries[0].payload)
    assert isinstance(body, Genesis)
    payload = make_statement(change(body), identity(author), bytes(32), Seen())
    return replace(Entry(1, 0, bytes(32), payload), **entry)


@pytest.mark.parametrize(
    ("entry", "code"),
    [
        (founding(lambda g: replace(g, members=g.members[::-1])), "ledger.member"),
        (founding(lambda g: replace(g, members=g.members[:1] * 2)), "ledger.member"),
        (founding(lambda g: g, author=9), "ledger.author"),
        (founding(lambda g: g, term=1), "ledger.genesis"),
        (founding(lambda g: g, seal=bytes(96)), "ledger.genesis"),
        (founding(lambda g: replace(g, policy=replace(g.policy, rule="median"))), "ledger.genesis"),
        (founding(lambda g: replace(g, policy=replace(g.policy, peers_min=2))), "ledger.genesis"),
        (
            founding(lambda g: replace(g, policy=replace(g.policy, settings=(Setting("a", math.nan),)))),
            "ledger.genesis",
        ),
        (founding(lambda g: replace(g, policy=replace(g.policy, settings=(Setting("a", 1),) * 2))), "ledger.genesis"),
        (founding(lambda g: replace(g, members=tuple(replace(c, curve=bytes(32)) for c in g.members))), "ledger.key"),
        (
            founding(lambda g: replace(g, members=tuple(replace(c, curve=exchange_key(1)) for c in g.members))),
            "ledger.key",
        ),
        (founding(lambda g: replace(g, members=tuple(replace(c, name="same") for c in g.members))), "ledger.member"),
        (Entry(1, 0, bytes(32), make_statement(Note("x"), identity(0), bytes(32), Seen())), "ledger.genesis"),
    ],
)
def test_genesis(entry: Entry, code: str) -> None:
    ledger = Ledger()
    with pytest.raises((PeerError, InputError)) as caught:
        ledger.apply(entry)
    assert caught.value.code == code, str(caught.value)
    assert ledger.state.index == 0


def test_a_genesis_with_a_forged_signature_is_refused() -> None:
    entry = founding(lambda g: g)
    statement, _ = read_statement(entry.payload)
    forged = msgspec.msgpack.encode(replace(statement, signature=bytes(64)))
    with pytest.raises(PeerError, match="signature"):
        Ledger().apply(replace(entry, payload=forged))


def test_whoever_signs_the_genesis_of_a_federation_is_its_one_voter() -> None:
    entry = founding(lambda g: replace(g, policy=replace(g.policy, topology=2)))
    ledger = Ledger()
    statement, _ = ledger.apply(entry)
    ids = tuple(sorted(ledger.state.registry.members))
    assert list(ledger.state.registry.voter_keys) == [statement.author]
    assert change_of(entry.payload) == Change("found", ids, statement.author)
    after = Configuration().after(Change("found", ids, statement.author))
    assert after == Configuration((statement.author,), tuple(i for i in ids if i != statement.author))
    assert Configuration().fault(Change("found", ids, b"nobody")) == "bad-founders"
    registry, other = ledger.state.registry, next(i for i in ids if i != statement.author)
    context = Context(2, ledger.state.genesis, statement.author, 1, True, 0, ledger.check)
    with pytest.raises(PeerError, match="one voter"):
        apply_change(registry, context, MemberAdded(other))


def test_there_is_one_genesis() -> None:
    built = swarm()
    _, body = read_statement(built.entries[0].payload)
    refuses(built, body, "ledger.genesis")


# --- members ----------------------------------------------------------------------------------------------------------


def test_membership_is_a_fold() -> None:
    built = swarm()
    before = set(built.ledger.state.registry.members)
    learner = built.add_learner(60)
    members = built.ledger.state.registry.members
    assert set(members) == before | {learner.id} and not members[learner.id].voter
    refuses(built, built.plan(), "ledger.author", learner)
    built.promote(learner)
    assert members[learner.id].voter and members[learner.id].since == built.ledger.state.index - 1
    built.remove(learner)
    assert set(members) == before
    refuses(built, Note("gone"), "ledger.author", learner)


def test_the_core_sees_the_same_changes() -> None:
    built = swarm()
    ids = tuple(sorted(built.ledger.state.registry.members))
    assert change_of(built.entries[0].payload) == Change("found", ids)
    assert change_of(built.entries[1].payload) is None
    learner = built.add_learner(60)
    built.promote(learner)
    built.remove(learner)
    kinds = [change_of(e.payload) for e in built.entries[2:]]
    assert kinds == [Change(kind, (learner.id,)) for kind in ("add", "promote", "remove")]
    assert change_of(b"no statement") is None


def test_admission_needs_a_majority() -> None:
    built = swarm()
    new = card(identity(60), 60)
    what, voters = msgspec.msgpack.encode(new), built.voters()
    changes = built.ledger.state.registry.changes

    def approvals(who: list[Identity], tag: int = TAGS[LearnerAdded], n: int = changes) -> tuple[Vote, ...]:
        statement = admission_statement(built.genesis, tag, n, what)
        return collect({v.id: vote(statement, v) for v in who})

    refuses(built, LearnerAdded(new), "ledger.certificate")
    refuses(built, LearnerAdded(new, approvals(voters[:2])), "ledger.certificate")
    refuses(built, LearnerAdded(new, approvals([*voters[:2], identity(77)])), "ledger.certificate")
    refuses(built, LearnerAdded(new, approvals(voters[:3])[::-1]), "ledger.certificate")
    refuses(built, LearnerAdded(new, approvals(voters[:3])[:1] * 3), "ledger.certificate")
    refuses(built, LearnerAdded(new, approvals(voters[:3], tag=TAGS[MemberAdded])), "ledger.signature")
    refuses(built, LearnerAdded(new, approvals(voters[:3], n=changes + 1)), "ledger.signature")
    refuses(built, LearnerAdded(replace(new, name="other"), approvals(voters[:3])), "ledger.signature")
    built.say(LearnerAdded(new, approvals(voters[:3])))
    # the same approvals do not let it in again
    built.people[identity(60).id] = identity(60)
    built.remove(identity(60))
    refuses(built, LearnerAdded(new, approvals(voters[:3])), "ledger.signature")


def test_admission_by_any_voter() -> None:
    built = swarm(admission=1)
    new = card(identity(60), 60)
    vote_ = (Vote(identity(0).id, bytes(64)),)
    refuses(built, LearnerAdded(new, vote_), "ledger.certificate")
    learner = built.add_learner(60)
    refuses(built, MemberRemoved(identity(0).id), "ledger.author", learner)
    refuses(built, MemberAdded(learner.id), "ledger.author", learner)
    built.say(MemberRemoved(learner.id), learner)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda c: card(identity(0), 60), "ledger.member"),
        (lambda c: replace(c, name="hospital-1"), "ledger.member"),
        (lambda c: replace(c, curve=exchange_key("curve", 2)), "ledger.key"),
        (lambda c: replace(c, curve=(1).to_bytes(32, "little")), "ledger.key"),
        (lambda c: replace(c, signing=bytes(32)), "ledger.key"),
        (lambda c: replace(c, signing=b"\x01" + bytes(31)), "ledger.key"),
    ],
)
def test_members_that_cannot_enter(change: Callable, code: str) -> None:
    built = swarm(admission=1)
    refuses(built, LearnerAdded(change(card(identity(60), 60))), code)


def test_changes_of_nobody() -> None:
    built = swarm(admission=1)
    refuses(built, MemberAdded(seed("nobody")), "ledger.member")
    refuses(built, MemberAdded(identity(1).id), "ledger.member")
    refuses(built, MemberRemoved(seed("nobody")), "ledger.member")
    single = swarm(members=2, secure=False, admission=1)
    first, second = single.voters()
    single.say(MemberRemoved(second.id), second)
    refuses(single, MemberRemoved(first.id), "ledger.member", first)


def test_rotated_keys() -> None:
    built = swarm()
    who = next(p for p in built.voters() if p.id != built.leader.id)
    key, curve = Identity.from_seed(seed("new key")), exchange_key("new curve")
    proof = key.sign(digest("rotation", built.genesis, who.id, key.public, curve))
    refuses(built, KeysRotated(key.public, curve, bytes(64)), "ledger.signature", who)
    refuses(built, KeysRotated(key.public, exchange_key("x"), proof), "ledger.signature", who)
    refuses(built, KeysRotated(bytes(32), curve, proof), "ledger.key", who)
    refuses(built, KeysRotated(built.leader.public, curve, proof), "ledger.key", who)
    member = built.ledger.state.registry.members[who.id]
    refuses(built, KeysRotated(member.signing, member.curve, proof), "ledger.key", who)
    built.say(KeysRotated(key.public, curve, proof), who)
    refuses(built, Note("with the old key"), "ledger.signature", who)
    built.say(Note("with the new key"), Identity(key._key, who.id))


def test_published_keys() -> None:
    built = swarm()
    built.publish_keys(4)
    who = identity(1)
    keys = tuple(exchange_key("more", n) for n in range(3))
    refuses(built, KeyBatch(3, keys), "ledger.slot", who)
    refuses(built, KeyBatch(4, keys[:1] * 2), "ledger.key", who)
    refuses(built, KeyBatch(4, (exchange_key("one-time", identity(2).id, 0),)), "ledger.key", who)
    refuses(built, KeyBatch(4, (bytes(32),)), "ledger.key", who)
    refuses(built, KeyBatch(2**63 - 2, keys), "ledger.slot", who)
    refuses(built, EpochKey(0, exchange_key("epoch", 1)), "ledger.slot", who)
    refuses(built, EpochKey(9, exchange_key("epoch", identity(2).id, 0)), "ledger.key", who)
    built.say(KeyBatch(4, keys), who)
    built.say(EpochKey(9, exchange_key("epoch", 1)), who)
    member = built.ledger.state.registry.members[who.id]
    assert member.one_time_key(0) == exchange_key("one-time", who.id, 0)
    assert member.one_time_key(6) == keys[2] and member.one_time_key(7) is None
    assert member.epoch_key(8) == exchange_key("epoch", who.id, 0) and member.epoch_key(9) == exchange_key("epoch", 1)
    for _ in range(5):
        built.run_round(evaluate=False)
    refuses(built, KeyBatch(4, (exchange_key("late"),)), "ledger.slot", who)
    built.say(KeyBatch(7, (exchange_key("next"),)), who)
    assert member.batches[0][0] == 4, "batches of past slots are forgotten"


# --- rounds -----------------------------------------------------------------------------------------------------------


def changed_plan(**change: object) -> Callable[[RoundPlan], RoundPlan]:
    return lambda plan: replace(plan, **change)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (changed_plan(round=2), "ledger.order"),
        (changed_plan(attempt=1), "ledger.order"),
        (changed_plan(slot=1), "ledger.slot"),
        (changed_plan(base=seed("another")), "ledger.base"),
        (changed_plan(thresholds=Thresholds(1, 1, 3, 4)), "ledger.plan"),
        (changed_plan(thresholds=Thresholds(2, 1, 4, 4)), "ledger.plan"),
        (changed_plan(shards=(ShardOwner(0, 5),)), "ledger.plan"),
        (changed_plan(shards=(ShardOwner(2, 2),)), "ledger.plan"),
        (changed_plan(bits=7), "ledger.plan"),
        (changed_plan(bits=0), "ledger.plan"),
        (changed_plan(bound=2**15), "ledger.plan"),
        (changed_plan(bound=0), "ledger.plan"),
        (changed_plan(weights=2), "ledger.plan"),
        (lambda p: replace(p, participants=p.participants[::-1]), "ledger.plan"),
        (lambda p: replace(p, participants=p.participants[:1] * 5), "ledger.plan"),
        (lambda p: replace(p, participants=p.participants[:2], shards=(ShardOwner(0, 1),)), "ledger.plan"),
        (lambda p: replace(p, participants=tuple(replace(x, samples=0) for x in p.participants)), "ledger.plan"),
        (lambda p: replace(p, participants=tuple(replace(x, samples=2**62) for x in p.participants)), "ledger.plan"),
        (lambda p: replace(p, participants=(replace(p.participants[0], member=bytes(32)), *p.participants[1:])), "ledger.plan"),
    ],
)  # fmt: skip
def test_plans_that_do_not_fit(change: Callable[[RoundPlan], RoundPlan], code: str) -> None:
    built = swarm()
    refuses(built, change(built.plan()), code)
    built.say(built.plan())
    refuses(built, replace(built.plan(), attempt=1, slot=1), "ledger.order")


def test_rounds_follow_each_other() -> None:
    built = swarm()
    first = built.plan()
    built.run_round(stop="plan")
    refuses(built, first, "ledger.order")
    refuses(built, replace(built.plan(), slot=0), "ledger.slot")
    assert built.plan().attempt == 1 and built.plan().slot == 1 and built.plan().base == first.base
    built.run_round(evaluate=False)
    assert built.plan().round == 2 and built.plan().attempt == 0 and built.plan().base == seed("model", 1)
    refuses(built, replace(built.plan(), round=1), "ledger.order")
    refuses(built, replace(built.plan(), base=first.base), "ledger.base")


def in_phase(phase: str, secure: bool = True, drop: tuple[int, ...] = ()) -> tuple[SwarmBuilder, int, list[Identity]]:
    """A swarm with an open attempt that has got to ``phase``; the slot; the participants in order."""
    built = swarm(secure=secure)
    real, stop = built.say, False

    def say(body: Body, author: Identity | None = None, sealed: bool | None = None) -> Entry | None:
        nonlocal stop
        stop = stop or type(body).__name__ == phase
        return None if stop else real(body, author, sealed)

    built.say = say  # type: ignore[method-assign, assignment]
    built.run_round(drop=drop, evaluate=False)
    built.say = real  # type: ignore[method-assign]
    attempt = built.ledger.state.attempt
    assert attempt is not None and stop
    return built, attempt.plan.slot, [built.people[p.member] for p in attempt.plan.participants]


ALL = bitmap(range(5), 5)
NONE = bitmap([], 5)


def test_share_phase() -> None:
    built, slot, people = in_phase("ShareSet")
    share = Share(slot, seed(1), seed(2), seed(3))
    refuses(built, share, "ledger.twice", people[0])
    refuses(built, replace(share, slot=slot + 1), "ledger.slot", people[0])
    refuses(built, ShareSet(slot, bitmap(range(3), 5)), "ledger.floor")
    refuses(built, ShareSet(slot, b"\xff"), "ledger.set")
    refuses(built, ShareSet(slot, ALL + b"\x00"), "ledger.set")
    refuses(built, Masked(slot, seed(4)), "ledger.order", people[0])
    built.say(ShareSet(slot, bitmap(range(4), 5)))
    refuses(built, ShareSet(slot, ALL), "ledger.twice")
    refuses(built, share, "ledger.order", people[0])
    refuses(built, Masked(slot, seed(4)), "ledger.order", people[4])
    built.say(Masked(slot, seed(4)), people[0])


def test_a_share_set_names_only_those_that_dealt() -> None:
    built, slot, _ = in_phase("Share")
    refuses(built, ShareSet(slot, ALL), "ledger.set")


def test_upload_phase() -> None:
    built, slot, people = in_phase("Receipt", drop=(1,))
    refuses(built, Masked(slot, seed(4)), "ledger.twice", people[0])
    stranger = built.add_learner(60)
    refuses(built, Masked(slot, seed(4)), "ledger.author", stranger)
    arrived = bitmap([0, 2, 3, 4], 5)
    refuses(built, Receipt(slot, 0, ALL), "ledger.set", people[0])
    refuses(built, Receipt(slot, 9, arrived), "ledger.shard", people[0])
    refuses(built, Receipt(slot, 0, arrived), "ledger.author", people[3])
    built.say(Receipt(slot, 0, arrived), people[0])
    refuses(built, Receipt(slot, 0, arrived), "ledger.twice", people[0])
    built.say(Receipt(slot, 0, arrived), people[1])


def certificate(
    built: SwarmBuilder, bits: bytes, voters: list[Identity], rid: bytes | None = None
) -> SurvivorCertificate:
    attempt = built.ledger.state.attempt
    assert attempt is not None
    statement = survivors_statement(rid or attempt.rid, bits)
    return SurvivorCertificate(attempt.plan.slot, bits, collect({v.id: vote(statement, v) for v in voters}))


def test_survivors() -> None:
    built, slot, people = in_phase("SurvivorCertificate", drop=(1,))
    present = bitmap([0, 2, 3, 4], 5)
    good = certificate(built, present, people[:4])
    refuses(built, certificate(built, bitmap([0, 2, 3], 5), people[:4]), "ledger.floor")
    refuses(built, certificate(built, ALL, people[:4]), "ledger.set")
    refuses(built, certificate(built, present, people[:3]), "ledger.certificate")
    refuses(built, certificate(built, present, [*people[:3], identity(70)]), "ledger.certificate")
    refuses(built, replace(good, votes=good.votes[::-1]), "ledger.certificate")
    refuses(built, replace(good, votes=(*good.votes[:3], good.votes[2])), "ledger.certificate")
    refuses(built, certificate(built, present, people[:4], seed("another rid")), "ledger.signature")
    refuses(built, replace(good, votes=certificate(built, ALL, people[:4]).votes), "ledger.signature")
    attempt = built.ledger.state.attempt
    other_plan = round_id(built.genesis, slot, 0, b"another plan")
    assert other_plan != attempt.rid
    refuses(built, certificate(built, present, people[:4], other_plan), "ledger.signature")
    refuses(built, Shard(slot, 0, seed(1), 4), "ledger.order", people[0])
    refuses(built, Opened(slot, present, NONE), "ledger.order", people[0])
    built.say(good)
    refuses(built, good, "ledger.twice")
    refuses(built, Masked(slot, seed(1)), "ledger.order", people[1])
    refuses(built, Receipt(slot, 0, present), "ledger.order", people[1])
    refuses(built, Abort(slot, False, "retry"), "ledger.order")
    assert dropped(built.ledger.state.attempt) == {1: "committed to no upload"}


def test_a_vote_of_a_removed_member_does_not_count() -> None:
    built, _, people = in_phase("SurvivorCertificate")
    gone = next(p for p in people if p.id != built.leader.id)
    certified = certificate(built, ALL, [*people[:3], people[-1]])
    voters = {v.member for v in certified.votes}
    if gone.id not in voters:
        gone = next(p for p in people if p.id in voters and p.id != built.leader.id)
    built.remove(gone)
    refuses(built, certified, "ledger.certificate")


def test_survivors_need_a_receipt_of_every_shard() -> None:
    built, _, people = in_phase("Receipt")
    slot = built.ledger.state.attempt.plan.slot
    for shard in range(4):
        built.say(Receipt(slot, shard, ALL), people[shard])
    assert "no receipt of shard 4" in refuses(built, certificate(built, ALL, people[:4]), "ledger.set")
    built.say(Receipt(slot, 4, bitmap([0, 1, 2, 3], 5)), people[4])
    refuses(built, certificate(built, ALL, people[:4]), "ledger.set")
    # the backup attests what the owner left out
    built.say(Receipt(slot, 4, bitmap([4], 5)), people[0])
    built.say(certificate(built, ALL, people[:4]))


def test_at_most_one_kind_of_secret_is_opened() -> None:
    """V7: never both halves of one peer, never a second survivor set."""
    built, slot, people = in_phase("Opened", drop=(1,))
    survivors, fallen = bitmap([0, 2, 3, 4], 5), bitmap([1], 5)
    refuses(built, Opened(slot, NONE, NONE), "ledger.set")
    refuses(built, Opened(slot, fallen, NONE), "ledger.set")
    refuses(built, Opened(slot, NONE, survivors), "ledger.set")
    refuses(built, Opened(slot, ALL, ALL), "ledger.set")
    built.say(Opened(slot, bitmap([0], 5), fallen), people[0])
    refuses(built, Opened(slot, bitmap([0], 5), NONE), "ledger.twice")
    refuses(built, Opened(slot, NONE, fallen), "ledger.twice")
    built.say(Opened(slot, bitmap([2, 3, 4], 5), NONE), people[2])


def test_shards_nonces_checks() -> None:
    built, slot, people = in_phase("Shard", drop=(1,))
    nonce = seed("nonce", slot, people[0].id)
    refuses(built, Nonce(slot, nonce), "ledger.order", people[0])
    refuses(built, Shard(slot, 0, seed(1), 5), "ledger.set", people[0])
    refuses(built, Shard(slot, 0, seed(1), 4), "ledger.author", people[2])
    refuses(built, Shard(slot, 5, seed(1), 4), "ledger.shard", people[0])
    for shard in range(5):
        built.say(Shard(slot, shard, seed(shard), 4), people[(shard + 1) % 5])
    refuses(built, Shard(slot, 0, seed(0), 4), "ledger.twice", people[1])
    refuses(built, Nonce(slot, seed("another")), "ledger.nonce", people[0])
    refuses(built, Nonce(slot, nonce), "ledger.nonce", people[2])
    built.say(Nonce(slot, nonce), people[0])
    refuses(built, Nonce(slot, nonce), "ledger.twice", people[0])
    told = bitmap([0], 5)
    assert "of more than 1" in refuses(built, Check(slot, 0, 0, told, b"x"), "ledger.nonces", people[0])
    built.say(Nonce(slot, seed("nonce", slot, people[3].id)), people[3])
    refuses(built, Nonce(slot, seed("nonce", slot, people[1].id)), "ledger.set", people[1])
    # made before the last nonce came
    refuses(built, Check(slot, 0, 0, told, b"x"), "ledger.nonces", people[0])
    told = bitmap([0, 3], 5)
    refuses(built, Check(slot, 1, 0, told, b"x"), "ledger.set", people[0])
    refuses(built, Check(slot, 2, 6, told, b"x"), "ledger.set", people[0])
    refuses(built, Check(slot, 2, 0, told, b"x"), "ledger.set", people[0])
    refuses(built, Check(slot, 0, 1, told, b"x"), "ledger.set", people[0])
    built.say(Check(slot, 0, 0, told, b"x"), people[0])
    refuses(built, Check(slot, 0, 0, told, b"y"), "ledger.twice", people[0])
    # the first check fixed the challenge
    refuses(built, Nonce(slot, seed("nonce", slot, people[2].id)), "ledger.order", people[2])
    refuses(built, Check(slot, 2, 0, bitmap([0, 2, 3], 5), b"x"), "ledger.nonces", people[2])
    built.say(Check(slot, 2, 0, told, b"x"), people[2])
    built.say(Check(slot, 2, 5, told, b"x"), people[0])
    built.say(Check(slot, 2, 5, told, b"x"), people[1])
    refuses(built, Check(slot, 2, 5, told, b"y"), "ledger.twice", people[1])


def model_of(built: SwarmBuilder, voters: list[Identity], root: bytes, model: bytes) -> ModelCertificate:
    attempt = built.ledger.state.attempt
    statement = model_statement(attempt.rid, root, model)
    return ModelCertificate(attempt.plan.slot, root, model, collect({v.id: vote(statement, v) for v in voters}))


def test_model_certificates() -> None:
    built, slot, people = in_phase("ModelCertificate")
    good = model_of(built, people[:4], seed("r"), seed("m"))
    refuses(built, model_of(built, people[:3], seed("r"), seed("m")), "ledger.certificate")
    refuses(built, replace(good, model=seed("n")), "ledger.signature")
    refuses(built, replace(good, root=seed("n")), "ledger.signature")
    refuses(built, replace(good, slot=slot + 1), "ledger.slot")
    # votes for survivors are no votes for a model: another label
    wrong = collect({v.id: vote(survivors_statement(built.ledger.state.attempt.rid, ALL), v) for v in people[:4]})
    refuses(built, replace(good, votes=wrong), "ledger.signature")
    built.say(good)
    refuses(built, good, "ledger.slot")
    refuses(built, Abort(slot, True, "too late"), "ledger.slot")


def test_a_model_needs_every_shard() -> None:
    built, slot, people = in_phase("Shard")
    built.say(Shard(slot, 0, seed(0), 5), people[0])
    assert "1 of 5 shards" in refuses(built, model_of(built, people[:4], seed("r"), seed("m")), "ledger.order")


def test_in_the_clear_there_is_nothing_to_share() -> None:
    built, slot, people = in_phase("Masked", secure=False)
    for body in (Share(slot, seed(1), seed(2), seed(3)), ShareSet(slot, ALL)):
        refuses(built, body, "ledger.order", people[0])
    built, slot, people = in_phase("Shard", secure=False)
    for body in (Opened(slot, ALL, NONE), Nonce(slot, seed(1)), Check(slot, 0, 0, NONE, b"x")):
        refuses(built, body, "ledger.order", people[0])


def triangle(n: int, levels: int = 1, value: float = 1.0) -> bytes:
    return np.full(levels * n * (n + 1) // 2, value, "<f8").tobytes()


def test_gram_matrices() -> None:
    """Of survivors, by owner or backup, around two centres at most, in one encoding."""
    built, slot, people = in_phase("Shard", secure=False, drop=(1,))
    good = Gram(slot, 0, 0, triangle(4))
    refuses(built, replace(good, shard=5), "ledger.shard", people[0])
    refuses(built, good, "ledger.author", people[2])
    refuses(built, replace(good, centre=1), "ledger.set", people[0])
    for values in (triangle(5), triangle(4, 4), triangle(4, value=np.inf), triangle(4) + triangle(4, value=0.0)):
        refuses(built, replace(good, values=values), "ledger.gram", people[0])
    built.say(good, people[0])
    refuses(built, replace(good, values=triangle(4, 2)), "ledger.twice", people[0])
    built.say(replace(good, values=triangle(4, 3)), people[1])
    built.say(replace(good, centre=2), people[0])
    refuses(built, replace(good, centre=3), "ledger.twice", people[0])
    assert built.ledger.state.attempt.grams == {
        0: {0: {0: triangle(4), 1: triangle(4, 3)}},
        2: {0: {0: triangle(4)}},
    }
    assert Ledger.decode(built.ledger.encode()).state == built.ledger.state


def test_a_gram_matrix_is_for_survivors_in_the_clear() -> None:
    built, slot, people = in_phase("SurvivorCertificate", secure=False)
    refuses(built, Gram(slot, 0, 0, triangle(5)), "ledger.order", people[0])
    built, slot, people = in_phase("Shard")
    refuses(built, Gram(slot, 0, 0, triangle(5)), "ledger.order", people[0])


def test_aborts_and_complaints() -> None:
    built, slot, people = in_phase("Masked")
    stranger = built.add_learner(60)
    refuses(built, Abort(slot, False, "I say so"), "ledger.author", stranger)
    refuses(built, Complaint(slot, "I say so"), "ledger.author", stranger)
    built.say(Complaint(slot, "my upload was refused"), people[3])
    built.say(Abort(slot, False, "no progress"), people[3])
    refuses(built, Masked(slot, seed(1)), "ledger.slot", people[0])


def test_whom_more_than_t_blame_is_set_aside() -> None:
    """For the rest of the round; at the second time for good; never so many that too few are left."""
    built, slot, people = in_phase("SurvivorCertificate")
    refuses(built, Complaint(slot, "it lied", 1), "ledger.order", people[0])
    built.say(certificate(built, ALL, people[:4]))
    refuses(built, Complaint(slot, "it lied", 5), "ledger.set", people[0])
    refuses(built, Complaint(slot, "I lied", 0), "ledger.set", people[0])
    registry = built.ledger.state.registry
    built.say(Complaint(slot, "it lied", 1), people[0])
    refuses(built, Complaint(slot, "it lied again", 1), "ledger.twice", people[0])
    assert registry.left_out(1, 3) == set()
    built.say(Complaint(slot, "it lied", 1), people[2])
    built.say(Complaint(slot, "it lied", 1), people[3])
    assert registry.members[people[1].id].faults == 1
    assert registry.left_out(1, 3) == {people[1].id} and registry.left_out(2, 3) == registry.left_out(1, 5) == set()
    built.say(Abort(slot, True, "somebody lied"))
    assert "set aside" in refuses(built, built.plan(), "ledger.plan")
    registry.set_aside(people[1].id, 1)
    assert registry.left_out(7, 4) == {people[1].id}
    registry.set_aside(people[2].id, 1)
    assert registry.left_out(1, 3) == {people[1].id, people[2].id} and registry.left_out(1, 4) == set()


def test_evaluations() -> None:
    built = swarm()
    good = Evaluation(1, seed("model", 0), 10, (Metric("auc", 0.5), Metric("loss", 0.1)))
    refuses(built, good, "ledger.model")
    built.run_round(evaluate=False)
    built.say(good, identity(1))
    refuses(built, replace(good, round=2), "ledger.model")
    refuses(built, replace(good, model=seed("x")), "ledger.model")
    refuses(built, replace(good, metrics=good.metrics[::-1]), "ledger.metric")
    refuses(built, replace(good, metrics=good.metrics[:1] * 2), "ledger.metric")
    for value in (float("nan"), float("inf"), float("-inf")):
        refuses(built, replace(good, metrics=(Metric("auc", value),)), "ledger.metric")


def test_thresholds_are_those_of_the_protocol() -> None:
    table = {
        3: (1, 0, 3, 2), 4: (1, 1, 3, 3), 5: (1, 1, 4, 4), 7: (2, 2, 5, 6), 10: (3, 3, 7, 8),
        16: (5, 5, 11, 12), 31: (10, 10, 21, 22), 64: (21, 21, 43, 44), 100: (33, 33, 67, 68),
    }  # fmt: skip
    assert {n: tuple(msgspec.structs.astuple(thresholds(n))) for n in table} == table
    light = thresholds(100, "light")
    assert (light.q, light.k) == (56, 32)
    assert thresholds(3, "crash").q == 2 and thresholds(4, "crash") == thresholds(4)


@pytest.mark.parametrize("profile", ["default", "light"])
def test_thresholds_keep_their_promises(profile: str) -> None:
    for n in range(3, 256):
        x = thresholds(n, profile)
        assert x.q <= n - x.d_max, "enough are left to certify"
        assert 2 * x.q > n + x.t, "two certificates share an honest member"
        assert x.q > x.t and n - x.d_max - x.t >= 2 and x.k >= min(n - 1, x.t + x.d_max + 1), n

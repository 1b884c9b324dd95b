"""Who lied in a secure round is found out from the uploads, named in the ledger, and set aside."""

from __future__ import annotations

import pytest
from round_table import RoundTable
from swarm_table import SwarmTable
from test_secure_round import adds_wrongly, agree, falls_silent, table

from shoal.ledger.body import Abort, Complaint, Shard
from shoal.swarm.messages import UPLOAD


def found_out(t: RoundTable, *liars: int) -> None:
    """The attempt is given up, each of these is named by more than t with what it told, and nobody else is."""
    t.run(4000)
    assert t.aborted and all(m.merged is None for m in t.members.values())
    tolerated = t.attempt.plan.thresholds.t
    named = {p for p, by in t.attempt.blamed.items() if len(by) > tolerated}
    assert named and named <= set(liars)
    members = t.builder.ledger.state.registry.members
    assert {p for p, who in enumerate(t.ids) if members[who].faults} == named
    reason = next(body.reason for body in t.said if isinstance(body, Abort))
    assert all(f"participant {p} (" in reason for p in named) and "found out" in reason
    assert all(body.text for body in t.said if isinstance(body, Complaint))


@pytest.mark.parametrize("n", [4, 7])
def test_an_owner_that_adds_wrongly_is_named(n: int) -> None:
    t = table(n, 2**17)
    adds_wrongly(t, 1)
    found_out(t, 1)
    texts = [body.text for body in t.said if isinstance(body, Complaint) and body.blamed == 1]
    assert all("root of the sum of shard" in text for text in texts)
    for member in t.members.values():
        state = member.round.state
        kept = {at for at, who in enumerate(t.attempt.plan.shards) if state.position in (who.owner, who.backup)}
        foreign = [key for key in state.fetches if key[0] == UPLOAD and key[2] not in kept]
        assert len(foreign) <= (t.attempt.plan.thresholds.t + 1) * (n + 1), "what an audit fetches is let go"


def test_what_is_kept_back_holds_up_no_audit() -> None:
    """The owner that lies shows nobody what it uploaded itself, to whichever shard."""
    t = table(5)
    adds_wrongly(t, 1)
    state = t.members[t.ids[1]].round.state
    serve = state.serve
    state.serve = lambda peer, want: None if want.kind == UPLOAD and t.attempt.nonces else serve(peer, want)
    found_out(t, 1)


@pytest.mark.parametrize("malformed", [False, True])
def test_a_survivor_that_vouches_for_other_words_is_named(malformed: bool) -> None:
    t = table(5)
    coder = t.members[t.ids[3]].round.state.coder
    vouched = coder.vouched
    coder.vouched = lambda *args: b"x" if malformed else bytes([vouched(*args)[0] ^ 1]) + vouched(*args)[1:]
    found_out(t, 3)
    assert all("other words" in b.text for b in t.said if isinstance(b, Complaint) and b.blamed is not None)


def test_an_owner_is_named_though_a_survivor_is_silent() -> None:
    t = table(5)
    adds_wrongly(t, 1)
    falls_silent(t, 2, "Nonce", "Check", "Complaint")
    found_out(t, 1)


def test_of_two_that_tell_different_sums_the_liar_is_named() -> None:
    t = table(5)
    shard = 2
    liar = t.attempt.plan.shards[shard].backup
    append = t._append

    def and_the_backup(member, action):
        append(member, action)
        if t.log[-1:] == [f"Shard by {t.attempt.plan.shards[shard].owner}"] and not t.attempt.shards[shard].get(liar):
            told = Shard(t.attempt.plan.slot, shard, b"\1" * 32, len(t.attempt.survivors))
            t.builder.say(told, t.builder.people[t.ids[liar]])

    t._append = and_the_backup
    found_out(t, liar)


def test_liars_that_accuse_the_honest_convict_nobody() -> None:
    """Two of seven lie, as many as are tolerated: one adds wrongly, both blame whom they like."""
    t = table(7, 2**17)
    adds_wrongly(t, 1)
    for liar in (1, 4):
        state = t.members[t.ids[liar]].round.state
        propose = state.propose
        state.propose = lambda key, body, propose=propose: propose(
            key, Complaint(body.slot, "it was that one", 2) if isinstance(body, Complaint) else body
        )
    found_out(t, 1, 4)
    assert t.attempt.blamed[2] <= {1, 4}


def test_an_accusation_alone_changes_nothing() -> None:
    t = table(4)
    append = t._append

    def accusing(member, action):
        append(member, action)
        if t.log[-1].startswith("SurvivorCertificate") and not t.attempt.blamed:
            t.builder.say(Complaint(t.attempt.plan.slot, "I do not like it", 2), t.builder.people[t.ids[0]])

    t._append = accusing
    t.run(4000)
    assert agree(t) == [0, 1, 2, 3] and t.attempt.blamed == {2: {0}}
    assert not any(m.faults for m in t.builder.ledger.state.registry.members.values())


def test_the_swarm_goes_on_without_the_liar() -> None:
    """Its attempt is void; the next one is made without it, and the next round with it again."""
    t = SwarmTable(5, True)
    liar, honest = t.sites[2], [s for s in t.sites if s.number != 2]
    t.submit()
    t.until(lambda: bool(liar.peer.rounds))
    coder = liar.peer.rounds[0].state.coder
    reduce = coder.reduce

    def wrong(shard, uploads, streams):
        found = reduce(shard, uploads, streams)
        found[:1] ^= 1
        return found

    coder.reduce = wrong
    t.until(lambda: all(s.peer.ledger.slot_next == 1 and s.peer.ledger.attempt is None for s in t.sites))
    assert all(s.peer.ledger.registry.members[liar.who.id].faults == 1 for s in t.sites)
    t.step(5)
    t.submit()
    t.until(lambda: all(s.peer.ledger.round == 1 and s.peer.book.digest == s.peer.ledger.model for s in t.sites), 6000)
    assert all(s.merged[-1].took_part for s in honest) and not liar.merged[-1].took_part
    assert all(any("complains" in note for note in s.notices) for s in t.sites)
    t.submit()
    t.until(lambda: all(s.peer.ledger.round == 2 and s.peer.book.digest == s.peer.ledger.model for s in t.sites), 6000)
    assert liar.merged[-1].took_part

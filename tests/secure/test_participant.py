"""A secure slot: the sum of the survivors comes out exactly, whoever falls out; what would show more is refused."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, permutations

import msgspec
import numpy as np
import pytest
from slot_table import SlotTable

from shoal.errors import ArgumentError, PeerError
from shoal.secure.graph import neighbours
from shoal.secure.participant import Participant, Secrets, Step
from shoal.secure.seeds import seed_commitment
from shoal.secure.shares import KEY_HALF, SEED_HALF


def refused(code: str, call) -> None:
    with pytest.raises((PeerError, ArgumentError)) as raised:
        call()
    assert raised.value.code == code, raised.value


@pytest.mark.parametrize("bits", [8, 12, 16, 32, 64])
@pytest.mark.parametrize("n", [3, 4, 7, 20])
def test_the_sum_is_exact(n: int, bits: int) -> None:
    t = SlotTable(n, bits)
    t.share()
    uploads = [t.upload(i) for i in t.ids]
    assert np.array_equal(t.unmask(t.open(t.ids), uploads), t.plain(t.ids))


STAGES = ("before sharing", "while sharing", "after sharing", "after uploading")


@pytest.mark.parametrize("first", STAGES)
def test_drop_outs_at_every_stage(first: str) -> None:
    """n = 5, d_max = 1: everybody, at every stage, alone and with everybody else at every stage.  The sum of the
    survivors comes out exactly, or it is refused and too few were left."""
    for victims in [*combinations(range(5), 1), *permutations(range(5), 2)]:
        for second in STAGES if len(victims) == 2 else ("never",):
            t = SlotTable(5, 16, seed=victims[0])
            stage = dict(zip((t.ids[v] for v in victims), (first, second), strict=False))
            found = {s: {i for i in stage if stage[i] == s} for s in STAGES}
            outcome = slot_with(t, found)
            missing = len(t.ids) - len(outcome.survivors)
            if outcome.total is None:
                assert len(victims) == 2, (stage, outcome)
                assert missing > 1 or len(outcome.online) < t.slot.numbers.q
            else:
                assert missing <= 1 and np.array_equal(outcome.total, t.plain(outcome.survivors)), stage


@dataclass
class Outcome:
    """total  None if the sum was refused"""

    survivors: list[bytes]
    online: list[bytes]
    total: np.ndarray | None


def slot_with(t: SlotTable, gone: dict[str, set[bytes]]) -> Outcome:
    absent = gone["before sharing"] | gone["while sharing"]
    try:
        t.share(gone["before sharing"], gone["while sharing"])
    except PeerError as error:
        assert error.code == "slot.floor"
        return Outcome([i for i in t.ids if i not in absent], [], None)
    uploads = {i: t.upload(i) for i in t.shared if i not in gone["after sharing"]}
    survivors = sorted(uploads)
    vanished = gone["after sharing"] | gone["after uploading"]
    online = [i for i in t.shared if i not in vanished]
    try:
        return Outcome(survivors, online, t.unmask(t.open(survivors, vanished), [uploads[i] for i in survivors]))
    except PeerError as error:
        assert error.code in ("slot.floor", "slot.secrets")
        return Outcome(survivors, online, None)


@pytest.mark.parametrize("n", [10, 16])
def test_as_many_fall_out_as_may(n: int) -> None:
    for count in range(1, 4):
        t = SlotTable(n, 16, seed=count)
        t.share()
        gone = set(t.random.sample(t.ids, count))
        survivors = [i for i in t.ids if i not in gone]
        uploads = [t.upload(i) for i in survivors]
        vanished = set(t.random.sample(survivors, 3 - count)) if count < 3 else set()
        total = t.unmask(t.open(survivors, gone | vanished), uploads)
        assert np.array_equal(total, t.plain(survivors))


def test_fewer_than_the_quorum_open_nothing() -> None:
    t = SlotTable(5)
    t.share()
    survivors = t.ids[:4]
    for i in survivors:
        t.upload(i)
    for i in survivors:
        t.people[i].certify(survivors)
    clerk, gone = t.people[t.ids[0]], t.ids[4]
    for holder in t.ids[: t.slot.numbers.q - 1]:
        assert clerk.take_half(gone, holder, t.people[holder].half_of(gone)) is None
    refused("slot.secrets", clerk.removal)


def test_a_second_survivor_set_is_refused_for_ever() -> None:
    t = SlotTable(7)
    t.share()
    one, two = t.ids[:6], t.ids[1:]
    me = t.people[t.ids[1]]
    me.sign(one)
    assert me.sign(one) == me.sign(one[::-1])
    refused("slot.second", lambda: me.sign(two))
    me.certify(one)
    me.certify(one)
    refused("slot.second", lambda: me.certify(two))
    other = t.people[t.ids[2]]
    other.certify(two)
    assert not t.journals[t.ids[2]].sign(5, b"".join(one)), "who has seen a certificate signs nothing else"


def test_a_certificate_is_followed_whichever_set_was_signed() -> None:
    """A coordinator asks one participant for its vote, and falls out; the next one gets its quorum for another set.
    Two certificates are impossible, so the first participant helps with the one that there is."""
    t = SlotTable(7)
    t.share()
    uploads = {i: t.upload(i) for i in t.ids}
    early, survivors = t.people[t.ids[0]], t.ids[:6]
    early.sign(t.ids)
    refused("slot.second", lambda: early.sign(survivors))
    signed = [i for i in t.ids[1:] if t.people[i].sign(survivors)]
    assert len(signed) >= t.slot.numbers.q
    for i in t.ids:
        t.people[i].certify(survivors)
    assert early.half_of(t.ids[6]).which == KEY_HALF and early.own_seed()
    clerk = t.opened_by(t.ids[0], survivors)
    assert np.array_equal(t.unmask(clerk, [uploads[i] for i in survivors]), t.plain(survivors))


def test_both_halves_of_a_secret_are_never_given() -> None:
    """A malicious leader tells one participant of U, another of U less its victim: each answers for one set only, and
    one that was restarted in between still remembers which half it gave."""
    t = SlotTable(7)
    t.share()
    victim, holder = t.ids[6], t.people[t.ids[0]]
    holder.certify(t.ids)
    assert holder.half_of(victim).which == SEED_HALF
    t2 = SlotTable(7)  # the same slot in another life, with the old journal
    t2.share()
    again = t2.people[t.ids[0]]
    again._journal = t.journals[t.ids[0]]
    refused("slot.second", lambda: again.certify(t.ids[:6]))
    t.journals[t.ids[0]]._kept.pop(("certify", 5, b""))
    again.certify(t.ids[:6])
    refused("slot.half", lambda: again.half_of(victim))


def test_opening_is_refused_below_the_floor_and_for_strangers() -> None:
    t = SlotTable(7)
    t.share({t.ids[6]})
    me = t.people[t.ids[0]]
    refused("slot.floor", lambda: me.sign(t.ids[:4]))
    refused("slot.floor", lambda: me.certify(t.ids[:1]))
    refused("slot.stranger", lambda: me.sign(t.ids))
    refused("slot.stranger", lambda: me.sign([*t.ids[:5], t.ids[4]]))
    refused("slot.stranger", lambda: me.sign([*t.ids[:5], b"x" * 32]))
    refused("slot.order", lambda: me.half_of(t.ids[1]))
    refused("slot.order", me.own_seed)
    me.certify(t.ids[:5])
    refused("slot.stranger", lambda: me.half_of(t.ids[6]))
    refused("slot.stranger", lambda: me.half_of(b"x" * 32))
    late = t.people[t.ids[5]]
    late.certify(t.ids[:5])
    refused("slot.order", late.own_seed)


def test_a_slot_is_used_once() -> None:
    t = SlotTable(4)
    t.share()
    me = t.ids[0]
    keys = t.keys[me]
    again = Participant(me, t.slot, Secrets(keys.one_time(5), keys.share_private), t.journals[me], t.draw)
    refused("slot.used", again.deal)
    refused("slot.order", t.people[me].deal)


def test_other_data_under_the_same_masks_is_refused() -> None:
    t = SlotTable(4)
    t.share()
    t.upload(t.ids[0])
    t.people[t.ids[0]].commit(t.journals[t.ids[0]]._kept[("commit", 5, b"")])
    refused("slot.masked", lambda: t.people[t.ids[0]].commit(bytes(32)))


def test_wrong_secrets_are_refused() -> None:
    t = SlotTable(5)
    t.share()
    survivors = t.ids[:4]
    for i in t.ids:
        t.people[i].certify(survivors)
    clerk = t.people[t.ids[0]]
    seed = t.people[t.ids[1]].own_seed()
    refused("seed.wrong", lambda: clerk.take_seed(t.ids[2], seed))
    refused("slot.stranger", lambda: clerk.take_seed(t.ids[4], seed))
    refused("key.wrong", lambda: clerk.take_key(t.ids[4], seed))
    refused("slot.stranger", lambda: clerk.take_key(t.ids[1], seed))
    half = t.people[t.ids[1]].half_of(t.ids[4])
    assert half.which == KEY_HALF
    refused("share.path", lambda: clerk.take_half(t.ids[4], t.ids[2], half))
    refused("share.path", lambda: clerk.take_half(t.ids[4], t.ids[1], type(half)(1, bytes(32), *_rest(half))))
    refused("slot.half", lambda: clerk.take_half(t.ids[1], t.ids[1], half))


def _rest(half):
    return half.salt, half.other, half.path


def test_a_dealer_whose_shares_give_another_secret_is_named() -> None:
    t = SlotTable(4)
    victim = t.people[t.ids[3]]
    victim._secrets = Secrets(bytes(31) + b"\x40", victim._secrets.epoch)
    t.share()
    survivors = t.ids[:3]
    for i in survivors:
        t.people[i].certify(survivors)
    clerk = t.people[t.ids[0]]
    for holder in survivors[:2]:
        clerk.take_half(t.ids[3], holder, t.people[holder].half_of(t.ids[3]))
    refused("share.dealer", lambda: clerk.take_half(t.ids[3], survivors[2], t.people[survivors[2]].half_of(t.ids[3])))


def test_swapped_reflected_and_repeated_keys_are_refused() -> None:
    t = SlotTable(4)
    parties = list(t.slot.parties)
    me = parties[0].id
    secrets = Secrets(t.keys[me].one_time(5), t.keys[me].share_private)

    def begin(changed: int, **fields):
        others = list(parties)
        others[changed] = msgspec.structs.replace(others[changed], **fields)
        slot = msgspec.structs.replace(t.slot, parties=tuple(others))
        return lambda: Participant(me, slot, secrets, t.journals[me], t.draw)

    refused("key.repeated", begin(2, one_time=parties[0].one_time))
    refused("key.repeated", begin(2, epoch=parties[1].epoch))
    for low in (bytes(32), b"\x01" + bytes(31), b"\xff" * 32):
        refused("key.exchange", begin(3, one_time=low))
        refused("key.exchange", begin(3, epoch=low))
    refused("key.exchange", begin(3, one_time=bytes(31)))
    refused("slot.me", begin(0, one_time=t.keys[me].batch(6, 1)[0]))


def test_a_swapped_key_makes_the_share_unreadable() -> None:
    t, other = SlotTable(4), SlotTable(4, seed=1)
    sealed = other.people[other.ids[1]].deal()[1][t.ids[0]]
    committed, own = t.people[t.ids[1]].deal()
    t.people[t.ids[0]].deal()
    refused("share.sealed", lambda: t.people[t.ids[0]].hold(t.ids[1], sealed, committed))
    refused("share.sealed", lambda: t.people[t.ids[0]].hold(t.ids[1], own[t.ids[2]], committed))
    for at in (0, 40, len(own[t.ids[0]]) - 1):
        flipped = bytearray(own[t.ids[0]])
        flipped[at] ^= 1
        refused("share.sealed", lambda bad=bytes(flipped): t.people[t.ids[0]].hold(t.ids[1], bad, committed))
    refused(
        "share.path", lambda: t.people[t.ids[0]].hold(t.ids[1], own[t.ids[0]], type(committed)(bytes(32), b"", b""))
    )
    refused("slot.stranger", lambda: t.people[t.ids[0]].hold(b"x" * 32, own[t.ids[0]], committed))
    t.people[t.ids[0]].hold(t.ids[1], own[t.ids[0]], committed)


def test_two_participants_are_refused() -> None:
    refused("secure.parameters", lambda: SlotTable(2))


def test_a_dropped_peer_costs_its_edges() -> None:
    """Streams to remove: one for each survivor, and one for each edge to one that fell out."""
    t = SlotTable(10)
    t.share()
    survivors = t.ids[:8]
    uploads = [t.upload(i) for i in survivors]
    clerk = t.open(survivors)
    graph = neighbours(t.ids, t.slot.numbers.k, t.name.rid)
    expected = 8 + sum(len(graph[d] & set(survivors)) for d in t.ids[8:])
    assert len(clerk.removal()) == expected <= 8 + 2 * t.slot.numbers.k
    assert np.array_equal(t.unmask(clerk, uploads), t.plain(survivors))


def test_who_lacks_a_share_stays_out_of_the_share_set() -> None:
    """Or it would be asked for a half that it does not have; one that is not in the set needs none."""
    t = SlotTable(5)
    dealt = {i: t.people[i].deal() for i in t.ids}
    me, outside = t.people[t.ids[0]], t.people[t.ids[4]]
    for dealer in t.ids[1:4]:
        me.hold(dealer, dealt[dealer][1][t.ids[0]], dealt[dealer][0])
    refused("slot.unheld", lambda: me.begin(t.ids))
    assert me.step == Step.HOLD
    me.begin(t.ids[:4])
    outside.begin(t.ids[:4])
    refused("slot.order", outside.upload_streams)


def test_a_restarted_participant_sits_out() -> None:
    """Its keys and its journal are here again, its shares are not: it deals, signs, opens and tells nothing."""
    t = SlotTable(5)
    t.share()
    me = t.ids[0]
    t.upload(me)
    again = t.restarted(me)
    refused("slot.used", again.deal)
    for call in (lambda: again.begin(t.ids), again.upload_streams, lambda: again.commit(bytes(32)),
                 lambda: again.sign(t.ids), lambda: again.certify(t.ids), again.own_seed, again.wanted, again.removal,
                 lambda: again.half_of(t.ids[1]), lambda: again.nonce, again.vouching):  # fmt: skip
        refused("slot.order", call)


def test_nothing_is_left_of_a_slot_that_is_over() -> None:
    t = SlotTable(4)
    t.share()
    for i in t.ids:
        t.upload(i)
    t.open(t.ids)
    me = t.people[t.ids[0]]
    secrets = (me._secrets.one_time, me._secrets.epoch, me._seed, me._nonce)
    me.forget()
    for call in (me.own_seed, me.wanted, me.removal, lambda: me.half_of(t.ids[1]), lambda: me.nonce, me.vouching, me.deal,
                 me.upload_streams, lambda: me.sign(t.ids), lambda: me.certify(t.ids)):  # fmt: skip
        refused("slot.order", call)
    assert not any(secret in repr(vars(me)).encode("latin-1") or secret in vars(me).values() for secret in secrets)
    assert me.holds == frozenset() and me.step == Step.OVER


def test_nobody_vouches_before_the_secrets_are_there() -> None:
    t = SlotTable(5)
    t.share()
    survivors = t.ids[:4]
    for i in t.ids:
        t.people[i].certify(survivors)
    me = t.people[t.ids[0]]
    assert len(me.vouching()) == 2
    refused("slot.secrets", lambda: me.vouching(t.ids[1]))
    me.take_seed(t.ids[1], t.people[t.ids[1]].own_seed())
    refused("slot.secrets", lambda: me.vouching(t.ids[1]))
    refused("slot.secrets", t.people[t.ids[4]].vouching)
    refused("slot.secrets", lambda: me.vouching(b"x" * 32))


def test_secrets_of_other_lengths_are_refused() -> None:
    """Also where the dealer committed to it: what is 33 bytes long cannot be shared, and could not be opened."""
    t = SlotTable(4)
    t.share()
    for i in t.ids:
        t.people[i].certify(t.ids)
    clerk, liar = t.people[t.ids[0]], t.ids[1]
    for seed in (b"", bytes(31), bytes(33)):
        committed = msgspec.structs.replace(clerk._dealt[liar], seed=seed_commitment(5, liar, seed))
        clerk._dealt[liar] = committed
        refused("seed.wrong", lambda seed=seed: clerk.take_seed(liar, seed))
    t = SlotTable(4)
    t.share()
    for i in t.ids[:3]:
        t.people[i].certify(t.ids[:3])
    for key in (b"", bytes(31), bytes(33)):
        refused("key.wrong", lambda key=key: t.people[t.ids[0]].take_key(t.ids[3], key))


def test_a_clerk_tells_the_secret_again_and_keeps_no_more_than_q_halves() -> None:
    t = SlotTable(7)
    t.share()
    survivors = t.ids[:6]
    for i in survivors:
        t.people[i].certify(survivors)
    clerk, gone = t.people[t.ids[0]], t.ids[6]
    told = [clerk.take_half(gone, holder, t.people[holder].half_of(gone)) for holder in (*survivors, *survivors)]
    assert told == [None] * 4 + [t.people[gone]._secrets.one_time] * 8
    assert len(clerk._opening._halves[gone]) == t.slot.numbers.q

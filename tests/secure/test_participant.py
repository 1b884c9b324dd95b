"""A secure slot: the sum of the survivors comes out exactly, whoever falls out; what would show more is refused."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from slot_table import SlotTable

from shoal.errors import ArgumentError, PeerError
from shoal.secure.graph import neighbours
from shoal.secure.participant import Participant, Secrets
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


def test_drop_outs_at_every_stage() -> None:
    """n = 5, d_max = 1: nobody, or each in turn, falls out before sharing, after sharing, or after uploading."""
    for stage in ("never", "before sharing", "after sharing", "after uploading"):
        for victim in range(5):
            t = SlotTable(5, 16, seed=victim)
            gone = t.ids[victim]
            t.share({gone} if stage == "before sharing" else set())
            uploads = {i: t.upload(i) for i in t.shared if stage != "after sharing" or i != gone}
            survivors = sorted(uploads)
            clerk = t.open(survivors, set() if stage == "never" else {gone})
            total = t.unmask(clerk, [uploads[i] for i in survivors])
            assert np.array_equal(total, t.plain(survivors)), (stage, victim)


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
    refused("slot.second", lambda: me.certify(two))
    me.certify(one)
    me.certify(one)
    refused("slot.second", lambda: me.certify(two))


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
    t.journals[t.ids[0]]._kept.pop(("sign", 5, b""))
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
    real = victim._secrets
    object.__setattr__(victim, "_secrets", Secrets(bytes(31) + b"\x40", real.epoch))
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
        import msgspec

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


def test_another_plan_gives_another_mask() -> None:
    """Same keys, same seed, another rid: nothing in common, so a split view opens nothing."""
    t = SlotTable(4, count=4096)
    t.share()
    first = t.upload(t.ids[0]) - t.words[t.ids[0]]
    u = SlotTable(4, count=4096, slot=6)
    u.share()
    second = u.upload(u.ids[0]) - u.words[u.ids[0]]
    same = int((first == second).sum())
    assert abs(same - 16) < 20, "1 in 256 bytes are equal by chance"


def test_secrets_are_not_shown() -> None:
    t = SlotTable(4)
    t.share()
    me = t.people[t.ids[0]]
    secret = me._secrets.one_time.hex()
    for thing in (me, me._secrets, me._held, t.keys[t.ids[0]], me.upload_streams()):
        assert secret not in repr(thing) and me._seed.hex() not in repr(thing)
        assert repr(me._secrets.one_time)[2:20] not in repr(thing)


def test_no_secret_and_no_words_on_the_wire() -> None:
    """No 16 bytes of a key, seed or update in any message before the opening."""
    t = SlotTable(5, count=256)
    t.share()
    for i in t.ids:
        t.upload(i)
    wire = b"|".join(t.messages)
    windows = {wire[i : i + 16] for i in range(len(wire))}
    for i in t.ids:
        person = t.people[i]
        for secret in (person._secrets.one_time, person._secrets.epoch, person._seed, t.words[i].tobytes()):
            assert not any(secret[k : k + 16] in windows for k in range(len(secret) - 15))


def test_no_key_lane_and_counter_comes_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over slots with drop-outs, each party expands each block of each stream to mask at most once, and no AEAD key
    seals two messages."""
    masked: list[bytes] = []
    sealed: list[bytes] = []
    real_streams = Participant.upload_streams

    def recording(self):
        found = real_streams(self)
        masked.extend(key.tobytes() + self.me.id for key in found.keys)
        return found

    from shoal.secure import participant as module

    real_seal = module.seal

    def sealing(held, key, *where):
        sealed.append(key)
        return real_seal(held, key, *where)

    monkeypatch.setattr(Participant, "upload_streams", recording)
    monkeypatch.setattr(module, "seal", sealing)
    for slot in range(3):
        t = SlotTable(5, slot=slot)
        t.share({t.ids[slot]})
        survivors = t.shared
        uploads = [t.upload(i) for i in survivors]
        assert np.array_equal(t.unmask(t.open(survivors), uploads), t.plain(survivors))
    assert len(set(masked)) == len(masked) and len(set(sealed)) == len(sealed) > 0


def test_a_dropped_peer_costs_its_edges() -> None:
    """Streams to remove: one for each survivor, and one for each edge to one that fell out."""
    t = SlotTable(10)
    t.share()
    survivors = t.ids[:8]
    uploads = [t.upload(i) for i in survivors]
    clerk = t.open(survivors)
    graph = clerk._graph
    expected = 8 + sum(len(graph[d] & set(survivors)) for d in t.ids[8:])
    assert len(clerk.removal()) == expected <= 8 + 2 * t.slot.numbers.k
    assert np.array_equal(t.unmask(clerk, uploads), t.plain(survivors))


def test_same_words_in_two_slots_look_unrelated() -> None:
    first, second = SlotTable(4, 16, 8192, slot=1), SlotTable(4, 16, 8192, slot=2)
    for t in (first, second):
        t.share()
        t.words[t.ids[0]] = np.zeros(16384, np.uint8)
    a = first.upload(first.ids[0]).view("<u2").astype(float)
    b = second.upload(second.ids[0]).view("<u2").astype(float)
    assert abs(np.corrcoef(a, b)[0, 1]) < 5 / np.sqrt(8192)


def _unknown_sums(t: SlotTable, colluders: set[bytes], survivors: list[bytes]) -> int:
    """How many independent combinations of the honest survivors' words the colluders' view determines, over Z_256.

    Unknowns: one word of each honest survivor, and one mask word for each pair of honest participants whose seed the
    colluders cannot make.  Known: own masks of survivors (opened), every pair mask with a colluder, every pair mask
    of one that fell out (its key was opened).  Each upload is one equation; masks are +1/-1 in it, so the rank over
    any field is that over the ring (the incidence matrix of a graph is totally unimodular)."""
    graph = t.people[survivors[0]]._graph
    honest = [i for i in survivors if i not in colluders]
    hidden = sorted({tuple(sorted((i, j))) for i in honest for j in graph[i] if j in honest})
    rows = np.zeros((len(honest), len(hidden)))
    for row, i in enumerate(honest):
        for column, (low, high) in enumerate(hidden):
            rows[row, column] = (i == low) - (i == high)
    return len(honest) - (int(np.linalg.matrix_rank(rows)) if hidden else 0)


@pytest.mark.parametrize("n", [4, 7, 10])
def test_colluders_learn_one_sum_and_no_more(n: int) -> None:
    """Any t participants, any d_max that fall out: one combination is determined, the total.  With k cut to 2 it is
    not so: the test can fail."""
    t = SlotTable(n)
    t.share()
    numbers = t.slot.numbers
    weak = SlotTable(10)
    for gone in list(combinations(t.ids, numbers.d_max))[:40]:
        survivors = [i for i in t.ids if i not in gone]
        for colluders in combinations(t.ids, numbers.t):
            assert _unknown_sums(t, set(colluders), survivors) == 1
    weak.share()
    weak.people[weak.ids[0]]._graph = neighbours(weak.ids, 2, weak.name.rid)
    broken = [_unknown_sums(weak, set(c), weak.ids) for c in combinations(weak.ids, 3)]
    assert max(broken) > 1

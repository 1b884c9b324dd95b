"""What must not be seen: no mask twice, no secret on the wire or in a message for people, no sum but one."""

from __future__ import annotations

from collections import Counter
from itertools import combinations
from random import Random

import msgspec
import numpy as np
import pytest
from rich.pretty import pretty_repr
from slot_table import SlotTable

from shoal.errors import ShoalError
from shoal.kernels import ring
from shoal.kernels.ring import Streams
from shoal.secure import participant as participant_module
from shoal.secure.graph import neighbours
from shoal.secure.kdf import digest
from shoal.secure.seeds import SlotName, pair_seed, self_mask

# --- masks are used once ---------------------------------------------------------------------------------------------


class Recorder:
    """Which blocks of which streams masked whose words: (party, key, lane, block) -> (slot, sign)."""

    def __init__(self) -> None:
        self.seen: dict[tuple[bytes, bytes, int, int], tuple[int, int]] = {}
        self.twice: list[tuple[bytes, bytes, int, int]] = []

    def mask(self, t: SlotTable, who: bytes, streams: Streams, lane: int, first: int, count: int) -> None:
        width = 2 if t.bits == 12 else t.bits // 8
        blocks = range(first * width // 64, -(-(first + count) * width // 64))
        for key, sign in zip(streams.keys, streams.signs, strict=True):
            for block in blocks:
                name = (who, key.tobytes(), lane, block)
                if name in self.seen:
                    self.twice.append(name)
                self.seen[name] = (t.name.slot, int(sign))


def slots_in_a_row(monkeypatch: pytest.MonkeyPatch) -> tuple[Recorder, list[bytes]]:
    """Three slots of the same five members with the same epoch keys: everybody there, one that falls out, one that is
    given up after uploading and tried again.  Each uploads a model and statistics.  Returned: masks, and keys that
    sealed something."""
    masks, sealed, real = Recorder(), [], participant_module.seal

    def sealing(held, key, *where):
        sealed.append(key)
        return real(held, key, *where)

    monkeypatch.setattr(participant_module, "seal", sealing)
    before = None
    for slot, absent, given_up in ((5, (), False), (6, (3,), False), (7, (), True), (8, (), False)):
        t = SlotTable(5, 16, 64, slot=slot, before=before)
        t.share({t.ids[i] for i in absent})
        for i in t.shared:
            for lane, first, count in (
                (ring.LANE_MODEL, 0, 64),
                (ring.LANE_MODEL, 64, 32),
                (ring.LANE_STATISTICS, 0, 8),
            ):
                masks.mask(t, i, t.people[i].upload_streams(), lane, first, count)
        uploads = [t.upload(i) for i in t.shared]
        if not given_up:
            assert np.array_equal(t.unmask(t.open(t.shared), uploads), t.plain(t.shared))
        before = t
    return masks, sealed


def test_no_key_lane_and_counter_comes_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over slots with the same epoch keys, each party masks with each block of each stream once; a stream belongs to one
    party, or to two that add and take it away in one slot; and no key seals two messages."""
    masks, sealed = slots_in_a_row(monkeypatch)
    assert masks.twice == []
    assert len(masks.seen) == (5 * 5 + 4 * 4 + 2 * 5 * 5) * (2 + 1 + 1), "k + 1 streams of everybody, each of 4 blocks"
    users: dict[bytes, set[tuple[bytes, int, int]]] = {}
    for (who, key, _, _), (slot, sign) in masks.seen.items():
        users.setdefault(key, set()).add((who, slot, sign))
    for found in users.values():
        parties, slots, signs = zip(*found, strict=True)
        assert len(set(slots)) == 1 and len(set(parties)) == len(found) <= 2
        assert len(found) == 1 or sorted(signs) == [-1, 1]
    assert len(set(sealed)) == len(sealed) == 20 + 16 + 20 + 20


@pytest.mark.parametrize("forgotten", ["pair-mask", "self-mask", "share-enc"])
def test_the_recorder_would_see_a_mask_twice(monkeypatch: pytest.MonkeyPatch, forgotten: str) -> None:
    """With one derivation that forgets the slot, and keys that do not change, the test above fails."""
    from shoal.secure import seeds

    real, real_extract = seeds.derive, seeds.extract
    monkeypatch.setattr(seeds, "extract", lambda salt, material: real_extract(b"", material))
    monkeypatch.setattr(seeds, "derive", lambda key, label, *parts: (
        real(b"" if label == "self-mask" else key, label, *parts[1:]) if label == forgotten else real(key, label, *parts)
    ))  # fmt: skip
    monkeypatch.setattr("shoal.secure.keys.EpochKeys.one_time", lambda self, slot: bytes(self._root))
    monkeypatch.setattr("shoal.secure.keys.EpochKeys.batch", lambda self, f, c: [public(bytes(self._root))] * c)
    from shoal.secure.keys import public_of as public

    masks, sealed = slots_in_a_row(monkeypatch)
    assert masks.twice or len(set(sealed)) < len(sealed)


# --- what a coalition can know ---------------------------------------------------------------------------------------


def kernel_bits(matrix: list[list[int]], bits: int) -> int:
    """log2 of the number of row combinations over Z_{2**bits} that give zero in every column.

    Elimination with a pivot of least 2-adic valuation; a pivot 2**v u, u odd, leaves its row 2**v multiples.
    """
    rows, modulus, found = [list(row) for row in matrix], 2**bits, 0
    while rows:
        entries = [
            (value & -value, r, c) for r, row in enumerate(rows) for c, value in enumerate(row) if value % modulus
        ]
        if not entries:
            return found + bits * len(rows)
        two, r, c = min(entries)
        pivot = rows.pop(r)
        inverse = pow(pivot[c] // two, -1, modulus)
        found += two.bit_length() - 1
        for row in rows:
            factor = row[c] // two * inverse % modulus
            row[:] = [(a - factor * b) % modulus for a, b in zip(row, pivot, strict=True)]
    return found


def test_the_kernel_is_counted_right() -> None:
    """Against all combinations, for small matrices over Z_8."""
    random = Random(0)
    for _ in range(60):
        matrix = [[random.choice([0, 0, 1, 2, 4, 7]) for _ in range(3)] for _ in range(3)]
        zeros = sum(
            all(sum(c * row[k] for c, row in zip(combo, matrix, strict=True)) % 8 == 0 for k in range(3))
            for combo in ((a, b, c) for a in range(8) for b in range(8) for c in range(8))
        )
        assert 2 ** kernel_bits(matrix, 3) == zeros


class Views:
    """All masks that were really put on in a slot, and which of them a coalition can make again."""

    def __init__(self, t: SlotTable) -> None:
        self.t = t
        self.rows: dict[bytes, Counter[bytes]] = {}
        for i in t.shared:
            streams = t.people[i].upload_streams()
            self.rows[i] = Counter()
            for key, sign in zip(streams.keys, streams.signs, strict=True):
                self.rows[i][key.tobytes()] += int(sign)
        parties = {party.id: party for party in t.slot.parties}
        self.own = {i: self_mask(t.name, t.people[i]._seed, i) for i in t.shared}
        #: what the one-time key of i makes
        self.pairs = {
            i: {pair_seed(t.name, t.people[i]._secrets.one_time, parties[i], parties[j]) for j in t.shared if j != i}
            for i in t.shared
        }

    def determined(self, coalition: set[bytes], survivors: set[bytes], also: set[bytes] = frozenset()) -> int:
        """log2 of the number of combinations of honest words that the coalition can compute, modulo 2**16.

        It has every upload, also of those that fell out; its own seeds and keys; seeds of survivors and keys of those
        that fell out, which are opened; and ``also``.
        """
        known = set(also)
        for i in self.t.shared:
            if i in coalition or i in survivors:
                known.add(self.own[i])
            if i in coalition or i not in survivors:
                known |= self.pairs[i]
        honest = [i for i in self.t.shared if i not in coalition]
        unknown = sorted({key for i in honest for key in self.rows[i]} - known)
        return kernel_bits([[self.rows[i][key] % 2**16 for key in unknown] for i in honest], 16)


@pytest.mark.parametrize("n", [3, 4, 5, 7, 10])
def test_colluders_learn_one_sum_and_no_more(n: int) -> None:
    """Any t participants, any that fall out: of all combinations of the honest words, over the ring and with the masks
    that were really put on, exactly the multiples of one can be computed: the sum over the honest survivors."""
    t = SlotTable(n)
    t.share()
    views, numbers, random = Views(t), t.slot.numbers, Random(n)
    cases = [
        (set(coalition), set(t.ids) - set(gone))
        for d in range(numbers.d_max + 1)
        for gone in combinations(t.ids, d)
        for coalition in combinations(t.ids, numbers.t)
    ]
    for coalition, survivors in random.sample(cases, min(len(cases), 250)):
        assert views.determined(coalition, survivors) == 16
        total: Counter[bytes] = Counter()
        for i in survivors - coalition:
            total.update(views.rows[i])
        left = {key for key, count in total.items() if count}
        known = {views.own[i] for i in survivors} | set().union(
            *(views.pairs[i] for i in set(t.ids) - survivors | coalition)
        )
        assert left <= known, "the one combination is the sum of the honest survivors"


def test_it_would_show_if_colluders_learned_more() -> None:
    """One seed of one that fell out, or too few partners, or two survivor sets: more is determined."""
    t = SlotTable(7)
    t.share()
    views = Views(t)
    survivors, coalition = set(t.ids[:6]), set(t.ids[:2])
    assert views.determined(coalition, survivors) == 16
    assert views.determined(coalition, survivors, {views.own[t.ids[6]]}) == 32, "both halves of one secret"
    assert views.determined(coalition, survivors, views.pairs[t.ids[3]]) == 32, "the key of a survivor"
    weak = SlotTable(10)
    weak.share()
    graph = neighbours(weak.ids, 2, weak.name.rid)
    for person in weak.people.values():
        person._graph = graph
    views = Views(weak)
    assert max(views.determined(set(c), set(weak.ids)) for c in combinations(weak.ids, 3)) > 16


# --- masks look like noise -------------------------------------------------------------------------------------------


def renamed(t: SlotTable, rid: bytes) -> Streams:
    """The streams of the first participant if the plan had been another one: same keys, same seed, same slot."""
    me = t.people[t.ids[0]]
    me.slot = msgspec.structs.replace(me.slot, name=SlotName(t.name.swarm, t.name.epoch, t.name.slot, rid))
    return me.upload_streams()


def test_another_plan_gives_another_mask() -> None:
    """Nothing in common, so a split view opens nothing."""
    t = SlotTable(4, count=4096)
    t.share()
    first = t.people[t.ids[0]].upload_streams()
    second = renamed(t, digest("test-rid", b"another"))
    assert not {k.tobytes() for k in first.keys} & {k.tobytes() for k in second.keys}
    again = renamed(t, t.name.rid)
    assert {k.tobytes() for k in first.keys} == {k.tobytes() for k in again.keys}


def test_same_words_in_two_slots_look_unrelated() -> None:
    first = SlotTable(4, 16, 8192, slot=5)
    first.share()
    second = SlotTable(4, 16, 8192, slot=6, before=first)
    second.share()
    found = []
    for t in (first, second):
        t.words[t.ids[0]] = np.zeros(16384, np.uint8)
        found.append(t.upload(t.ids[0]).view("<u2").astype(float))
    assert abs(np.corrcoef(*found)[0, 1]) < 5 / np.sqrt(8192)


@pytest.mark.parametrize("bits", [8, 12, 16, 32, 64])
def test_masked_words_are_uniform(bits: int) -> None:
    """All values of any eight neighbouring bits of a word come equally often, the highest too.  255 degrees of freedom:
    chi-square is beyond 400 once in 10**8 runs; the seed is fixed."""
    t = SlotTable(4, bits, 2**16)
    t.share()
    t.words[t.ids[0]][:] = 0
    words = ring.unpack(t.upload(t.ids[0]), bits).astype(np.uint64)
    for shift in range(0, bits - 7, 4):
        counts = np.bincount((words >> np.uint64(shift) & np.uint64(255)).astype(np.int64), minlength=256)
        assert ((counts - 256.0) ** 2 / 256).sum() < 400 and counts.min() > 0, shift


# --- nothing secret is shown -----------------------------------------------------------------------------------------


def secrets_of(t: SlotTable, who: bytes) -> list[bytes]:
    person, keys = t.people[who], t.keys[who]
    held = [
        half for share in person._held.values() for half in (share.key, share.seed, share.key_salt, share.seed_salt)
    ]
    return [person._secrets.one_time, person._secrets.epoch, person._seed, person._nonce, *keys.state()[:2], *held]


def shows(text: str, secret: bytes) -> bool:
    return secret.hex()[:24] in text or repr(secret)[2:26] in text or str(list(secret[:8]))[1:-1] in text


def test_secrets_are_not_shown() -> None:
    t = SlotTable(4)
    t.share()
    me = t.people[t.ids[0]]
    t.journals[t.ids[0]].keep_keys(b"".join(t.keys[t.ids[0]].state()[:2]))
    t.open(t.ids)
    things = (me, me._secrets, me._held, me._opening, t.keys[t.ids[0]], t.journals[t.ids[0]], me.removal(), t.slot,
              me.half_of(t.ids[1]), me.half_of(t.ids[1]).path and me._held[t.ids[1]])  # fmt: skip
    for secret in secrets_of(t, t.ids[0]):
        for thing in things:
            assert not shows(repr(thing), secret) and not shows(pretty_repr(thing), secret), type(thing)
    assert shows(repr(me._seed), me._seed), "the test can fail"


def test_no_error_quotes_a_secret() -> None:
    """Whatever is refused, the message names who and what, never the bytes."""
    t = SlotTable(5)
    t.share()
    survivors = t.ids[:4]
    for i in t.ids:
        t.people[i].certify(survivors)
    clerk = t.people[t.ids[0]]
    other = t.people[t.ids[1]]
    half = other.half_of(t.ids[4])
    secrets = [s for i in t.ids for s in secrets_of(t, i)]
    for call in (
        lambda: clerk.take_seed(t.ids[2], other.own_seed()),
        lambda: clerk.take_key(t.ids[4], other._secrets.one_time),
        lambda: clerk.take_half(t.ids[4], t.ids[2], half),
        lambda: clerk.take_half(t.ids[1], t.ids[1], half),
        lambda: t.people[t.ids[4]].own_seed(),
        lambda: t.restarted(t.ids[0]).deal(),
        lambda: type(t.keys[t.ids[0]])(other._secrets.one_time + b"x", other._secrets.epoch, 5),
    ):
        with pytest.raises(ShoalError) as raised:
            call()
        assert not any(shows(str(raised.value), secret) for secret in secrets)


def test_no_secret_and_no_words_on_the_wire() -> None:
    """No 16 bytes of a key, seed, share or update in any message before the opening, nor in what is committed to."""
    t = SlotTable(5, count=256)
    t.share()
    for i in t.ids:
        t.upload(i)
    public = [field for c in t.commitments.values() for field in (c.root, c.seed, c.nonce)]
    wire = b"|".join([*t.messages, *public])
    windows = {wire[i : i + 16] for i in range(len(wire))}
    for i in t.ids:
        for secret in (*secrets_of(t, i), t.words[i].tobytes()):
            assert not any(secret[k : k + 16] in windows for k in range(len(secret) - 15))
    assert all(root[:16] in windows for root in public)

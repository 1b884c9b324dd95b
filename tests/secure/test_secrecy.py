"""What must not be seen: no mask twice, no secret on the wire or in a message for people, no sum but one."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from slot_table import SlotTable

from shoal.secure.graph import neighbours
from shoal.secure.participant import Participant


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

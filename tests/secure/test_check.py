"""The sum check: honest sums pass, any wrong word is found, and the one who lied is named."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from slot_table import SlotTable

from shoal.errors import PeerError
from shoal.kernels import ring
from shoal.secure.check import (
    CHECKS,
    CHECKS_MORE,
    agree,
    blame,
    challenge,
    check_sums,
    checks_for,
    decode_sums,
    encode_sums,
    nonce_commitment,
    vouched,
    withheld,
)


def ready(bits: int = 16, n: int = 7, gone: int = 1, count: int = 512):
    """(table, survivors, uploads, sum, beta) after the opening."""
    t = SlotTable(n, bits, count)
    t.share()
    survivors = t.ids[: n - gone]
    uploads = {i: t.upload(i) for i in survivors}
    clerk = t.open(survivors)
    for i in survivors:
        for d, key in t.opened_keys.items():
            t.people[i].take_key(d, key)
    total = t.unmask(clerk, list(uploads.values()))
    beta = challenge(t.name.rid, [b"root"], {i: t.people[i].nonce for i in survivors})
    return t, survivors, uploads, total, beta


@pytest.mark.parametrize("bits", [8, 12, 16, 32])
@pytest.mark.parametrize("checks", [CHECKS, CHECKS_MORE])
@pytest.mark.parametrize("gone", [0, 2])
def test_honest_sums_pass(bits: int, checks: int, gone: int) -> None:
    t, survivors, uploads, total, beta = ready(bits, gone=gone)
    told = [vouched(uploads[i], bits, t.people[i].vouching(), beta, 0, checks) for i in survivors]
    assert all(len(decode_sums(encode_sums(s, bits), bits, checks)) == checks for s in told)
    assert agree(told, check_sums(total, bits, beta, 0, checks), bits)


def test_any_wrong_word_is_found() -> None:
    """Also an error of half the ring in one place, where products would be weakest."""
    t, survivors, uploads, total, beta = ready()
    told = [vouched(uploads[i], 16, t.people[i].vouching(), beta, 0, CHECKS) for i in survivors]
    rng = np.random.default_rng(0)
    for _ in range(300):
        wrong = total.copy()
        wrong.view("<u2")[rng.integers(512)] += rng.choice([1, 2**15, 2**16 - 1, 77])
        assert not agree(told, check_sums(wrong, 16, beta, 0, CHECKS), 16)


def test_pieces_add_up() -> None:
    t, survivors, uploads, total, beta = ready()
    cut = 2 * 200
    for i in survivors:
        whole = vouched(uploads[i], 16, t.people[i].vouching(), beta, 0, CHECKS)
        parts = vouched(uploads[i][:cut], 16, t.people[i].vouching(), beta, 0, CHECKS)
        parts = parts + vouched(uploads[i][cut:], 16, t.people[i].vouching(), beta, 200, CHECKS)
        assert np.array_equal(parts & np.uint64(0xFFFF), whole)
    assert total.size == 1024


@pytest.mark.parametrize("bits", [8, 12, 16, 32, 64])
def test_pieces_of_any_size_give_the_same(monkeypatch: pytest.MonkeyPatch, bits: int) -> None:
    """Masks are taken off piece by piece; also where the last piece is short, and where a stretch begins inside."""
    from shoal.secure import check

    t, survivors, uploads, _, beta = ready(bits)
    masks, upload = t.people[survivors[0]].vouching(), uploads[survivors[0]]
    whole = vouched(upload, bits, masks, beta, 64, CHECKS_MORE)
    for piece in (64, 128, 448, 512):
        monkeypatch.setattr(check, "_PIECE_WORDS", piece)
        assert np.array_equal(vouched(upload, bits, masks, beta, 64, CHECKS_MORE), whole)
    assert whole.max() < 2**bits and not np.array_equal(whole, vouched(upload, bits, masks, beta, 0, CHECKS_MORE))


def test_the_nonce_is_the_one_that_the_ledger_asks_for() -> None:
    """Both check the same commitment; docs/PROTOCOL.md has it among the ledger's."""
    nonce, who = b"n" * 32, b"w" * 32
    expected = hashlib.sha256(
        b"shoal-ledger/v1/nonce\0"
        + b"".join(len(p).to_bytes(8, "little") + p for p in (bytes([5]) + bytes(7), who, nonce))
    ).digest()
    assert nonce_commitment(5, who, nonce) == expected


def test_the_liar_is_named() -> None:
    """An owner that adds wrongly: everybody vouched for its upload. A survivor that vouches for something else: it."""
    t, survivors, uploads, total, beta = ready()
    told = {p: vouched(uploads[i], 16, t.people[i].vouching(), beta, 0, CHECKS) for p, i in enumerate(survivors)}
    judge = t.people[survivors[0]]
    for i in survivors:
        judge.take_seed(i, t.people[i].own_seed())
    masks = {p: judge.vouching(i) for p, i in enumerate(survivors)}
    shown = {p: uploads[i] for p, i in enumerate(survivors)}
    assert blame(shown, told, 16, masks, beta, 0, CHECKS) == set()
    told[3] = told[3] + np.uint64(1) & np.uint64(0xFFFF)
    assert not agree(list(told.values()), check_sums(total, 16, beta, 0, CHECKS), 16)
    assert blame(shown, told, 16, masks, beta, 0, CHECKS) == {3}


def test_the_challenge_is_not_known_before_the_nonces() -> None:
    """Another root or another nonce, another challenge; so an owner cannot look for a wrong sum that passes."""
    nonces = {b"a": b"1" * 32, b"b": b"2" * 32}
    base = challenge(b"rid", [b"root"], nonces)
    assert base != challenge(b"rid", [b"toor"], nonces)
    assert base != challenge(b"rid", [b"root"], {**nonces, b"b": b"3" * 32})
    assert base != challenge(b"rid", [b"root"], {b"b": b"2" * 32})
    assert base != challenge(b"dir", [b"root"], nonces)
    assert nonce_commitment(1, b"a", b"1" * 32) != nonce_commitment(2, b"a", b"1" * 32)
    assert checks_for(withheld(nonces, [b"a", b"b"])) == CHECKS
    assert checks_for(withheld(nonces, [b"a", b"b", b"c"])) == CHECKS_MORE


def test_check_sums_from_the_ledger_are_hostile() -> None:
    good = encode_sums(np.arange(32, dtype=np.uint64), 12)
    assert len(good) == 64
    for bad in (good[:-1], good + b"\0", b"", b"\xff" * 64):
        with pytest.raises(PeerError) as raised:
            decode_sums(bad, 12, CHECKS)
        assert raised.value.code == "check.malformed"
    assert ring.word_bytes(32, 16) == 64

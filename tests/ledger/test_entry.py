"""Entries: one encoding, chained hashes, golden bytes."""

from __future__ import annotations

import hashlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from swarm_builder import SwarmBuilder, identity

from shoal.errors import InputError
from shoal.ledger.digest import ZERO_DIGEST, digest, le64
from shoal.ledger.entry import GENESIS_PREV, SEAL_BYTES, Entry, decode_entry, encode_entry, entry_hash
from shoal.ledger.validator import make_seal
from shoal.limits import LEDGER_ENTRY_BYTES_MAX

SAMPLE = Entry(7, 3, bytes(range(32)), b"payload", b"")


def test_hash_is_what_the_format_says() -> None:
    label = b"shoal-ledger/v1/entry\x00"
    place = (7).to_bytes(8, "little") + (3).to_bytes(8, "little")
    inner = hashlib.sha256(b"payload").digest()
    assert entry_hash(SAMPLE) == hashlib.sha256(label + place + bytes(range(32)) + inner).digest()


def test_golden_bytes() -> None:
    assert encode_entry(SAMPLE).hex() == "950703c420" + bytes(range(32)).hex() + "c407" + b"payload".hex() + "c400"
    assert entry_hash(SAMPLE).hex() == "13a3801b66c2ddb0a65ae5c5df3005d0e0438543fff439f2f0cc9590b1ee2a28"


def test_digest_is_domain_separated_and_has_lengths() -> None:
    inner = b"shoal-ledger/v1/label\x00" + le64(2) + b"ab" + le64(0) + b""
    assert digest("label", b"ab", b"") == hashlib.sha256(inner).digest()
    assert len({digest("a", b"bc"), digest("ab", b"c"), digest("a", b"b", b"c"), digest("a", b"bc", b"")}) == 4


def test_seal_is_not_under_the_hash_but_signs_it() -> None:
    sealed = msgspec.structs.replace(SAMPLE, seal=make_seal(entry_hash(SAMPLE), identity(0)))
    assert entry_hash(sealed) == entry_hash(SAMPLE)
    assert len(sealed.seal) == SEAL_BYTES and sealed.seal[:32] == identity(0).id


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"index": 0}, "index 0"),
        ({"index": 2**63}, "index"),
        ({"term": -1}, "term -1"),
        ({"prev": bytes(31)}, "31 bytes"),
        ({"payload": bytes(LEDGER_ENTRY_BYTES_MAX + 1)}, "limit"),
        ({"seal": bytes(64)}, "seal has 64"),
    ],
)
def test_shapes_that_no_entry_has(change: dict[str, object], said: str) -> None:
    data = encode_entry(msgspec.structs.replace(SAMPLE, **change))
    with pytest.raises(InputError, match=said):
        decode_entry(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x95",
        encode_entry(SAMPLE) + b"\x00",
        encode_entry(SAMPLE)[:-1],
        # the same numbers in longer forms of MessagePack
        b"\x95\xcc\x07" + encode_entry(SAMPLE)[2:],
        b"\xdc\x00\x05" + encode_entry(SAMPLE)[1:],
        encode_entry(SAMPLE).replace(b"\xc4\x07", b"\xc5\x00\x07"),
        # one field more, one field less
        b"\x96" + encode_entry(SAMPLE)[1:] + b"\x00",
        b"\x94" + encode_entry(SAMPLE)[1:-2],
        b"\x91" * 100_000,
    ],
)
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(InputError):
        decode_entry(data)


@given(st.binary(max_size=300))
def test_any_bytes_give_an_entry_or_one_error(data: bytes) -> None:
    try:
        entry = decode_entry(data)
    except InputError:
        return
    assert encode_entry(entry) == data


@given(
    st.builds(
        Entry,
        st.integers(1, 2**63 - 1),
        st.integers(0, 2**63 - 1),
        st.binary(min_size=32, max_size=32),
        st.binary(max_size=200),
        st.one_of(st.just(b""), st.binary(min_size=SEAL_BYTES, max_size=SEAL_BYTES)),
    )
)
def test_round_trip(entry: Entry) -> None:
    assert decode_entry(encode_entry(entry)) == entry


def test_the_same_ledger_has_the_same_bytes() -> None:
    """Golden: whatever changes one of these bytes is a new format."""
    built = SwarmBuilder(members=4, secure=True, seal_every=3).history(3)
    assert built.entries[0].prev == GENESIS_PREV == ZERO_DIGEST
    whole = hashlib.sha256(b"".join(map(encode_entry, built.entries))).hexdigest()
    assert built.genesis.hex() == "97ae815fbda8b5c157df20dc26ef8b1f73e29592314f3b5449f2bb7e06454d39"
    assert whole == "19f37431e91af5872e39fc9837e4c05aede87a52f5cc61ddd63d0d31c17d8908"
    assert (
        hashlib.sha256(built.ledger.encode()).hexdigest()
        == "298ec8e5292c40d01674f8fb358c7b4c6cb88b7cfdf047f1cc9aea54532d54d5"
    )

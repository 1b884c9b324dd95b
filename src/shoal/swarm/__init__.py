"""Peers that merge: diffs and ledger entries come in, shards and statements go out, certified models stay."""

"""Peers that merge: local diffs and the ledger's entries come in, shards and statements go out, certified models stay."""

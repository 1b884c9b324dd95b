"""The ledger as it stands after an entry: all that the next entry is checked against, and no more."""

from __future__ import annotations

from typing import Any

import msgspec

from shoal.errors import InputError
from shoal.ledger.attempt import Attempt
from shoal.ledger.body import Policy
from shoal.ledger.digest import ZERO_DIGEST
from shoal.ledger.entry import GENESIS_PREV
from shoal.ledger.registry import Registry


class State(msgspec.Struct):
    """Bounded, whatever the length of the log.

    index, term, head  int, int, bytes  of the last entry (0, 0, GENESIS_PREV before the genesis)
    genesis        bytes  entry hash of the genesis
    leader         bytes  who opened the current term, and its key (``leader_key``)
    sealed         int    index of the last entry with a seal: everything up to it is vouched for by a leader
    recent         dict   index -> (entry hash, start of the payload's digest), the last LEDGER_SEEN_WINDOW entries
    round, model   int, bytes  last certified round (0: none) and the digest of its model
    carried        bytes  digest of what it hands on beside the model
    models         dict   round -> model digest, the last LEDGER_MODELS_KEPT
    attempt_next   int    attempts that the open round has had
    slot_next      int    first slot that was never used
    attempt        the open attempt, if any
    """

    index: int = 0
    term: int = 0
    head: bytes = GENESIS_PREV
    genesis: bytes = ZERO_DIGEST
    swarm: str = ""
    policy: Policy | None = None
    layout: bytes = ZERO_DIGEST
    registry: Registry = msgspec.field(default_factory=Registry)
    leader: bytes = b""
    leader_key: bytes = b""
    sealed: int = 0
    recent: dict[int, tuple[bytes, bytes]] = {}
    round: int = 0
    model: bytes = ZERO_DIGEST
    models: dict[int, bytes] = {}
    attempt_next: int = 0
    slot_next: int = 0
    attempt: Attempt | None = None
    carried: bytes = ZERO_DIGEST


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(State)


def encode_state(state: State) -> bytes:
    """Bytes for a snapshot; nodes that applied the same entries give the same bytes."""
    attempt: Any = state.attempt
    if attempt is not None:
        values = {name: _ordered(getattr(attempt, name)) for name in attempt.__struct_fields__}
        attempt = msgspec.structs.replace(attempt, **values)
    return _encoder.encode(msgspec.structs.replace(state, attempt=attempt))


def _ordered(value: Any) -> Any:
    """Sets as sorted lists.  Dictionaries keep their order, which is that of the entries that filled them."""
    if isinstance(value, set):
        return sorted(value)
    return {k: _ordered(v) for k, v in value.items()} if isinstance(value, dict) else value


def decode_state(data: bytes) -> State:
    """raises  InputError  ``ledger.snapshot``"""
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise InputError("ledger.snapshot", f"no ledger state: {error}") from None

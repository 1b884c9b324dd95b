"""What peers say to each other beside the ledger's own messages: frozen structs, MessagePack arrays, one tag each.

The first byte of a frame of the control plane says what follows: LEDGER a message of the consensus core
(ledger/message.py), ROUND one of the structs below.  Who sent it is what the transport authenticated; nothing in a
frame is believed about that.  A frame of the data plane is one chunk: its header is a `ChunkHead`, its body the bytes.

Every message of a round names its slot, so that what belongs to another attempt is told apart and dropped.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from shoal.errors import PeerError, shown
from shoal.ledger import message as ledger_message
from shoal.ledger.body import Bitmap, Count, Digest, Signature, Small
from shoal.limits import (
    CHUNKS_MAX,
    CONTROL_BYTES_MAX,
    LEDGER_ENTRY_BYTES_MAX,
    LEDGER_TEXT_CHARS_MAX,
    SEALED_SHARE_BYTES_MAX,
    WANTS_MAX,
)

LEDGER: Final = b"\x01"
ROUND: Final = b"\x02"

Slot = Count
Text = Annotated[str, Meta(max_length=LEDGER_TEXT_CHARS_MAX)]
Sealed = Annotated[bytes, Meta(max_length=SEALED_SHARE_BYTES_MAX)]
ChunkIndex = Annotated[int, Meta(ge=0, lt=CHUNKS_MAX)]
Hashes = Annotated[bytes, Meta(max_length=32 * CHUNKS_MAX)]


class Said(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Base of all messages."""


class Forward(Said, frozen=True, tag=1):
    """To the leader: please append my signed statement."""

    payload: Annotated[bytes, Meta(max_length=LEDGER_ENTRY_BYTES_MAX)]


class Refused(Said, frozen=True, tag=2):
    """The leader's answer to a statement that breaks a rule in its log: first bytes of SHA-256(payload), and why."""

    payload: Annotated[bytes, Meta(min_length=16, max_length=16)]
    reason: Text


class Prepared(Said, frozen=True, tag=3):
    """To the leader: I hold ``base`` and an update on it made from ``samples``, and can take part in a round."""

    base: Digest
    samples: Count


class DealtShare(Said, frozen=True, tag=4):
    """A share of the sender's secrets, sealed for the receiver."""

    slot: Slot
    sealed: Sealed


class Holds(Said, frozen=True, tag=5):
    """To the leader: whose shares the sender has and found good, by position."""

    slot: Slot
    dealers: Bitmap


class Offer(Said, frozen=True, tag=6):
    """The sender has a parcel, here are the hashes of its chunks, 32 bytes each; their root is in the ledger.

    kind  UPLOAD: what ``subject`` (a position) uploads, all shards;  MERGED: the sum of shard ``subject``;  MODEL: the
          certified model of round ``subject``, which is also the slot here
    """

    slot: Slot
    kind: Annotated[int, Meta(ge=1, le=3)]
    subject: Count
    hashes: Hashes


class Want(Said, frozen=True, tag=7):
    """Please send these chunks of a parcel."""

    slot: Slot
    kind: Annotated[int, Meta(ge=1, le=3)]
    subject: Count
    chunks: Annotated[tuple[ChunkIndex, ...], Meta(max_length=WANTS_MAX)]


class Lacks(Said, frozen=True, tag=8):
    """Answer to a Want: the sender does not have that parcel (any more)."""

    slot: Slot
    kind: Annotated[int, Meta(ge=1, le=3)]
    subject: Count


class AskVote(Said, frozen=True, tag=9):
    """The leader asks for votes for this survivor set."""

    slot: Slot
    survivors: Bitmap


class SurvivorVote(Said, frozen=True, tag=10):
    slot: Slot
    survivors: Bitmap
    signature: Signature


class ModelVote(Said, frozen=True, tag=11):
    slot: Slot
    root: Digest
    model: Digest
    carried: Digest
    signature: Signature


class Opening(Said, frozen=True, tag=12):
    """A secret after the survivor certificate: the sender's own seed (``subject`` is the sender), a secret that a clerk
    put together, or a share of one for the clerk.

    kind  1 seed of a survivor, 2 one-time private key of one that fell out, 3 and 4 the sender's share of such
    """

    slot: Slot
    subject: Small
    kind: Annotated[int, Meta(ge=1, le=4)]
    data: Sealed


class ChunkHead(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Header of a chunk on the data plane."""

    slot: Slot
    kind: Annotated[int, Meta(ge=1, le=3)]
    subject: Count
    index: ChunkIndex


#: kinds of parcels
UPLOAD: Final = 1
MERGED: Final = 2
MODEL: Final = 3

AnySaid = (
    Forward
    | Refused
    | Prepared
    | DealtShare
    | Holds
    | Offer
    | Want
    | Lacks
    | AskVote
    | SurvivorVote
    | ModelVote
    | Opening
)

_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final[msgspec.msgpack.Decoder[Any]] = msgspec.msgpack.Decoder(AnySaid)
_HEAD_DECODER: Final = msgspec.msgpack.Decoder(ChunkHead)


def encode_said(said: AnySaid) -> bytes:
    return ROUND + _ENCODER.encode(said)


def encode_ledger(message: ledger_message.AnyMessage) -> bytes:
    return LEDGER + ledger_message.encode(message)


def encode_head(head: ChunkHead) -> bytes:
    return _ENCODER.encode(head)


def decode_control(data: bytes) -> ledger_message.AnyMessage | AnySaid:
    """raises  PeerError  ``message.malformed``, ``message.too_large``"""
    if len(data) > CONTROL_BYTES_MAX:
        raise PeerError("message.too_large", f"{len(data)} bytes, expected at most {CONTROL_BYTES_MAX}")
    kind, rest = data[:1], data[1:]
    if kind == LEDGER:
        return ledger_message.decode(rest)
    if kind != ROUND:
        raise PeerError("message.malformed", f"a frame of kind {kind.hex() or 'nothing'}, expected 01 or 02")
    try:
        said: AnySaid = _DECODER.decode(rest)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise PeerError("message.malformed", f"{len(data)} bytes are no message: {shown(str(error))}") from None
    return said


def decode_head(data: bytes) -> ChunkHead:
    """raises  PeerError  ``message.malformed``"""
    try:
        return _HEAD_DECODER.decode(data)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise PeerError("message.malformed", f"no header of a chunk: {shown(str(error))}") from None

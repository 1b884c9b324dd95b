"""What a statement can say: one struct per type, with the limits of every field.

All are arrays in MessagePack, fields in the order below.  A set of participants is a *bitmap*: bit i (least bit of the
first byte first) stands for the participant at position i of the plan, whose participants are sorted by id.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from shoal.ledger.digest import ZERO_DIGEST
from shoal.limits import (
    GRAM_BYTES_MAX,
    LEDGER_ADDRESS_CHARS_MAX,
    LEDGER_KEYS_MAX,
    LEDGER_MEMBERS_MAX,
    LEDGER_METRICS_MAX,
    LEDGER_NAME_CHARS_MAX,
    LEDGER_SETTINGS_MAX,
    LEDGER_TEXT_CHARS_MAX,
    SAMPLES_MAX,
)
from shoal.thresholds import Thresholds

Digest = Annotated[bytes, Meta(min_length=32, max_length=32)]
Key = Annotated[bytes, Meta(min_length=32, max_length=32)]
Signature = Annotated[bytes, Meta(min_length=64, max_length=64)]
Bitmap = Annotated[bytes, Meta(min_length=1, max_length=-(-LEDGER_MEMBERS_MAX // 8))]
Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Small = Annotated[int, Meta(ge=0, le=LEDGER_MEMBERS_MAX)]
Name = Annotated[str, Meta(min_length=1, max_length=LEDGER_NAME_CHARS_MAX)]
Address = Annotated[str, Meta(max_length=LEDGER_ADDRESS_CHARS_MAX)]
Text = Annotated[str, Meta(max_length=LEDGER_TEXT_CHARS_MAX)]


class Body(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Base of all bodies."""


class Vote(Body, frozen=True, gc=False):
    """One member's signature under a certificate's statement."""

    member: Digest
    signature: Signature


#: sorted by member, each once
Votes = Annotated[tuple[Vote, ...], Meta(max_length=LEDGER_MEMBERS_MAX)]

# --- the swarm -------------------------------------------------------------------------------------------------------


class MemberCard(Body, frozen=True):
    """A member as it enters: its keys and where it is found.  Its id is the SHA-256 of ``signing``."""

    signing: Key
    curve: Key
    name: Name
    address: Address = ""


class Setting(Body, frozen=True):
    """A parameter of a merge rule or of an outer optimiser; finite."""

    name: Name
    value: int | float


class Policy(Body, frozen=True):
    """What the first members agree on, for good.

    secure     shards are masked sums; then ``rule`` is "mean"
    rule       merge rule of every round;  outer  optimiser that steps by what it gives, or ""
    profile    1 default, 2 light, 3 crash (thresholds.PROFILES)
    peers_min  participants that a plan has at least
    admission  who lets members in and out: 1 any voter, 2 a majority of the voters
    settings   parameters of rule and optimiser that are not their defaults, sorted by name
    topology   1 swarm: first members are voters and shards go round; 2 federated: whoever signed the genesis is the
               *coordinator*, the one voter, who owns all shards
    cap        0: participants count by their samples, which stand in each plan; else samples are private, under masks
               only: who has this many or more counts fully, and only the sum of all weights becomes known
    """

    secure: bool
    rule: Name
    profile: Annotated[int, Meta(ge=1, le=3)]
    peers_min: Annotated[int, Meta(ge=2, le=LEDGER_MEMBERS_MAX)]
    admission: Annotated[int, Meta(ge=1, le=2)]
    settings: Annotated[tuple[Setting, ...], Meta(max_length=LEDGER_SETTINGS_MAX)] = ()
    topology: Annotated[int, Meta(ge=1, le=2)] = 1
    outer: Annotated[str, Meta(max_length=LEDGER_NAME_CHARS_MAX)] = ""
    cap: Annotated[int, Meta(ge=0, le=SAMPLES_MAX)] = 0

    @property
    def weights(self) -> int:
        """As in a plan: 1 by public samples, 2 private."""
        return 2 if self.cap else 1

    @property
    def federated(self) -> bool:
        return self.topology == 2

    @property
    def parameters(self) -> dict[str, int | float]:
        """``settings`` by name."""
        return {setting.name: setting.value for setting in self.settings}


class Genesis(Body, frozen=True):
    """The first entry: what the swarm is.  ``layout`` is the digest of the model's flat layout, ``base`` of the model.

    nonce    16 random bytes: two swarms of the same members are two swarms
    members  the first voters, sorted by id
    """

    swarm: Name
    nonce: Annotated[bytes, Meta(min_length=16, max_length=16)]
    policy: Policy
    layout: Digest
    base: Digest
    members: Annotated[tuple[MemberCard, ...], Meta(min_length=1, max_length=LEDGER_MEMBERS_MAX)]


class Noop(Body, frozen=True):
    """A leader opens its term: the first entry of each term, by the member that seals it."""

    term: Count


class LearnerAdded(Body, frozen=True):
    """A new site: it gets the log and takes part in rounds, and does not vote in elections yet.

    approvals  over H("admission", genesis, LE64(type), LE64(changes so far), the member's id or card)
    """

    card: MemberCard
    approvals: Votes = ()


class MemberAdded(Body, frozen=True):
    """A learner that has caught up becomes a voter."""

    member: Digest
    approvals: Votes = ()


class MemberRemoved(Body, frozen=True):
    """A member leaves, by its own word (no approvals) or by the others'."""

    member: Digest
    approvals: Votes = ()


class KeysRotated(Body, frozen=True):
    """The author's new keys; its id stays.

    proof  signature with the new signing key over H("rotation", genesis, id, signing, curve)
    """

    signing: Key
    curve: Key
    proof: Signature


class EpochKey(Body, frozen=True):
    """The author's X25519 key that shares are sealed for, good for slots first_slot and above until the next."""

    first_slot: Count
    key: Key


class KeyBatch(Body, frozen=True):
    """The author's one-time X25519 keys for slots first_slot, first_slot + 1, ..."""

    first_slot: Count
    keys: Annotated[tuple[Key, ...], Meta(min_length=1, max_length=LEDGER_KEYS_MAX)]


# --- a round ---------------------------------------------------------------------------------------------------------


class Participant(Body, frozen=True, gc=False):
    """Who is planned, and with how many training samples (0 where counts are private)."""

    member: Digest
    samples: Count


class ShardOwner(Body, frozen=True, gc=False):
    """Positions in the plan of the owner of a shard and of its backup."""

    owner: Small
    backup: Small


class RoundPlan(Body, frozen=True):
    """An attempt at a round.  The rid of everything that follows covers all bytes of this body.

    round         1, 2, ...: one above the last certified
    attempt       0, 1, ... within the round
    slot          one-time number of the attempt, above every slot before
    base          digest of the model that diffs are taken from: the last certified, or the genesis' base
    participants  sorted by id
    thresholds    as thresholds.py says for their number and the genesis' profile
    shards        who owns what: shard s is ``shards[s]``
    bits, bound   ring width in bits (0: exact numbers, plain mode only) and the largest integer of a participant
    scales        digest of the table of scales (zero if there is none)
    seed          of rotation and dither
    weights       1 by public samples, 2 private, 3 all equal
    deadlines_ms  milliseconds for each phase
    details       more that the swarm agreed on; under the rid, not looked into here
    """

    round: Annotated[int, Meta(ge=1, le=2**63 - 1)]
    attempt: Count
    slot: Count
    base: Digest
    participants: Annotated[tuple[Participant, ...], Meta(min_length=2, max_length=LEDGER_MEMBERS_MAX)]
    thresholds: Thresholds
    shards: Annotated[tuple[ShardOwner, ...], Meta(min_length=1, max_length=4 * LEDGER_MEMBERS_MAX)]
    bits: Annotated[int, Meta(ge=0, le=64)]
    bound: Annotated[int, Meta(ge=0, le=2**63 - 1)]
    scales: Digest
    seed: Digest
    weights: Annotated[int, Meta(ge=1, le=3)]
    deadlines_ms: Annotated[tuple[Count, ...], Meta(max_length=16)] = ()
    details: Annotated[bytes, Meta(max_length=16_384)] = b""


class OfSlot(Body, frozen=True):
    """Base of what belongs to the open attempt."""

    slot: Count


class Share(OfSlot, frozen=True):
    """The author dealt shares of its secrets: roots and commitments, no secret."""

    root: Digest
    seed_commitment: Digest
    nonce_commitment: Digest


class ShareSet(OfSlot, frozen=True):
    """V1: those whose shares everybody in it has."""

    members: Bitmap


class Masked(OfSlot, frozen=True):
    """The author's upload: Merkle root over the hashes of all its chunks."""

    root: Digest


class Receipt(OfSlot, frozen=True):
    """The owner (or backup) of a shard has it whole from these, as their ``Masked`` says."""

    shard: Count
    arrived: Bitmap


class SurvivorCertificate(OfSlot, frozen=True):
    """U: whose updates the sum contains.  Votes over H("survivors", rid, survivors)."""

    survivors: Bitmap
    votes: Votes


class Opened(OfSlot, frozen=True):
    """Which secrets were opened: self-mask seeds of survivors, one-time keys of those that fell out after sharing."""

    seeds: Bitmap
    keys: Bitmap


class Shard(OfSlot, frozen=True):
    """The owner's sum of a shard: Merkle root over the integers, and of how many participants."""

    shard: Count
    root: Digest
    summed: Small


class Gram(OfSlot, frozen=True):
    """How the survivors' updates lie to each other in one shard: inner products of update - update ``centre``, from
    which rules that look at whole models follow.  In the clear only.

    centre  a survivor's position
    values  the matrix as ledger/gram.py packs it: survivors in the order of their positions
    """

    shard: Count
    centre: Small
    values: Annotated[bytes, Meta(min_length=8, max_length=GRAM_BYTES_MAX)]


class Nonce(OfSlot, frozen=True):
    """The number behind ``nonce_commitment`` = H("nonce", LE64(slot), id, nonce), told when every shard is in."""

    nonce: Digest


class Check(OfSlot, frozen=True):
    """Check scalars of ``subject`` (a position): part 0, the author's own of its whole update; part shard + 1, those
    that another vouches for, of one shard.

    nonces  whose nonces the challenge was made with: those that stand before the attempt's first check
    """

    subject: Small
    part: Count
    nonces: Bitmap
    values: Annotated[bytes, Meta(min_length=1, max_length=1024)]


class ModelCertificate(OfSlot, frozen=True):
    """The round's end.  Votes over H("model", rid, root, model, carried).

    root   Merkle root over all shards' sums
    model  digest of the merged model, as `shoal inspect` shows it: the base of the next round
    carried  digest of what the next round needs beside it, zeros if there is nothing (docs/FORMAT.md)
    """

    root: Digest
    model: Digest
    votes: Votes
    carried: Digest = ZERO_DIGEST


class Abort(OfSlot, frozen=True):
    """The attempt is given up.  ``discard``: never use its updates again (so always after a survivor certificate)."""

    discard: bool
    reason: Text


class Complaint(OfSlot, frozen=True):
    """The author does not agree, and why.

    blamed  position of whom the author found to have told something wrong, from what the ledger and the uploads show;
            ``text`` says what was told and what came out.  None: nobody in particular
    """

    text: Text
    blamed: Small | None = None


# --- about models ----------------------------------------------------------------------------------------------------


class Metric(Body, frozen=True):
    """A number with a name; finite."""

    name: Name
    value: float


class Evaluation(Body, frozen=True):
    """What the author measured with a certified model on ``samples`` own samples.  Metrics sorted by name."""

    round: Annotated[int, Meta(ge=1, le=2**63 - 1)]
    model: Digest
    samples: Count
    metrics: Annotated[tuple[Metric, ...], Meta(min_length=1, max_length=LEDGER_METRICS_MAX)]


class Note(Body, frozen=True):
    """Words of the author; nothing follows from them."""

    text: Text


#: type tag -> (body, name).  Numbers and names are for good.
TYPES: Final[dict[int, tuple[type[Body], str]]] = {
    1: (Genesis, "genesis"),
    2: (Noop, "noop"),
    3: (LearnerAdded, "learner-added"),
    4: (MemberAdded, "member-added"),
    5: (MemberRemoved, "member-removed"),
    6: (KeysRotated, "keys-rotated"),
    7: (EpochKey, "epoch-key"),
    8: (KeyBatch, "key-batch"),
    16: (RoundPlan, "round-plan"),
    17: (Share, "share"),
    18: (ShareSet, "share-set"),
    19: (Masked, "masked"),
    20: (Receipt, "receipt"),
    21: (SurvivorCertificate, "survivor-certificate"),
    22: (Opened, "opened"),
    23: (Shard, "shard"),
    24: (Nonce, "nonce"),
    25: (Check, "check"),
    26: (ModelCertificate, "model-certificate"),
    27: (Abort, "abort"),
    28: (Complaint, "complaint"),
    29: (Gram, "gram"),
    32: (Evaluation, "evaluation"),
    33: (Note, "note"),
}
TAGS: Final[dict[type[Body], int]] = {body: tag for tag, (body, _) in TYPES.items()}


def bitmap(positions: list[int] | set[int] | range, n: int) -> bytes:
    """The bitmap of ``positions`` among ``n`` participants."""
    number = 0
    for position in positions:
        number |= 1 << position
    return number.to_bytes(-(-n // 8), "little")


def positions(bits: bytes, n: int) -> set[int] | None:
    """The positions in a bitmap of ``n`` participants; None if it has another length or a bit beyond ``n``."""
    number = int.from_bytes(bits, "little")
    if len(bits) != -(-n // 8) or number >> n:
        return None
    return {i for i in range(n) if number >> i & 1}

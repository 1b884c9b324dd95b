"""What must hold after every step of a history of rounds, and how it is found out from outside.

The laws hear everything that honest machines say and decide, and remember it across their lives.  They recompute what a
round's model must be, with numpy, from the diffs that the certified survivors had handed in.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.diff.weights import public_alphas
from shoal.ledger.body import (
    Abort,
    Complaint,
    Masked,
    ModelCertificate,
    RoundPlan,
    Share,
    ShareSet,
    SurvivorCertificate,
    positions,
)
from shoal.ledger.certificate import model_statement, round_id, survivors_statement
from shoal.ledger.identity import signature_holds
from shoal.merge.library import merge
from shoal.secure.participant import Step
from shoal.swarm import messages
from shoal.swarm.messages import ModelVote, Opening, SurvivorVote
from shoal.swarm.peer import Notice
from shoal.swarm.replica import Decided
from shoal.swarm.ring_coder import RingCoder

if TYPE_CHECKING:
    from machine import Machine

#: the true rule, which a mutation of the code does not reach
SIGNATURE_HOLDS = signature_holds
#: of one member; of more the others' updates are coded coarsely beside its own, however many it really has
SAMPLES_SANE = 2**20
SEED_KINDS, KEY_KINDS = (1, 3), (2, 4)


class Violation(AssertionError):
    """A law is broken: ``name`` says which."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(f"{name}: {text}")
        self.name = name


class SlotRecord:
    """What the ledger said of one slot."""

    def __init__(self, plan: RoundPlan, rid: bytes) -> None:
        self.plan, self.rid = plan, rid
        self.ids = [p.member for p in plan.participants]
        self.shared: set[bytes] | None = None
        self.masked: dict[bytes, bytes] = {}
        self.survivors: set[bytes] | None = None
        self.model = b""
        self.exact: set[bytes] = set()
        self.false = False

    def members(self, bits: bytes) -> set[bytes]:
        found = positions(bits, len(self.ids))
        assert found is not None
        return {self.ids[p] for p in found}

    @property
    def floor(self) -> int:
        """Worked out anew: ceil(n/3) - 1 may be missing."""
        return len(self.ids) - (-(-len(self.ids) // 3) - 1)

    @property
    def quorum(self) -> int:
        n = len(self.ids)
        return (n + max(1, -(-n // 3) - 1)) // 2 + 1


class Laws:
    """See the module.

    seen  how often what happened, so that a run can show that it was not an idle one
    """

    def __init__(
        self, keys: dict[bytes, bytes], genesis: bytes, base: dict[str, Any], digest: bytes, policy: Any
    ) -> None:
        self.keys, self.genesis, self.policy = keys, genesis, policy
        self.liars: set[bytes] = set()
        self.unchecked = False  # whether a lie is told that the protocol does not claim to notice
        self.seen: Counter[str] = Counter()
        self.entries: dict[int, bytes] = {}
        self.slots: dict[int, SlotRecord] = {}
        self.models = {0: digest}
        self._way: dict[tuple[bytes, int], int] = {}
        self.arrays = {digest: base}
        self.false_plans: set[bytes] = set()
        self._round_of: dict[bytes, int] = {}
        self._seeds: dict[tuple[int, bytes], bytes] = {}
        self._uploads: dict[tuple[int, bytes, bytes], np.ndarray] = {}
        self._serial_of: dict[tuple[int, bytes, bytes], tuple[bytes, int]] = {}
        self._used: dict[tuple[bytes, int], int] = {}
        self._signed: dict[tuple[str, int, bytes], bytes] = {}
        self._opened: dict[tuple[int, int], set[int]] = {}

    def convict(self, who: bytes, lies: frozenset[str]) -> None:
        """This member lies; whatever it says itself breaks no law."""
        self.liars.add(who)
        self.unchecked = "wrong sum" in lies and not self.policy.secure

    # --- what is decided ----------------------------------------------------------------------------------------------

    def decided(self, machine: Machine, decided: Decided) -> None:
        """One history: what one node decides at an index every other node decides there."""
        payload = hashlib.sha256(decided.payload).digest()
        known = self.entries.setdefault(decided.index, payload)
        if known != payload:
            raise Violation("one history", f"{machine.name} decides another entry at {decided.index}")
        if len(self.entries) > self.seen["entries"]:
            self.seen["entries"] = len(self.entries)
            machine.history.note(
                f"{decided.index} {type(decided.body).__name__} by {machine.history.name(decided.statement.author)}"
            )
            self._entry(machine, decided)

    def _entry(self, machine: Machine, decided: Decided) -> None:
        body, author = decided.body, decided.statement.author
        self.seen[type(body).__name__] += 1
        if isinstance(body, RoundPlan):
            self._planned(body, decided.statement.body)
            return
        record = self.slots.get(getattr(body, "slot", -1))
        if record is None:
            return
        if isinstance(body, ShareSet):
            record.shared = record.members(body.members)
            if author not in self.liars:
                self._mutual(machine, record)
        elif isinstance(body, Share | Masked):
            if record.false and author not in self.liars:
                raise Violation("plans", f"an honest member follows a plan that its maker knows to be false: {body}")
            if isinstance(body, Masked):
                record.masked[author] = body.root
        elif isinstance(body, SurvivorCertificate):
            self._survivors(record, body)
        elif isinstance(body, ModelCertificate):
            self._certified(record, body)
        elif isinstance(body, Abort) and record.survivors is not None:
            self.seen["aborted after survivors"] += 1
        elif isinstance(body, Complaint) and not self.liars:
            raise Violation("no false accusation", f"nobody lies, and a member complains: {body.text}")

    def _planned(self, plan: RoundPlan, body: bytes) -> None:
        """The base of round r + 1 is the model of round r; a slot is used once."""
        if plan.slot in self.slots:
            raise Violation("slots", f"slot {plan.slot} is planned twice")
        if self.models.get(plan.round - 1) != plan.base or plan.round in self.models:
            raise Violation("chain of models", f"round {plan.round} is planned on {plan.base.hex()[:8]}")
        rid = round_id(self.genesis, plan.slot, plan.attempt, body)
        self.slots[plan.slot] = SlotRecord(plan, rid)
        self.slots[plan.slot].false = body in self.false_plans

    def _mutual(self, machine: Machine, record: SlotRecord) -> None:
        """Everybody in the share-set holds the share of everybody in it."""
        assert record.shared is not None
        for other in machine.history.machines:
            if not other.up or other.who.id not in record.shared - self.liars:
                continue
            round_ = other.peer.rounds.get(record.plan.slot)
            privacy = round_.state.privacy if round_ is not None else None
            if privacy is not None and privacy.step == Step.HOLD and not record.shared <= privacy.holds:
                raise Violation("share-set", f"{other.name} lacks a share of slot {record.plan.slot}")

    def _votes(self, record: SlotRecord, votes: Any, statement: bytes, what: str) -> None:
        voters = {v.member for v in votes if v.member in record.ids}
        good = {v.member for v in votes if SIGNATURE_HOLDS(self.keys[v.member], v.signature, statement)}
        if len(voters & good) < record.quorum:
            raise Violation("certificates", f"{what} of slot {record.plan.slot} has {len(voters & good)} good votes")

    def _survivors(self, record: SlotRecord, body: SurvivorCertificate) -> None:
        """One set for a slot, not below the floor, with a quorum of votes; and no update enters two."""
        slot, survivors = record.plan.slot, record.members(body.survivors)
        if record.survivors is not None:
            raise Violation("one survivor set", f"slot {slot} has two")
        if len(survivors) < record.floor:
            raise Violation("floor", f"{len(survivors)} survivors of {len(record.ids)} in slot {slot}")
        self._votes(record, body.votes, survivors_statement(record.rid, body.survivors), "survivor certificate")
        record.survivors = survivors
        if len(survivors) < len(record.ids):
            self.seen["fell out"] += 1
        for who in survivors - self.liars if self.policy.secure else ():
            update = self._serial_of.get((slot, who, record.masked[who]))
            if update is not None and self._used.setdefault(update, slot) != slot:
                raise Violation(
                    "one opening", f"an update is among the survivors of slots {self._used[update]}, {slot}"
                )

    def _certified(self, record: SlotRecord, body: ModelCertificate) -> None:
        """One model for a round, and it is the exact one."""
        round_ = record.plan.round
        self._votes(
            record, body.votes, model_statement(record.rid, body.root, body.model, body.carried), "model certificate"
        )
        if self.models.setdefault(round_, body.model) != body.model:
            raise Violation("one model", f"round {round_} has two")
        if body.model not in record.exact:
            raise Violation("exact mean", f"round {round_}: a model is certified that no honest member has worked out")
        record.model = body.model
        self.seen["rounds"] += 1

    # --- what is said -------------------------------------------------------------------------------------------------

    def says(self, machine: Machine, to: bytes, data: bytes) -> None:
        """A frame that an honest machine is about to send."""
        if data[:1] != messages.ROUND or machine.who.id in self.liars:
            return
        said: Any = messages.decode_control(data)
        self.seen[type(said).__name__] += 1
        if isinstance(said, SurvivorVote):
            self._only("survivor set", said.slot, machine, said.survivors)
        elif isinstance(said, ModelVote):
            self._only("model", said.slot, machine, said.model + said.carried)
        elif isinstance(said, Opening):
            self._opens(machine, said)

    def _only(self, what: str, slot: int, machine: Machine, value: bytes) -> None:
        if self._signed.setdefault((what, slot, machine.who.id), value) != value:
            raise Violation("one vote", f"{machine.name} signs a second {what} for slot {slot}")

    def _opens(self, machine: Machine, said: Opening) -> None:
        """Only after a certificate; of survivors the seed, of those that fell out the key, never both of one."""
        record = self.slots[said.slot]
        if record.survivors is None or record.shared is None:
            raise Violation("early opening", f"{machine.name} opens before the certificate of slot {said.slot}")
        subject, key = record.ids[said.subject], said.kind in KEY_KINDS
        if subject not in (record.shared - record.survivors if key else record.survivors):
            raise Violation("wrong half", f"{machine.name} opens the wrong secret of a member in slot {said.slot}")
        kinds = self._opened.setdefault((said.slot, said.subject), set())
        kinds.add(said.kind)
        self.seen[f"opening of kind {said.kind}"] += 1
        if kinds.intersection(SEED_KINDS) and kinds.intersection(KEY_KINDS):
            raise Violation("both halves", f"of one member in slot {said.slot}")

    # --- what is seen in a machine ------------------------------------------------------------------------------------

    def looked(self, machine: Machine) -> None:
        """After anything happened in a machine."""
        peer, me = machine.peer, machine.who.id
        for slot, round_ in peer.rounds.items():
            state = round_.state
            machine.serials.setdefault(slot, machine.serial)
            if state.own is not None and (slot, me, state.own.root) not in self._uploads:
                self._uploaded(machine, slot, state)
            if self.liars and state.privacy is not None:
                self._secrets(machine, slot, state.privacy)
            record = self.slots.get(slot)
            if state.model and record is not None and me not in self.liars and state.model not in record.exact:
                self._check_model(machine, record, state)
            if state.failure and not self.liars:
                raise Violation("no failure", f"{machine.name} cannot go on in slot {slot}: {state.failure}")
        ledger = peer.ledger
        if me in self.liars:
            return
        aside = {who for who, member in ledger.registry.members.items() if member.faults}
        if aside - self.liars:
            raise Violation("no false accusation", f"{machine.name} knows of honest members that are set aside")
        self.seen["set aside"] = max(self.seen["set aside"], len(aside))
        if self.models.get(ledger.round, ledger.model) != ledger.model:
            raise Violation("one model", f"{machine.name} has another model of round {ledger.round}")
        self._base(machine)
        if peer.replica.halted is not None:
            raise Violation("halted", f"{machine.name}: {peer.replica.halted}")

    def _base(self, machine: Machine) -> None:
        """A machine's base is a certified model, and never an older one than it had in this life."""
        digest, me = machine.peer.book.digest, (machine.who.id, machine.lives)
        round_ = self._round_of.get(digest)
        if round_ is None:
            round_ = next((r for r, model in self.models.items() if model == digest), None)
            if round_ is None:
                raise Violation(
                    "uncertified", f"{machine.name} goes on from {digest.hex()[:8]}, which is not certified"
                )
            self._round_of[digest] = round_
        if round_ < self._way.get(me, 0):
            raise Violation("way back", f"{machine.name} goes back from round {self._way[me]} to {round_}")
        self._way[me] = round_

    def _secrets(self, machine: Machine, slot: int, privacy: Any) -> None:
        """What is taken for an honest member's seed is its seed."""
        if privacy._seed:
            self._seeds[slot, machine.who.id] = privacy._seed
        for who, seed in privacy._opening._seeds.items() if privacy._opening is not None else ():
            if seed != self._seeds.get((slot, who), seed) and who not in self.liars:
                raise Violation("secrets", f"{machine.name} takes another seed for that of a member in slot {slot}")

    def noticed(self, machine: Machine, out: Notice) -> None:
        """Nobody calls fault where everybody is honest."""
        self.seen[out.level] += 1
        if out.level == "fault" and not self.liars:
            raise Violation("no failure", f"{machine.name}: {out.text}")

    def _uploaded(self, machine: Machine, slot: int, state: Any) -> None:
        me = machine.who.id
        if self.policy.secure and me not in self.liars:
            self._only("upload", slot, machine, state.own.root)
        self._uploads[slot, me, state.own.root] = state.diff
        self._serial_of[slot, me, state.own.root] = (me, machine.serials[slot])

    def _check_model(self, machine: Machine, record: SlotRecord, state: Any) -> None:
        """base + exact mean of precisely the certified survivors' diffs."""
        if record.survivors is None:
            raise Violation("exact mean", f"{machine.name} has a model of slot {record.plan.slot} before the survivors")
        book = machine.peer.book
        made = book._next[state.model][0] if state.model in book._next else book.arrays
        who = [i for i in record.ids if i in record.survivors]
        keys = [tensor.key for tensor in book.layout.tensors]
        base, new = (np.concatenate([m[k].reshape(-1) for k in keys]) for m in (self.arrays[record.plan.base], made))
        diffs = [self._uploads[record.plan.slot, i, record.masked[i]] for i in who]
        weights = [float(p.samples) for p in record.plan.participants if p.member in record.survivors]
        if self.policy.secure:
            self._check_words(record, state, who, diffs, base, new)
        elif not self.unchecked:
            self._check_plain(record, diffs, weights, base, new)
        record.exact.add(state.model)
        self.arrays[state.model] = made
        self.seen["exact models"] += 1

    def _check_plain(self, record: SlotRecord, diffs: Any, weights: Any, base: np.ndarray, new: np.ndarray) -> None:
        if self.policy.rule == "mean":
            mean = (np.array(weights)[:, None] * np.stack(diffs).astype(float)).sum(0) / sum(weights)
        else:
            mean = merge(diffs, weights=weights, method=self.policy.rule).astype(float)
        error = np.abs(new - (base.astype(float) + mean))
        bound = 0.51 * (np.spacing(np.abs(mean).astype(np.float32)) + np.spacing(np.abs(new))) + 1e-12
        if (error > bound).any():
            raise Violation("exact mean", f"slot {record.plan.slot}: off by {(error / bound).max():.3g} roundings")

    def _check_words(
        self, record: SlotRecord, state: Any, who: list[bytes], diffs: Any, base: np.ndarray, new: np.ndarray
    ) -> None:
        """The sums are those of the survivors' integers, to the bit; the model follows from them."""
        coder = RingCoder(record.plan, record.rid, state.coder.scales)
        at = {i: record.ids.index(i) for i in who}
        assert record.shared is not None
        shared = {record.ids.index(i) for i in record.shared}
        words = [coder.encode(at[i], d, shared, None) for i, d in zip(who, diffs, strict=True)]
        start = 0
        for shard, size in enumerate(coder.sizes):
            bits = 64 if shard == len(coder.sizes) - 1 else record.plan.bits
            total = sum(unpacked(w[start : start + size], bits) for w in words) & np.uint64(2**bits - 1)
            if not np.array_equal(total, unpacked(state.sums[shard].data, bits)):
                raise Violation(
                    "exact mean", f"slot {record.plan.slot}: the sum of shard {shard} is not its survivors'"
                )
            start += size
        merged = [state.sums[s].data for s in range(len(coder.sizes))]
        diff = coder.decode(merged, shared, {at[i] for i in who})
        if not np.array_equal(base + diff, new):
            raise Violation("exact mean", f"slot {record.plan.slot}: the model is not what the sums say")
        shares = public_alphas(tuple(p.samples for p in record.plan.participants))
        alphas = np.array([shares[at[i]].value for i in who])
        mean = (alphas[:, None] * np.stack(diffs).astype(float)).sum(0) / alphas.sum()
        sane = max(p.samples for p in record.plan.participants) < SAMPLES_SANE
        if record.plan.bits == 32 and sane and np.abs(diff - mean).max() > 1e-4:
            raise Violation("exact mean", f"slot {record.plan.slot}: off by {np.abs(diff - mean).max():.3g}")


def unpacked(data: np.ndarray, bits: int) -> np.ndarray:
    """Words of so many bits, little-endian, one behind the other -> uint64."""
    if bits in (8, 16, 32, 64):
        return data.view(f"<u{bits // 8}").astype(np.uint64)
    each = np.unpackbits(data, bitorder="little").reshape(-1, bits).astype(np.uint64)
    return (each << np.arange(bits, dtype=np.uint64)).sum(1)

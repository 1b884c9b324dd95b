"""Makes valid ledgers: members with fixed keys, rounds with every kind of entry, aborts, changes of membership.

Used by the tests and by bench/bench_ledger.py.  The same arguments give the same bytes.
"""

from __future__ import annotations

import hashlib

import msgspec

from shoal.ledger.body import (
    TAGS,
    Abort,
    Body,
    Check,
    EpochKey,
    Evaluation,
    Genesis,
    KeyBatch,
    KeysRotated,
    LearnerAdded,
    Masked,
    MemberAdded,
    MemberCard,
    MemberRemoved,
    Metric,
    ModelCertificate,
    Nonce,
    Noop,
    Note,
    Opened,
    Participant,
    Policy,
    Receipt,
    RoundPlan,
    Shard,
    ShardOwner,
    Share,
    ShareSet,
    SurvivorCertificate,
    bitmap,
)
from shoal.ledger.certificate import admission_statement, collect, model_statement, survivors_statement, vote
from shoal.ledger.digest import ZERO_DIGEST, digest, le64
from shoal.ledger.entry import GENESIS_PREV, GENESIS_TERM, Entry, entry_hash
from shoal.ledger.identity import Identity
from shoal.ledger.statement import Seen, make_statement
from shoal.ledger.validator import Ledger, make_seal
from shoal.thresholds import PROFILES, thresholds


def seed(*parts: object) -> bytes:
    """32 bytes that look random and are the same each time."""
    return hashlib.sha256(repr(parts).encode()).digest()


def identity(number: int) -> Identity:
    return Identity.from_seed(seed("member", number))


def exchange_key(*parts: object) -> bytes:
    """A canonical X25519 public key (any number below 2**254 that is not of small order is one)."""
    return seed("exchange", *parts)[:31] + b"\x11"


def card(who: Identity, number: int) -> MemberCard:
    return MemberCard(
        who.public, exchange_key("curve", number), f"hospital-{number}", f"tcp://10.0.0.{number % 250}:7700"
    )


def _trusting(public_key: bytes, signature: bytes, message: bytes, what: str) -> None:
    """The builder's own signatures hold."""


class SwarmBuilder:
    """A swarm whose ledger grows.  Every entry is applied to ``ledger``, so what is built keeps the rules.

    members  how many found the swarm       secure  with masks, or in the clear
    seal_every  a seal on every n-th entry  admission  1 any voter, 2 a majority
    """

    def __init__(
        self, members: int = 4, secure: bool = True, seal_every: int = 1, admission: int = 2, check: bool = False
    ) -> None:
        self.people = {i.id: i for i in map(identity, range(members))}
        self.numbers = {identity(n).id: n for n in range(members)}
        self.entries: list[Entry] = []
        self.ledger = Ledger() if check else Ledger(check=_trusting)
        self.seal_every = seal_every
        self.profile = 1
        first = tuple(card(self.people[i], self.numbers[i]) for i in sorted(self.people))
        policy = Policy(secure, "mean" if secure else "median", self.profile, 3 if secure else 2, admission)
        genesis = Genesis("shoal-test", seed("nonce")[:16], policy, seed("layout"), seed("base"), first)
        founder = self.people[min(self.people)]
        self.leader = founder
        payload = make_statement(genesis, founder, ZERO_DIGEST, Seen(), 1_700_000_000_000)
        self.push(Entry(1, GENESIS_TERM, GENESIS_PREV, payload))
        self.elect(founder)

    @property
    def genesis(self) -> bytes:
        return self.ledger.state.genesis

    def push(self, entry: Entry) -> Entry:
        self.ledger.apply(entry)
        self.entries.append(entry)
        return entry

    def entry(self, body: Body, author: Identity, term: int | None = None, sealed: bool | None = None) -> Entry:
        """The next entry, not yet appended."""
        state = self.ledger.state
        index = state.index + 1
        seen = Seen(state.index, state.head)
        payload = make_statement(body, author, state.genesis, seen, 1_700_000_000_000 + 1000 * index)
        draft = Entry(index, state.term if term is None else term, state.head, payload)
        if sealed is None:
            sealed = index % self.seal_every == 0
        return msgspec.structs.replace(draft, seal=make_seal(entry_hash(draft), self.leader)) if sealed else draft

    def say(self, body: Body, author: Identity | None = None, sealed: bool | None = None) -> Entry:
        return self.push(self.entry(body, author or self.leader, sealed=sealed))

    def elect(self, leader: Identity) -> None:
        self.leader = leader
        term = self.ledger.state.term + 1
        self.push(self.entry(Noop(term), leader, term, sealed=True))

    # --- membership ---------------------------------------------------------------------------------------------------

    def voters(self) -> list[Identity]:
        members = self.ledger.state.registry.members
        return [self.people[i] for i in sorted(members) if members[i].voter]

    def approvals(self, kind: type[Body], what: bytes) -> tuple:
        if self.ledger.state.policy.admission == 1:
            return ()
        statement = admission_statement(self.genesis, TAGS[kind], self.ledger.state.registry.changes, what)
        voters = self.voters()[: len(self.voters()) // 2 + 1]
        return collect({v.id: vote(statement, v) for v in voters})

    def add_learner(self, number: int) -> Identity:
        who = identity(number)
        self.people[who.id], self.numbers[who.id] = who, number
        new = card(who, number)
        self.say(LearnerAdded(new, self.approvals(LearnerAdded, msgspec.msgpack.encode(new))))
        return who

    def promote(self, who: Identity) -> None:
        self.say(MemberAdded(who.id, self.approvals(MemberAdded, who.id)))

    def remove(self, who: Identity) -> None:
        if self.leader.id == who.id:
            self.elect(next(v for v in self.voters() if v.id != who.id))
        self.say(MemberRemoved(who.id, self.approvals(MemberRemoved, who.id)))

    def rotate(self, who: Identity, salt: str) -> Identity:
        key = Identity.from_seed(seed("rotated", salt, who.id))
        curve = exchange_key("rotated", salt, who.id)
        proof = key.sign(digest("rotation", self.genesis, who.id, key.public, curve))
        self.say(KeysRotated(key.public, curve, proof), who)
        new = Identity(key._key, who.id)
        self.people[who.id] = new
        if self.leader.id == who.id:
            self.leader = new
        return new

    def publish_keys(self, slots: int = 64) -> None:
        state = self.ledger.state
        for who in sorted(state.registry.members):
            last = state.registry.members[who].batches[-1:]
            first = max([state.slot_next, *(f + len(k) for f, k in last)])
            keys = tuple(exchange_key("one-time", who, first + n) for n in range(slots))
            self.say(EpochKey(first, exchange_key("epoch", who, first)), self.people[who])
            self.say(KeyBatch(first, keys), self.people[who])

    # --- rounds -------------------------------------------------------------------------------------------------------

    def plan(self, shards: int | None = None) -> RoundPlan:
        state = self.ledger.state
        ids = sorted(state.registry.members)
        n = len(ids)
        owners = tuple(ShardOwner(s % n, (s + 1) % n) for s in range(n if shards is None else shards))
        secure = state.policy.secure
        return RoundPlan(
            state.round + 1,
            state.attempt_next,
            state.slot_next,
            state.model,
            tuple(Participant(i, 100 + 7 * self.numbers[i]) for i in ids),
            thresholds(n, PROFILES[state.policy.profile]),
            owners,
            16 if secure else 0,
            (2**15 - 1) // n if secure else 0,
            seed("scales", state.round),
            seed("rotation", state.slot_next),
            1,
            (30_000, 60_000),
        )

    def run_round(self, stop: str = "", drop: tuple[int, ...] = (), evaluate: bool = True, checks: bool = True) -> None:
        """A whole round, or up to the phase ``stop`` and then an abort.  ``drop``: positions that upload nothing."""
        secure = self.ledger.state.policy.secure
        self.say(self.plan())
        attempt = self.ledger.state.attempt
        slot, n = attempt.plan.slot, attempt.size
        people = [self.people[p.member] for p in attempt.plan.participants]
        nonces = [seed("nonce", slot, p.id) for p in people]
        q = attempt.plan.thresholds.q
        if secure and stop != "plan":
            for at, who in enumerate(people):
                commitment = digest("nonce", le64(slot), who.id, nonces[at])
                self.say(Share(slot, seed("share", slot, at), seed("seed", slot, at), commitment), who)
            self.say(ShareSet(slot, bitmap(range(n), n)))
        present = [at for at in range(n) if at not in drop]
        if stop not in ("plan", "share"):
            for at in present:
                self.say(Masked(slot, seed("upload", slot, at)), people[at])
        if stop not in ("plan", "share", "masked"):
            for shard, owner in enumerate(attempt.plan.shards):
                writer = owner.owner if owner.owner in present else owner.backup
                self.say(Receipt(slot, shard, bitmap(present, n)), people[writer])
        if stop in ("plan", "share", "masked", "receipt"):
            self.say(Abort(slot, False, f"stopped after {stop}"), sealed=True)
            return
        survivors = bitmap(present, n)
        statement = survivors_statement(attempt.rid, survivors)
        votes = collect({people[at].id: vote(statement, people[at]) for at in present[:q]})
        self.say(SurvivorCertificate(slot, survivors, votes))
        if stop == "survivors":
            self.say(Abort(slot, True, "too few could open"), sealed=True)
            return
        if secure:
            self.say(Opened(slot, survivors, bitmap([at for at in range(n) if at not in present], n)))
        for shard, owner in enumerate(attempt.plan.shards):
            writer = owner.owner if owner.owner in present else owner.backup
            self.say(Shard(slot, shard, seed("sum", slot, shard), len(present)), people[writer])
        if secure and checks:
            for at in present:
                self.say(Nonce(slot, nonces[at]), people[at])
            for at in present:
                self.say(Check(slot, at, 0, survivors, seed("check", slot, at) * 2), people[at])
        root, model = seed("root", slot), seed("model", slot)
        statement = model_statement(attempt.rid, root, model)
        votes = collect({people[at].id: vote(statement, people[at]) for at in present[:q]})
        round_ = attempt.plan.round
        self.say(ModelCertificate(slot, root, model, votes), sealed=True)
        if evaluate:
            auc = 0.6 + 0.3 * (1 - 0.9 ** (round_ / 10))
            metrics = (Metric("auc", auc), Metric("loss", 1 - auc))
            self.say(Evaluation(round_, model, 250, metrics), people[present[0]], sealed=True)

    def history(self, rounds: int) -> SwarmBuilder:
        """``rounds`` certified rounds with drop-outs, aborts, new leaders, new members, rotations and removals."""
        joined: list[Identity] = []
        while (round_ := self.ledger.state.round + 1) <= rounds:
            if round_ % 61 == 1 and self.ledger.state.policy.secure:
                self.publish_keys()
            if round_ % 97 == 0:
                joined.append(self.add_learner(1000 + round_))
            if round_ % 97 == 2 and joined:
                self.promote(joined[-1])
            if round_ % 97 == 40 and joined:
                self.remove(joined.pop(0))
            if round_ % 131 == 0:
                self.rotate(self.voters()[round_ % 3], str(round_))
            if round_ % 50 == 0:
                self.elect(self.voters()[round_ // 50 % len(self.voters())])
            if round_ % 29 == 0:
                self.run_round(stop=("plan", "share", "masked", "receipt", "survivors")[round_ // 29 % 5])
            if round_ % 43 == 0:
                self.say(Note(f"after round {round_ - 1}"))
            n = len(self.ledger.state.registry.members)
            d_max = thresholds(n, PROFILES[self.ledger.state.policy.profile]).d_max
            self.run_round(drop=(round_ % n,) if d_max and round_ % 7 == 0 else ())
        return self

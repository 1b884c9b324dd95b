"""One member of a swarm: its ledger, its rounds, its model.  No clock, socket, file or thread.

    heard, bulk   what the transport brought          tick      one tick of a monotonic clock
    submit        an update to be merged              computed  what a `Compute` gave
    turn          does what is to be done; gives what is to be sent, computed and told

The same code runs in a node (`node.py`) and in the simulator.
"""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from shoal import failpoint
from shoal.diff.residual import Residual
from shoal.errors import PeerError, ShoalError, shown
from shoal.ledger.attempt import Attempt
from shoal.ledger.body import Abort, Body, Check, Complaint, Evaluation, ModelCertificate, Nonce, RoundPlan
from shoal.ledger.identity import Identity
from shoal.ledger.members import NOBODY
from shoal.ledger.scores import Scores
from shoal.ledger.state import State as LedgerState
from shoal.ledger.statement import read_statement
from shoal.secure.journal import Journal
from shoal.secure.participant import Participant
from shoal.swarm import actions, commit, messages, plan
from shoal.swarm.book import Book
from shoal.swarm.catch_up import CatchUp
from shoal.swarm.coder import Float32s
from shoal.swarm.core import Patience, State, View
from shoal.swarm.keyring import Keyring, has_keys, slot_of
from shoal.swarm.messages import AnySaid, Forward, Lacks, Offer, Prepared, Refused, Want
from shoal.swarm.replica import Decided, Proposal, Replica
from shoal.swarm.ring_coder import RingCoder
from shoal.swarm.round import Round
from shoal.swarm.upload import is_named

#: how often `turn` goes over everything before it lets the node send what there is
_PASSES_MAX: Final = 16
#: code of the notice that an attempt was given up
ABORTED: Final = "round.aborted"
_BARRED: Final = (
    "the others know that this site's disk holds an earlier state than it once had (a backup, or a copy): it neither "
    "votes nor leads until the members remove it and let it in anew; docs/SECURITY.md"
)
#: what was told last, so that it is told once
_TOLD: Final = 32
#: finished rounds whose sums are still served to those that are behind
_LINGERING: Final = 1


@dataclass(frozen=True, slots=True)
class SendControl:
    """To send on the control plane."""

    to: bytes
    data: bytes


@dataclass(frozen=True, slots=True)
class SendBulk:
    """To send on the data plane."""

    to: bytes
    header: bytes
    chunk: memoryview


@dataclass(frozen=True, slots=True)
class Compute:
    """To run elsewhere, and to answer with ``computed(slot, name, result)``."""

    slot: int
    name: str
    run: Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Merged:
    """A certified model is this node's base now.  ``took_part``: whether this node's update is in it."""

    round: int
    digest: bytes
    took_part: bool


@dataclass(frozen=True, slots=True)
class Notice:
    """A line for the operator.

    level  "info", "warning" or "fault"
    code   stable dotted reason, for programs; "" where there is only the text
    slot   which attempt it is about; -1 if none
    peer   which member; b"" if none
    """

    level: str
    text: str
    code: str = ""
    slot: int = -1
    peer: bytes = b""


Outgoing = SendControl | SendBulk | Compute | Merged | Notice


class Update(msgspec.Struct, frozen=True):
    """What this node has learned since ``base``: a diff from so many samples."""

    base: bytes
    diff: Any
    samples: int


class Peer:
    """See the module.

    book      the model in force here
    update    what waits to be merged, if anything
    residual  what the coding of former updates lost
    refused   what was dropped, by reason
    scores    what members measured with certified models, as decided
    """

    def __init__(
        self,
        me: Identity,
        replica: Replica,
        book: Book,
        journal: Journal,
        keyring: Keyring,
        draw: Callable[[int], bytes],
        patience: Patience = Patience(),  # noqa: B008  (frozen)
    ) -> None:
        """``draw(n)``: n secret random bytes."""
        self.me = me
        self.replica = replica
        self.book = book
        self.update: Update | None = None
        self.residual: Residual | None = None
        self.refused: Counter[str] = Counter()
        self.scores = Scores()
        self.rounds: dict[int, Round] = {}
        self._certified: dict[int, ModelCertificate] = {}
        self._patience = patience
        self._draw = draw
        self._journal = journal
        self._keyring = keyring
        self._busy = False
        self._stirred = True  # something came by which duties may change
        self._leader = NOBODY
        self._prepared: dict[bytes, tuple[Prepared, int]] = {}
        self._news = 0
        self._now = 0
        self._said_at: dict[object, int] = {}
        self._log_before = replica.last  # where the log of an earlier life ends
        self._told: deque[object] = deque(maxlen=_TOLD)
        self._bad_plans: set[int] = set()
        self._decided_at = 0  # when something was decided last
        self._given: dict[int, Update] = {}
        self._dealt = -1  # last slot for which the ledger has a share of this member, when the journal was compared
        self._keys: dict[bytes, bytes] = {}
        self._keys_of = -1  # changes of the membership when they were looked up
        self._catch_up = CatchUp(me.id, patience.retry)
        self._out: list[Outgoing] = []

    # --- in -----------------------------------------------------------------------------------------------------------

    def heard(self, peer: bytes, data: bytes) -> None:
        """A frame of the control plane from an authenticated peer."""
        try:
            message = messages.decode_control(data)
        except PeerError as error:
            self.refused[error.code] += 1
            return
        if isinstance(message, messages.Said):
            self._said(peer, message)
        else:
            self.replica.step(peer, message)

    def bulk(self, peer: bytes, header: bytes, body: memoryview) -> None:
        """A chunk from an authenticated peer."""
        try:
            head = messages.decode_head(header)
        except PeerError as error:
            self.refused[error.code] += 1
            return
        self._stirred = True
        if head.kind == messages.MODEL:
            self._catch_up.chunk(peer, head, body)
        elif head.slot in self.rounds:
            self.rounds[head.slot].chunk(peer, head, body)
        else:
            self.refused["chunk.slot"] += 1

    def tick(self) -> None:
        self._stirred = True
        self._now += 1
        self.replica.tick()
        self._catch_up.tick()
        for round_ in self.rounds.values():
            round_.tick()

    def submit(self, diff: Float32s, samples: int) -> None:
        """Merge this in the next round.  One that still waits is replaced."""
        self._stirred = True
        self.update = Update(self.book.digest, diff, samples)

    def computed(self, slot: int, name: str, result: Any) -> None:
        self._stirred = True
        if slot in self.rounds:
            self.rounds[slot].computed(name, result)

    # --- out ----------------------------------------------------------------------------------------------------------

    def turn(self) -> list[Outgoing]:
        """Work until nothing more is to be done without news."""
        for _ in range(_PASSES_MAX):
            self._busy = False
            self._follow_ledger()
            # Most messages are the consensus's own: acknowledgements and the like, by which no duty changes.
            if not self._stirred:
                break
            self._stirred = False
            self._check_journal()
            self._open()
            for slot in list(self.rounds):
                self._advance(slot)
            self._plan()
            self._prepare()
            self._publish()
            self._keep_up()
            if not self._busy and not self._stirred:
                break
        if self.replica.barred and self._first("barred"):
            self._note("fault", _BARRED, "replica.barred")
        out, self._out = self._out, []
        return out

    def _follow_ledger(self) -> None:
        for decided in self.replica.work(lambda m: self._send(m.to, messages.encode_ledger(m))):
            self._stirred = True
            self._decided_at = self._now
            if isinstance(decided, Decided):
                self._decided(decided)
        if self.replica.leader != self._leader:
            self._leader = self.replica.leader
            self._stirred = True

    @property
    def ledger(self) -> LedgerState:
        """The committed state."""
        return self.replica.ledger.state

    @property
    def current(self) -> bool:
        """Whether the certified model is here, with what belongs to it."""
        return self.book.holds(self.ledger.model, self.ledger.carried)

    def _send(self, to: bytes, data: bytes) -> None:
        self._out.append(SendControl(to, data))

    def _say(self, to: bytes, said: AnySaid) -> None:
        self._send(to, messages.encode_said(said))

    def _note(self, level: str, text: str, code: str = "", slot: int = -1) -> None:
        self._out.append(Notice(level, text, code, slot))

    def _first(self, key: object) -> bool:
        """Whether this is to be told: not yet told."""
        if key in self._told:
            return False
        self._told.append(key)
        return True

    def _due(self, key: object) -> bool:
        """Whether something is to be said now: not said yet, or long enough ago."""
        if self._now - self._said_at.get(key, -self._patience.retry) < self._patience.retry:
            return False
        self._said_at[key] = self._now
        if len(self._said_at) > 1000:
            self._said_at = {k: at for k, at in self._said_at.items() if self._now - at < self._patience.retry}
        return True

    # --- messages -----------------------------------------------------------------------------------------------------

    def _said(self, peer: bytes, said: AnySaid) -> None:
        if isinstance(said, Forward):
            _, why = self.replica.offer(said.payload)
            self._busy = True
            if why:
                self.refused["forward"] += 1
                self._say(peer, Refused(hashlib.sha256(said.payload).digest()[:16], why[:200]))
        elif isinstance(said, Refused):
            self.refused["proposal"] += 1
        elif isinstance(said, Prepared):
            self._stirred = True
            if peer not in self._prepared:
                self._news = self._now
            self._prepared[peer] = (said, self._now)
        elif isinstance(said, Offer | Want | Lacks) and said.kind == messages.MODEL:
            self._stirred = True
            self._model_said(peer, said)
        elif said.slot in self.rounds:
            self._stirred = True
            self.rounds[said.slot].said(peer, said)
        else:
            self.refused["message.slot"] += 1

    def _model_said(self, peer: bytes, said: AnySaid) -> None:
        if isinstance(said, messages.Want):
            for outgoing in self._catch_up.serve(said, self.book, self.ledger):
                self._out.append(
                    SendBulk(peer, *outgoing) if isinstance(outgoing, tuple) else SendControl(peer, outgoing)
                )
        else:
            self._catch_up.said(peer, said)

    def propose(self, body: Body) -> None:
        """Make a statement: into the log if this node leads, else by way of the leader.  It may get lost."""
        proposal = self.replica.propose(body)
        self._pass_on(proposal)

    def forward(self, payload: bytes) -> None:
        """Bring a signed statement to the leader."""
        index, why = self.replica.offer(payload) if self.replica.leading else (0, "")
        self._pass_on(Proposal(payload, index, why))

    def _pass_on(self, proposal: Proposal) -> None:
        if proposal.index:
            self._busy = True
        elif self.replica.leading:
            self.refused["proposal"] += 1
        elif self.replica.leader != NOBODY:
            self._say(self.replica.leader, Forward(proposal.payload))

    # --- rounds -------------------------------------------------------------------------------------------------------

    def _decided(self, decided: Decided) -> None:
        body, author = decided.body, decided.statement.author
        if isinstance(body, Nonce | Check) and body.slot in self.rounds:
            self.rounds[body.slot].decided(author, body)
        elif isinstance(body, ModelCertificate):
            failpoint.reach("commit.decided")
            self._certified[body.slot] = body
            for old in sorted(self._certified)[: -2 - _LINGERING]:
                del self._certified[old]
            self._prepared.clear()
        elif isinstance(body, RoundPlan):
            self._prepared.clear()
        elif isinstance(body, Evaluation):
            self.scores.add(author, body)
        elif isinstance(body, Complaint) and body.blamed is not None:
            level = "fault" if self._is_at(body.slot, body.blamed) else "warning"
            told = f"{author.hex()[:16]} complains in slot {body.slot}: {shown(body.text)}"
            self._note(level, told, "round.blamed", body.slot)
        elif isinstance(body, Abort):
            self._note("warning", f"round given up in slot {body.slot}: {shown(body.reason)}", ABORTED, body.slot)
            self._give_up(body)

    def _is_at(self, slot: int, position: int) -> bool:
        round_ = self.rounds.get(slot)
        return round_ is not None and round_.state.position == position

    def _give_up(self, body: Abort) -> None:
        """An attempt ended without a model.

        If its masked sum may have been opened, the same update must not enter another one: the difference of two sums
        with different survivors would show it.  In the clear there is nothing left to show.
        """
        round_, given = self.rounds.pop(body.slot, None), self._given.pop(body.slot, None)
        if round_ is None or given is None or not body.discard or not round_.state.view.attempt.secure:
            return
        if isinstance(round_.state.coder, RingCoder):
            self._carry(round_.state.coder, round_, took_part=False)
        if self.update is given:
            told = "the round was given up after its survivors were certified: this site's update is void"
            self._finish(False, told, "update.void")

    def _open(self) -> None:
        """A round for the open attempt, if there is none yet."""
        attempt = self.ledger.attempt
        if attempt is None or attempt.plan.slot in self.rounds:
            return
        if attempt.plan.slot in self._bad_plans:
            self._reject(attempt)
            return
        slot, policy = attempt.plan.slot, self.ledger.policy
        if not self.current or attempt.plan.base != self.ledger.model:
            return
        failpoint.reach("plan.open")
        assert policy is not None
        try:
            ring = plan.check_plan(attempt.plan, self.book.layout, self.book.rms, self.ledger)
            coder = plan.coder_of(attempt, self.book.layout, ring, policy)
        except PeerError as error:
            self._bad_plans.add(slot)
            self._note("fault", str(error), error.code, slot)
            if attempt.position(self.me.id) is not None:
                self.propose(Complaint(slot, str(error)[:200]))
            return
        takes_part = attempt.position(self.me.id) is not None
        update = self.update if self.update is not None and self.update.base == attempt.plan.base else None
        diff = update.diff if update is not None and takes_part else None
        if diff is not None and isinstance(coder, RingCoder) and coder.carries and self.residual is not None:
            diff = self.residual.added(diff)
        privacy = self._privacy(slot) if attempt.secure and takes_part else None
        if update is not None and takes_part:
            self._given[slot] = update
            if isinstance(coder, RingCoder):
                coder.samples = update.samples
            if policy.cap and update.samples > policy.cap:
                told = f"slot {slot}: this site has {update.samples} samples and counts as one with {policy.cap}"
                self._note("warning", told, "weights.capped", slot)
        settle, sign = self.book.settle, self._journal.sign
        state = State(self.me, self._view(attempt), coder, diff, settle, sign, privacy, self._patience)
        for past in self.rounds.values():
            past.forget()
        self.rounds[slot] = Round(state)
        self._catch_up_with(attempt)
        for old in sorted(self.rounds)[: -1 - _LINGERING]:
            del self.rounds[old]
            self._given.pop(old, None)

    def _reject(self, attempt: Attempt) -> None:
        """Where a plan is bad for everybody, nobody has a round that could be given up: whoever leads ends it."""
        slot, still = attempt.plan.slot, self._now - self._decided_at
        if self.replica.leading and still >= self._patience.grace and self._due(("reject", slot)):
            self.propose(
                Abort(slot, attempt.survivors is not None, "its plan is not the one that follows from the ledger")
            )

    def _catch_up_with(self, attempt: Attempt) -> None:
        """What the ledger has of an attempt before its round is there: where this node was restarted, or lags."""
        for entry in self.replica.history(attempt.plan_index + 1, self.replica.decided):
            statement, body = read_statement(entry.payload)
            if isinstance(body, Nonce | Check) and body.slot == attempt.plan.slot:
                self.rounds[body.slot].decided(statement.author, body)

    def _check_journal(self) -> None:
        """Find out a journal that is a copy from before: the ledger has this member's share for a later slot than it
        knows of.  What was signed, masked and opened up to that slot is not in it; so it serves none of these again."""
        member = self.ledger.registry.members.get(self.me.id)
        if member is None or member.dealt <= self._dealt:
            return
        self._dealt = member.dealt
        last = self._journal.last_slot()
        if last >= member.dealt:
            return
        self._keyring.erase_before(member.dealt + 1)
        self._journal.claim(member.dealt)
        told = (
            f"the journal of this site ends with slot {last}, but the ledger has its share for slot {member.dealt}: "
            f"it is an old copy, from a backup perhaps. This site looks on until slot {member.dealt + 1}"
        )
        self._note("fault", told, "journal.old", member.dealt)

    def _privacy(self, slot: int) -> Participant | None:
        """This node's secrets of the slot; None if it has none (any more): then it looks on."""
        keys, known = self._keyring.secrets(slot), slot_of(self.ledger)
        if keys is None or known is None:
            self._note("warning", f"slot {slot}: no keys for it here; this site looks on", "slot.keys", slot)
            return None
        if slot <= self._journal.last_slot():
            self._note("warning", f"slot {slot}: begun here before a restart; this site looks on", "slot.begun", slot)
            return None
        try:
            return Participant(self.me.id, known, keys, self._journal, self._draw)
        except ShoalError as error:
            self._note("fault", f"slot {slot}: {error}", error.code, slot)
            return None

    def _view(self, attempt: Any) -> View:
        certificate = self._certified.get(attempt.plan.slot)
        registry = self.ledger.registry
        if registry.changes != self._keys_of:
            self._keys_of = registry.changes
            self._keys = {i: m.signing for i, m in registry.members.items()}
        return View(attempt, self._keys, self.replica.leader, certificate.model if certificate else b"")

    def _advance(self, slot: int) -> None:
        round_ = self.rounds[slot]
        certified, base = round_.state.view.certified, round_.state.view.attempt.plan.base
        if (certified and self.book.digest == certified) or self.book.digest != base:
            # It only serves those that are behind: what they asked for is answered, and nothing else is to be done.
            # Its own base may be gone, too, where a newer model was fetched meanwhile.
            for action in round_.take():
                self._act(slot, action)
            return
        open_ = self.ledger.attempt
        attempt = open_ if open_ is not None and open_.plan.slot == slot else round_.state.view.attempt
        try:
            round_.advance(self._view(attempt))
        except ShoalError as error:
            round_.state.failure = round_.state.failure or str(error)
        self._stirred = self._stirred or round_.heard_itself
        for action in round_.take():
            self._act(slot, action)
        for note in round_.state.notes:
            self._note("warning", f"slot {slot}: {note}", "slot.note", slot)
        round_.state.notes.clear()
        if round_.state.sits_out and self._first(("sits out", slot)):
            told = f"this site sits slot {slot} out: {round_.state.sits_out}"
            self._note("warning", told, "slot.sits_out", slot)
            self.update = None
        if round_.state.failure and self._first(("failure", slot)):
            self._note("fault", f"slot {slot}: {round_.state.failure}", "slot.failure", slot)
            if not round_.state.hopeless and self.update is not None and self.update is self._given.get(slot):
                # This site's fault alone: it must not come again with the next attempt and hold that up, too.
                self._finish(False, "this site could not end the round: its update is void", "update.void")
        if round_.finished:
            self._adopt(slot, round_)

    def _act(self, slot: int, action: actions.Action) -> None:
        if isinstance(action, actions.Send):
            self._say(action.to, action.said)
        elif isinstance(action, actions.SendChunk):
            self._out.append(SendBulk(action.to, messages.encode_head(action.head), action.chunk))
        elif isinstance(action, actions.Propose):
            self.propose(action.body)
        else:
            self._out.append(Compute(slot, action.name, action.run))

    def _adopt(self, slot: int, round_: Round) -> None:
        """The certified model becomes the base, if it is the one that came out here."""
        certified = round_.state.view.certified
        if self.current or certified != self.ledger.model:
            return
        coder = round_.state.coder
        failpoint.reach("adopt.before")
        if not self.book.adopt(certified, self.ledger.carried):
            if self._due(("differs", slot)):
                self._note(
                    "fault",
                    f"slot {slot}: model {round_.state.model.hex()[:16]} came out here, "
                    f"{certified.hex()[:16]} was certified; fetching that one",
                    "model.differs",
                    slot,
                )
            return
        me = round_.state.position
        own, survivors = round_.state.own, round_.state.view.attempt.survivors or ()
        took_part = me is not None and me in survivors and own is not None and is_named(round_.state, own)
        if isinstance(coder, RingCoder):
            self._carry(coder, round_, took_part)
        if round_.state.privacy is not None:
            round_.state.privacy.forget()
        self._keyring.erase_before(slot + 1)
        failpoint.reach("adopt.after")
        round_.let_go()
        self._given.pop(slot, None)
        self._finish(took_part)

    def _carry(self, coder: RingCoder, round_: Round, took_part: bool) -> None:
        """What the coding lost of this node's update goes into its next one (diff/residual.py)."""
        given = round_.state.diff
        if given is None or not coder.carries:
            return
        if self.residual is None:
            self.residual = Residual(self.book.layout.elements)
        if took_part and coder.own is not None:
            self.residual.kept(given, coder.own, coder.norm)
        else:
            self.residual.missed(given)
        coder.own = None

    def _finish(
        self,
        took_part: bool,
        why: str = "this site's update came too late for the round; it starts anew from the merge",
        code: str = "update.late",
    ) -> None:
        if self.update is not None:
            if not took_part:
                self._note("warning", why, code)
            self.update = None
        self._out.append(Merged(self.ledger.round, self.book.digest, took_part))

    # --- between rounds -----------------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        """Tell the leader that there is something to merge."""
        update = self.update
        if update is None or update.base != self.ledger.model or self.ledger.attempt is not None:
            return
        if self.replica.leader == NOBODY or not self._due(("prepared", update.base, self.replica.leader)):
            return
        private = self.ledger.policy is not None and self.ledger.policy.cap
        said = Prepared(update.base, 0 if private else update.samples)
        if self.replica.leading:
            self._said(self.me.id, said)
        else:
            self._say(self.replica.leader, said)

    def _plan(self) -> None:
        """The leader opens an attempt: when all members are prepared, or enough and no more come."""
        ledger = self.ledger
        if not self.replica.leading or ledger.attempt is not None or ledger.policy is None:
            return
        if not self.current:
            # Whoever leads must have the model that a plan is made on.
            if self._prepared and self._due("hand over"):
                self._note(
                    "warning", "this site leads, but has not the certified model: another shall lead", "leader.model"
                )
                self.replica.hand_over()
            return
        able = ledger.registry.members.keys() - ledger.registry.left_out(ledger.round + 1, ledger.policy.peers_min)
        fresh = {
            member: said.samples
            for member, (said, at) in self._prepared.items()
            if said.base == ledger.model
            and member in able
            and (not ledger.policy.secure or has_keys(ledger, member, ledger.slot_next))
            and self._now - at <= 3 * self._patience.retry
        }
        enough = len(fresh) >= ledger.policy.peers_min and (self.me.id in fresh or not ledger.policy.federated)
        waited = self._now - self._news >= self._patience.muster
        if not enough or (len(fresh) < len(able) and not waited):
            return
        if not self._due(("plan", ledger.slot_next)):
            return
        failpoint.reach("plan.propose")
        try:
            self.propose(plan.make_plan(ledger, self.book.layout, self.book.rms, fresh, self._draw(32)))
        except ShoalError as error:
            self._note("fault", f"no plan: {error}", error.code)

    def _publish(self) -> None:
        """Publish keys for the slots to come."""
        policy = self.ledger.policy
        if policy is None or not policy.secure or self.me.id not in self.ledger.registry.members:
            return
        if self.replica.leader != NOBODY and self._due("keys"):
            for body in self._keyring.wanted(self.ledger, self.me.id):
                self.propose(body)

    def _keep_up(self) -> None:
        """Fetch the certified model where this node did not make it itself."""
        ledger = self.ledger
        if self.current:
            return
        # What an earlier life knew to be decided is in its log, but is decided anew here: until then the model that it
        # left may be newer than the ledger's, and must not give way to that.
        self._log_before = min(self._log_before, self.replica.last)
        if self.replica.decided < self._log_before:
            return
        rounds = [r.state for r in self.rounds.values()]
        # Made by a round whose computation has not answered yet: then it is for `_adopt`, which knows who took part.
        made_now = any(s.model == ledger.model or commit.DECODE in s.computing for s in rounds)
        if not made_now and self.book.adopt(ledger.model, ledger.carried):
            # Made here in an earlier life, and certified only now.
            told = f"model {ledger.model.hex()[:16]} of round {ledger.round} was made here before"
            self._note("info", told, "model.made")
            self._caught_up()
            return
        if any(s.view.attempt.plan.round == ledger.round + 1 for s in rounds):
            return
        # The sums may be nowhere any more, where those that had them were restarted; then the model is fetched whole.
        makes = [s for s in rounds if s.view.certified == ledger.model and not s.failure and not s.model]
        if any(not s.stalled for s in makes):
            return
        others = [m for m in sorted(ledger.registry.members) if m != self.me.id]
        for to, said in self._catch_up.ask(ledger.round, self.book.state_bytes, others):
            self._say(to, said)
        state = self._catch_up.whole()
        if state is None:
            return
        failpoint.reach("catchup.restore")
        try:
            self.book.restore(state, ledger.model, ledger.carried)
        except ShoalError as error:
            self._catch_up.distrust()
            self._note("warning", f"model of round {ledger.round} from a peer: {error}", error.code)
            return
        self._note("info", f"fetched model {ledger.model.hex()[:16]} of round {ledger.round}", "model.fetched")
        self._caught_up()

    def _caught_up(self) -> None:
        """The model in force is here, by another way than this node's own round."""
        attempt = self.ledger.attempt
        self._keyring.erase_before(self.ledger.slot_next if attempt is None else attempt.plan.slot)
        for round_ in self.rounds.values():
            if round_.state.view.attempt.plan.round == self.ledger.round:
                round_.state.model = self.ledger.model  # not to be made once more, from a base that is over
        self._finish(took_part=False)

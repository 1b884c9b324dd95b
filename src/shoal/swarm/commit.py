"""From merged shards to a certified model."""

from __future__ import annotations

from functools import partial
from typing import Final

from shoal import failpoint
from shoal.domain import hashed
from shoal.errors import PeerError
from shoal.ledger.attempt import Attempt
from shoal.ledger.body import Complaint, ModelCertificate, Vote
from shoal.ledger.certificate import collect, model_statement
from shoal.ledger.certificate import vote as sign
from shoal.ledger.identity import signature_holds
from shoal.swarm import compare, vouching
from shoal.swarm.core import State
from shoal.swarm.messages import MERGED, ModelVote
from shoal.swarm.parcel import DOMAIN, Bytes, Parcel

#: name of the computation whose failure concerns all alike: it is made from what the ledger names
DECODE: Final = "decode"


def shard_roots(attempt: Attempt) -> list[bytes]:
    """The root of each shard's sum.

    raises  PeerError  ``shard.differ``: owner and backup told different ones
    """
    found = []
    for shard in range(len(attempt.plan.shards)):
        roots = set(attempt.shards[shard].values())
        if len(roots) > 1:
            raise PeerError("shard.differ", f"owner and backup of shard {shard} tell different sums")
        found.append(roots.pop())
    return found


def sums_root(roots: list[bytes]) -> bytes:
    """One root over all merged shards: H("sums", root, root, ...)."""
    return hashed(DOMAIN, "sums", *roots)


def gather(state: State) -> None:
    """Fetch the merged shards from their owners, decode them, make the new model."""
    attempt = state.view.attempt
    if state.model:
        return
    try:
        roots = shard_roots(attempt)
        agreed = compare.check(state)
    except PeerError as error:
        _fail(state, str(error))
        return
    merged = []
    for shard, root in enumerate(roots):
        if shard in state.sums and state.sums[shard].root == root:
            merged.append(state.beside_others(shard))
            continue
        told = [state.peer(p) for p in attempt.shards[shard]]
        others = [p.member for p in attempt.plan.participants if p.member not in told]
        data = state.gather(MERGED, shard, shard, root, [p for p in (*told, *others) if p != state.me.id])
        if data is not None:
            hashes = state.fetches[(MERGED, shard, shard)].gathering.hashes
            state.sums[shard] = Parcel(data, state.merged_cuts(shard), hashes)
            failpoint.reach("gather.shard")
            merged.append(data)
    if len(merged) < len(roots) or not (agreed or state.view.certified):
        return
    if attempt.secure and not state.view.certified:
        vouching.vouch(state, roots)
        vouching.stand_in(state, roots)
        passed = vouching.passes(state, roots)
        if passed is False:
            _fail(state, "the sums are not what the survivors vouch for: this node does not vote for them")
        if not passed:
            return
        failpoint.reach("check.pass")
    state.model, state.carried = state.compute(DECODE, partial(_decode, state, merged)) or (b"", b"")


def _fail(state: State, reason: str) -> None:
    """Nobody can use these sums.  Under masks it can be found out who lied; in the clear the attempt is over."""
    state.failure = reason
    if state.view.attempt.secure:
        state.suspected = state.lapses
    else:
        state.hopeless = True
    state.propose("wrong sum", Complaint(state.slot, reason))


def _decode(state: State, merged: list[Bytes]) -> tuple[bytes, bytes]:
    attempt = state.view.attempt
    uploaders = set(attempt.shared or ()) if attempt.secure else set(range(attempt.size))
    diff = state.coder.decode(merged, uploaders, attempt.survivors or set())
    made = state.settle(diff, state.coder.rms)
    failpoint.reach("vote.settle")
    return made


def vote(state: State) -> None:
    """Tell the coordinator which model came out here."""
    if not state.model or state.position is None:
        return
    root = sums_root(shard_roots(state.view.attempt))
    for to in {state.coordinator, state.view.leader} - {b""}:
        if state.view.attempt.position(to) is not None and state.due(("vote", to)):
            statement = model_statement(state.view.attempt.rid, root, state.model, state.carried)
            signed = sign(statement, state.me)
            failpoint.reach("vote.send")
            state.send(to, ModelVote(state.slot, root, state.model, state.carried, signed.signature))


def on_vote(state: State, peer: bytes, said: ModelVote) -> None:
    """Keep a vote that holds."""
    attempt = state.view.attempt
    statement = model_statement(attempt.rid, said.root, said.model, said.carried)
    key = state.view.keys.get(peer)
    if key is None or attempt.position(peer) is None or not signature_holds(key, said.signature, statement):
        return
    votes = state.votes.setdefault(b"M" + said.root + said.model + said.carried, {})
    if peer not in votes:
        votes[peer] = Vote(peer, said.signature)
        state.progress()


def certify(state: State) -> None:
    """With a quorum of votes for one model, put it into the ledger; only one that came out here, too."""
    for name, votes in state.votes.items():
        root, model, carried = name[1:33], name[33:65], name[65:]
        mine = name[:1] == b"M" and (model, carried) == (state.model, state.carried)
        if mine and len(votes) >= state.view.attempt.plan.thresholds.q:
            failpoint.reach("commit.propose")
            state.propose(("model", name), ModelCertificate(state.slot, root, model, collect(votes), carried))

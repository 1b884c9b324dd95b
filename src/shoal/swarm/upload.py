"""Uploading, collecting and summing: from a participant's diff to an owner's merged shard."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Final

from shoal import failpoint
from shoal.errors import PeerError
from shoal.kernels.ring import Streams
from shoal.ledger.body import Masked, Receipt, Shard, bitmap
from shoal.secure.participant import Step
from shoal.swarm.core import State
from shoal.swarm.messages import MERGED, UPLOAD, Offer
from shoal.swarm.parcel import Bytes, Parcel

#: name of the computation whose failure concerns this node's own update alone
ENCODE: Final = "encode"


def uploaders(state: State) -> set[int]:
    """Positions of whom an upload may come."""
    attempt = state.view.attempt
    if attempt.secure:
        return set(attempt.shared or ())
    return set(range(attempt.size))


def upload(state: State) -> None:
    """Encode the diff, name it in the ledger, tell its hashes to those that will fetch it."""
    me = state.position
    if me is None or state.diff is None or state.sits_out or me not in uploaders(state):
        return
    if state.view.attempt.secure and (state.privacy is None or state.privacy.step != Step.MASK):
        return
    if state.own is None:
        if state.privacy is not None and state.streams is None:
            state.streams = state.privacy.upload_streams()
        state.own = state.compute(ENCODE, partial(_encode, state, me, uploaders(state), state.streams))
        if state.own is None:
            return
        if state.privacy is not None:
            state.privacy.commit(state.own.root)
        failpoint.reach("upload.commit")
    if not is_named(state, state.own):
        # An earlier life of this node named another upload: parts of the two must not be merged as one.
        return
    if me not in state.view.attempt.masked:
        state.propose("masked", Masked(state.slot, state.own.root))
    if state.once("offer"):  # whoever misses it asks for it
        failpoint.reach("upload.offer")
        state.tell_all(Offer(state.slot, UPLOAD, me, state.own.hashes))


def is_named(state: State, own: Parcel) -> bool:
    """Whether the ledger names this upload of this node, or none yet."""
    assert state.position is not None
    return state.view.attempt.masked.get(state.position, own.root) == own.root


def _encode(state: State, me: int, among: set[int], streams: Streams | None) -> Parcel:
    assert state.diff is not None
    coded = Parcel(state.coder.encode(me, state.diff, among, streams), state.all_cuts)
    failpoint.reach("upload.encode")
    return coded


def duties(state: State) -> Iterator[int]:
    """Shards that this node works on: those it owns, and where nothing moves, or always where the coder has shards
    witnessed, those it backs up.

    A backup does not repeat a receipt that the owner has given, but a sum it does: it may have died with the owner.
    """
    attempt, me = state.view.attempt, state.position
    for shard, who in enumerate(attempt.plan.shards):
        before = attempt.survivors is None
        told = (attempt.receipts if before else attempt.shards).get(shard, {})
        takes_over = state.coder.witnessed or (state.stalled and not (before and told))
        if me is not None and (who.owner == me or (who.backup == me and (me in told or takes_over))):
            yield shard


def part(state: State, shard: int, position: int) -> Bytes | None:
    """One participant's upload of a shard, whole; None while it is still coming."""
    if position == state.position and state.own is not None and is_named(state, state.own):
        cuts = state.cuts[shard]
        return state.own.data[cuts[0][0] : cuts[-1][1]] if cuts else state.own.data[:0]
    root = state.view.attempt.masked[position]
    fetch = state.fetches.get((UPLOAD, position, shard))
    if fetch is not None and fetch.gathering.complete and fetch.gathering.root == root:
        return fetch.gathering.data
    return state.gather(UPLOAD, position, shard, root, state.sources(position, shard))


def collect(state: State) -> None:
    """Fetch what others uploaded of the shards that this node works on.

    A backup keeps what the owner itself uploaded of its own shard, which nobody else fetches: in a masked sum it could
    be neither summed nor vouched for if the owner fell silent.
    """
    attempt, me = state.view.attempt, state.position
    wanted = attempt.masked.keys() if attempt.survivors is None else attempt.survivors
    for shard in duties(state):
        if me in attempt.shards.get(shard, {}) and not attempt.secure and not state.coder.witnessed:
            # Its sum is named, and nobody else asks for these: they take nearly as much room as all sums.
            for position in range(attempt.size):
                state.fetches.pop((UPLOAD, position, shard), None)
            continue
        for position in sorted(wanted):
            part(state, shard, position)
    for shard, who in enumerate(attempt.plan.shards):
        if attempt.secure and who.backup == me and who.owner in wanted:
            part(state, shard, who.owner)


def receipt(state: State) -> None:
    """Say who arrived: when all have, or when nothing moves any more and those that did are enough."""
    attempt, me = state.view.attempt, state.position
    for shard in duties(state):
        if me in attempt.receipts.get(shard, {}):
            continue
        arrived = {p for p in attempt.masked if part(state, shard, p) is not None}
        if arrived == uploaders(state) or (state.stalled and len(arrived) >= attempt.floor):
            failpoint.reach("receipt.propose")
            state.propose(("receipt", shard), Receipt(state.slot, shard, bitmap(arrived, attempt.size)))


def whole_parts(state: State, shard: int) -> dict[int, Bytes] | None:
    """The survivors' uploads of a shard, by position; None while some are still coming."""
    parts = {p: part(state, shard, p) for p in sorted(state.view.attempt.survivors or ())}
    whole = {p: data for p, data in parts.items() if data is not None}
    return whole if len(whole) == len(parts) else None


def reduce(state: State) -> None:
    """Merge the survivors' uploads of a shard, name the sum in the ledger, keep it for whoever wants it.

    Nobody names what it has only fetched: where that is wrong it would be blamed for it, too.
    """
    attempt, me = state.view.attempt, state.position
    for shard in duties(state):
        if me in attempt.shards.get(shard, {}):
            continue
        if shard not in state.made:
            if shard in state.sums and not state.coder.witnessed:
                continue  # fetched from who made it: nothing has died with its owner
            whole = whole_parts(state, shard)
            if whole is None:
                continue
            if attempt.secure and state.removal is None:
                if state.privacy is None or state.privacy.step != Step.OPEN or any(state.privacy.wanted()):
                    continue
                state.removal = state.privacy.removal()
            found = state.compute(f"reduce {shard}", partial(summed, state, shard, whole, state.removal))
            if found is None:
                continue
            state.made[shard] = found
            state.sums.setdefault(shard, found)
            failpoint.reach("sum.propose")
            state.tell_all(Offer(state.slot, MERGED, shard, found.hashes))
        state.propose(("shard", shard), Shard(state.slot, shard, state.made[shard].root, len(attempt.survivors or ())))


def summed(state: State, shard: int, parts: Mapping[int, Bytes], streams: Streams | None) -> Parcel:
    """The sum of a shard's uploads, by position, with the masks taken off.

    raises  PeerError  ``shard.size``, and what the coder raises
    """
    merged = state.coder.reduce(shard, parts, streams)
    if merged.size != state.coder.sizes[shard]:
        raise PeerError("shard.size", f"shard {shard} has {merged.size} bytes; expected {state.coder.sizes[shard]}")
    failpoint.reach("sum.compute")
    return Parcel(merged, state.merged_cuts(shard))

"""Lives of a node, and how a node that came back with an old disk is found out.

Raft trusts that a voter never forgets a vote or an entry that it acknowledged.  A disk restored from a backup, or a
machine cloned with its disk, breaks that trust without any crash.  So:

*  Every start is a *life* with its own generation = counter << 32 | mark.  The store raises the counter durably each
   time it is opened; the mark is 32 random bits, so that two lives with the same counter (a restored copy, a twin) are
   told apart.  Every message carries its sender's generation.
*  Every node remembers the newest generation it heard of each peer, in its own hard state.  A message of an older life,
   or of another life with the same counter, is refused, and its sender is told so (`Outdated`).  A delayed message of
   a former life is refused just so; the accusation names that life and means nothing to the present one.
*  Every message also says which life of the receiver its sender means, if it heard of one.  What was meant for a former
   life, such as a vote for the log that life had, does not count for the present one; the sender gets a `Hello`.
*  A starting node says `Hello` with the end of its log.  A leader who holds an acknowledgement of that peer beyond it,
   or a node that got its vote in a term the peer no longer knows, answers `Outdated` too.
*  From its second life on a node gives no vote for one election timeout, so that accusations come before votes.
*  An accused node is *barred*, durably: it neither votes nor campaigns until a promotion of itself is committed at an
   index above all that was known when it was accused: the members remove it, which makes them forget its former lives,
   and let it in anew.  Where its life is the newest (it lost entries, not its counter) it follows meanwhile, and its
   acknowledgements of what it now stores are true and count.

This finds every restored copy that exchanges a message with one peer who knows better.  A copy that is cut off from all
of them cannot be found by anybody; to close that hole every start would have to wait for all peers.
"""

from __future__ import annotations

from shoal.ledger.core import Role, State
from shoal.ledger.members import PeerId
from shoal.ledger.message import AnyMessage, Hello, Outdated


def begin(state: State, counter: int) -> None:
    """Start the life whose counter the store has already raised."""
    state.generation = max(1, counter) << 32 | state.hooks.draw(2**32)
    if state.options.announce:
        state.quiet = state.options.election_ticks if counter > 1 else 0
        for peer in state.peers():
            state.send(Hello, peer, state.log.last, state.log.last_term)


def is_newest(state: State, m: AnyMessage) -> bool:
    """Whether the message comes from the newest life known of its sender; remembers a newer one."""
    known = state.seen.get(m.sender, 0)
    if m.generation == known:
        return True
    if m.generation >> 32 > known >> 32:
        state.seen[m.sender] = m.generation
        state.seen_pairs = tuple(sorted(state.seen.items()))
        return True
    state.refuse("old-generation")
    if type(m) is not Outdated:
        accuse(state, m)
    return False


def is_for_this_life(state: State, m: AnyMessage) -> bool:
    """Whether the sender means the life we are in, or knows of none.  Otherwise it is told which one it is."""
    if m.addressed in (0, state.generation) or type(m) is Outdated:  # an accusation names its life itself
        return True
    state.refuse("for-another-life")
    if type(m) is Hello:
        return True
    state.send(Hello, m.sender, state.log.last, state.log.last_term)
    return False


def accuse(state: State, m: AnyMessage) -> None:
    log = state.log
    state.send(Outdated, m.sender, m.generation, log.last, log.committed)


def on_hello(state: State, m: Hello) -> None:
    """A peer has started.  What it says it holds must not be less than what an earlier life of it had.

    A late Hello of the life that we already deal with says nothing, nor does one from a newer term than ours.
    """
    if m.term > state.term:
        return
    if m.term < state.term and has_vote_of_earlier_life(state, m):
        state.refuse("forgot-vote")
        accuse(state, m)
    progress = state.progress.get(m.sender)
    if progress is not None and progress.generation < m.generation:
        if m.last_index < progress.match:
            state.refuse("forgot-entries")
            accuse(state, m)
            progress.match = m.last_index
        progress.generation = m.generation
        progress.probe(min(m.last_index, state.log.last) + 1)
        state.flush = True


def has_vote_of_earlier_life(state: State, m: Hello) -> bool:
    if state.role not in (Role.CANDIDATE, Role.LEADER) or not state.votes.get(m.sender):
        return False
    return state.vote_lives[m.sender] < m.generation


def on_outdated(state: State, m: Outdated) -> None:
    """Somebody knows that this life lacks what an earlier one had."""
    if m.accused != state.generation:
        state.refuse("accuses-another-life")
        return
    if m.committed < state.added <= state.log.committed:
        state.refuse("accused-before-admission")  # it has not learned yet that this node was let in anew
        return
    state.refuse("barred")
    state.barred = max(state.barred, m.last, state.log.last, 1)
    if state.role != Role.FOLLOWER:
        state.become_follower(state.term, b"")


def readmit(state: State, index: int) -> None:
    """A promotion of this node was committed at `index`."""
    if state.barred and index > state.barred:
        state.barred = 0


def forget(state: State, peer: PeerId) -> None:
    """The removal of `peer` is decided: it has no past any more."""
    if state.seen.pop(peer, None) is not None:
        state.seen_pairs = tuple(sorted(state.seen.items()))


def forget_all(state: State) -> None:
    """Who was removed and let in anew under a snapshot is not told: better forget a life than accuse a good one."""
    state.seen.clear()
    state.seen_pairs = ()


def must_keep_silent(state: State) -> bool:
    """A life that cannot be trusted to remember its votes gives none."""
    if state.barred:
        state.refuse("asked-while-barred")
    elif state.quiet:
        state.refuse("asked-while-quiet")
    else:
        return False
    return True

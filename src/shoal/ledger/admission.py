"""What a message must pass before the table in `raft.py` sees it: its form, its sender, its term, one leader a term."""

from __future__ import annotations

from shoal.ledger import election, message
from shoal.ledger.core import Role, State
from shoal.ledger.members import NOBODY, PeerId
from shoal.ledger.message import FROM_LEADER, AnyMessage, Appended, AskVote, GiveVote, Hello, Outdated
from shoal.limits import TERM_JUMP_MAX


def envelope_fault(state: State, m: AnyMessage) -> str:
    """What forbids to look further into a message: its form, its receiver, its sender, an absurd term."""
    fault = message.fault(m)
    if fault:
        return fault
    if m.to != state.me or m.sender == state.me:
        return "not-for-me"
    if m.sender not in state.roster.current and not is_known(state, m.sender):
        return "unknown-member"
    return ""


def is_too_far(state: State, m: AnyMessage) -> bool:
    """A term that no run of honest elections leads to while we are away for a while: the message is not used.

    We come nearer by the jump that is allowed, though.  Otherwise a liar could lead one honest node so far ahead that
    another would never listen to it again, even with the liar gone; and so it needs 2**33 messages to use the terms up.
    """
    if m.term <= state.term + TERM_JUMP_MAX:
        return False
    state.refuse("term-too-far")
    asks = isinstance(m, AskVote) and (m.pre or election.in_lease(state, m))
    answers = isinstance(m, GiveVote) and m.pre and m.granted
    if not (asks or answers or isinstance(m, Hello | Outdated)):
        state.become_follower(state.term + TERM_JUMP_MAX, NOBODY)
    return True


def is_known(state: State, peer: PeerId) -> bool:
    """Introduced, or a member until its removal is decided: a removal that is not may be cut off again."""
    return peer in state.introduced or peer in state.roster.at(state.log.committed)


def settle_term(state: State, m: AnyMessage, kind: type) -> bool:
    """Bring our term and the message's together; False if the message ends here."""
    if kind is Hello or kind is Outdated:
        return True
    if m.term > state.term:
        if isinstance(m, AskVote) and election.in_lease(state, m):
            state.refuse("leader-is-heard")
            return False
        is_pre = (isinstance(m, AskVote) and m.pre) or (isinstance(m, GiveVote) and m.pre and m.granted)
        if not is_pre:
            state.become_follower(m.term, m.sender if kind in FROM_LEADER else NOBODY)
        return True
    state.refuse("old-term")
    if isinstance(m, AskVote):
        state.send(GiveVote, m.sender, False, m.pre)
    elif kind in FROM_LEADER:
        state.send(Appended, m.sender, True, 0, 0, 0)
    return False


def follow(state: State, m: AnyMessage) -> bool:
    """A leader speaks in our term: a candidate gives up; another leader in one's own term cannot be."""
    if state.role == Role.LEADER or state.leader not in (NOBODY, m.sender):
        state.refuse("second-leader")
        return False
    if state.role != Role.FOLLOWER:
        state.become_follower(state.term, m.sender)
    return True

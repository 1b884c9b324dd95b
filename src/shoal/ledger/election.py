"""Who leads: campaigns with pre-vote, votes, the leader's check of its quorum, and handing over on purpose.

Sources: Raft (Ongaro and Ousterhout, ATC 2014) 5.2 and 5.4.1; dissertation (Ongaro 2014) 3.10 (transfer), 4.2.3
(disruptive servers), 6.2 (a leader without a quorum steps down), 9.6 (pre-vote).
"""

from __future__ import annotations

from shoal.ledger import life, quorum, replication
from shoal.ledger.core import Role, State
from shoal.ledger.members import NOBODY, PeerId
from shoal.ledger.message import AskVote, GiveVote, TimeoutNow
from shoal.ledger.progress import Progress

# --- campaigns --------------------------------------------------------------------------------------------------------


def may_campaign(state: State) -> bool:
    """Voters only, no leader, and nobody whose votes of an earlier life may be forgotten.

    A voter whose removal is in its log and not decided still campaigns: the others may need it to decide just that
    (dissertation 4.2.2, figure 4.6).  It then counts the votes of the new voters only.
    """
    if state.barred or state.role == Role.LEADER:
        return False
    roster = state.roster
    return state.me in roster.current.voters or state.me in roster.at(state.log.committed).voters


def campaign(state: State, transfer: bool = False) -> None:
    """The election timer fired, or (`transfer`) the leader hands over: then there is no pre-vote."""
    if not may_campaign(state):
        state.reset_clock()
        return
    if state.options.pre_vote and not transfer:
        become_precandidate(state)
    else:
        become_candidate(state, transfer)


def become_precandidate(state: State) -> None:
    """Ask who would vote, in the term to come; nothing durable changes."""
    state.role = Role.PRECANDIDATE
    state.leader = NOBODY
    state.votes = {state.me: True}
    state.vote_lives = {}
    state.reset_clock()
    ask(state, state.term + 1, pre=True, transfer=False)
    count(state)


def become_candidate(state: State, transfer: bool = False) -> None:
    state.enter_term(state.term + 1)
    state.role = Role.CANDIDATE
    state.leader = NOBODY
    state.vote = state.me
    state.votes = {state.me: True}
    state.vote_lives = {}
    state.reset_clock()
    ask(state, state.term, pre=False, transfer=transfer)
    count(state)


def ask(state: State, term: int, pre: bool, transfer: bool) -> None:
    log = state.log
    for peer in state.roster.current.voters:
        if peer != state.me:
            state.send_in(term, AskVote, peer, log.last, log.last_term, pre, transfer)


def count(state: State) -> None:
    """Act on the votes so far."""
    result = quorum.outcome(state.votes, state.roster.current.voters)
    if result == quorum.LOST:
        state.become_follower(state.term, NOBODY)
    elif result == quorum.WON:
        if state.role == Role.PRECANDIDATE:
            become_candidate(state)
        else:
            become_leader(state)


def become_leader(state: State) -> None:
    """Take over: nothing is known of the others' logs, and one entry of the own term makes the old ones committable."""
    opening = state.hooks.opening(state.term)
    if opening is None:  # by the log's own rules: its removal stands in it
        state.refuse("cannot-open-term")
        state.become_follower(state.term, NOBODY)
        return
    state.role = Role.LEADER
    state.leader = state.me
    state.elapsed = state.heartbeat_elapsed = state.beat = 0
    state.reads.clear()
    state.transferee = NOBODY
    state.uncommitted = sum(len(e.payload) for e in state.log.entries[state.log.committed - state.log.floor :])
    state.progress = {}
    for peer in state.peers():
        state.progress[peer] = Progress(state.log.last + 1, state.options.in_flight)
        state.progress[peer].active = True  # one full timeout to be heard in
    replication.append_own(state, opening)


# --- votes ------------------------------------------------------------------------------------------------------------


def in_lease(state: State, m: AskVote) -> bool:
    """A leader was heard within the shortest election timeout, so nobody has reason to ask (dissertation 4.2.3)."""
    if not state.options.check_quorum or m.transfer:
        return False
    return state.leader != NOBODY and state.elapsed < state.options.election_ticks


def is_free(state: State, candidate: PeerId) -> bool:
    """The vote of this term is not given to another."""
    return state.vote in (NOBODY, candidate)


def is_up_to_date(state: State, last_index: int, last_term: int) -> bool:
    """The candidate's log holds all that is committed here, judged by its last entry (Raft 5.4.1)."""
    return (last_term, last_index) >= (state.log.last_term, state.log.last)


def on_ask_vote(state: State, m: AskVote) -> None:
    """Grant or refuse, in our term; a pre-vote asks about the term after the candidate's and binds to nothing."""
    if life.must_keep_silent(state):
        return
    if m.pre:
        granted = m.term > state.term and is_up_to_date(state, m.last_index, m.last_term)
    else:
        granted = is_free(state, m.sender) and is_up_to_date(state, m.last_index, m.last_term)
    if granted and not m.pre:
        if state.vote_life not in (0, m.generation):
            state.refuse("forgot-campaign")  # its former life campaigned in this very term; it would know
            life.accuse(state, m)
            return
        state.vote, state.vote_life = m.sender, m.generation
        state.elapsed = 0
    term = m.term if granted else state.term
    state.send_in(term, GiveVote, m.sender, granted, m.pre)


def on_give_vote(state: State, m: GiveVote) -> None:
    """One answer, to the question being asked now: a late answer to another one does not count."""
    asked = state.term + 1 if m.pre and m.granted else state.term
    if m.pre != (state.role == Role.PRECANDIDATE) or m.term != asked:
        state.refuse("late-vote")
        return
    state.votes.setdefault(m.sender, m.granted)
    state.vote_lives.setdefault(m.sender, m.generation)
    count(state)


# --- time -------------------------------------------------------------------------------------------------------------


def tick(state: State) -> None:
    """One tick of this node's clock."""
    state.elapsed += 1
    if state.quiet:
        state.quiet -= 1
    if state.role == Role.LEADER:
        _tick_leader(state)
    elif state.elapsed >= state.timeout:
        campaign(state)


def _tick_leader(state: State) -> None:
    state.heartbeat_elapsed += 1
    if state.elapsed >= state.options.election_ticks:
        state.elapsed = 0
        state.transferee = NOBODY  # handing over took too long; go on
        if state.options.check_quorum and not hears_quorum(state):
            state.become_follower(state.term, NOBODY)
            return
    if state.heartbeat_elapsed >= state.options.heartbeat_ticks:
        state.heartbeat_elapsed = 0
        replication.beat(state)


def hears_quorum(state: State) -> bool:
    """Whether a majority answered since this was last asked; starts to listen anew."""
    heard = {peer: True for peer, progress in state.progress.items() if progress.active}
    heard[state.me] = True
    for progress in state.progress.values():
        progress.active = False
    return quorum.outcome(heard, state.roster.current.voters) == quorum.WON


# --- handing over -----------------------------------------------------------------------------------------------------


def transfer(state: State, peer: PeerId) -> str:
    """Hand over to `peer`; "" or why not.  Until it has led or a timeout has passed, no proposal is taken."""
    if state.role != Role.LEADER:
        return "not-leader"
    if peer == state.me or peer not in state.roster.current.voters:
        return "not-another-voter"
    state.transferee = peer
    state.elapsed = 0
    state.flush = True
    if state.progress[peer].match == state.log.last:
        tell_to_campaign(state)
    return ""


def tell_to_campaign(state: State) -> None:
    state.send(TimeoutNow, state.transferee)


def on_timeout_now(state: State, m: TimeoutNow) -> None:
    if m.sender != state.leader:
        state.refuse("not-the-leader")
    else:
        campaign(state, transfer=True)

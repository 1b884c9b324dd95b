"""Switch off one rule of the rounds at a time: the proof that the simulation can fail.

Each breach replaces small functions of the production code, which itself has no switches.  `search` runs histories until
a law is broken.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from random import Random
from typing import Any

import msgspec
from hazards import Strike
from history import Hazards, Violation, history
from machine import Machine
from traitor import LIES

from shoal.errors import ShoalError
from shoal.ledger import attempt as attempts
from shoal.ledger import certificate, rules
from shoal.ledger.body import KeyBatch, RoundPlan
from shoal.secure.journal import MemoryJournal
from shoal.secure.opening import Opening as Opened
from shoal.secure.participant import Participant
from shoal.secure.shares import SEED_HALF
from shoal.swarm import commit, messages, plan, secrecy, survive, upload, vouching
from shoal.swarm.book import digest_of
from shoal.swarm.keyring import Keyring
from shoal.swarm.parcel import Gathering
from shoal.swarm.peer import Peer
from shoal.swarm.round import PHASES, Phase, Round

TRUE_PLAN = rules._RULES[RoundPlan]
TRUE_KEEP_UP = Peer._keep_up
TRUE_WANTED = Keyring.wanted
TRUE_UPLOAD = PHASES[Phase.UPLOAD]

# --- wrong rules ------------------------------------------------------------------------------------------------------


def keep_nothing(_machine: Machine, arrays: Any, _carried: Any) -> tuple[bytes, dict[str, Any]]:
    made = dict(arrays)
    return digest_of(made), made


def any_base(state: Any, said: Any) -> None:
    right, state.model = state.model, said.body.base
    try:
        TRUE_PLAN(state, said)
    finally:
        state.model = right


def any_plan(said: RoundPlan, layout: Any, rms: Any, state: Any) -> Any:
    """The ring is worked out, and nothing is compared with it."""
    samples = [p.samples for p in said.participants]
    if not state.policy.secure:
        return None
    return plan.ring_of(samples, said.weights, layout.elements, plan.basis(said.attempt, rms))


def any_chunk(gathering: Gathering, index: int, chunk: memoryview) -> bool:
    start, stop = gathering._chunks[index]
    if index not in gathering._missing or len(chunk) != stop - start:
        return False
    gathering.data[start - gathering._origin : stop - gathering._origin] = bytearray(chunk)
    gathering._missing.remove(index)
    return True


def any_seed(opening: Opened, who: bytes, seed: bytes) -> None:
    opening._seeds[who] = seed


def no_way_forward(peer: Peer) -> None:
    peer._log_before = 0
    TRUE_KEEP_UP(peer)


def batches_alone(ring: Keyring, ledger: Any, me: bytes) -> list[Any]:
    bodies = TRUE_WANTED(ring, ledger, me)
    return bodies if any(isinstance(body, KeyBatch) for body in bodies) else []


def open_hastily(state: Any) -> None:
    """Seeds are told as soon as there is something to mask."""
    if state.privacy is not None and state.privacy.step == secrecy.Step.MASK and state.due("hasty"):
        state.tell_all(messages.Opening(state.slot, state.position, secrecy.SEED, state.privacy._seed))


def first_set_only(journal: MemoryJournal, slot: int, survivors: bytes) -> bool:
    return True


def begin_alone(participant: Participant, shared: Any) -> None:
    members = participant.slot.group(shared)
    participant._graph = {who: frozenset(members - {who}) for who in members}
    participant.step = secrecy.Step.MASK


def adopt_at_once(peer: Peer, slot: int, round_: Round) -> None:
    if peer.book.adopt(round_.state.model, round_.state.carried):
        peer._finish(took_part=True)


def keep_the_update(peer: Peer, body: Any) -> None:
    peer.rounds.pop(body.slot, None)


Patch = tuple[Any, str, Any]
#: name -> (the rule that is off, lies that bring it out; none: nobody lies, whether with masks, what is replaced for it)
BREACHES: dict[str, tuple[str, tuple[str, ...], bool | None, tuple[Patch, ...]]] = {
    "second-vote": (
        "one survivor set for a slot is signed", ("two sets",), None, ((MemoryJournal, "sign", first_set_only),),
    ),
    "masks-twice": (
        "a slot is begun once, also after a restart", (), True,
        (
            (MemoryJournal, "claim", lambda self, slot: True),
            (MemoryJournal, "last_slot", lambda self: -1),
            (MemoryJournal, "commit", lambda self, slot, root: True),
        ),
    ),
    "any-chunk": ("chunks have the hash that was named", ("wrong upload",), None, ((Gathering, "put", any_chunk),)),
    "sums-unchecked": (
        "sums are what the survivors vouch for", ("wrong sum",), True, ((vouching, "passes", lambda *_: True),),
    ),
    "votes-uncounted": (
        "votes are counted if their signature holds", ("forged votes", "any model"), None,
        (
            (certificate, "check_now", lambda *_: None),
            (attempts, "check_certificate", lambda *_: None),
            (survive, "signature_holds", lambda *_: True),
            (commit, "signature_holds", lambda *_: True),
        ),
    ),
    "any-base": ("a plan names the certified model", ("another base",), None, ((rules._RULES, RoundPlan, any_base),)),
    "any-plan": ("every member works a plan out again", ("another plan",), None, ((plan, "check_plan", any_plan),)),
    "no-floor": (
        "no sum of too few", (), None, ((attempts.Attempt, "floor", property(lambda self: 1)),),
    ),
    "seeds-only": (
        "of those that fell out the key is opened, not the seed", (), True,
        ((Opened, "half", lambda self, who: SEED_HALF),),
    ),
    "hasty-seeds": ("nothing is opened before the certificate", (), True, ((PHASES, Phase.UPLOAD, (*TRUE_UPLOAD, open_hastily)),)),
    "any-seed": ("seeds fit what was committed to", ("wrong opening",), True, ((Opened, "take_seed", any_seed),)),
    "share-set-alone": (
        "in the share-set everybody holds everybody's", (), True,
        (
            (secrecy, "mutual", lambda members, holders: set(members)),
            (Participant, "begin", begin_alone),
        ),
    ),
    "adopt-at-once": (
        "a model is the base once it is certified", (), None,
        ((Round, "finished", property(lambda self: bool(self.state.model))), (Peer, "_adopt", adopt_at_once)),
    ),
    "update-twice": ("an update whose sum may be open is void", (), True, ((Peer, "_give_up", keep_the_update),)),
    "mixed-uploads": (
        "an upload of an earlier life is not mixed with another", (), False, ((upload, "is_named", lambda *_: True),),
    ),
    "vote-unwritten": (
        "a model is on the disk before it is voted for", (), None, ((Machine, "_keep_next", keep_nothing),),
    ),
    "way-back": ("nobody goes back to an older model", (), None, ((Peer, "_keep_up", no_way_forward),)),
    "batches-alone": ("a lost epoch key is published again", (), True, ((Keyring, "wanted", batches_alone),)),
    "bad-plan-stays": (
        "a plan that nobody follows is ended", ("another plan",), None, ((Peer, "_reject", lambda *_: None),),
    ),
}  # fmt: skip
assert all(lie in LIES for _, lies, _, _ in BREACHES.values() for lie in lies)


#: name -> what of a history's hazards brings it out sooner
BROUGHT_OUT: dict[str, dict[str, Any]] = {
    "mixed-uploads": {"strikes": tuple(Strike("owner", "UPLOAD", n) for n in (0, 5, 12)), "down_ticks": 1},
    "vote-unwritten": {"strikes": (Strike("everybody", "LINGER", 0),), "partitions": 0.0, "crashes": 0.0},
    "way-back": {"strikes": tuple(Strike("everybody", "LINGER", n) for n in (1, 4, 9)), "down_ticks": 1},
    "update-twice": {"strikes": (Strike("owner", "REDUCE", 0), Strike("owner", "REDUCE", 5))},
}


@contextmanager
def breached(name: str) -> Iterator[None]:
    """Within, the rule of that name is off."""
    patches = BREACHES[name][3]
    right = [w[n] if isinstance(w, dict) else w.__dict__[n] for w, n, _ in patches]
    try:
        for where, attribute, wrong in patches:
            _set(where, attribute, wrong)
        yield
    finally:
        for (where, attribute, _), value in zip(patches, right, strict=True):
            _set(where, attribute, value)


def _set(where: Any, name: Any, value: Any) -> None:
    if isinstance(where, dict):
        where[name] = value
    else:
        setattr(where, name, value)


def hazards_for(name: str, seed: int) -> Hazards:
    """Those of the history with that seed in which this breach may show."""
    _, lies, secure, _ = BREACHES[name]
    rng = Random(f"breach {seed}")
    if not lies:
        return msgspec.structs.replace(Hazards.draw(rng, secure), **BROUGHT_OUT.get(name, {}))
    return msgspec.structs.replace(Hazards.draw_traitor(rng, sorted(LIES), secure), lies=frozenset(lies))


def search(name: str, seeds: int, first: int = 0) -> tuple[int, str]:
    """(histories run, law that broke) with the rule off; (all of them, "") if none did."""
    with breached(name):
        for n in range(seeds):
            try:
                history(first + n, hazards_for(name, first + n))
            except Violation as found:
                return n + 1, found.name
            except (AssertionError, LookupError, ValueError, ShoalError) as found:
                return n + 1, f"the code's own check: {type(found).__name__}"
    return seeds, ""


def clean(names: Sequence[str], seeds: int) -> str:
    """The first breach whose histories do not hold with all rules on, or ""."""
    for name in names:
        for seed in range(seeds):
            try:
                history(seed, hazards_for(name, seed))
            except Violation as found:
                return f"{name}, seed {seed}: {found}"
    return ""

"""Checks a ledger from its entries and the genesis digest, and nothing else: offline, without trust in who gave it.

Checked: one chain from that genesis; every statement signed by a member at its index, with the keys it had there; every
seal by the leader of its term, and one that covers the end; every certificate; rounds that follow each other, each on
the model certified before; the order of a round's phases.  Not checked, because a ledger cannot show it: that the
entries end where the swarm's do (compare the head with another site's), and that the models are good.

The rules run in order in one thread; signatures, nearly all of the work, run in a few others, with the GIL free.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

import msgspec

from shoal.errors import ArgumentError, ShoalError
from shoal.ledger.chronicle import Chronicle, RoundRecord
from shoal.ledger.digest import DIGEST_BYTES
from shoal.ledger.entry import Entry
from shoal.ledger.identity import signature_holds
from shoal.ledger.state import State
from shoal.ledger.statement import Statement, type_name
from shoal.ledger.validator import Ledger

#: signatures handed to a thread at once, and batches waiting: bounds memory
_BATCH: Final = 128
_WAITING_MAX: Final = 64

_Job = tuple[Entry, bytes, bytes, bytes, str]


class Fault(msgspec.Struct, frozen=True):
    """The first wrong entry.

    index   0 if the file is wrong as a whole
    type    its type's name, as far as it can be told
    code    stable reason for programs
    """

    index: int
    type: str
    code: str
    reason: str


class Report(msgspec.Struct, frozen=True):
    """What a ledger holds, up to the first fault.

    fault       None if everything holds
    entries     entries that were accepted
    signatures  signatures that were checked
    state       the ledger after the last entry that was read (beyond the fault, if there is one)
    rounds      every attempt, in order; with a fault only those that ended before it
    """

    fault: Fault | None
    entries: int
    signatures: int
    state: State
    rounds: list[RoundRecord]


def verify(
    entries: Iterable[Entry],
    genesis: bytes | None,
    *,
    noted: tuple[int, bytes] | None = None,
    signatures: bool = True,
    watch: Callable[[Entry, Statement], None] | None = None,
) -> Report:
    """Check ``entries``, which begin with the genesis.

    genesis     the expected entry hash of the genesis (32 bytes), from a source that is trusted; None: any
    noted       (index, entry hash) that must be in it: a head that somebody wrote down earlier, or another site's
    signatures  False: leave signatures out (fast; says nothing about who wrote what)
    watch       called with each entry that the rules accept, in order; its signatures may not be checked yet
    """
    if genesis is not None and len(genesis) != DIGEST_BYTES:
        raise ArgumentError("ledger.genesis", f"a genesis digest has {DIGEST_BYTES} bytes, found {len(genesis)}")
    with _Signatures(signatures) as checker:
        ledger = Ledger(check=checker.check)
        chronicle = Chronicle()
        fault = _fold(_Task(entries, genesis, noted, watch), ledger, chronicle, checker)
        worst = checker.finish()
    if worst is not None and (fault is None or fault.index == 0 or worst.index <= fault.index):
        fault = worst
    chronicle.finish(ledger.state)
    if fault is None:
        return Report(None, ledger.state.index, checker.count, ledger.state, chronicle.rounds)
    # Signatures are checked behind the fold, which may have gone on past the fault.
    before = [r for r in chronicle.rounds if r.last < fault.index and r.outcome != "open"]
    return Report(fault, max(0, fault.index - 1), checker.count, ledger.state, before)


class _Task(msgspec.Struct, frozen=True):
    """What `verify` was asked for, see there."""

    entries: Iterable[Entry]
    genesis: bytes | None
    noted: tuple[int, bytes] | None
    watch: Callable[[Entry, Statement], None] | None


def _fold(task: _Task, ledger: Ledger, chronicle: Chronicle, checker: _Signatures) -> Fault | None:
    state = ledger.state
    entry: Entry | None = None
    try:
        for entry in task.entries:
            checker.entry = entry
            chronicle.before(state)
            statement, body = ledger.apply(entry)
            chronicle.after(state, statement, body)
            if entry.index == 1 and task.genesis not in (None, state.genesis):
                found = f"genesis {state.genesis.hex()}, expected {(task.genesis or b'').hex()}"
                return Fault(1, "genesis", "ledger.genesis", f"the ledger of another swarm: {found}")
            if task.noted is not None and task.noted[0] == entry.index and task.noted[1] != state.head:
                found = f"its hash is {state.head.hex()}, noted was {task.noted[1].hex()}: another history"
                return Fault(entry.index, type_name(entry.payload), "ledger.head", found)
            if task.watch is not None:
                task.watch(entry, statement)
            if checker.failed:
                return None
    except ShoalError as error:
        if entry is not None and entry.index == state.index + 1:
            kind = type_name(entry.payload)
            return Fault(entry.index, kind, error.code, str(error).removeprefix(f"entry {entry.index} ({kind}): "))
        # Raised by whoever gives the entries: the next one could not be read, or what follows the last is wrong.
        return Fault(state.index + 1, "unreadable", error.code, str(error))
    return _end_fault(task, state)


def _end_fault(task: _Task, state: State) -> Fault | None:
    """What is wrong with the place where the entries end."""
    if state.index == 0:
        return Fault(0, "", "ledger.empty", "no entries")
    if state.sealed < state.index:
        found = f"no leader's seal covers this and what follows; the last seal is on entry {state.sealed}"
        return Fault(state.sealed + 1, "unsealed", "ledger.unsealed", found)
    if task.noted is not None and task.noted[0] > state.index:
        found = f"the ledger ends here, entry {task.noted[0]} was noted: its end was cut off"
        return Fault(state.index + 1, "missing", "ledger.cut", found)
    return None


class _Signatures:
    """Checks signatures in threads; remembers the fault with the lowest index.

    entry   the entry that is being applied: what ``check`` is called for belongs to it
    failed  True as soon as one signature is known not to hold
    """

    def __init__(self, wanted: bool) -> None:
        self.entry: Entry | None = None
        self.failed = False
        self.count = 0
        self._wanted = wanted
        self._batch: list[_Job] = []
        self._waiting: deque[Future[Fault | None]] = deque()
        self._worst: Fault | None = None
        self._pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)), "shoal-verify")

    def __enter__(self) -> _Signatures:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def check(self, public_key: bytes, signature: bytes, message: bytes, what: str) -> None:
        if not self._wanted:
            return
        assert self.entry is not None
        self.count += 1
        self._batch.append((self.entry, public_key, signature, message, what))
        if len(self._batch) >= _BATCH:
            self._hand_over()

    def finish(self) -> Fault | None:
        """Wait for all; the fault with the lowest index, if any."""
        self._hand_over()
        while self._waiting:
            self._take()
        return self._worst

    def _hand_over(self) -> None:
        self._waiting.append(self._pool.submit(_first_fault, self._batch))
        self._batch = []
        while self._waiting and (len(self._waiting) > _WAITING_MAX or self._waiting[0].done()):
            self._take()

    def _take(self) -> None:
        fault = self._waiting.popleft().result()
        if fault is not None and (self._worst is None or fault.index < self._worst.index):
            self._worst, self.failed = fault, True


def _first_fault(batch: list[_Job]) -> Fault | None:
    for entry, public_key, signature, message, what in batch:
        if not signature_holds(public_key, signature, message):
            return Fault(entry.index, type_name(entry.payload), "ledger.signature", f"{what} does not hold")
    return None

"""Faults on demand, for tests: a process that kills, stops or delays itself, or fails, at a named step of its work.

    SHOAL_FAILPOINT=name:nth:action[,name:nth:action...]

    name    a key of POINTS
    nth     the how-manieth time that the process comes by, from 1; * each time
    action  kill      SIGKILL to this process, as a power cut of it alone
            stop      SIGSTOP to this process, until somebody continues it
            error     OSError, EIO
            delay=MS  wait so many milliseconds

The variable is read once, when the command starts.  Without it a point costs one comparison.  Whoever can
set the variables of a node's process can stop it anyway; a node never takes them from a peer or a file.
"""

from __future__ import annotations

import errno
import itertools
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from shoal.errors import ArgumentError, shown

VARIABLE: Final = "SHOAL_FAILPOINT"
#: milliseconds that one delay may take: a typing error shall not look like a hang
DELAY_MS_MAX: Final = 600_000

#: every point: name -> what has been done when it is reached, and what has not
POINTS: Final[Mapping[str, str]] = {
    "plan.propose": "the leader has made a plan; it is not in the log",
    "plan.open": "a plan is decided; its round does not exist here yet",
    "share.claim": "the slot is claimed for good, its secrets are drawn; nothing is said",
    "share.hold": "a sealed share is taken; nobody knows",
    "share.set": "the coordinator knows who holds whose shares; the share-set is not proposed",
    "upload.encode": "the update is coded and masked, in the worker; its root is not committed to",
    "upload.commit": "the upload's root is in the journal; nobody knows it",
    "upload.offer": "the upload is named; its hashes are not told",
    "receipt.propose": "the owner has every upload of a shard; the receipt is not proposed",
    "survivors.ask": "every shard has a receipt; no vote is asked for",
    "survivors.sign": "a survivor set is signed for good; the vote is not sent",
    "survivors.certify": "a quorum has voted for the survivors; the certificate is not proposed",
    "open.certify": "the survivor certificate is in the journal; no secret is given",
    "open.seed": "the own seed is about to be told",
    "open.half": "which half of a secret may be given is in the journal; it is not given",
    "sum.compute": "a shard's sum is made, in the worker; nobody knows",
    "sum.propose": "a shard's sum is kept here; its root is not proposed",
    "gather.shard": "a merged shard has come whole",
    "check.nonce": "every shard has a sum; the own nonce is not told",
    "check.vouch": "the own check sums are made; they are not proposed",
    "check.pass": "the sums are what the survivors vouch for; the model is not made",
    "vote.settle": "the new model is made, in the worker; it is not voted for",
    "vote.send": "a vote for a model is signed; it is not sent",
    "commit.propose": "a quorum has voted for a model; the certificate is not proposed",
    "commit.decided": "a model certificate is decided; the model is not adopted here",
    "adopt.before": "the certified model came out here, too; it is not in force",
    "adopt.after": "the certified model is in force; keys of the slot are erased; nothing of it is kept",
    "catchup.restore": "a peer's model is whole and is not in force",
    "journal.write.before": "a decision is about to be written to the journal",
    "journal.write.after": "a decision is written to the journal (a claim's transaction is not ended)",
    "ledger.append.before": "entries are about to be written to the ledger's file",
    "ledger.append.inside": "entries are written; the transaction is not ended",
    "ledger.append.after": "entries are in the ledger's file, synced; nobody knows",
    "ledger.snapshot": "a snapshot is in the ledger's file; the log is not cut",
    "replica.send": "what was persisted is about to be told to others",
    "replica.apply": "others were told; decided entries are not applied",
    "model.rename.before": "a model file is written and synced under another name",
    "model.rename.after": "a model file has its name; the folder is not synced",
    "node.rename.before": "the model that was voted for, or its statistics, is about to take its place",
    "node.rename.after": "a model or its statistics are in their place",
    "statistics.rename.before": "statistics are written and synced under another name",
    "handover": "a leader that stops is about to hand over",
    "send.control": "a message of the control plane is about to be sent",
    "send.bulk": "a chunk is about to be sent",
}  # fmt: skip


class Fault(msgspec.Struct, frozen=True):
    """One fault.  ``nth``: 0 for each time;  ``delay_s``: of "delay"."""

    name: str
    nth: int
    action: str
    delay_s: float = 0.0


def parse(text: str) -> tuple[Fault, ...]:
    """The faults that a value of the variable names.

    raises  ArgumentError  ``failpoint.name``, ``failpoint.nth``, ``failpoint.action``
    """
    return tuple(_parse_one(part) for part in text.split(",") if part)


def _parse_one(text: str) -> Fault:
    where = f"{VARIABLE}: {shown(text, 100)!r}"
    pieces = text.split(":")
    if len(pieces) != 3:
        raise ArgumentError("failpoint.name", f"{where}: expected name:nth:action")
    name, nth, action = pieces
    if name not in POINTS:
        raise ArgumentError("failpoint.name", f"{where}: there is no such point; known are {', '.join(POINTS)}")
    if nth != "*" and not (nth.isascii() and nth.isdigit() and 1 <= int(nth[:10]) <= 10**9):
        raise ArgumentError("failpoint.nth", f"{where}: expected a number from 1 on, or *")
    word, _, delay = action.partition("=")
    if word == "delay" and delay.isascii() and delay.isdigit() and int(delay[:10]) <= DELAY_MS_MAX:
        return Fault(name, 0 if nth == "*" else int(nth), word, int(delay) / 1000)
    if action not in ("kill", "stop", "error"):
        told = f"expected kill, stop, error or delay=MS, MS up to {DELAY_MS_MAX}"
        raise ArgumentError("failpoint.action", f"{where}: {told}")
    return Fault(name, 0 if nth == "*" else int(nth), action)


class Plan:
    """Faults to come, and how often each point was reached."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        self._faults: dict[str, list[Fault]] = {}
        for fault in faults:
            self._faults.setdefault(fault.name, []).append(fault)
        # Two threads may come by: the counter's step cannot be divided.
        self._times: dict[str, Iterator[int]] = {name: itertools.count(1) for name in self._faults}

    def reach(self, name: str) -> None:
        """raises  OSError  where the plan says so"""
        if name not in self._faults:
            return
        time_ = next(self._times[name])
        for fault in self._faults[name]:
            if fault.nth in (0, time_):
                _act(fault, time_)


def _act(fault: Fault, time_: int) -> None:
    sys.stderr.write(f"failpoint {fault.name}, time {time_}: {fault.action}\n")
    sys.stderr.flush()
    if fault.action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)  # the signal may come a moment later, to another thread: nothing happens here meanwhile
    elif fault.action == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif fault.action == "error":
        raise OSError(errno.EIO, f"failpoint {fault.name}")
    else:
        time.sleep(fault.delay_s)


_plan: Plan | None = None


def arm(text: str | None = None) -> None:
    """Take these faults from now on; None: those that the environment names.

    raises  ArgumentError  see `parse`
    """
    global _plan
    faults = parse(os.environ.get(VARIABLE, "") if text is None else text)
    _plan = Plan(faults) if faults else None


def reach(name: str) -> None:
    """The process comes by a point.  Does nothing unless a test asked for it.

    raises  OSError  where it was asked for
    """
    if _plan is not None:
        _plan.reach(name)
